//! Counts in the plugin's own memory and passes the sums to the proxy once a second, because incrementing a metric of
//! the proxy costs a call.

use std::sync::atomic::{AtomicU32, Ordering};

use penstock_policy::{Metric, Metrics};

use crate::host::{Host, MetricKind};

/// The metric has no number in the proxy yet.
const UNDEFINED: u32 = u32::MAX;

/// The counters of one plugin, shared by all workers that run it.
#[derive(Debug, Default)]
pub(crate) struct Counters(Box<[Counter]>);

#[derive(Debug)]
struct Counter {
    /// The part of the count that has not been passed on yet.
    pending: AtomicU32,
    /// The proxy's id of the metric, once it has one.
    id: AtomicU32,
}

impl Counters {
    /// Makes a counter, at zero, for each metric of the policy.
    pub(crate) fn new(metrics: &Metrics) -> Counters {
        let counter = |_| Counter { pending: AtomicU32::new(0), id: AtomicU32::new(UNDEFINED) };
        Counters((0..metrics.len()).map(counter).collect())
    }

    /// Adds one to each of these counters.
    pub(crate) fn count(&self, metrics: &[Metric]) {
        for metric in metrics {
            if let Some(counter) = self.0.get(metric.index()) {
                counter.pending.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Passes on what has been counted since the last call. A counter is created in the proxy when it first counts;
    /// what the proxy does not accept is tried again with the next call.
    pub(crate) fn flush<H: Host>(&self, metrics: &Metrics, host: &H) {
        for (index, counter) in self.0.iter().enumerate() {
            let pending = counter.pending.swap(0, Ordering::Relaxed);
            if pending > 0 && !counter.hand_over(pending, || metrics.name(index).unwrap_or_default(), host) {
                counter.pending.fetch_add(pending, Ordering::Relaxed);
            }
        }
    }
}

impl Counter {
    fn hand_over<H: Host>(&self, count: u32, name: impl FnOnce() -> String, host: &H) -> bool {
        let id = match self.id.load(Ordering::Relaxed) {
            UNDEFINED => {
                let Ok(id) = host.define_metric(MetricKind::Counter, &name()) else { return false };
                self.id.store(id, Ordering::Relaxed);
                id
            }
            id => id,
        };
        host.increment(id, count).is_ok()
    }
}
