//! Counts in the module's memory, handed to the host once a second: a metric of the host costs a call, these cost an
//! addition.

use penstock_policy::{Metric, Metrics};

use crate::host;

/// How often the host calls to collect, in milliseconds.
pub(crate) const PERIOD: u32 = 1000;

/// The counters of one plugin.
#[derive(Debug, Default)]
pub(crate) struct Counters(Vec<Counter>);

#[derive(Clone, Debug, Default)]
struct Counter {
    /// Not handed over yet.
    pending: u32,
    /// The host's number, once it has one.
    id: Option<u32>,
}

impl Counters {
    /// One counter, at zero, for each name.
    pub(crate) fn new(metrics: &Metrics) -> Counters {
        Counters(vec![Counter::default(); metrics.names().len()])
    }

    /// Adds one to each.
    pub(crate) fn count(&mut self, metrics: &[Metric]) {
        for metric in metrics {
            if let Some(counter) = self.0.get_mut(metric.index()) {
                counter.pending = counter.pending.saturating_add(1);
            }
        }
    }

    /// Hands over what has been counted since the last time. A counter comes into being in the host when it first
    /// counts; what the host does not take is tried again with the next call.
    pub(crate) fn flush(&mut self, metrics: &Metrics) {
        for (counter, name) in self.0.iter_mut().zip(metrics.names()) {
            if counter.pending == 0 {
                continue;
            }
            if counter.id.is_none() {
                counter.id = host::define_counter(name).ok();
            }
            if let Some(id) = counter.id
                && host::increment(id, counter.pending).is_ok()
            {
                counter.pending = 0;
            }
        }
    }
}
