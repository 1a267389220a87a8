//! Workers that take requests in advance, against an exact limit.

use super::exactness::Model;
use super::*;
use crate::worker_memory::WorkerMemory;
use proptest::prelude::*;

const MILLI: u64 = 1_000_000;

/// 1,000 a second, 4,000 at once.
const WIDE: &str = r#"{"name":"wide","key":[],"limit":{"requests":1000,"per":"1s","burst":4000}}"#;

fn leasing<'s>(shared: &'s RefCell<Shared>) -> Worker<'s> {
    let mut worker = Worker::new(shared);
    worker.memory = WorkerMemory::new(true);
    worker
}

/// How many of `tries` pass, and how many of all asked the shared state.
fn passed_and_asked(policy: &Policy<module::RateLimit>, worker: &mut Worker<'_>, tries: usize) -> (usize, usize) {
    let before = worker.updates;
    let passed = passed(policy, worker, &[], tries);
    (passed, worker.updates - before)
}

#[test]
fn far_from_the_edge_few_requests_ask_the_shared_state_and_near_it_all_do() {
    let shared = RefCell::default();
    let mut worker = leasing(&shared);
    let policy = policy(WIDE);
    let (passed, asked) = passed_and_asked(&policy, &mut worker, 2_000);
    assert_eq!(passed, 2_000);
    assert!(asked < 60, "{asked}");
    // Exactly the burst passes, and the last 500 one by one.
    assert_eq!(passed_and_asked(&policy, &mut worker, 1_500).0, 1_500);
    assert_eq!(passed_and_asked(&policy, &mut worker, 700), (500, 700));
}

#[test]
fn room_for_leases_is_needed_only_where_a_limit_may_be_taken_from_in_advance() {
    let may_lease = |limits: &str| policy(limits).may_lease();
    assert!(may_lease(WIDE));
    let rest = |more: &str| WIDE.replace(r#","burst":4000}"#, &format!("}},{more}"));
    for (more, expected) in [
        (r#""mode":"Shadow""#, true),
        (r#""exact":true"#, false),
        (r#""quotaHeaders":"IETF""#, false),
        (r#""scope":{"global":{"cluster":"c","domain":"d"}}"#, false),
    ] {
        assert_eq!(may_lease(&rest(more)), expected, "{more}");
    }
    // One is enough.
    let exact = rest(r#""exact":true"#).replace("wide", "exact");
    assert!(may_lease(&format!("{exact},{WIDE}")));
    let without = Policy::<module::Suite>::from_json(br#"{"routes":{"default":"r"}}"#).unwrap();
    assert!(!without.may_lease());
}

#[test]
fn what_a_worker_has_not_spent_is_there_for_others_when_it_gives_it_back() {
    let shared = RefCell::default();
    let (mut one, mut other) = (leasing(&shared), leasing(&shared));
    let policy = policy(WIDE);
    assert_eq!(passed(&policy, &mut one, &[], 10), 10);
    // One holds what is left of a lease.
    let there = passed(&policy, &mut other, &[], 5_000);
    assert!((3_926..3_990).contains(&there), "{there}");
    policy.return_leases(&mut one);
    assert_eq!(passed(&policy, &mut other, &[], 100), 3_990 - there);
    assert_eq!(passed(&policy, &mut one, &[], 100), 0);
}

#[test]
fn what_a_dead_worker_held_is_free_again_after_a_while() {
    let shared = RefCell::default();
    let policy = policy(WIDE);
    let (mut dies, mut lives) = (leasing(&shared), leasing(&shared));
    assert_eq!(passed(&policy, &mut dies, &[], 2), 2);
    drop(dies);
    // Void after four seconds, and then owed like requests that have passed.
    lives.now.0 += 4 * SECOND;
    assert_eq!(passed(&policy, &mut lives, &[], 9_000), 4_000 - 62);
    lives.now.0 += 10 * SECOND;
    assert_eq!(passed(&policy, &mut lives, &[], 9_000), 4_000);
}

#[test]
fn a_report_that_comes_too_late_frees_nothing() {
    let shared = RefCell::default();
    let policy = policy(WIDE);
    let (mut late, mut other) = (leasing(&shared), leasing(&shared));
    assert_eq!(passed(&policy, &mut late, &[], 2), 2);
    other.now.0 += 5 * SECOND;
    // Its lease is void, and the bucket is leased anew.
    assert_eq!(passed(&policy, &mut other, &[], 2), 2);
    late.now = other.now;
    policy.return_leases(&mut late);
    // What the other holds is still leased: 61 of it.
    let mut exact = Worker::new(&shared);
    exact.now = other.now;
    assert_eq!(passed(&policy, &mut exact, &[], 9_000), 4_000 - 2 - 62 - 61);
    policy.return_leases(&mut other);
    assert_eq!(passed(&policy, &mut exact, &[], 9_000), 61);
}

#[test]
fn a_lease_is_not_spent_for_longer_than_it_lives_nor_when_the_clock_has_stepped_back() {
    for step in [2 * SECOND.cast_signed(), -1] {
        let shared = RefCell::default();
        let policy = policy(WIDE);
        let mut worker = leasing(&shared);
        assert_eq!(passed_and_asked(&policy, &mut worker, 10), (10, 2));
        worker.now.0 = worker.now.0.wrapping_add_signed(step);
        assert_eq!(passed_and_asked(&policy, &mut worker, 1), (1, 1), "{step}");
    }
}

#[test]
fn limits_that_tell_clients_or_settle_later_or_are_said_to_be_exact_are() {
    for (rest, leases) in [
        ("", true),
        (r#","mode":"Shadow","quotaHeaders":"IETF""#, true),
        (r#","exact":true"#, false),
        (r#","quotaHeaders":"IETF""#, false),
        (r#","cost":{"responseHeader":"x-cost"}"#, false),
        (
            r#"},{"name":"g","key":[],"limit":{"requests":1,"per":"1s"},"matches":[{"path":{"value":"/none"}}],"scope":{"global":{"cluster":"c","domain":"d"}}"#,
            false,
        ),
    ] {
        let shared = RefCell::default();
        let policy = policy(&WIDE.replace("}}", &format!("}}{rest}}}")));
        let (passed, asked) = passed_and_asked(&policy, &mut leasing(&shared), 100);
        assert_eq!((passed, asked < 100), (100, leases), "{rest}");
    }
    assert_eq!(
        problems(
            r#"{"name":"g","key":[],"exact":true,"limit":{"requests":1,"per":"1s"},"scope":{"global":{"cluster":"c","domain":"d"}}}"#
        ),
        ["rateLimits[0].exact: has no meaning in global scope; leave it out: the service counts each request"]
    );
}

#[test]
fn a_request_that_another_limit_refuses_costs_a_lease_nothing() {
    let shared = RefCell::default();
    let few = r#"{"name":"few","key":[],"limit":{"requests":3,"per":"1h"},"matches":[{"headers":[{"name":"x-few","value":"1"}]}]}"#;
    let policy = policy(&format!("{WIDE},{few}"));
    let mut worker = leasing(&shared);
    assert_eq!(passed(&policy, &mut worker, &[(b"x-few", b"1")], 50), 3);
    assert_eq!(passed(&policy, &mut worker, &[], 9_000), 3_997);
}

#[test]
fn a_lease_gets_back_what_it_paid_for_a_request_that_another_worker_makes_another_limit_refuse() {
    let shared = RefCell::default();
    let few = r#"{"name":"few","key":[],"limit":{"requests":1,"per":"1h"}}"#;
    let dear = WIDE.replace(r#""limit""#, r#""cost":{"header":"x-cost"},"limit""#);
    let (wide, both, few) = (policy(&dear), policy(&format!("{dear},{few}")), policy(few));
    let mut worker = leasing(&shared);
    // The second takes a lease of 62.
    assert_eq!(passed(&wide, &mut worker, &[], 2), 2);
    // The lease pays at once; before the other limit is written, another worker has emptied it.
    worker.interfere.push(Box::new(|| assert!(passes(&few, &mut Worker::new(&shared), &[]))));
    let before = worker.updates;
    assert!(!passes(&both, &mut worker, &[(b"x-cost", b"40")]));
    assert!(worker.interfere.is_empty() && worker.updates == before + 2, "only the other limit asks the shared state");
    // All of the lease is there again, and no more of it.
    let mut paid = |cost: &[u8]| {
        let before = worker.updates;
        assert!(passes(&wide, &mut worker, &[(b"x-cost", cost)]));
        worker.updates == before
    };
    assert!(paid(b"62"), "from the lease");
    assert!(!paid(b"1"), "by the shared state");
    assert_left(&wide, &mut worker, 4_000 - 2 - 62 - 1);
}

/// Asserts how many requests pass once this worker has reported its leases.
fn assert_left(policy: &Policy<module::RateLimit>, worker: &mut Worker<'_>, expected: usize) {
    policy.return_leases(worker);
    let mut exact = Worker::new(worker.shared);
    exact.now = worker.now;
    assert_eq!(passed(policy, &mut exact, &[], 9_000), expected);
}

#[test]
fn dear_requests_are_paid_from_a_lease_as_long_as_it_has_enough() {
    let shared = RefCell::default();
    let policy = policy(&WIDE.replace(r#""limit""#, r#""cost":{"header":"x-cost"},"limit""#));
    let mut worker = leasing(&shared);
    let mut total = 0;
    for cost in [1_u32, 1, 20, 30, 40, 100, 5, 1].into_iter().cycle().take(80) {
        let cost_text = cost.to_string();
        assert!(passes(&policy, &mut worker, &[(b"x-cost", cost_text.as_bytes())]));
        total += cost as usize;
    }
    policy.return_leases(&mut worker);
    assert_eq!(passed(&policy, &mut worker, &[], 9_000), 4_000 - total);
}

#[test]
fn a_reload_to_another_rate_ends_leases_and_nobody_gets_more() {
    let shared = RefCell::default();
    let (before, after) = (policy(WIDE), policy(&WIDE.replace("1000", "500")));
    let (mut old, mut new) = (leasing(&shared), leasing(&shared));
    assert_eq!(passed(&before, &mut old, &[], 1_000), 1_000);
    // The share of the burst that is used stays: the lease's part counts as spent.
    let there = passed(&after, &mut new, &[], 9_000);
    assert!((2_937..=3_000).contains(&there), "{there}");
    before.return_leases(&mut old);
    assert_eq!(passed(&after, &mut new, &[], 9_000), 0);
}

#[test]
fn without_shared_state_no_lease_is_taken() {
    let shared = RefCell::default();
    let policy = policy(WIDE);
    let mut worker = leasing(&shared);
    assert_eq!(passed(&policy, &mut worker, &[], 1), 1);
    worker.is_broken = true;
    assert_eq!(passed(&policy, &mut worker, &[], 10), 0);
    policy.return_leases(&mut worker);
    worker.is_broken = false;
    assert_eq!(passed(&policy, &mut worker, &[], 9_000), 3_999);
}

#[derive(Clone, Copy, Debug)]
enum LeaseStep {
    /// So many requests of one worker at one instant, each of this cost.
    Send(usize, usize, u32),
    /// Nanoseconds pass.
    Wait(u64),
    /// A worker gives back.
    Tick(usize),
    /// A worker dies, and another comes in its place.
    Die(usize),
}

fn steps() -> impl Strategy<Value = Vec<LeaseStep>> {
    let step = prop_oneof![
        6 => (0_usize..4, 1_usize..100, 1_u32..4).prop_map(|(worker, requests, cost)| LeaseStep::Send(worker, requests, cost)),
        4 => prop_oneof![0..MILLI, 0..200 * MILLI, Just(1_u64), 0..6 * SECOND].prop_map(LeaseStep::Wait),
        2 => (0_usize..4).prop_map(LeaseStep::Tick),
        1 => (0_usize..4).prop_map(LeaseStep::Die),
    ];
    prop::collection::vec(step, 1..60)
}

/// How much passes at one instant, found with few requests: the largest power of two that passes, then the next smaller ones.
fn all_that_passes(mut passes: impl FnMut(u32) -> bool) -> u32 {
    (0..15).rev().map(|power| 1 << power).filter(|cost| passes(*cost)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn workers_with_leases_never_pass_more_than_an_exact_limit_and_lose_nothing_for_good(
        requests in prop_oneof![Just(1_u32), 1_u32..5_000, 1_000_u32..1_000_000],
        burst in prop_oneof![1_u32..1_500, 512_u32..16_000],
        steps in steps(),
    ) {
        let shared = RefCell::default();
        let limit = format!(
            r#"{{"name":"l","key":[],"cost":{{"header":"x-cost"}},"limit":{{"requests":{requests},"per":"1s","burst":{burst}}}}}"#
        );
        let policy = policy(&limit);
        let mut model = Model::new(requests, std::time::Duration::from_secs(1), burst);
        let mut workers: Vec<Worker<'_>> = (0..4).map(|_| leasing(&shared)).collect();
        let mut now = workers[0].now;
        let (mut has_waited, mut has_died) = (false, false);
        for step in steps {
            match step {
                LeaseStep::Send(worker, tries, cost) => {
                    for _ in 0..tries {
                        workers[worker].now = now;
                        let cost_text = cost.to_string();
                        if passes(&policy, &mut workers[worker], &[(b"x-cost", cost_text.as_bytes())]) {
                            prop_assert!(model.passes(now.0, cost), "one too many at {now:?}");
                        }
                    }
                }
                LeaseStep::Wait(nanos) => {
                    now.0 += nanos;
                    has_waited |= nanos > 0;
                }
                LeaseStep::Tick(worker) => {
                    workers[worker].now = now;
                    policy.return_leases(&mut workers[worker]);
                }
                LeaseStep::Die(worker) => {
                    workers[worker] = leasing(&shared);
                    has_died = true;
                }
            }
        }
        for worker in &mut workers {
            worker.now = now;
            policy.return_leases(worker);
        }
        let there = |worker: &mut Worker<'_>| {
            all_that_passes(|cost| passes(&policy, worker, &[(b"x-cost", cost.to_string().as_bytes())]))
        };
        let exact = |model: &mut Model, now: Timestamp| all_that_passes(|cost| model.passes(now.0, cost));
        // A worker that has nothing in advance, so that all that is there is seen.
        let mut last = Worker::new(&shared);
        last.now = now;
        let (found, expected) = (there(&mut last), exact(&mut model, now));
        prop_assert!(found <= expected);
        if !has_died && !has_waited {
            prop_assert_eq!(found, expected);
        }
        // As long as leases last, and until the bucket is full.
        last.now.0 += 5 * SECOND;
        let _ = there(&mut last);
        last.now.0 += (u64::from(burst) + 1).div_ceil(u64::from(requests)) * SECOND + SECOND;
        prop_assert_eq!(there(&mut last), burst);
    }

    #[test]
    fn without_time_nothing_is_lost_at_all(sends in prop::collection::vec((0_usize..4, 1_usize..300, any::<bool>()), 1..20)) {
        let shared = RefCell::default();
        let policy = policy(WIDE);
        let mut workers: Vec<Worker<'_>> = (0..4).map(|_| leasing(&shared)).collect();
        let mut total = 0;
        for (worker, requests, ticks) in sends {
            total += passed(&policy, &mut workers[worker], &[], requests);
            if ticks {
                policy.return_leases(&mut workers[worker]);
            }
        }
        workers.iter_mut().for_each(|worker| policy.return_leases(worker));
        prop_assert_eq!(total + passed(&policy, &mut workers[0], &[], 9_000), 4_000);
    }
}
