//! The counters of a policy. They get their names when it loads; decisions refer to them by number.
//!
//! The policy fixes the set of names, so no request can make it grow. A platform counts in its own memory and passes
//! the sums on from time to time.

use crate::section::Section;

/// A counter of one policy: an index into [`Metrics::names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Metric(u32);

impl Metric {
    fn at(place: usize) -> Metric {
        Metric(u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// Its position in [`Metrics::names`].
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The counter `offset` positions further, for counters that were added together.
    #[must_use]
    pub(crate) fn plus(self, offset: u32) -> Metric {
        Metric(self.0.saturating_add(offset))
    }
}

/// The number of rules of a section that have counters and gauges of their own; further rules share the counters of
/// `_others`. A proxy keeps each metric until it ends.
pub(crate) const MOST_RULES: usize = 1_000;

/// The start of every metric's name.
const PREFIX: &str = "penstock";

/// A metric's name with its labels: `penstock.<metric>`, then `.<label>.<value>` for each label. In a value all but ASCII
/// letters, digits and `-` is written `_`, because dots separate the parts. Proxies make labels of the pairs, so that
/// Prometheus has `penstock_<metric>{<label>="<value>"}`.
pub fn metric_name(metric: &str, labels: &[(&str, &str)]) -> Box<str> {
    let pairs = labels.iter().map(|(label, value)| label.len() + value.len() + 2).sum::<usize>();
    let mut name = String::with_capacity(PREFIX.len() + 1 + metric.len() + pairs);
    name.push_str(PREFIX);
    name.push('.');
    name.push_str(metric);
    for (label, value) in labels {
        name.push('.');
        name.push_str(label);
        name.push('.');
        name.extend(value.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }));
    }
    name.into()
}

/// Splits a name of [`metric_name`]: the metric without `penstock.`, and its labels. Returns `None` for any other name.
pub fn metric_labels(name: &str) -> Option<(&str, impl Iterator<Item = (&str, &str)>)> {
    let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
    let metric = parts.next()?;
    Some((metric, std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))))
}

/// The histogram of the decision times of the plugin `plugin`, in nanoseconds: `penstock.decision_duration_nanos.plugin.<plugin>`.
pub fn latency_name(plugin: &str) -> Box<str> {
    metric_name("decision_duration_nanos", &[("plugin", plugin)])
}

/// Every counter of a policy.
///
/// ```
/// use penstock_policy::{FixedEnvironment, Policy, Request};
///
/// let policy = <Policy>::from_json(br#"{"routes": {"rules": [{"name": "all", "route": "a"}]}}"#)?;
/// let mut counters = vec![0; policy.metrics().len()];
/// let headers: [(&[u8], &[u8]); 1] = [(b":path", b"/")];
/// let decision =
///     policy.decide(&Request::new(&headers), &mut FixedEnvironment::default()).expect("no service to ask");
/// decision.counts.iter().for_each(|metric| counters[metric.index()] += 1);
/// let counted = policy.metrics().names().into_iter().zip(counters).find(|(_, count)| *count > 0);
/// assert_eq!(counted, Some(("penstock.requests_total.section.routes.rule.all.outcome.matched".to_owned(), 1)));
/// # Ok::<(), penstock_policy::Problems>(())
/// ```
#[derive(Debug, Default)]
pub struct Metrics {
    rows: Vec<CounterRow>,
    len: usize,
    kinds: Vec<CounterKind>,
}

/// Consecutive counters, whose names differ in the last label.
#[derive(Debug)]
struct CounterRow {
    first: u32,
    /// The name without that label.
    name: Box<str>,
    /// The values of the last label; without any, there is only the counter `name`.
    outcomes: &'static [&'static str],
}

/// Groups of counters, each with a common limit on their number.
#[derive(Debug)]
struct CounterKind {
    metric: &'static str,
    section: &'static str,
    /// The first outcome, which distinguishes the groups of a section.
    outcome: &'static str,
    rules: usize,
    /// The shared counters, once there are too many rules.
    others: Option<Metric>,
}

impl Metrics {
    /// Adds `requests_total` for each of `outcomes` of one rule, one after the other, and returns the first. Two rules whose names
    /// are the same as [`metric_name`] writes them share their counters. Rules beyond [`MOST_RULES`] share those of `_others`.
    pub(crate) fn add(&mut self, section: Section, rule: &str, outcomes: &'static [&'static str]) -> Metric {
        let labels = |rule| metric_name("requests_total", &[("section", section.field()), ("rule", rule)]);
        self.bounded("requests_total", section.field(), outcomes, |is_own| {
            labels(if is_own { rule } else { "_others" })
        })
    }

    /// Adds `breaker_transitions_total` for each of `outcomes` of the breaker of `guarded`, a route or variant of `rule`. Breakers
    /// beyond [`MOST_RULES`] of a section share those of `_others`.
    pub(crate) fn add_breaker(
        &mut self,
        section: Section,
        rule: &str,
        guarded: &str,
        outcomes: &'static [&'static str],
    ) -> Metric {
        self.bounded("breaker_transitions_total", section.field(), outcomes, |is_own| {
            let (rule, guarded) = if is_own { (rule, guarded) } else { ("_others", "_others") };
            metric_name(
                "breaker_transitions_total",
                &[("section", section.field()), ("rule", rule), ("variant", guarded)],
            )
        })
    }

    /// Adds `variant_requests_total` for a variant of a canary. Variants beyond [`MOST_RULES`] share that of `_others`.
    pub(crate) fn add_variant(&mut self, canary: &str, variant: &str) -> Metric {
        self.bounded("variant_requests_total", "", &[], |is_own| {
            let (canary, variant) = if is_own { (canary, variant) } else { ("_others", "_others") };
            metric_name("variant_requests_total", &[("rule", canary), ("variant", variant)])
        })
    }

    /// Adds a counter for each of `outcomes`, one after the other, and returns the first; without outcomes, only the counter itself.
    pub(crate) fn add_plain(
        &mut self,
        metric: &str,
        labels: &[(&str, &str)],
        outcomes: &'static [&'static str],
    ) -> Metric {
        self.push(metric_name(metric, labels), outcomes)
    }

    fn push(&mut self, name: Box<str>, outcomes: &'static [&'static str]) -> Metric {
        let first = Metric::at(self.len);
        self.rows.push(CounterRow { first: first.0, name, outcomes });
        self.len += outcomes.len().max(1);
        first
    }

    fn bounded(
        &mut self,
        metric: &'static str,
        section: &'static str,
        outcomes: &'static [&'static str],
        name: impl FnOnce(bool) -> Box<str>,
    ) -> Metric {
        let outcome = outcomes.first().copied().unwrap_or_default();
        let is_kind = |kind: &CounterKind| (kind.metric, kind.section, kind.outcome) == (metric, section, outcome);
        let place = self.kinds.iter().position(is_kind).unwrap_or_else(|| {
            self.kinds.push(CounterKind { metric, section, outcome, rules: 0, others: None });
            self.kinds.len() - 1
        });
        let mut is_own = true;
        if let Some(kind) = self.kinds.get_mut(place) {
            if let Some(others) = kind.others {
                return others;
            }
            kind.rules += 1;
            is_own = kind.rules <= MOST_RULES;
        }
        let first = self.push(name(is_own), outcomes);
        if let Some(kind) = self.kinds.get_mut(place).filter(|_| !is_own) {
            kind.others = Some(first);
        }
        first
    }

    /// How many counters there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name of the counter at the [`Metric::index`] `index`.
    pub fn name(&self, index: usize) -> Option<String> {
        let after = self.rows.partition_point(|row| row.first as usize <= index);
        let row = self.rows.get(after.checked_sub(1)?)?;
        let mut name = String::from(&*row.name);
        let offset = index - row.first as usize;
        match row.outcomes.get(offset) {
            Some(outcome) => {
                name.push_str(".outcome.");
                name.push_str(outcome);
            }
            None if row.outcomes.is_empty() && offset == 0 => {}
            None => return None,
        }
        Some(name)
    }

    /// Every counter's name, each at its [`Metric::index`].
    pub fn names(&self) -> Vec<String> {
        (0..self.len).filter_map(|index| self.name(index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_rule_cannot_write_a_further_part_of_the_name() {
        let mut metrics = Metrics::default();
        let first = metrics.add(Section::RateLimits, "per.client é-1", &["passed", "limited"]);
        assert_eq!(
            metrics.names(),
            ["passed", "limited"].map(|outcome| {
                format!("penstock.requests_total.section.rateLimits.rule.per_client__-1.outcome.{outcome}")
            })
        );
        assert_eq!((first.index(), first.plus(1).index()), (0, 1));
        assert_eq!(metrics.add(Section::Routes, "r", &["hit"]).index(), 2);
        assert_eq!(metrics.name(3), None);
    }

    #[test]
    fn a_name_is_taken_apart_into_what_it_was_made_of() {
        let labels = [("rule", "variant"), ("variant", "rule")];
        let name = metric_name("variant_requests_total", &labels);
        let (metric, found) = metric_labels(&name).unwrap();
        assert_eq!((metric, found.collect::<Vec<_>>()), ("variant_requests_total", labels.to_vec()));
        assert_eq!(metric_labels("penstock.long_values_total").map(|(_, labels)| labels.count()), Some(0));
        assert!(metric_labels("penstocks.x").is_none());
    }

    #[test]
    fn variants_and_breakers_of_one_name_are_different_metrics() {
        let mut metrics = Metrics::default();
        metrics.add_variant("shop", "rolledBack");
        metrics.add_breaker(Section::Canaries, "shop", "rolledBack", &["rolledBack"]);
        metrics.add_plain("long_values_total", &[], &[]);
        assert_eq!(
            metrics.names(),
            [
                "penstock.variant_requests_total.rule.shop.variant.rolledBack",
                "penstock.breaker_transitions_total.section.canaries.rule.shop.variant.rolledBack.outcome.rolledBack",
                "penstock.long_values_total",
            ]
        );
    }

    #[test]
    fn rules_beyond_a_thousand_share_the_counters_of_others() {
        let mut metrics = Metrics::default();
        for rule in 0..MOST_RULES {
            assert_eq!(metrics.add(Section::RateLimits, &rule.to_string(), &["passed", "limited"]).index(), 2 * rule);
        }
        let others = metrics.add(Section::RateLimits, "one more", &["passed", "limited"]);
        assert_eq!(metrics.add(Section::RateLimits, "another", &["passed", "limited"]), others);
        let own = metrics.add(Section::RateLimits, "another", &["somethingElse"]);
        for variant in 0..MOST_RULES {
            metrics.add_variant("canary", &variant.to_string());
        }
        let variant = metrics.add_variant("canary", "more");
        assert_eq!(metrics.add_variant("another", "v"), variant);
        let name = |metric: Metric| metrics.name(metric.index()).unwrap();
        assert_eq!(name(others.plus(1)), "penstock.requests_total.section.rateLimits.rule._others.outcome.limited");
        assert_eq!(name(own), "penstock.requests_total.section.rateLimits.rule.another.outcome.somethingElse");
        assert_eq!(name(variant), "penstock.variant_requests_total.rule._others.variant._others");
        assert_eq!(metrics.names().len(), 2 * MOST_RULES + 2 + 1 + MOST_RULES + 1);
    }
}
