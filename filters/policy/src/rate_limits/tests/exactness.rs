//! The definition of the contract with exact fractions: TAT and interval in units of 1/requests ns.

use super::*;
use proptest::prelude::*;
use rate::Rate;

pub(super) struct Model {
    requests: u128,
    per: u128,
    burst: u128,
    /// Theoretical arrival time · requests.
    arrival: u128,
}

impl Model {
    pub(super) fn new(requests: u32, per: std::time::Duration, burst: u32) -> Model {
        Model { requests: requests.into(), per: per.as_nanos(), burst: burst.into(), arrival: 0 }
    }

    pub(super) fn passes(&mut self, now: u64, cost: u32) -> bool {
        let now = u128::from(now) * self.requests;
        let arrival = self.arrival.max(now) + u128::from(cost) * self.per;
        let passes = arrival - now <= self.burst * self.per;
        if passes {
            self.arrival = arrival;
        }
        passes
    }

    /// The first nanosecond at which a request of cost 1 passes.
    fn next(&self) -> u64 {
        let slack = (self.burst - 1) * self.per;
        u64::try_from(self.arrival.saturating_sub(slack).div_ceil(self.requests)).unwrap()
    }
}

fn durations() -> impl Strategy<Value = u64> {
    prop_oneof![1_u64..10_000, 1_u64..100_000_000, Just(1_000), Just(60_000), Just(3_600_000)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn every_limit_is_exact_to_the_nanosecond(
        requests in prop_oneof![1_u32..100, 1_u32..1_000_000_000],
        millis in durations(),
        burst in 1_u32..40,
        start in 0_u64..4_000_000_000_000_000_000,
        steps in prop::collection::vec((0_u8..5, any::<u32>(), 1_u32..5), 1..60),
    ) {
        let per = std::time::Duration::from_millis(millis);
        let rate = Rate::new(requests, per, burst);
        let mut model = Model::new(requests, per, burst);
        let mut now = Timestamp(start);
        let mut set = Vec::new();
        let mut take = |now: Timestamp, cost: u32| {
            let mut new = Vec::new();
            let bucket = set::advance(&set, &rate, now, 5, &mut new).bucket();
            let passes = rate.allows(bucket.debt, cost);
            if passes {
                bucket.owe(bucket.debt + rate.price(cost), &mut new);
                set = new;
            }
            passes
        };
        // From idle exactly `burst` pass at one instant …
        for i in 0..burst + 2 {
            prop_assert_eq!(take(now, 1), i < burst);
            prop_assert_eq!(model.passes(now.0, 1), i < burst);
        }
        // … then one each per/requests, to the nanosecond, however time goes on.
        for (how, by, cost) in steps {
            match how {
                0 => now.0 = model.next().max(now.0),
                1 => now.0 = (model.next() - 1).max(now.0),
                2 => now.0 += u64::from(by),
                3 => now.0 += u64::try_from(per.as_nanos()).unwrap() / u64::from(requests),
                _ => {}
            }
            let cost = if how < 2 { 1 } else { cost };
            prop_assert_eq!(take(now, cost), model.passes(now.0, cost), "{} {} {}", how, now.0, cost);
        }
    }
}
