//! A policy at work: configured, counting, telling the proxy once a second what it counted.

use std::time::Duration;

use penstock_policy::egress::{Connection, Egress, connection_line};
use penstock_policy::{EgressVerdict, Environment, Policy, Runs};

use crate::counters::Counters;
use crate::egress_log::EgressLog;
use crate::environment::{HostEnvironment, PluginEnvironment, Worker};
use crate::expiry::ExpiryWarning;
use crate::failure;
use crate::gauges::GaugeWriter;
use crate::host::{Flow, Host, MetricKind, PluginState, ProxyRequest};
use crate::latency::LatencySampler;
use crate::plugin_log::PluginLog;

/// How often [`Plugin::tick`] is to be called.
pub const TICK_PERIOD: Duration = Duration::from_secs(1);

/// A policy at work on the platform `H`, and what it has counted. One configuration is one plugin: after a reload the old
/// and the new one live side by side until the requests of the old one have ended.
#[derive(Debug)]
pub struct Plugin<M: Runs, H: Host> {
    name: Box<str>,
    pub(crate) host: H,
    pub(crate) policy: Policy<M>,
    pub(crate) counters: Counters,
    pub(crate) latency: LatencySampler,
    pub(crate) log: PluginLog,
    pub(crate) egress_log: EgressLog,
    expiry: ExpiryWarning,
    /// The hash of its configuration.
    configuration: u64,
}

impl<M: Runs, H: Host> Plugin<M, H> {
    pub(crate) fn new(host: H, policy: Policy<M>, name: &str, configuration: u64, worker: &mut Worker<H>) -> Self {
        let plugin = Plugin {
            name: name.into(),
            counters: Counters::new(policy.metrics()),
            latency: LatencySampler::new(name),
            log: PluginLog::default(),
            egress_log: EgressLog::new(),
            expiry: ExpiryWarning::new(name),
            configuration,
            policy,
            host,
        };
        if plugin.host.start_timer(TICK_PERIOD).is_err() {
            log::error!("penstock: the proxy has no timer: metrics are only written when a policy ends");
        }
        // From now on this is the policy in use.
        plugin.refresh(worker, true);
        plugin
    }

    /// The policy.
    pub fn policy(&self) -> &Policy<M> {
        &self.policy
    }

    /// What one more worker keeps beside the plugin, where workers share it.
    pub fn worker(&self) -> Worker<H> {
        Worker::new(&self.host, self.configuration, &self.policy)
    }

    /// Every metric that the plugin may ever write, for proxies that must know them before the first request.
    pub fn metrics(&self, gauges: &GaugeWriter) -> Vec<(MetricKind, Box<str>)> {
        let counters = self.policy.metrics().names().into_iter();
        let counters = counters.map(|name| (MetricKind::Counter, Box::from(name)));
        let gauges = gauges.names().iter().map(|name| (MetricKind::Gauge, name.clone()));
        let latency = (MetricKind::Histogram, Box::from(self.latency.name()));
        let expiry = (MetricKind::Gauge, Box::from(self.expiry.gauge()));
        let [refusals, refused] = failure::refusal_names(&self.name);
        let rare = [
            (MetricKind::Counter, refusals),
            (MetricKind::Gauge, refused),
            (MetricKind::Counter, Box::from(failure::FOREIGN_VALUES)),
        ];
        let failures = failure::OPERATIONS.map(|operation| (MetricKind::Counter, failure::failure_name(operation)));
        counters.chain(gauges).chain([latency, expiry]).chain(rare).chain(failures).collect()
    }

    /// The plugin ends in this worker: gives back what the worker has taken from limits in advance.
    pub fn retire(&self, worker: &mut Worker<H>) {
        if H::State::LEASES {
            self.policy.return_leases(&mut PluginEnvironment::new(&self.host, worker));
        }
    }

    /// A second has passed.
    pub fn tick(&self, worker: &mut Worker<H>, gauges: &mut GaugeWriter) {
        self.counters.flush(self.policy.metrics(), &self.host);
        self.retire(worker);
        self.keep_state(worker);
        let is_writer = gauges.refresh(&self.policy, &self.host, &mut PluginEnvironment::new(&self.host, worker));
        self.refresh(worker, is_writer);
        self.latency.tick();
    }

    /// Counts later policies of this plugin that were refused, on platforms that forget what a refused one has counted.
    pub fn count_refusals(&self, times: u32) {
        failure::count_refusals(&self.host, &self.name, times);
    }

    /// Says that the policy still lives, and what others have left under its keys.
    fn keep_state(&self, worker: &mut Worker<H>) {
        if self.policy.tables().is_empty() {
            return;
        }
        worker.state.keep();
        let foreign = worker.state.take_foreign();
        if foreign > 0 {
            failure::count_rare(&self.host, failure::FOREIGN_VALUES, foreign);
            let line = "values in the proxy's shared data under this plugin's keys were not its own: not used";
            log::warn!("penstock: {foreign} {line}");
        }
    }

    /// Looks up what does not change with each request. `is_writer`: it is this worker's turn to write gauges.
    fn refresh(&self, worker: &mut Worker<H>, is_writer: bool) {
        if let Some(egress) = self.policy.egress() {
            self.egress_log.refresh(&self.host);
            self.expiry.refresh(egress, &self.host, worker, is_writer);
        }
    }

    /// A connection begins whose bytes nobody will read: decides before any of them goes anywhere, and closes it unless it
    /// may go on.
    pub fn connection(&self, worker: &mut Worker<H>, proxy: &mut H::Request) -> Flow {
        match self.policy.egress() {
            Some(egress) => self.latency.time(&self.host, || self.decide_connection(egress, worker, proxy)),
            None => Self::refuse_connection(&self.log, &self.host, proxy),
        }
    }

    /// Closes a connection for which there is no policy.
    #[cold]
    pub fn refuse_connection(log: &PluginLog, host: &H, proxy: &mut H::Request) -> Flow {
        log.error(host, "no egress policy for a connection: closed");
        proxy.close_connection();
        Flow::Pause
    }

    /// Notes what failed outside of a decision: a line in the log, and `internal_errors_total` counts it as `operation`.
    #[cold]
    pub fn note(&self, operation: &str, message: &str) {
        failure::count_failure(&self.host, operation);
        self.log.error(&self.host, message);
    }

    fn decide_connection(&self, egress: &Egress, worker: &mut Worker<H>, proxy: &mut H::Request) -> Flow {
        let (destination, port) = (proxy.destination_address(), proxy.destination_port());
        let mut environment = HostEnvironment::new(&self.host, worker, proxy);
        let sni = environment.sni();
        let connection = Connection { sni: sni.as_deref(), destination, port };
        let mut verdict = egress.decide_connection(&connection, &mut environment);
        match environment.failure() {
            // Decided on facts that are not there: closed, and not counted as any rule's.
            Some(_) => verdict.outcome.verdict = EgressVerdict::Deny,
            None => verdict.counts.iter().flatten().for_each(|metric| self.counters.count(&[*metric])),
        }
        let line = || connection_line(&connection, &verdict.outcome);
        self.egress_log.write(&self.log, verdict.outcome.verdict, &self.host, line);
        if verdict.is_open() {
            return Flow::Continue;
        }
        environment.request().close_connection();
        Flow::Pause
    }
}

/// What was counted since the last tick.
impl<M: Runs, H: Host> Drop for Plugin<M, H> {
    fn drop(&mut self) {
        self.counters.flush(self.policy.metrics(), &self.host);
    }
}
