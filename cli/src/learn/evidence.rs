//! Counts how often and over how long something occurred, which separates regular use from accidents.
//!
//! Repetitions of a request within one minute count once, so that a burst of retries is not regular use. Days count
//! only when they are half a day apart, so that an hour around midnight is one day. Both numbers only grow with more
//! input, in any order.

use std::hash::{DefaultHasher, Hash, Hasher};

use penstock_policy::Timestamp;
use smallvec::SmallVec;

/// The thresholds for learning something.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceThresholds {
    /// Requests of one caller to one destination.
    pub requests: u32,
    /// The number of different days.
    pub days: u32,
}

impl EvidenceThresholds {
    /// Requests with one method.
    pub fn method(self) -> u32 {
        self.requests.div_ceil(2)
    }

    /// Requests for one path, or below one prefix.
    pub fn path(self) -> u32 {
        self.requests.min(3)
    }
}

/// One request, reduced to what is counted.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The time; `None` when unknown.
    pub time: Option<Timestamp>,
    /// Equal for repetitions within a minute.
    hash: u32,
}

const SECOND: u64 = 1_000_000_000;

impl Sighting {
    /// Makes a sighting from what distinguishes the request (`what`). Without a time, each `number` is a separate
    /// sighting.
    pub fn new(time: Option<Timestamp>, number: u64, what: &[&str]) -> Sighting {
        let mut hasher = DefaultHasher::new();
        match time {
            Some(time) => (time.0 / (60 * SECOND), what).hash(&mut hasher),
            None => number.hash(&mut hasher),
        }
        let hash = hasher.finish();
        Sighting { time, hash: u32::try_from(hash >> 32).unwrap_or_default() }
    }
}

/// The evidence for one thing.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// All requests.
    pub requests: u64,
    /// The first and the last time.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Different sightings in ascending order, as many as the thresholds need.
    sightings: SmallVec<[u32; 4]>,
    /// Different hours since 1970 in ascending order, until they make enough days.
    hours: SmallVec<[u32; 4]>,
}

impl Evidence {
    /// Adds a request.
    pub fn add(&mut self, sighting: &Sighting, thresholds: EvidenceThresholds) {
        self.requests += 1;
        if let Some(time) = sighting.time {
            self.stretch(time, time);
            self.add_hour(u32::try_from(time.0 / (3600 * SECOND)).unwrap_or(u32::MAX), thresholds);
        }
        self.add_sighting(sighting.hash, thresholds);
    }

    /// Adds the evidence of `other`.
    pub fn absorb(&mut self, other: &Evidence, thresholds: EvidenceThresholds) {
        self.requests += other.requests;
        if let Some((first, last)) = other.span {
            self.stretch(first, last);
        }
        other.hours.iter().for_each(|hour| self.add_hour(*hour, thresholds));
        other.sightings.iter().for_each(|sighting| self.add_sighting(*sighting, thresholds));
    }

    /// Whether there were this many different requests, on enough days.
    pub fn is_enough(&self, requests: u32, thresholds: EvidenceThresholds) -> bool {
        self.requests > 0 && self.sightings.len() >= requests as usize && self.has_days(thresholds.days)
    }

    /// Whether it occurred on this many days.
    fn has_days(&self, days: u32) -> bool {
        self.requests > 0 && self.days().max(1) >= days
    }

    fn stretch(&mut self, first: Timestamp, last: Timestamp) {
        let (begin, end) = self.span.unwrap_or((first, last));
        self.span = Some((begin.min(first), end.max(last)));
    }

    fn add_sighting(&mut self, hash: u32, thresholds: EvidenceThresholds) {
        if self.sightings.len() < thresholds.requests as usize
            && let Err(at) = self.sightings.binary_search(&hash)
        {
            self.sightings.insert(at, hash);
        }
    }

    fn add_hour(&mut self, hour: u32, thresholds: EvidenceThresholds) {
        if let Err(at) = self.hours.binary_search(&hour)
            && self.days() < thresholds.days
        {
            self.hours.insert(at, hour);
        }
    }

    /// The largest number of days that can be chosen from the hours with half a day between them.
    fn days(&self) -> u32 {
        let (mut days, mut next) = (0, 0);
        for &hour in &self.hours {
            if hour >= next {
                days += 1;
                next = (hour.saturating_add(12)).max((hour / 24 + 1).saturating_mul(24));
            }
        }
        days
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: EvidenceThresholds = EvidenceThresholds { requests: 5, days: 2 };

    fn seen(times: &[(&str, &str)]) -> Evidence {
        let mut evidence = Evidence::default();
        for (time, path) in times {
            let sighting = Sighting::new(Timestamp::parse(time), 0, &["GET", path]);
            evidence.add(&sighting, THRESHOLDS);
        }
        evidence
    }

    #[test]
    fn retries_within_a_minute_count_once() {
        let storm = vec![("2026-11-01T10:00:00Z", "/a"); 1000];
        let evidence = seen(&storm);
        assert_eq!((evidence.requests, evidence.sightings.len()), (1000, 1));
        let others =
            seen(&[("2026-11-01T10:00:00Z", "/a"), ("2026-11-01T10:00:00Z", "/b"), ("2026-11-01T10:01:00Z", "/a")]);
        assert_eq!(others.sightings.len(), 3);
    }

    #[test]
    fn an_hour_around_midnight_is_one_day() {
        let days = |times: &[&str]| {
            let evidence = seen(&times.iter().map(|time| (*time, "/")).collect::<Vec<_>>());
            (1..=3).filter(|days| evidence.has_days(*days)).max()
        };
        assert_eq!(days(&["2026-11-01T23:50:00Z", "2026-11-02T00:10:00Z"]), Some(1));
        assert_eq!(days(&["2026-11-01T08:00:00Z", "2026-11-01T22:00:00Z"]), Some(1));
        assert_eq!(days(&["2026-11-01T23:50:00Z", "2026-11-02T23:40:00Z"]), Some(2));
        assert_eq!(days(&["2026-11-01T02:05:00Z", "2026-11-02T02:00:00Z"]), Some(2));
    }

    #[test]
    fn without_a_time_every_request_is_its_own_and_all_are_one_day() {
        let mut evidence = Evidence::default();
        (0..9).for_each(|number| evidence.add(&Sighting::new(None, number, &["GET", "/"]), THRESHOLDS));
        assert!(evidence.is_enough(5, EvidenceThresholds { requests: 5, days: 1 }));
        assert!(!evidence.is_enough(5, THRESHOLDS));
    }

    #[test]
    fn evidence_is_the_same_in_any_order_and_when_it_is_put_together() {
        let times = ["2026-11-01T10:00:00Z", "2026-11-03T10:00:00Z", "2026-11-01T11:00:00Z", "2026-11-02T00:00:00Z"];
        let all: Vec<(&str, &str)> = times.iter().map(|time| (*time, "/")).collect();
        let reversed: Vec<(&str, &str)> = all.iter().rev().copied().collect();
        let (mut first, second) = (seen(&all[..2]), seen(&all[2..]));
        first.absorb(&second, THRESHOLDS);
        for evidence in [seen(&all), seen(&reversed), first] {
            assert_eq!((evidence.requests, evidence.span), (4, seen(&all).span));
            assert!(evidence.is_enough(4, THRESHOLDS) && !evidence.is_enough(5, THRESHOLDS));
        }
    }
}
