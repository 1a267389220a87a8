//! Workers that race for one bucket over the proxy's shared data, with leases, against an exact limit.

use std::net::IpAddr;

use penstock_policy::module::Suite;
use penstock_policy::state::{Change, Key, State, Unavailable};
use penstock_policy::{Action, Environment, Policy, Request, Timestamp, Trace, WorkerMemory};
use proptest::prelude::*;

use super::tests::{Worker, worker};
use penstock_host::testing::{self, with as host};

/// A worker with all that it remembers.
struct Racer {
    worker: Worker,
    memory: WorkerMemory,
    now: Timestamp,
}

impl State for Racer {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        self.worker.update(key, change)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        self.worker.read(key, read)
    }
}

impl Trace for Racer {}

impl Environment for Racer {
    fn now(&mut self) -> Timestamp {
        self.now
    }
    fn source_address(&mut self) -> Option<IpAddr> {
        None
    }
    fn has_tls(&mut self) -> Option<bool> {
        None
    }
    fn sni(&mut self) -> Option<Vec<u8>> {
        None
    }
    fn peer(&mut self) -> Option<Vec<u8>> {
        None
    }
    fn random(&mut self) -> u64 {
        7
    }
    fn worker(&mut self) -> &mut WorkerMemory {
        &mut self.memory
    }
}

/// Theoretical arrival times in units of 1/requests ns.
struct ExactLimit {
    requests: u128,
    per: u128,
    burst: u128,
    arrival: u128,
}

impl ExactLimit {
    fn passes(&mut self, now: u64) -> bool {
        let now = u128::from(now) * self.requests;
        let arrival = self.arrival.max(now) + self.per;
        let passes = arrival - now <= self.burst * self.per;
        if passes {
            self.arrival = arrival;
        }
        passes
    }
}

fn passes(policy: &Policy<Suite>, racer: &mut Racer) -> bool {
    let headers: [(&[u8], &[u8]); 2] = [(b":method", b"GET"), (b":path", b"/")];
    let decision = policy.decide(&Request::new(&headers), racer).unwrap();
    matches!(decision.action, Action::Continue)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn racing_workers_pass_what_an_exact_limit_would_and_lose_nothing(
        requests in 1_u32..20_000,
        burst in prop_oneof![1_u32..1_000, 600_u32..4_000],
        rounds in prop::collection::vec((prop::collection::vec(0_usize..4, 1..100), 0_u64..3_000_000, any::<bool>()), 1..20),
    ) {
        testing::reset();
        let json = format!(r#"{{"rateLimits":[{{"name":"l","key":[],"limit":{{"requests":{requests},"per":"1s","burst":{burst}}}}}]}}"#);
        let policy: Policy<Suite> = Policy::from_json(json.as_bytes()).unwrap();
        let mut now = Timestamp(1_700_000_000_000_000_000);
        let racer = |now| Racer { worker: worker(policy.tables()), memory: WorkerMemory::new(true), now };
        let mut racers: Vec<Racer> = (0..4).map(|_| racer(now)).collect();
        let mut exact = ExactLimit { requests: requests.into(), per: 1_000_000_000, burst: burst.into(), arrival: 0 };
        let (mut sent, mut total) = (0_usize, 0_usize);
        for (turns, wait, ticks) in rounds {
            for turn in turns {
                // One burst at a time from each, so that guesses at tokens are right now and wrong then.
                for _ in 0..=turn * 7 {
                    racers[turn].now = now;
                    sent += 1;
                    if passes(&policy, &mut racers[turn]) {
                        total += 1;
                        prop_assert!(exact.passes(now.0), "one too many");
                    }
                }
            }
            now.0 += wait;
            if ticks {
                racers.iter_mut().for_each(|racer| { racer.now = now; policy.return_leases(racer); });
            }
        }
        prop_assert!(total > 0);
        // Fewer calls than requests, wherever leases can help at all.
        if burst > 2_000 && sent > 1_500 {
            let calls = host(|host| host.calls.len());
            prop_assert!(calls < sent, "{calls} calls for {sent} requests");
        }
        racers.iter_mut().for_each(|racer| { racer.now = now; policy.return_leases(racer); });
        // Whatever was not spent is there again, at the latest when the bucket would be full.
        now.0 += u64::from(burst).div_ceil(u64::from(requests)) * 1_000_000_000 + 5_000_000_000;
        racers[0].now = now;
        racers[0].memory = WorkerMemory::new(false);
        let there = (0..=burst).filter(|_| passes(&policy, &mut racers[0])).count();
        prop_assert_eq!(there, burst as usize);
    }
}
