//! Summarises the measured rounds of each scenario.

use super::latency::Latency;
use super::scenario::{self, BenchScenario, Load};

/// The median; for an even number of values, the upper of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    at(values, 50)
}

/// The smallest value.
pub(super) fn least(values: &[f64]) -> f64 {
    at(values, 0)
}

/// The given percentile.
pub(super) fn at(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The figures of one scenario.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) scenario: BenchScenario,
    /// µs of CPU a request, for each round.
    pub(super) cpu: Vec<f64>,
    /// Requests a second, for each round.
    pub(super) rate: Vec<f64>,
    pub(super) latency: Option<Latency>,
}

/// The figures of all scenarios.
#[derive(Debug)]
pub(super) struct Costs(Vec<Figures>);

impl Costs {
    pub(super) fn new(all: Vec<Figures>) -> Costs {
        Costs(all)
    }

    pub(super) fn all(&self) -> &[Figures] {
        &self.0
    }

    /// The figures of one scenario, if it was measured.
    pub(super) fn of(&self, name: &str) -> Option<&Figures> {
        self.0.iter().find(|figures| figures.scenario.name == name)
    }

    fn base(&self, load: Load) -> Option<&Figures> {
        self.of(match load {
            Load::Plain => scenario::NONE,
            Load::Browser => scenario::BROWSER_NONE,
        })
    }

    /// The cost of the filter: the cheapest round of this scenario minus the cheapest round without a filter, in µs of
    /// CPU a request.
    pub(super) fn added(&self, name: &str) -> Option<f64> {
        let figures = self.of(name)?;
        Some(least(&figures.cpu) - least(&self.base(figures.scenario.load)?.cpu))
    }

    /// The cost of the filter in each round: this scenario minus the same round without a filter.
    pub(super) fn added_by_round(&self, figures: &Figures) -> Vec<f64> {
        let base = self.base(figures.scenario.load).map(|base| base.cpu.as_slice()).unwrap_or_default();
        figures.cpu.iter().zip(base).map(|(cpu, base)| cpu - base).collect()
    }

    /// The filter cost of `name` divided by the filter cost of `other`.
    pub(super) fn ratio(&self, name: &str, other: &str) -> Option<f64> {
        Some(self.added(name)? / self.added(other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_and_the_least_the_smallest() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((at(&[4.0, 1.0, 2.0, 3.0], 75) - 4.0).abs() < f64::EPSILON);
        assert!((least(&[4.0, 1.0, 2.0]) - 1.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
