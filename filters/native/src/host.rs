//! Envoy, as seen by one plugin.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::LevelFilter;
use penstock_host::{Host, MetricKind, PluginState, PolicyNeed};
use penstock_policy::Timestamp;
use penstock_policy::state::{Change, Key, Memory, MemoryState, State, Table};

use crate::abi::{AbiMetric, ConfigHandle, Downstream, Stream};
use crate::error::Error;
use crate::logger;
use crate::metrics::NativeMetrics;
use crate::request::NativeRequest;
use crate::ticker::Ticks;

/// Envoy's side of one plugin, which all worker threads share.
#[derive(Clone, Debug)]
pub(crate) struct NativeHost(Arc<NativeShared>);

#[derive(Debug)]
struct NativeShared {
    /// `None` after Envoy's configuration was destroyed.
    config: Mutex<Option<ConfigHandle>>,
    name: Option<String>,
    metrics: NativeMetrics,
    /// Whether a configuration can write metrics; before Envoy 1.39 only a request can.
    writes_metrics: bool,
    /// Whether metrics wait for the next request.
    is_due: AtomicBool,
    ticks: OnceLock<Ticks>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kind_of(kind: MetricKind) -> AbiMetric {
    match kind {
        MetricKind::Counter => AbiMetric::Counter,
        MetricKind::Gauge => AbiMetric::Gauge,
        MetricKind::Histogram => AbiMetric::Histogram,
    }
}

impl NativeHost {
    /// For the plugin `name` with this configuration in Envoy.
    pub(crate) fn new(config: ConfigHandle, name: Option<String>) -> NativeHost {
        NativeHost(Arc::new(NativeShared {
            config: Mutex::new(Some(config)),
            name,
            metrics: NativeMetrics::default(),
            writes_metrics: config.can_write(),
            is_due: AtomicBool::new(false),
            ticks: OnceLock::new(),
        }))
    }

    /// Identifies the plugin among all with names, also after a reload.
    pub(crate) fn instance(&self) -> Vec<u8> {
        self.0.name.as_deref().unwrap_or_default().into()
    }

    fn config(&self) -> Result<ConfigHandle, Error> {
        lock(&self.0.config).ok_or(Error::Over)
    }

    /// Envoy's configuration is being destroyed and must not be used from now on.
    pub(crate) fn close(&self) {
        *lock(&self.0.config) = None;
    }

    /// Exports the metrics, on Envoy's main thread.
    pub(crate) fn hand_over(&self) {
        let Ok(config) = self.config() else { return };
        if self.0.writes_metrics {
            self.0.metrics.hand_over(|kind, id, labels, value| config.write(kind, id, labels, value));
        } else {
            self.0.is_due.store(true, Ordering::Relaxed);
        }
    }

    /// Exports the metrics by way of a request, where that is necessary.
    pub(crate) fn hand_over_by(&self, stream: Result<Stream, Error>) {
        if let (true, Ok(stream)) = (self.takes_due(), stream) {
            self.0.metrics.hand_over(|kind, id, labels, value| stream.write(kind, id, labels, value));
        }
    }

    /// Exports the metrics by way of a connection.
    pub(crate) fn hand_over_by_connection(&self, downstream: Result<Downstream, Error>) {
        if let (true, Ok(downstream)) = (self.takes_due(), downstream) {
            self.0.metrics.hand_over(|kind, id, _, value| downstream.write(kind, id, value));
        }
    }

    fn takes_due(&self) -> bool {
        self.0.is_due.load(Ordering::Relaxed) && self.0.is_due.swap(false, Ordering::Relaxed)
    }
}

impl Host for NativeHost {
    type Error = Error;
    type Request = NativeRequest;
    type State = NativeState;

    fn now(&self) -> Result<Timestamp, Error> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Error::Clock)?;
        Ok(Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// SipHash of a counter, with keys from the operating system for each thread.
    fn random(&self) -> Result<u64, Error> {
        thread_local! {
            static KEYS: RandomState = RandomState::new();
            static COUNT: Cell<u64> = const { Cell::new(0) };
        }
        let count = COUNT.get();
        COUNT.set(count.wrapping_add(1));
        Ok(KEYS.with(|keys| keys.hash_one(count)))
    }

    fn plugin_name(&self) -> Option<String> {
        self.0.name.clone()
    }

    fn start_timer(&self, _period: Duration) -> Result<(), Error> {
        let ticks = Ticks::begin(self.config()?.scheduler()?).ok_or(Error::Refused("thread"))?;
        let _ = self.0.ticks.set(ticks);
        Ok(())
    }

    /// Defines it in Envoy when it has no definition yet, which is only possible while the configuration is loaded.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Error> {
        let (config, kind) = (self.config()?, kind_of(kind));
        let define = |base: &str, labels: &[&str]| config.define(kind, base, labels);
        self.0.metrics.series(kind, name, config.has_labels(), define)
    }

    fn increment(&self, counter: u32, by: u32) -> Result<(), Error> {
        self.0.metrics.note(counter, by.into())
    }

    fn record(&self, metric: u32, value: u64) -> Result<(), Error> {
        self.0.metrics.note(metric, value)
    }

    /// The memory of a namespace is freed with the last policy that uses it.
    fn state(&self, namespace: u64, tables: &[Table]) -> NativeState {
        let mut owner = self.instance();
        owner.extend(namespace.to_le_bytes());
        NativeState(Memory::of(&owner).open(tables))
    }

    fn unnamed_hint(&self) -> Option<&'static str> {
        let is_nameless = self.0.name.is_none();
        is_nameless.then_some("its `filter_name` is that of the module alone; write `filter_name: <module>/<name>`")
    }

    fn lacks(&self, need: PolicyNeed) -> Option<&'static str> {
        match need {
            // The ABI gives no access to the node's metadata; and Istio, which sets it, loads no dynamic modules.
            PolicyNeed::Workload => Some(
                "identity: the native body cannot read the proxy's node, so it cannot know a `workload`; use `peerCertificate` or \
                  `filterState`, or load the wasm module",
            ),
            PolicyNeed::ServerName => self.config().is_ok_and(|config| !config.shows_server_name()).then_some(
                "egress.verifySni: this version of Envoy does not show the server name of a request's connection to \
                  dynamic modules, so every request would get 421; use Envoy 1.39 or later, or load the wasm module",
            ),
        }
    }

    fn log_level(&self) -> LevelFilter {
        logger::level()
    }
}

/// The state of one plugin, in the memory of the process.
#[derive(Clone, Debug)]
pub(crate) struct NativeState(MemoryState);

impl PluginState for NativeState {
    type Error = Error;

    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Option<Error>> {
        self.0.update(key, change).map_err(|_| Some(Error::Refused("state")))
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Option<Error>> {
        self.0.read(key, read).map_err(|_| Some(Error::Refused("state")))
    }
}
