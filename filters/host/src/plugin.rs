//! A loaded policy, its counters, and what happens once a second.

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

/// The interval at which [`Plugin::tick`] must be called.
pub const TICK_PERIOD: Duration = Duration::from_secs(1);

/// A loaded policy on the platform `H`, with its counters. Each configuration is a plugin of its own: after a reload, the
/// old and the new plugin exist side by side until the requests of the old one have ended.
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
        // The new policy is now the one in use, so this worker writes its gauges.
        plugin.refresh(worker, true);
        plugin
    }

    /// The policy.
    pub fn policy(&self) -> &Policy<M> {
        &self.policy
    }

    /// The data of one more worker, on platforms where workers share a plugin.
    pub fn worker(&self) -> Worker<H> {
        Worker::new(&self.host, self.configuration, &self.policy)
    }

    /// All metrics that the plugin can write, for proxies that must know them before the first request.
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

    /// Must be called when the plugin ends in this worker: gives back the tokens that the worker has taken from limits in
    /// advance.
    pub fn retire(&self, worker: &mut Worker<H>) {
        if H::State::LEASES {
            self.policy.return_leases(&mut PluginEnvironment::new(&self.host, worker));
        }
    }

    /// Must be called every [`TICK_PERIOD`]: writes counters and gauges, and keeps the shared state.
    pub fn tick(&self, worker: &mut Worker<H>, gauges: &mut GaugeWriter) {
        self.counters.flush(self.policy.metrics(), &self.host);
        self.retire(worker);
        self.keep_state(worker);
        let is_writer = gauges.refresh(&self.policy, &self.host, &mut PluginEnvironment::new(&self.host, worker));
        self.refresh(worker, is_writer);
        self.latency.tick();
    }

    /// Counts `times` refused later policies of this plugin, on platforms where a refused policy's counters are lost.
    pub fn count_refusals(&self, times: u32) {
        failure::count_refusals(&self.host, &self.name, times);
    }

    /// Marks the state of this policy as used, and reports values under its keys that were not written by this plugin.
    fn keep_state(&self, worker: &mut Worker<H>) {
        if self.policy.tables().is_empty() {
            return;
        }
        worker.state.keep();
        let foreign = worker.state.take_foreign();
        if foreign > 0 {
            failure::count_rare(&self.host, failure::FOREIGN_VALUES, foreign);
            let line = "values in the proxy's shared data under this plugin's keys were not written by it: ignored";
            log::warn!("penstock: {foreign} {line}");
        }
    }

    /// Updates what does not change with each request. `is_writer` says whether this worker writes the gauges.
    fn refresh(&self, worker: &mut Worker<H>, is_writer: bool) {
        if let Some(egress) = self.policy.egress() {
            self.egress_log.refresh(&self.host);
            self.expiry.refresh(egress, &self.host, worker, is_writer);
        }
    }

    /// Must be called when a connection begins whose content is not inspected, such as TLS that is passed through. It is
    /// decided before any byte is forwarded, and closed if it is not allowed.
    pub fn connection(&self, worker: &mut Worker<H>, proxy: &mut H::Request) -> Flow {
        match self.policy.egress() {
            Some(egress) => self.latency.time(&self.host, || self.decide_connection(egress, worker, proxy)),
            None => Self::refuse_connection(&self.log, &self.host, proxy),
        }
    }

    /// Closes a connection for which there is no egress policy.
    #[cold]
    pub fn refuse_connection(log: &PluginLog, host: &H, proxy: &mut H::Request) -> Flow {
        log.error(host, "no egress policy for a connection: closed");
        proxy.close_connection();
        Flow::Pause
    }

    /// Reports a failure outside of a decision: writes a line to the log, and counts it as `operation` in
    /// `internal_errors_total`.
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
            // The decision lacks facts that the proxy could not provide: the connection is closed, and no rule counts it.
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

/// Writes what was counted since the last tick.
impl<M: Runs, H: Host> Drop for Plugin<M, H> {
    fn drop(&mut self) {
        self.counters.flush(self.policy.metrics(), &self.host);
    }
}
