//! What a policy counts: names when it loads, numbers when it decides.
//!
//! The set of names is fixed by the policy, so no request can make it grow. A host counts in its own memory and hands
//! the sums on from time to time.

use crate::decision::Section;

/// A counter of one policy: an index into [`Metrics::names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Metric(u32);

impl Metric {
    /// Its place in [`Metrics::names`].
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The counter `offset` places further: for counters that were added in a row.
    #[must_use]
    pub(crate) fn plus(self, offset: u32) -> Metric {
        Metric(self.0.saturating_add(offset))
    }
}

/// Every counter of a policy.
#[derive(Debug, Default)]
pub struct Metrics {
    names: Vec<Box<str>>,
}

impl Metrics {
    /// Adds a counter for each of `outcomes` of one rule, in a row, and gives the first. The rule's name is written
    /// with `_` for all but ASCII letters, digits and `-`, because dots separate a metric's parts; two rules whose
    /// names then are the same share their counters.
    pub(crate) fn add(&mut self, section: Section, rule: &str, outcomes: &[&str]) -> Metric {
        self.add_to(section.field(), rule, outcomes)
    }

    /// The same for what is not a section's own name.
    pub(crate) fn add_to(&mut self, field: &str, rule: &str, outcomes: &[&str]) -> Metric {
        let first = Metric(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        let rule: String = rule.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        self.names.extend(outcomes.iter().map(|outcome| format!("penstock.{field}.{rule}.{outcome}").into()));
        first
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
}
