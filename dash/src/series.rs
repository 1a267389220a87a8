//! Converts counters to rates.

use std::collections::VecDeque;

use serde::Serialize;

/// The number of points of each rate, one for each poll.
pub const POINTS: usize = 120;

/// The number of seconds over which rates are averaged: over fewer, one failed request of a quiet service would be a
/// high percentage.
pub const WINDOW: f64 = 30.0;

/// One counter of a cluster, summed over its proxies.
#[derive(Clone, Debug, Default)]
pub struct CounterSeries {
    total: u64,
    /// The increase since the last point.
    since: u64,
    points: VecDeque<f32>,
    /// The increases within the [`WINDOW`], with their times.
    window: VecDeque<(f64, u64)>,
    /// How many seconds of the window have been observed.
    watched: f64,
    /// The time of the last increase in seconds since 1970.
    last: Option<f64>,
    /// The same at the end of the last interval.
    last_shown: Option<f64>,
}

/// The rate of an event in the last [`WINDOW`] seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecentRate {
    /// The rate per second.
    pub per_second: f64,
    /// The number of events.
    pub recent: u64,
}

impl std::ops::Add for RecentRate {
    type Output = RecentRate;

    fn add(self, other: RecentRate) -> RecentRate {
        RecentRate { per_second: self.per_second + other.per_second, recent: self.recent.saturating_add(other.recent) }
    }
}

impl std::iter::Sum for RecentRate {
    fn sum<I: Iterator<Item = RecentRate>>(flows: I) -> RecentRate {
        flows.fold(RecentRate::default(), |sum, flow| sum + flow)
    }
}

/// How a counter is shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterRate {
    /// The total since the proxies or the dash started, or since a restarted proxy's start.
    pub total: u64,
    /// The rate per second in the last [`WINDOW`] seconds.
    pub per_second: f64,
    /// The number of events in that time.
    pub recent: u64,
    /// The rate per second at each of the last polls, newest last.
    pub history: Vec<f32>,
}

impl CounterRate {
    /// The same without its history.
    pub fn flow(&self) -> RecentRate {
        RecentRate { per_second: self.per_second, recent: self.recent }
    }
}

/// The interval between two polls of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct PollInterval {
    /// Now, in seconds since 1970.
    pub at: f64,
    /// The length of the interval.
    pub seconds: f64,
    /// How long the cluster has been observed.
    pub watched: f64,
}

impl CounterSeries {
    /// A counter that a proxy had counted up to `total` earlier.
    pub fn after(total: u64) -> CounterSeries {
        CounterSeries { total, ..CounterSeries::default() }
    }

    /// Records that the counter of one proxy went from `before` to `now`. It is smaller when the proxy restarted.
    /// `None` at the first poll: earlier events are not part of a current rate.
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

    /// Ends the interval: makes a point of the increase since the last one.
    pub fn tick(&mut self, PollInterval { at, seconds, watched }: PollInterval) {
        let since = std::mem::take(&mut self.since);
        self.last_shown = self.last;
        // A new counter was zero before.
        self.watched = watched.min(WINDOW);
        while self.window.front().is_some_and(|(then, _)| at - then >= WINDOW) {
            self.window.pop_front();
        }
        if since > 0 {
            self.window.push_back((at, since));
        }
        // A counter that never increased needs no history.
        if since == 0 && self.points.is_empty() {
            return;
        }
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        let rate = if seconds > 0.0 { since as f64 / seconds } else { 0.0 };
        self.points.push_back((100.0 * rate).round() as f32 / 100.0);
        // There was no increase in the whole history, so the history is dropped.
        if self.points.len() == POINTS && self.points.iter().all(|&point| point == 0.0) {
            self.points = VecDeque::new();
        }
    }

    /// The rate with its history, at the end of the last interval: what was noted since is in neither the total nor the
    /// rate, so that both always agree.
    pub fn rate(&self) -> CounterRate {
        let recent = self.window.iter().map(|(_, count)| count).sum::<u64>();
        let per_second = if self.watched > 0.0 { recent as f64 / self.watched } else { 0.0 };
        let total = self.total.saturating_sub(self.since);
        CounterRate { total, per_second, recent, history: self.points.iter().copied().collect() }
    }

    /// The time of the last increase, also within the current interval.
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    /// The time of the last increase that is part of the [rate](CounterSeries::rate).
    pub fn last_shown(&self) -> Option<f64> {
        self.last_shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(at: f64, watched: f64) -> PollInterval {
        PollInterval { at, seconds: 1.0, watched }
    }

    #[test]
    fn the_first_poll_is_a_total_and_no_rate() {
        let mut series = CounterSeries::default();
        series.note(None, 1_000, 1.0);
        series.tick(PollInterval { at: 1.0, seconds: 0.0, watched: 0.0 });
        assert_eq!(series.rate(), CounterRate { total: 1_000, ..CounterRate::default() });
        series.note(Some(1_000), 1_004, 3.0);
        series.tick(PollInterval { at: 3.0, seconds: 2.0, watched: 2.0 });
        assert_eq!(series.rate(), CounterRate { total: 1_004, per_second: 2.0, recent: 4, history: vec![2.0] });
        assert_eq!(series.last(), Some(3.0));
    }

    #[test]
    fn between_two_intervals_the_total_and_the_rate_agree() {
        let mut series = CounterSeries::default();
        series.note(None, 10, 1.0);
        series.tick(PollInterval { at: 1.0, seconds: 0.0, watched: 0.0 });
        for now in 11..20 {
            series.note(Some(now - 1), now, now as f64);
            let before = series.rate();
            assert_eq!(before.total, 10 + before.recent);
            // Nothing is shown as refused zero times.
            assert_eq!(series.last_shown().is_some(), before.recent > 0);
            series.tick(tick(now as f64, now as f64));
            assert_eq!((series.rate().total, series.rate().recent), (now, now - 10));
        }
    }

    #[test]
    fn one_event_of_a_new_counter_is_one_in_half_a_minute() {
        let mut series = CounterSeries::default();
        series.note(Some(0), 1, 100.0);
        series.tick(tick(100.0, 100.0));
        assert_eq!(series.rate().flow(), RecentRate { per_second: 1.0 / 30.0, recent: 1 });
        for second in 1..30 {
            series.tick(tick(100.0 + f64::from(second), 100.0));
            assert_eq!(series.rate().recent, 1);
        }
        series.tick(tick(130.0, 130.0));
        assert_eq!(series.rate().flow(), RecentRate::default());
    }

    #[test]
    fn a_restarted_proxy_does_not_reduce_counts() {
        let mut series = CounterSeries::default();
        series.note(Some(0), 50, 1.0);
        series.note(Some(50), 3, 2.0);
        series.tick(tick(2.0, 2.0));
        assert_eq!(series.rate().total, 53);
    }

    #[test]
    fn history_is_bounded_and_forgotten_when_nothing_happens() {
        let mut series = CounterSeries::default();
        series.note(Some(0), 1, 1.0);
        for second in 0..POINTS {
            series.tick(tick(second as f64, second as f64));
        }
        assert_eq!(series.rate().history.len(), POINTS);
        series.tick(tick(POINTS as f64, POINTS as f64));
        assert_eq!(series.rate().history.len(), 0);
        assert_eq!(series.rate().total, 1);
    }
}
