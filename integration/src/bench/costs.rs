//! What the rounds of each scenario say.

use super::Figures;
use super::scenario::{self, Load};

/// The middle one; of an even number the upper of the two.
pub(super) fn median(values: &[f64]) -> f64 {
    at(values, 50)
}

/// The smallest.
pub(super) fn least(values: &[f64]) -> f64 {
    at(values, 0)
}

/// The value that so many percent are below.
pub(super) fn at(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// All figures.
#[derive(Debug)]
pub(super) struct Costs(Vec<Figures>);

impl Costs {
    pub(super) fn new(all: Vec<Figures>) -> Costs {
        Costs(all)
    }

    pub(super) fn all(&self) -> &[Figures] {
        &self.0
    }

    /// Those of one scenario, if it was measured.
    pub(super) fn of(&self, name: &str) -> Option<&Figures> {
        self.0.iter().find(|figures| figures.scenario.name == name)
    }

    fn base(&self, load: Load) -> Option<&Figures> {
        self.of(match load {
            Load::Plain => scenario::NONE,
            Load::Browser => scenario::BROWSER_NONE,
        })
    }

    /// The least that a request cost over the least that one without a filter did.
    pub(super) fn added(&self, name: &str) -> Option<f64> {
        let figures = self.of(name)?;
        Some(least(&figures.cpu) - least(&self.base(figures.scenario.load)?.cpu))
    }

    /// What each round cost over the same round without a filter.
    pub(super) fn added_by_round(&self, figures: &Figures) -> Vec<f64> {
        let base = self.base(figures.scenario.load).map(|base| base.cpu.as_slice()).unwrap_or_default();
        figures.cpu.iter().zip(base).map(|(cpu, base)| cpu - base).collect()
    }

    /// How many times what `other` costs over no filter `name` costs.
    pub(super) fn ratio(&self, name: &str, other: &str) -> Option<f64> {
        Some(self.added(name)? / self.added(other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_and_the_least_the_first() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((at(&[4.0, 1.0, 2.0, 3.0], 75) - 4.0).abs() < f64::EPSILON);
        assert!((least(&[4.0, 1.0, 2.0]) - 1.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
