//! The counters of a policy: they have names when it loads and numbers when it decides.
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

    /// The counter `offset` places further, for counters that were added in a row.
    #[must_use]
    pub(crate) fn plus(self, offset: u32) -> Metric {
        Metric(self.0.saturating_add(offset))
    }
}

/// The number of rules of a section that have counters and gauges of their own; further rules share the counters of
/// `_others`. A proxy keeps each metric until it ends.
pub(crate) const MOST_RULES: usize = 1_000;

/// A metric's name: `penstock` and these parts, joined by dots. In a part everything except ASCII letters, digits and
/// `-` is written as `_`, because dots separate the parts.
pub(crate) fn name(parts: &[&str]) -> Box<str> {
    let mut name = String::with_capacity(8 + parts.iter().map(|part| part.len() + 1).sum::<usize>());
    name.push_str("penstock");
    for part in parts {
        name.push('.');
        name.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }));
    }
    name.into()
}

/// The histogram of the decision times of the plugin `plugin`, in nanoseconds: `penstock.decision.<plugin>.nanoseconds`.
pub fn latency_name(plugin: &str) -> Box<str> {
    name(&["decision", plugin, "nanoseconds"])
}

/// Every counter of a policy.
#[derive(Debug, Default)]
pub struct Metrics {
    names: Vec<Box<str>>,
    kinds: Vec<CounterKind>,
    /// The number of counters of variants so far, and the counter that all further ones share.
    variants: usize,
    other_variants: Option<Metric>,
}

fn push(names: &mut Vec<Box<str>>, field: &str, rule: &str, outcome: &str) -> Metric {
    let metric = Metric::at(names.len());
    names.push(name(&[field, rule, outcome]));
    metric
}

/// What has counters in common.
#[derive(Debug)]
struct CounterKind {
    field: &'static str,
    /// The first outcome, which tells what else a section counts apart.
    outcome: &'static str,
    rules: usize,
    /// The shared counters, once there are too many rules.
    others: Option<Metric>,
}

impl Metrics {
    /// Adds a counter for each of `outcomes` of one rule, in a row, and returns the first. In the rule's name
    /// everything except ASCII letters, digits and `-` is written as `_`, because dots separate a metric's parts; two
    /// rules whose names are then the same share their counters. Rules beyond [`MOST_RULES`] share those of `_others`.
    pub(crate) fn add(&mut self, section: Section, rule: &str, outcomes: &[&'static str]) -> Metric {
        self.add_to(section.field(), rule, outcomes)
    }

    /// The same for a field that is not a section's own name.
    pub(crate) fn add_to(&mut self, field: &'static str, rule: &str, outcomes: &[&'static str]) -> Metric {
        let outcome = outcomes.first().copied().unwrap_or_default();
        let kind = self.kinds.iter().position(|kind| (kind.field, kind.outcome) == (field, outcome));
        let kind = kind.unwrap_or_else(|| {
            self.kinds.push(CounterKind { field, outcome, rules: 0, others: None });
            self.kinds.len() - 1
        });
        let mut is_own = true;
        if let Some(kind) = self.kinds.get_mut(kind) {
            if let Some(others) = kind.others {
                return others;
            }
            kind.rules += 1;
            is_own = kind.rules <= MOST_RULES;
        }
        let first = Metric::at(self.names.len());
        for outcome in outcomes {
            push(&mut self.names, field, if is_own { rule } else { "_others" }, outcome);
        }
        if let Some(kind) = self.kinds.get_mut(kind).filter(|_| !is_own) {
            kind.others = Some(first);
        }
        first
    }

    /// A counter for a variant of a canary. Variants beyond [`MOST_RULES`] share `_others.chosen`.
    pub(crate) fn add_variant(&mut self, canary: &str, variant: &str) -> Metric {
        let field = Section::Canaries.field();
        self.variants += 1;
        if self.variants > MOST_RULES {
            return *self.other_variants.get_or_insert_with(|| push(&mut self.names, field, "_others", "chosen"));
        }
        push(&mut self.names, field, canary, variant)
    }

    /// `penstock.<section>.<rule>.<outcome>`, each at its [`Metric::index`].
    pub fn names(&self) -> &[Box<str>] {
        &self.names
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
            ["penstock.rateLimits.per_client__-1.passed".into(), "penstock.rateLimits.per_client__-1.limited".into()]
        );
        assert_eq!((first.index(), first.plus(1).index()), (0, 1));
        assert_eq!(metrics.add(Section::Routes, "r", &["hit"]).index(), 2);
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
        let name = |metric: Metric| &*metrics.names()[metric.index()];
        assert_eq!(name(others.plus(1)), "penstock.rateLimits._others.limited");
        assert_eq!(name(own), "penstock.rateLimits.another.somethingElse");
        assert_eq!(name(variant), "penstock.canaries._others.chosen");
        assert_eq!(metrics.names().len(), 2 * MOST_RULES + 2 + 1 + MOST_RULES + 1);
    }
}
