//! What a plugin counts, until Envoy's main thread takes it.
//!
//! Envoy takes definitions of metrics only while a configuration is loaded. For HTTP filters one definition with labels serves
//! every rule: `penstock.routes.<rule>.<outcome>` becomes `penstock.routes` with the labels `penstock_rule` and
//! `penstock_outcome`, which are those that `stats_tags` give the metrics of the wasm modules. Metrics of network filters have
//! no labels; each is defined by its whole name.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::abi::Kind;
use crate::host::Error;

/// Values of one histogram that wait: one a second is recorded.
const MOST_VALUES: usize = 64;

/// The metrics of one plugin.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    series: Vec<Series>,
    by_name: HashMap<(Kind, Box<str>), u32>,
    /// Envoy's numbers.
    definitions: HashMap<(Kind, Box<str>), usize>,
}

#[derive(Debug)]
struct Series {
    kind: Kind,
    definition: usize,
    labels: SmallVec<[Box<str>; 2]>,
    /// What Envoy has not taken yet: one sum, one last value, or some values.
    waiting: SmallVec<[u64; 1]>,
}

impl Metrics {
    /// The number of the metric `name`. Where Envoy has no definition for it yet, `define` makes one of a name and labels.
    pub(crate) fn series(
        &mut self,
        kind: Kind,
        name: &str,
        has_labels: bool,
        define: impl FnOnce(&str, &[&str]) -> Result<usize, Error>,
    ) -> Result<u32, Error> {
        let key = (kind, Box::from(name));
        if let Some(id) = self.by_name.get(&key) {
            return Ok(*id);
        }
        let Labelled { base, names, values } = if has_labels { labelled(name) } else { Labelled::plain(name) };
        let definition = (kind, Box::from(base));
        let definition = match self.definitions.get(&definition) {
            Some(id) => *id,
            None => {
                let id = define(&definition.1, &names)?;
                self.definitions.insert(definition, id);
                id
            }
        };
        let id = u32::try_from(self.series.len()).map_err(|_| Error::Refused("metric"))?;
        self.series.push(Series { kind, definition, labels: values, waiting: SmallVec::new() });
        self.by_name.insert(key, id);
        Ok(id)
    }

    /// Notes a value: adds to a counter, sets a gauge, records in a histogram.
    pub(crate) fn note(&mut self, id: u32, value: u64) -> Result<(), Error> {
        let series = self.series.get_mut(id as usize).ok_or(Error::Refused("metric"))?;
        let is_full = series.waiting.len() >= MOST_VALUES;
        match (series.kind, series.waiting.first_mut()) {
            (Kind::Counter, Some(sum)) => *sum = sum.saturating_add(value),
            (Kind::Gauge, Some(last)) => *last = value,
            (Kind::Histogram, _) if is_full => {}
            _ => series.waiting.push(value),
        }
        Ok(())
    }

    /// Hands over what waits. What Envoy does not take stays.
    pub(crate) fn hand_over(&mut self, write: impl Fn(Kind, usize, &[Box<str>], u64) -> Result<(), Error>) {
        for series in &mut self.series {
            let Series { kind, definition, labels, waiting } = series;
            waiting.retain(|value| write(*kind, *definition, labels, *value).is_err());
        }
    }
}

/// A metric's name, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Labelled {
    base: String,
    names: SmallVec<[&'static str; 2]>,
    values: SmallVec<[Box<str>; 2]>,
}

impl Labelled {
    fn plain(name: &str) -> Labelled {
        Labelled { base: name.to_owned(), names: SmallVec::new(), values: SmallVec::new() }
    }
}

/// The same labels as those of the stats tags in `envoy-configs/static.yaml`.
fn labelled(name: &str) -> Labelled {
    let parts: SmallVec<[&str; 6]> = name.split('.').collect();
    let ["penstock", field, rule, next, others @ ..] = parts.as_slice() else { return Labelled::plain(name) };
    let second = match *field {
        "egress" | "egressReasons" | "rateLimits" | "routes" | "canaries" | "host" if others.is_empty() => {
            Some("penstock_outcome")
        }
        "breakers" | "shares" => Some("penstock_variant"),
        _ => None,
    };
    let mut base = format!("penstock.{field}");
    let mut labels = Labelled::plain("");
    labels.names.push("penstock_rule");
    labels.values.push(Box::from(*rule));
    match second {
        Some(label) => {
            labels.names.push(label);
            labels.values.push(Box::from(*next));
        }
        None => {
            base.push('.');
            base.push_str(next);
        }
    }
    for other in others {
        base.push('.');
        base.push_str(other);
    }
    labels.base = base;
    labels
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn names_have_the_labels_that_stats_tags_give_them() {
        for (name, base, labels) in [
            (
                "penstock.routes.r.matched",
                "penstock.routes",
                &[("penstock_rule", "r"), ("penstock_outcome", "matched")][..],
            ),
            ("penstock.canaries.c.v2", "penstock.canaries", &[("penstock_rule", "c"), ("penstock_outcome", "v2")]),
            (
                "penstock.host.respond.failed",
                "penstock.host",
                &[("penstock_rule", "respond"), ("penstock_outcome", "failed")],
            ),
            (
                "penstock.breakers.c.v2.opened",
                "penstock.breakers.opened",
                &[("penstock_rule", "c"), ("penstock_variant", "v2")],
            ),
            ("penstock.shares.c.v2", "penstock.shares", &[("penstock_rule", "c"), ("penstock_variant", "v2")]),
            ("penstock.decision.p.nanoseconds", "penstock.decision.nanoseconds", &[("penstock_rule", "p")]),
            ("penstock.policy.hash", "penstock.policy.hash", &[]),
            ("penstock", "penstock", &[]),
        ] {
            let found = labelled(name);
            let pairs: Vec<_> = found.names.iter().copied().zip(found.values.iter().map(|value| &**value)).collect();
            assert_eq!((found.base.as_str(), pairs.as_slice()), (base, labels), "{name}");
        }
    }

    #[test]
    fn one_definition_serves_every_rule() {
        let mut metrics = Metrics::default();
        let defined = RefCell::new(Vec::new());
        let mut series = |name: &str| {
            metrics.series(Kind::Counter, name, true, |base, labels| {
                defined.borrow_mut().push((base.to_owned(), labels.join(",")));
                Ok(9)
            })
        };
        assert_eq!([series("penstock.routes.a.matched"), series("penstock.routes.b.matched")], [Ok(0), Ok(1)]);
        assert_eq!(series("penstock.routes.a.matched"), Ok(0));
        assert_eq!(defined.into_inner(), [("penstock.routes".to_owned(), "penstock_rule,penstock_outcome".to_owned())]);
    }

    #[test]
    fn what_envoy_does_not_take_is_handed_over_again() {
        let mut metrics = Metrics::default();
        let id = metrics.series(Kind::Counter, "a.b", false, |_, _| Ok(4)).unwrap();
        let last = metrics.series(Kind::Gauge, "g", false, |_, _| Ok(5)).unwrap();
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
}
