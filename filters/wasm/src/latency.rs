//! How long decisions take, as a histogram of the host: the first one after each tick is timed, so that what this costs
//! does not grow with the traffic.

use std::cell::Cell;

use penstock_policy::latency_name;

use crate::host;

/// The decision times of one plugin, in nanoseconds of the host's wall clock.
#[derive(Debug)]
pub(crate) struct Latency {
    name: Box<str>,
    /// The host's number, once it has one.
    id: Cell<Option<u32>>,
    is_due: Cell<bool>,
}

impl Latency {
    /// For the plugin of this name; nothing is timed before the first tick.
    pub(crate) fn new(plugin: &str) -> Latency {
        Latency { name: latency_name(plugin), id: Cell::new(None), is_due: Cell::new(false) }
    }

    /// A second has passed.
    pub(crate) fn tick(&self) {
        self.is_due.set(true);
    }

    /// Does `act`, which is a decision and all that is done about it at once, and times it when it is time to.
    pub(crate) fn of<T>(&self, act: impl FnOnce() -> T) -> T {
        let begun = if self.is_due.get() { self.begin() } else { None };
        let done = act();
        if let Some(begun) = begun {
            self.end(begun);
        }
        done
    }

    /// A host without a clock has nothing to tell.
    #[cold]
    fn begin(&self) -> Option<u64> {
        self.is_due.set(false);
        host::nanoseconds()
    }

    /// A clock that was set back tells nothing either.
    #[cold]
    fn end(&self, begun: u64) {
        if let Some(taken) = host::nanoseconds().and_then(|ended| ended.checked_sub(begun)) {
            self.record(taken);
        }
    }

    /// A time that the host does not take is one less.
    fn record(&self, nanoseconds: u64) {
        if self.id.get().is_none() {
            self.id.set(host::define_histogram(&self.name).ok());
        }
        if let Some(id) = self.id.get() {
            let _ = host::record(id, nanoseconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{self, with};

    /// A decision that takes so many nanoseconds.
    fn take(nanoseconds: i64) {
        with(|host| host.time = host.time.saturating_add_signed(nanoseconds));
    }

    fn told() -> Vec<(String, i64)> {
        with(|host| host.metrics.clone())
    }

    fn fresh() -> Latency {
        fake_host::reset();
        with(|host| host.time = 1_000_000_000);
        Latency::new("edge")
    }

    #[test]
    fn the_first_decision_after_a_tick_is_timed_and_no_other() {
        let latency = fresh();
        latency.of(|| take(1));
        assert_eq!(with(|host| host.calls.len()), 0, "nothing before the first tick");
        for taken in [3_400, 5_600] {
            latency.tick();
            latency.of(|| take(taken));
            with(|host| host.calls.clear());
            latency.of(|| take(7));
            assert_eq!(with(|host| host.calls.len()), 0);
            assert_eq!(told(), [("penstock.decision.edge.nanoseconds".to_owned(), taken)]);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_or_missing_tells_nothing() {
        let latency = fresh();
        latency.tick();
        assert_eq!(
            latency.of(|| {
                take(-5);
                42
            }),
            42
        );
        with(|host| host.broken.push(("proxy_get_current_time_nanoseconds", 10)));
        latency.tick();
        latency.of(|| take(5));
        assert!(told().is_empty(), "{:?}", told());
    }

    #[test]
    fn a_host_without_histograms_changes_nothing() {
        let latency = fresh();
        for function in ["proxy_define_metric", "proxy_record_metric"] {
            with(|host| host.broken = vec![(function, 10)]);
            latency.tick();
            assert_eq!(latency.of(|| 42), 42);
        }
    }
}
