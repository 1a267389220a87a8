//! How long decisions take, as a histogram of the proxy: the first decision after each tick is timed, so that what this
//! costs does not grow with the traffic.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_policy::{Timestamp, latency_name};

use crate::host::{Host, MetricKind};

/// The decision times of one plugin, in nanoseconds of the proxy's wall clock.
#[derive(Debug)]
pub(crate) struct LatencySampler {
    name: Box<str>,
    /// The proxy's number, once it has one.
    id: OnceLock<u32>,
    is_due: AtomicBool,
}

impl LatencySampler {
    /// For the plugin of this name; nothing is timed before the first tick.
    pub(crate) fn new(plugin: &str) -> LatencySampler {
        LatencySampler { name: latency_name(plugin), id: OnceLock::new(), is_due: AtomicBool::new(false) }
    }

    /// The histogram's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A second has passed: the next decision is timed.
    pub(crate) fn tick(&self) {
        self.is_due.store(true, Ordering::Relaxed);
    }

    /// Runs `decide`, which is a decision and all that is done about it at once, and times it when it is due.
    pub(crate) fn time<H: Host, T>(&self, host: &H, decide: impl FnOnce() -> T) -> T {
        let begun = if self.is_due.load(Ordering::Relaxed) { self.begin(host) } else { None };
        let decided = decide();
        if let Some(begun) = begun {
            self.end(begun, host);
        }
        decided
    }

    /// Without a clock there is nothing to record.
    #[cold]
    fn begin<H: Host>(&self, host: &H) -> Option<Timestamp> {
        self.is_due.store(false, Ordering::Relaxed);
        host.now().ok()
    }

    /// A clock that was set back in between gives no sample, and neither does a proxy that takes none.
    #[cold]
    fn end<H: Host>(&self, begun: Timestamp, host: &H) {
        let Some(taken) = host.now().ok().and_then(|ended| ended.0.checked_sub(begun.0)) else { return };
        let id = match self.id.get() {
            Some(id) => Ok(*id),
            None => host.define_metric(MetricKind::Histogram, &self.name),
        };
        if let Ok(id) = id {
            let _ = self.id.set(id);
            let _ = host.record(id, taken);
        }
    }
}
