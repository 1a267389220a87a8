//! The shared state of one breaker, and how a response changes it. Pure arithmetic.

/// Parts of the window. The oldest is dropped as a whole, so the window really covers 15/16 to 16/16 of its length.
const BUCKETS: usize = 16;

/// Percentage of the requests that probe while the breaker is half-open.
pub const PROBE_PERCENT: u64 = 10;

/// When the breaker opens and closes. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerThresholds {
    /// Length of the sliding window, at least 1 ms.
    pub window: u64,
    /// With fewer requests than this in the window the breaker does not decide.
    pub min_requests: u32,
    /// Opens when this percentage of the requests fails, 1–100.
    pub error_percent: Option<u32>,
    /// Opens when more than this many of ten thousand requests are slow: 100 for the 99th percentile.
    pub slow_share: Option<u32>,
    /// How long it stays open before it probes.
    pub cooldown: u64,
}

/// Counts of responses; they saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub requests: u32,
    /// 5xx, resets, timeouts.
    pub failures: u32,
    /// Above the latency limit.
    pub slow: u32,
}

impl Tally {
    /// Adds another count.
    pub fn add(&mut self, other: Tally) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// The phase of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All requests pass.
    Closed,
    /// No request passes.
    Open,
    /// A few requests pass as probes.
    HalfOpen,
}

/// A change of phase, and the counts that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// From closed, or back from half-open.
    Opened(Tally),
    /// The first probe has been answered.
    HalfOpened,
    /// The probes succeeded.
    Closed(Tally),
}

/// One part of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WindowPart {
    /// The number of the part since 1970: the time divided by the length of a part.
    number: u64,
    tally: Tally,
}

/// The state itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BreakerState {
    /// When it opened; 0 when it is closed.
    open_since: u64,
    /// The first probe has been answered.
    probing: bool,
    /// Page's cumulative sum over failures: see [`BreakerState::record`].
    score: f64,
    /// The responses of the probes.
    probes: Tally,
    buckets: [WindowPart; BUCKETS],
}

/// The phase of a breaker that opened at `open_since`, 0 for one that is closed.
///
/// After a step back of the clock the time of opening is in the future. It is then treated as now for one cooldown, so
/// that no breaker stays open for longer than two cooldowns, however far the clock steps.
pub fn phase(open_since: u64, now: u64, limits: &BreakerThresholds) -> Phase {
    if open_since == 0 {
        Phase::Closed
    } else if now.abs_diff(open_since) < limits.cooldown {
        Phase::Open
    } else {
        Phase::HalfOpen
    }
}

impl BreakerState {
    /// When it opened; 0: it is closed.
    pub fn open_since(&self) -> u64 {
        self.open_since
    }

    /// Records the end of requests.
    ///
    /// A closed breaker opens when over the window the share of failures or of slow answers reaches its limit, and also
    /// when failures come faster than that share can show: a long healthy past would hide a variant that has just
    /// broken. For that it keeps a cumulative sum (Page, "Continuous inspection schemes", Biometrika 1954): +1 for a
    /// failure, −t/(1−t) for a success with t the limit, never below 0 nor above the failures in the window. It opens
    /// at `min_requests`, which consecutive failures reach after exactly that many, and a share of failures well below
    /// t practically never reaches.
    ///
    /// A half-open breaker opens again as soon as its probes cannot get below the limit any more within `min_requests`,
    /// and closes after `min_requests` probes with at most half the limit, or four times as many below it.
    pub fn record(&mut self, tally: Tally, now: u64, limits: &BreakerThresholds) -> Option<Transition> {
        match phase(self.open_since, now, limits) {
            // These are late responses to requests from before it opened.
            Phase::Open => None,
            Phase::Closed => {
                let window = self.slide(tally, now, limits);
                self.sum(tally, window, limits);
                let row = limits.error_percent.is_some() && self.score >= f64::from(limits.min_requests);
                let open = row || (window.requests >= limits.min_requests && reaches(window, window.requests, limits));
                open.then(|| self.open(window, now))
            }
            Phase::HalfOpen => {
                let first = !self.probing;
                self.probing = true;
                self.probes.add(tally);
                let probes = self.probes;
                if reaches(probes, probes.requests.max(limits.min_requests), limits) {
                    return Some(self.open(probes, now));
                }
                let enough = probes.requests >= limits.min_requests;
                let clear = at_most_half(probes, limits);
                if (enough && clear) || probes.requests >= limits.min_requests.saturating_mul(4) {
                    *self = BreakerState::default();
                    return Some(Transition::Closed(probes));
                }
                first.then_some(Transition::HalfOpened)
            }
        }
    }

    fn open(&mut self, because: Tally, now: u64) -> Transition {
        *self = BreakerState { open_since: now.max(1), ..BreakerState::default() };
        Transition::Opened(because)
    }

    /// Adds to the window and returns the counts over the whole window.
    fn slide(&mut self, tally: Tally, now: u64, limits: &BreakerThresholds) -> Tally {
        let number = now / (limits.window / BUCKETS as u64).max(1);
        if let Some(bucket) = self.buckets.get_mut((number % BUCKETS as u64) as usize) {
            if bucket.number != number {
                *bucket = WindowPart { number, tally: Tally::default() };
            }
            bucket.tally.add(tally);
        }
        let live = |bucket: &&WindowPart| number.checked_sub(bucket.number).is_some_and(|age| age < BUCKETS as u64);
        let mut window = Tally::default();
        self.buckets.iter().filter(live).for_each(|bucket| window.add(bucket.tally));
        window
    }

    fn sum(&mut self, tally: Tally, window: Tally, limits: &BreakerThresholds) {
        let limit = f64::from(limits.error_percent.unwrap_or(100)) / 100.0;
        let successes = tally.requests.saturating_sub(tally.failures);
        self.score += f64::from(tally.failures);
        if successes > 0 {
            // With a limit of 100 % any success resets it to 0.
            self.score -= f64::from(successes) * limit / (1.0 - limit);
        }
        self.score = self.score.clamp(0.0, f64::from(window.failures));
    }
}

/// Whether failures or slow answers among `requests` reach a limit.
fn reaches(tally: Tally, requests: u32, limits: &BreakerThresholds) -> bool {
    let (failures, slow, requests) = (u64::from(tally.failures), u64::from(tally.slow), u64::from(requests));
    let failing =
        limits.error_percent.is_some_and(|percent| failures > 0 && failures * 100 >= u64::from(percent) * requests);
    // The nearest-rank percentile is above the limit exactly when more than this share of the answers is.
    let slowing = limits.slow_share.is_some_and(|share| slow * 10_000 > u64::from(share) * requests);
    failing || slowing
}

/// Whether failures and slow answers are at most half as many as their limits allow.
fn at_most_half(tally: Tally, limits: &BreakerThresholds) -> bool {
    let (failures, slow, requests) = (u64::from(tally.failures), u64::from(tally.slow), u64::from(tally.requests));
    limits.error_percent.is_none_or(|percent| failures * 200 <= u64::from(percent) * requests)
        && limits.slow_share.is_none_or(|share| slow * 20_000 <= u64::from(share) * requests)
}

/// The first bytes of a stored state, which name its layout.
const LAYOUT: u8 = 1;

impl BreakerState {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(LAYOUT);
        out.push(u8::from(self.probing));
        out.extend(self.open_since.to_le_bytes());
        out.extend(self.score.to_bits().to_le_bytes());
        let tally = |tally: Tally, out: &mut Vec<u8>| {
            for count in [tally.requests, tally.failures, tally.slow] {
                out.extend(count.to_le_bytes());
            }
        };
        tally(self.probes, out);
        for bucket in self.buckets {
            out.extend(bucket.number.to_le_bytes());
            tally(bucket.tally, out);
        }
    }

    /// Reads what [`BreakerState::encode`] wrote; anything else is a closed breaker that has seen nothing.
    pub fn decode(bytes: &[u8]) -> BreakerState {
        BreakerState::read(bytes).unwrap_or_default()
    }

    fn read(mut bytes: &[u8]) -> Option<BreakerState> {
        let &[layout, probing] = take::<2>(&mut bytes)?;
        let mut state = BreakerState {
            probing: probing != 0,
            open_since: u64::from_le_bytes(*take(&mut bytes)?),
            score: f64::from_bits(u64::from_le_bytes(*take(&mut bytes)?)),
            probes: read_tally(&mut bytes)?,
            buckets: Default::default(),
        };
        for bucket in &mut state.buckets {
            *bucket = WindowPart { number: u64::from_le_bytes(*take(&mut bytes)?), tally: read_tally(&mut bytes)? };
        }
        (layout == LAYOUT && bytes.is_empty() && state.score.is_finite()).then_some(state)
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

fn read_tally(bytes: &mut &[u8]) -> Option<Tally> {
    let mut number = || take(bytes).map(|bytes| u32::from_le_bytes(*bytes));
    Some(Tally { requests: number()?, failures: number()?, slow: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn limits() -> BreakerThresholds {
        BreakerThresholds {
            window: 60 * SECOND,
            min_requests: 50,
            error_percent: Some(5),
            slow_share: None,
            cooldown: 600 * SECOND,
        }
    }

    fn ok() -> Tally {
        Tally { requests: 1, ..Tally::default() }
    }

    fn failed() -> Tally {
        Tally { requests: 1, failures: 1, slow: 0 }
    }

    fn opened(transition: Option<Transition>) -> bool {
        matches!(transition, Some(Transition::Opened(_)))
    }

    #[test]
    fn nothing_happens_below_the_minimum_and_the_limit_counts_as_reached() {
        let mut state = BreakerState::default();
        for i in 0..49 {
            assert_eq!(state.record(if i < 3 { failed() } else { ok() }, START, &limits()), None);
        }
        let window = Tally { requests: 50, failures: 3, slow: 0 };
        assert_eq!(state.record(ok(), START, &limits()), Some(Transition::Opened(window)));
        let mut state = BreakerState::default();
        for i in 0..1000 {
            assert_eq!(state.record(if i % 50 == 49 { failed() } else { ok() }, START, &limits()), None);
        }
    }

    #[test]
    fn a_long_healthy_past_hides_nothing() {
        let mut state = BreakerState::default();
        for i in 0..30_000 {
            assert_eq!(state.record(ok(), START + i * SECOND / 500, &limits()), None);
        }
        let broken = START + 60 * SECOND;
        let first = (0..).find(|i| opened(state.record(failed(), broken + i * SECOND / 500, &limits())));
        assert_eq!(first, Some(49), "the fiftieth failure in a row");
    }

    #[test]
    fn a_healthy_variant_stays_over_a_million_requests() {
        let mut state = BreakerState::default();
        let mut dice = 7_u64;
        let mut failures = 0;
        for i in 0..1_000_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let fails = (dice >> 33) % 1000 < 5;
            failures += u32::from(fails);
            let now = START + i * SECOND / 500;
            assert_eq!(state.record(if fails { failed() } else { ok() }, now, &limits()), None, "request {i}");
        }
        assert!((4500..5500).contains(&failures), "{failures}");
    }

    #[test]
    fn failures_leave_with_the_window() {
        let mut state = BreakerState::default();
        for i in 0..500 {
            // One a second, all failing, but never 100 in a window of 60 s.
            let limits = BreakerThresholds { min_requests: 100, ..limits() };
            assert_eq!(state.record(failed(), START + i * SECOND, &limits), None, "{i}");
        }
    }

    #[test]
    fn a_percentile_is_exceeded_when_more_than_the_rest_is_slow() {
        let limits = BreakerThresholds { error_percent: None, slow_share: Some(100), min_requests: 200, ..limits() };
        let slow = Tally { requests: 1, failures: 0, slow: 1 };
        let mut state = BreakerState::default();
        for i in 0..200 {
            assert_eq!(
                state.record(if i < 2 { slow } else { ok() }, START, &limits),
                None,
                "2 of 200 is 1 %: not above"
            );
        }
        for _ in 0..100 {
            assert_eq!(state.record(ok(), START, &limits), None);
        }
        assert_eq!(state.record(slow, START, &limits), None);
        assert!(opened(state.record(slow, START, &limits)), "4 of 302");
    }

    fn open() -> BreakerState {
        let mut state = BreakerState::default();
        assert!((0..50).any(|_| opened(state.record(failed(), START, &limits()))));
        state
    }

    #[test]
    fn a_clock_that_steps_back_keeps_it_open_for_one_more_cooldown_at_most() {
        let limits = limits();
        for (back, expected) in
            [(1, Phase::Open), (599, Phase::Open), (600, Phase::HalfOpen), (86_400, Phase::HalfOpen)]
        {
            assert_eq!(phase(START, START - back * SECOND, &limits), expected, "{back} s");
        }
    }

    #[test]
    fn it_probes_after_the_cooldown_and_closes_when_the_probes_are_good() {
        let limits = limits();
        let mut state = open();
        assert_eq!(phase(state.open_since(), START + 600 * SECOND - 1, &limits), Phase::Open);
        assert_eq!(state.record(failed(), START + SECOND, &limits), None, "late answers change nothing");
        let now = START + 600 * SECOND;
        assert_eq!(phase(state.open_since(), now, &limits), Phase::HalfOpen);
        assert_eq!(state.record(ok(), now, &limits), Some(Transition::HalfOpened));
        for _ in 1..49 {
            // Hours apart: a few probes are enough.
            assert_eq!(state.record(ok(), now + 3600 * SECOND, &limits), None);
        }
        let probes = Tally { requests: 50, ..Tally::default() };
        assert_eq!(state.record(ok(), now, &limits), Some(Transition::Closed(probes)));
        assert_eq!(state, BreakerState::default());
    }

    #[test]
    fn it_opens_again_as_soon_as_the_probes_cannot_be_good_any_more() {
        let mut state = open();
        let now = START + 600 * SECOND;
        assert_eq!(state.record(failed(), now, &limits()), Some(Transition::HalfOpened));
        assert_eq!(state.record(failed(), now, &limits()), None);
        assert!(opened(state.record(failed(), now, &limits())), "3 of 50 is above 5 %");
        assert_eq!(phase(state.open_since(), now + 599 * SECOND, &limits()), Phase::Open);
    }

    #[test]
    fn between_half_the_limit_and_the_limit_it_looks_longer() {
        // 2 of 50 is 4 %: neither bad (5) nor clear (2.5).
        let mut state = open();
        let now = START + 600 * SECOND;
        let answer = |i: u32| if i % 25 == 24 { failed() } else { ok() };
        assert_eq!(state.record(answer(0), now, &limits()), Some(Transition::HalfOpened));
        for i in 1..199 {
            assert_eq!(state.record(answer(i), now, &limits()), None, "{i}");
        }
        assert!(matches!(state.record(answer(199), now, &limits()), Some(Transition::Closed(_))));
    }

    #[test]
    fn with_more_than_half_of_the_allowed_slow_answers_it_probes_longer() {
        let limits = BreakerThresholds { error_percent: None, slow_share: Some(1_000), ..limits() };
        let slow = Tally { requests: 1, failures: 0, slow: 1 };
        // A tenth may be slow. Half of that are 2 of 50; 3 of 50 are more.
        for (every, enough) in [(25, 50), (15, 200)] {
            let mut state = BreakerState { open_since: START, ..BreakerState::default() };
            let now = START + 600 * SECOND;
            let mut answer = |i| state.record(if i % every == 0 { slow } else { ok() }, now, &limits);
            assert_eq!(answer(1), Some(Transition::HalfOpened));
            let closed = (2..=200).find(|i| matches!(answer(*i), Some(Transition::Closed(_))));
            assert_eq!(closed, Some(enough), "one of {every} is slow");
        }
    }

    #[test]
    fn a_breaker_that_opens_at_time_0_is_open() {
        let limits = limits();
        let mut state = BreakerState::default();
        assert!((0..50).any(|_| opened(state.record(failed(), 0, &limits))));
        assert_eq!(phase(state.open_since(), 0, &limits), Phase::Open);
        assert_eq!(phase(state.open_since(), 600 * SECOND + 1, &limits), Phase::HalfOpen);
    }

    #[test]
    fn a_limit_of_a_hundred_percent_wants_nothing_but_failures() {
        let limits = BreakerThresholds { error_percent: Some(100), min_requests: 10, ..limits() };
        let mut state = BreakerState::default();
        for i in 0..1000 {
            assert_eq!(state.record(if i % 9 == 8 { ok() } else { failed() }, START, &limits), None, "{i}");
        }
        assert!((0..20).any(|_| opened(state.record(failed(), START, &limits))));
    }

    #[test]
    fn what_is_stored_is_read_and_rubbish_is_a_closed_breaker() {
        let mut state = open();
        state.record(ok(), START + 600 * SECOND, &limits());
        let mut closed = BreakerState::default();
        closed.record(failed(), START, &limits());
        for state in [state, closed, BreakerState::default()] {
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            assert_eq!(BreakerState::decode(&bytes), state);
            for end in 0..bytes.len() {
                assert_eq!(BreakerState::decode(&bytes[..end]), BreakerState::default());
            }
            bytes[0] = 9;
            assert_eq!(BreakerState::decode(&bytes), BreakerState::default());
        }
    }
}
