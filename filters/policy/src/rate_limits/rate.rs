//! The arithmetic: GCRA, the generic cell rate algorithm (ITU-T I.371), exact.
//!
//! GCRA keeps for each key the time at which its bucket will be full again (the theoretical arrival time). Here that
//! time is kept as its distance from the time of the last write, the *debt*: the same information, but it stays small,
//! and when the clock steps back it stays what it is instead of locking the client out.
//!
//! A request of cost c adds c · per/requests to the debt and passes while the debt stays at or below burst ·
//! per/requests; each nanosecond that goes by takes one off. The quotient is rarely a whole number of nanoseconds, and
//! rounding it would drift, so debts are counted in *ticks* of 1/r nanoseconds, where p/r is per/requests in lowest
//! terms: then one request is exactly p ticks, one nanosecond exactly r, and nothing is ever rounded.
//!
//! Ranges: requests, burst and cost up to 10⁹ and `per` up to 1.44 · 10¹⁸ ns (the longest Gateway API duration) make a
//! debt of at most 1.44 · 10²⁷ ticks, less than 2⁹¹: 12 bytes, and no sum overflows a `u128`.

use std::time::Duration;

use crate::timestamp::Timestamp;

/// The time until a bucket is full again, in ticks of its [`Rate`].
pub(super) type Debt = u128;

/// The rate at which a bucket is refilled, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// The cost of one request, in ticks: p.
    pub(super) interval: u64,
    /// Ticks in a nanosecond: r.
    pub(super) ticks: u32,
    /// Requests that pass at one instant.
    pub(super) burst: u32,
}

impl Rate {
    /// `requests` in the time `per`, `burst` of them at once. `requests` and `per` are above zero.
    pub(super) fn new(requests: u32, per: Duration, burst: u32) -> Rate {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let requests = u64::from(requests);
        let divisor = greatest_common_divisor(per, requests).max(1);
        let ticks = u32::try_from(requests / divisor).unwrap_or(u32::MAX);
        Rate { interval: (per / divisor).max(1), ticks: ticks.max(1), burst }
    }

    /// Whether these numbers are valid for a rate.
    pub(super) fn is_one(&self) -> bool {
        self.interval > 0 && self.ticks > 0 && self.burst > 0
    }

    /// Converts a debt at the rate `before` to this rate: the same share of the burst, rounded up. A full bucket stays
    /// full, an empty one empty, and converting back and forth changes nothing.
    pub(super) fn converted(&self, debt: Debt, before: &Rate) -> Debt {
        let (from, to) = (Debt::from(before.interval), Debt::from(self.interval));
        // Computed in whole requests and a fraction, so that no product of valid numbers overflows.
        let requests = (debt / from).saturating_mul(to).saturating_add((debt % from * to).div_ceil(from));
        let share = requests.saturating_mul(self.burst.into()).div_ceil(before.burst.into());
        share.min(self.most())
    }

    /// The debt of a bucket that is empty.
    fn most(&self) -> Debt {
        Debt::from(self.burst) * Debt::from(self.interval)
    }

    /// The debt that a request of `cost` adds.
    pub(super) fn price(&self, cost: u32) -> Debt {
        Debt::from(cost) * Debt::from(self.interval)
    }

    /// The rest of `debt` after `nanos`.
    pub(super) fn drained(&self, debt: Debt, nanos: u64) -> Debt {
        debt.saturating_sub(Debt::from(nanos) * Debt::from(self.ticks))
    }

    /// Whether a request of `cost` passes.
    pub(super) fn allows(&self, debt: Debt, cost: u32) -> bool {
        debt + self.price(cost) <= self.most()
    }

    /// A debt that may exceed what a bucket holds, because a request has cost more than was known beforehand; at most
    /// what can be stored.
    pub(super) fn overdrawn(&self, debt: Debt, cost: u32) -> Debt {
        (debt + self.price(cost)).min((1 << 96) - 1)
    }

    /// Nanoseconds until a request of `cost` would pass, rounded up; for one that costs more than the bucket holds,
    /// until the bucket is full.
    pub(super) fn wait(&self, debt: Debt, cost: u32) -> u64 {
        let missing = (debt + self.price(cost.min(self.burst))).saturating_sub(self.most());
        u64::try_from(missing.div_ceil(Debt::from(self.ticks))).unwrap_or(u64::MAX)
    }

    /// Nanoseconds until the bucket is full, rounded up.
    pub(super) fn until_full(&self, debt: Debt) -> u64 {
        u64::try_from(debt.div_ceil(Debt::from(self.ticks))).unwrap_or(u64::MAX)
    }

    /// How many requests of cost 1 would pass now.
    pub(super) fn remaining(&self, debt: Debt) -> u32 {
        let left = self.most().saturating_sub(debt) / Debt::from(self.interval);
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

/// Seconds, rounded up.
pub(super) fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

/// If the clock is behind the last write by up to this time, the last write's time is used: workers do not read the
/// clock at the same moment, and a debt must not be drained twice. If it is further behind, its time is used.
const PATIENCE: u64 = 1_000_000_000;

/// The time of the decision, and the time that has passed, for a state that was written at `base`.
pub(super) fn elapsed(base: Timestamp, now: Timestamp) -> (Timestamp, u64) {
    match now.0.checked_sub(base.0) {
        Some(nanos) => (now, nanos),
        None if base.0 - now.0 <= PATIENCE => (base, 0),
        None => (now, 0),
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_rate_is_kept_in_lowest_terms() {
        let rate = Rate::new(100, Duration::from_secs(60), 20);
        assert_eq!((rate.interval, rate.ticks), (600_000_000, 1));
        let rate = Rate::new(7, Duration::from_secs(1), 7);
        assert_eq!((rate.interval, rate.ticks), (1_000_000_000, 7));
    }

    #[test]
    fn the_largest_limit_that_can_be_written_does_not_overflow() {
        const MOST: u32 = 1_000_000_000;
        let longest = Duration::from_secs(4 * 99_999 * 3_600);
        for requests in [1, MOST, MOST - 1] {
            let rate = Rate::new(requests, longest, MOST);
            assert!(rate.allows(0, MOST));
            let debt = rate.price(MOST);
            assert!(debt < 1 << 96);
            assert!(!rate.allows(debt, 1) && rate.wait(debt, MOST) > 0);
            assert_eq!((rate.remaining(debt), rate.remaining(0)), (0, MOST));
            assert_eq!(
                rate.drained(debt, u64::MAX),
                debt.saturating_sub(u128::from(u64::MAX) * u128::from(rate.ticks))
            );
        }
    }

    #[test]
    fn the_wait_is_over_to_the_nanosecond() {
        // 3 a second: 333,333,333⅓ ns each.
        let rate = Rate::new(3, Duration::from_secs(1), 3);
        let debt = rate.price(3);
        assert_eq!(rate.wait(debt, 1), 333_333_334);
        assert!(!rate.allows(rate.drained(debt, 333_333_333), 1));
        assert!(rate.allows(rate.drained(debt, 333_333_334), 1));
        // Three thirds are a second: nothing drifts.
        assert_eq!(rate.wait(debt, 3), 1_000_000_000);
        assert!(rate.allows(rate.drained(debt, 1_000_000_000), 3));
        assert_eq!(rate.until_full(debt), 1_000_000_000);
    }

    #[test]
    fn a_clock_that_steps_back_a_little_is_waited_for_and_a_lot_is_believed() {
        let at = |seconds: u64| Timestamp(seconds * 1_000_000_000);
        assert_eq!(elapsed(at(10), at(12)), (at(12), 2_000_000_000));
        assert_eq!(elapsed(at(10), at(9)), (at(10), 0));
        assert_eq!(elapsed(at(10), at(8)), (at(8), 0));
    }
}
