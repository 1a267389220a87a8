//! Collects a plugin's metrics until Envoy's main thread exports them.
//!
//! Envoy accepts definitions of metrics only while a configuration is loaded. For HTTP filters, one definition with
//! labels serves every rule: `penstock.requests_total.section.<section>.rule.<rule>.outcome.<outcome>` becomes
//! `penstock.requests_total` with the labels `section`, `rule` and `outcome`, which are those that `stats_tags` give to
//! the metrics of the wasm modules. Metrics of network filters have no labels; each is defined with its whole name, in
//! which the stats tags find them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use penstock_policy::metric_labels;
use smallvec::SmallVec;

use crate::abi::AbiMetric;
use crate::error::Error;

/// The maximum number of pending values of one histogram: one a second is recorded.
const MOST_VALUES: usize = 64;

/// The metrics of one plugin. Worker threads count concurrently, and do not wait while Envoy exports.
#[derive(Debug, Default)]
pub(crate) struct NativeMetrics {
    series: RwLock<Vec<LabelledSeries>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<(AbiMetric, Box<str>), u32>,
    /// The ids in Envoy.
    definitions: HashMap<(AbiMetric, Box<str>), usize>,
}

#[derive(Debug)]
struct LabelledSeries {
    definition: usize,
    labels: SmallVec<[Box<str>; 3]>,
    waiting: Waiting,
}

/// The pending values.
#[derive(Debug)]
enum Waiting {
    Counter(AtomicU64),
    /// The last value, and whether it is new.
    Gauge(AtomicU64, AtomicBool),
    Histogram(Mutex<Vec<u64>>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    fn new(kind: AbiMetric) -> Waiting {
        match kind {
            AbiMetric::Counter => Waiting::Counter(AtomicU64::new(0)),
            AbiMetric::Gauge => Waiting::Gauge(AtomicU64::new(0), AtomicBool::new(false)),
            AbiMetric::Histogram => Waiting::Histogram(Mutex::default()),
        }
    }

    fn note(&self, value: u64) {
        match self {
            Waiting::Counter(sum) => {
                sum.fetch_add(value, Ordering::Relaxed);
            }
            Waiting::Gauge(last, is_new) => {
                last.store(value, Ordering::Relaxed);
                is_new.store(true, Ordering::Release);
            }
            Waiting::Histogram(values) => {
                let mut values = lock(values);
                if values.len() < MOST_VALUES {
                    values.push(value);
                }
            }
        }
    }

    /// Exports the pending values. If Envoy refuses some, they stay pending.
    fn hand_over(&self, write: impl Fn(AbiMetric, u64) -> Result<(), Error>) {
        match self {
            Waiting::Counter(sum) => {
                let value = sum.swap(0, Ordering::Relaxed);
                if value > 0 && write(AbiMetric::Counter, value).is_err() {
                    sum.fetch_add(value, Ordering::Relaxed);
                }
            }
            Waiting::Gauge(last, is_new) => {
                if is_new.swap(false, Ordering::Acquire)
                    && write(AbiMetric::Gauge, last.load(Ordering::Relaxed)).is_err()
                {
                    is_new.store(true, Ordering::Release);
                }
            }
            Waiting::Histogram(values) => lock(values).retain(|value| write(AbiMetric::Histogram, *value).is_err()),
        }
    }
}

impl NativeMetrics {
    /// The id of the metric `name`. If Envoy has no definition for it yet, `define` makes one from a name and labels.
    pub(crate) fn series(
        &self,
        kind: AbiMetric,
        name: &str,
        has_labels: bool,
        define: impl FnOnce(&str, &[&str]) -> Result<usize, Error>,
    ) -> Result<u32, Error> {
        let mut known = lock(&self.known);
        let key = (kind, Box::from(name));
        if let Some(id) = known.by_name.get(&key) {
            return Ok(*id);
        }
        let Labelled { base, names, values } = if has_labels { labelled(name) } else { Labelled::plain(name) };
        let definition = (kind, Box::from(base));
        let definition = match known.definitions.get(&definition) {
            Some(id) => *id,
            None => {
                let id = define(&definition.1, &names)?;
                known.definitions.insert(definition, id);
                id
            }
        };
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let id = u32::try_from(series.len()).map_err(|_| Error::Refused("metric"))?;
        series.push(LabelledSeries { definition, labels: values, waiting: Waiting::new(kind) });
        known.by_name.insert(key, id);
        Ok(id)
    }

    /// Records a value: adds to a counter, sets a gauge, or adds to a histogram.
    pub(crate) fn note(&self, id: u32, value: u64) -> Result<(), Error> {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.get(id as usize).ok_or(Error::Refused("metric"))?.waiting.note(value);
        Ok(())
    }

    /// Exports the pending values. Those that Envoy refuses stay pending.
    pub(crate) fn hand_over(&self, write: impl Fn(AbiMetric, usize, &[Box<str>], u64) -> Result<(), Error>) {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        for LabelledSeries { definition, labels, waiting } in series.iter() {
            waiting.hand_over(|kind, value| write(kind, *definition, labels, value));
        }
    }
}

/// A metric's name, split into its parts.
#[derive(Debug, PartialEq, Eq)]
struct Labelled<'n> {
    base: String,
    names: SmallVec<[&'n str; 3]>,
    values: SmallVec<[Box<str>; 3]>,
}

impl<'n> Labelled<'n> {
    fn plain(name: &str) -> Labelled<'n> {
        Labelled { base: name.to_owned(), names: SmallVec::new(), values: SmallVec::new() }
    }
}

/// The labels in the name, as the stats tags in `envoy-configs/static.yaml` find them.
fn labelled(name: &str) -> Labelled<'_> {
    match metric_labels(name) {
        Some((metric, labels)) => {
            let (names, values) = labels.map(|(label, value)| (label, Box::from(value))).unzip();
            Labelled { base: format!("penstock.{metric}"), names, values }
        }
        None => Labelled::plain(name),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn names_have_the_labels_that_stats_tags_give_them() {
        for (name, base, labels) in [
            (
                "penstock.requests_total.section.routes.rule.r.outcome.matched",
                "penstock.requests_total",
                &[("section", "routes"), ("rule", "r"), ("outcome", "matched")][..],
            ),
            ("penstock.policy_hash.plugin.p", "penstock.policy_hash", &[("plugin", "p")]),
            ("penstock.long_values_total", "penstock.long_values_total", &[]),
            ("penstock", "penstock", &[]),
        ] {
            let found = labelled(name);
            let pairs: Vec<_> = found.names.iter().copied().zip(found.values.iter().map(|value| &**value)).collect();
            assert_eq!((found.base.as_str(), pairs.as_slice()), (base, labels), "{name}");
        }
    }

    #[test]
    fn one_definition_serves_every_rule() {
        let metrics = NativeMetrics::default();
        let defined = RefCell::new(Vec::new());
        let series = |name: &str| {
            metrics.series(AbiMetric::Counter, name, true, |base, labels| {
                defined.borrow_mut().push((base.to_owned(), labels.join(",")));
                Ok(9)
            })
        };
        assert_eq!(
            [
                series("penstock.variant_requests_total.rule.a.variant.v"),
                series("penstock.variant_requests_total.rule.b.variant.v")
            ],
            [Ok(0), Ok(1)]
        );
        assert_eq!(series("penstock.variant_requests_total.rule.a.variant.v"), Ok(0));
        assert_eq!(defined.into_inner(), [("penstock.variant_requests_total".to_owned(), "rule,variant".to_owned())]);
    }

    #[test]
    fn what_envoy_does_not_take_is_handed_over_again() {
        let metrics = NativeMetrics::default();
        let id = metrics.series(AbiMetric::Counter, "a.b", false, |_, _| Ok(4)).unwrap();
        let last = metrics.series(AbiMetric::Gauge, "g", false, |_, _| Ok(5)).unwrap();
        metrics.note(id, 2).unwrap();
        metrics.note(id, 3).unwrap();
        metrics.note(last, 8).unwrap();
        metrics.note(last, 7).unwrap();
        metrics.hand_over(|_, _, _, _| Err(Error::Refused("metric")));
        let taken = RefCell::new(Vec::new());
        let take = |_, id, _: &[Box<str>], value| {
            taken.borrow_mut().push((id, value));
            Ok(())
        };
        metrics.hand_over(take);
        metrics.hand_over(take);
        assert_eq!(taken.into_inner(), [(4, 5), (5, 7)]);
        assert!(metrics.note(99, 1).is_err());
    }

    #[test]
    fn what_several_threads_count_while_envoy_takes_it_is_all_there() {
        let each = if cfg!(miri) { 50 } else { 10_000 };
        let metrics = NativeMetrics::default();
        let id = metrics.series(AbiMetric::Counter, "a.b", false, |_, _| Ok(1)).unwrap();
        let taken = AtomicU64::new(0);
        let take = || {
            metrics.hand_over(|_, _, _, value| {
                taken.fetch_add(value, Ordering::Relaxed);
                Ok(())
            });
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..each).for_each(|_| metrics.note(id, 1).unwrap()));
            }
            (0..100).for_each(|_| take());
        });
        take();
        assert_eq!(taken.into_inner(), 4 * each);
    }
}
