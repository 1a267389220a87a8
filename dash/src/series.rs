//! Counters become rates.

use std::collections::VecDeque;

use serde::Serialize;

/// So many points are kept of each rate, one for each look.
pub const POINTS: usize = 120;

/// A rate is the mean of so many looks: one alone flickers, because the modules hand their counts on once a second.
const MEAN: usize = 5;

/// One counter of a cluster: all its proxies together.
#[derive(Clone, Debug, Default)]
pub struct CounterSeries {
    total: u64,
    /// What came since the last point.
    since: u64,
    points: VecDeque<f32>,
    /// When it last rose, in seconds since 1970.
    last: Option<f64>,
}

/// How a counter is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterRate {
    /// Since the proxies started, or the dash, where a proxy began anew.
    pub total: u64,
    /// Per second, over the last five looks.
    pub per_second: f64,
    /// Per second at each of the last looks, the newest last.
    pub history: Vec<f32>,
}

impl CounterSeries {
    /// Notes that the counter of one proxy went from `before` to `now`. It is smaller than before when the proxy started
    /// anew; `None`: this is the first look, and what it counted before is no rate of now.
    pub fn note(&mut self, before: Option<u64>, now: u64, at: f64) {
        let more = match before {
            Some(before) => now.checked_sub(before).unwrap_or(now),
            None => 0,
        };
        self.total = self.total.saturating_add(if before.is_some() { more } else { now });
        self.since = self.since.saturating_add(more);
        if more > 0 {
            self.last = Some(at);
        }
    }

    /// Makes a point of what came in the last `seconds`.
    pub fn tick(&mut self, seconds: f64) {
        // A counter that never counts has no history to keep.
        if self.since == 0 && self.points.is_empty() {
            return;
        }
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        let rate = if seconds > 0.0 { self.since as f64 / seconds } else { 0.0 };
        self.points.push_back((100.0 * rate).round() as f32 / 100.0);
        self.since = 0;
        // Nothing for as long as is remembered: nothing to remember.
        if self.points.len() == POINTS && self.points.iter().all(|&point| point == 0.0) {
            self.points = VecDeque::new();
        }
    }

    /// The rate, with its history.
    pub fn rate(&self) -> CounterRate {
        CounterRate { total: self.total, per_second: self.per_second(), history: self.points.iter().copied().collect() }
    }

    /// Per second, over the last looks.
    pub fn per_second(&self) -> f64 {
        let recent = self.points.iter().rev().take(MEAN);
        let count = recent.len().max(1);
        recent.map(|&point| f64::from(point)).sum::<f64>() / count as f64
    }

    /// When it last rose.
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    /// What came at the last look, as a whole number.
    pub fn newest(&self) -> f64 {
        self.points.back().copied().map_or(0.0, f64::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_is_a_total_and_no_rate() {
        let mut series = CounterSeries::default();
        series.note(None, 1_000, 1.0);
        series.tick(1.0);
        assert_eq!(series.rate(), CounterRate { total: 1_000, per_second: 0.0, history: vec![] });
        series.note(Some(1_000), 1_004, 3.0);
        series.tick(2.0);
        assert_eq!(series.rate(), CounterRate { total: 1_004, per_second: 2.0, history: vec![2.0] });
        assert_eq!(series.last(), Some(3.0));
    }

    #[test]
    fn a_proxy_that_starts_anew_takes_nothing_back() {
        let mut series = CounterSeries::default();
        series.note(Some(0), 50, 1.0);
        series.note(Some(50), 3, 2.0);
        assert_eq!(series.rate().total, 53);
    }

    #[test]
    fn history_is_bounded_and_forgotten_when_nothing_happens() {
        let mut series = CounterSeries::default();
        series.note(Some(0), 1, 1.0);
        for _ in 0..POINTS {
            series.tick(1.0);
        }
        assert_eq!(series.rate().history.len(), POINTS);
        series.tick(1.0);
        assert_eq!(series.rate().history.len(), 0);
        assert_eq!(series.rate().total, 1);
    }
}
