#[cfg(not(target_arch = "wasm32"))]
mod exactness;
mod global;
#[cfg(not(target_arch = "wasm32"))]
mod leases;
mod worker;

use super::*;
use crate::decision::{Action, Decision};
use crate::document::{Decode, Node};
use crate::metrics::Metric;
use crate::reason::Reason;
use crate::request::Header;
use crate::section::Section;
use crate::{Policy, module};
use std::cell::RefCell;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
use worker::{Shared, Worker};

const SECOND: u64 = 1_000_000_000;

#[test]
fn the_workers_of_these_tests_hold_to_the_laws_of_a_store() {
    crate::state::laws::all(|_| {
        let shared: &RefCell<Shared> = Box::leak(Box::default());
        [Worker::new(shared), Worker::new(shared)]
    });
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

fn policy(limits: &str) -> Policy<module::RateLimit> {
    Policy::from_json(format!(r#"{{"rateLimits":[{limits}]}}"#).as_bytes()).unwrap()
}

fn problems(limit: &str) -> Vec<String> {
    let json = format!(r#"{{"rateLimits":[{limit}]}}"#);
    let problems = Policy::<module::RateLimit>::from_json(json.as_bytes()).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

/// The status of a refusal, or 0; and what was counted.
fn send(policy: &Policy<module::RateLimit>, worker: &mut Worker<'_>, headers: &[Header<'_>]) -> (u16, Vec<String>) {
    let request = Request::new(headers);
    let decision = policy.decide(&request, worker).unwrap();
    let name = |metric: &Metric| {
        let name = policy.metrics().name(metric.index()).unwrap();
        name.replacen("penstock.requests_total.section.rateLimits.rule.", "", 1).replacen(".outcome.", ".", 1)
    };
    let counts = decision.counts.iter().map(name).collect();
    match decision.action {
        Action::Continue => (0, counts),
        Action::Respond(response) => (response.status, counts),
    }
}

fn passes(policy: &Policy<module::RateLimit>, worker: &mut Worker<'_>, headers: &[Header<'_>]) -> bool {
    send(policy, worker, headers).0 == 0
}

/// How many of `tries` pass at one instant.
fn passed(policy: &Policy<module::RateLimit>, worker: &mut Worker<'_>, headers: &[Header<'_>], tries: usize) -> usize {
    (0..tries).filter(|_| passes(policy, worker, headers)).count()
}

const ONE_BUCKET: &str = r#"{"name":"all","key":[],"limit":{"requests":10,"per":"10s","burst":3}}"#;
const PER_USER: &str = r#"{"name":"user","key":[{"header":"x-user"}],"limit":{"requests":10,"per":"10s","burst":3}}"#;

fn user(name: &str) -> [Header<'_>; 1] {
    [(b"x-user", name.as_bytes())]
}

#[test]
fn from_idle_exactly_the_burst_passes_and_then_one_each_interval() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(ONE_BUCKET);
    assert_eq!(passed(&policy, &mut worker, &[], 100), 3);
    for _ in 0..20 {
        worker.now.0 += SECOND - 1;
        assert_eq!(passed(&policy, &mut worker, &[], 5), 0);
        worker.now.0 += 1;
        assert_eq!(passed(&policy, &mut worker, &[], 5), 1);
    }
    worker.now.0 += 3600 * SECOND;
    assert_eq!(passed(&policy, &mut worker, &[], 100), 3);
}

#[test]
fn keys_have_buckets_of_their_own_and_those_without_share_one() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(PER_USER);
    for name in ["a", "b", "", "A"] {
        assert_eq!(passed(&policy, &mut worker, &user(name), 9), 3, "{name:?}");
    }
    assert_eq!(passed(&policy, &mut worker, &[], 9), 3);
}

#[test]
fn peers_are_told_apart_by_the_identity_of_the_settings_or_its_older_name() {
    let limit = r#"{"name":"p","key":[{"peer":{}}],"onMissingKey":"Deny","limit":{"requests":1,"per":"1h"}}"#;
    let shared = RefCell::default();
    let pass = |document: &str| {
        let json = format!(r#"{{{document}"rateLimits":[{limit}]}}"#);
        let policy = Policy::<module::Suite>::from_json(json.as_bytes()).unwrap();
        policy
            .decide(
                &Request::new(&[(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a.test")]),
                &mut Worker::new(&shared),
            )
            .unwrap()
            .reason
    };
    assert_eq!(pass(""), Some(Reason::MissingKey));
    assert_eq!(pass(r#""settings":{"identity":{"filterState":"a"}},"#), None);
    assert_eq!(pass(r#""settings":{"identity":{"filterState":"b"}},"#), None);
    let audit = r#""egress":{"mode":"Audit","identity":{"filterState":"c"},"rules":[]},"#;
    assert_eq!(pass(audit), Some(Reason::HostNotAllowed));
    assert_eq!(pass(audit), Some(Reason::Limited));
}

#[test]
fn a_missing_key_can_skip_the_limit_or_be_refused() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let with = |what: &str| policy(&PER_USER.replace(r#""limit""#, &format!(r#""onMissingKey":"{what}","limit""#)));
    assert_eq!(passed(&with("Skip"), &mut worker, &[], 9), 9);
    assert_eq!(send(&with("Deny"), &mut worker, &[]), (429, vec!["user.missingKey".to_owned()]));
    assert_eq!(passed(&with("Deny"), &mut worker, &user("a"), 9), 3);
}

#[test]
fn a_refused_request_takes_from_no_limit() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let narrow = PER_USER.replace("user\"", "narrow\"").replace(r#""burst":3"#, r#""burst":1"#);
    for limits in [format!("{PER_USER},{narrow}"), format!("{narrow},{PER_USER}")] {
        *shared.borrow_mut() = Shared::default();
        worker.remembered.clear();
        let both = policy(&limits);
        assert_eq!(passed(&both, &mut worker, &user("a"), 50), 1);
        // Of the wide one's three, two are left.
        assert_eq!(passed(&policy(PER_USER), &mut worker, &user("a"), 50), 2);
    }
}

#[test]
fn a_limit_that_another_worker_empties_in_between_gives_the_others_back() {
    let shared = RefCell::default();
    let first = PER_USER.replace("user\"", "first\"");
    let second = PER_USER.replace("user\"", "second\"").replace(r#""burst":3"#, r#""burst":1"#);
    let (both, only_second, only_first) = (policy(&format!("{first},{second}")), policy(&second), policy(&first));
    let mut worker = Worker::new(&shared);
    // Pops from the end: nothing before the first write, the other worker before the second.
    worker.interfere.push(Box::new(|| {
        assert!(passes(&only_second, &mut Worker::new(&shared), &user("a")));
    }));
    worker.interfere.push(Box::new(|| {}));
    let (status, counts) = send(&both, &mut worker, &user("a"));
    assert_eq!((status, counts), (429, vec!["second.retried".to_owned(), "second.limited".to_owned()]));
    assert_eq!(passed(&only_first, &mut Worker::new(&shared), &user("a"), 9), 3);
}

#[test]
fn what_a_request_takes_and_gives_back_is_missing_for_that_moment_only() {
    let shared = RefCell::default();
    let first = PER_USER.replace("user\"", "first\"");
    let second = PER_USER.replace("user\"", "second\"").replace(r#""burst":3"#, r#""burst":1"#);
    let (both, only_second, only_first) = (policy(&format!("{first},{second}")), policy(&second), policy(&first));
    let mut worker = Worker::new(&shared);
    // Between the first write and the second: the second limit is emptied, and all that can be had of the first is asked for.
    worker.interfere.push(Box::new(|| {
        assert!(passes(&only_second, &mut Worker::new(&shared), &user("a")));
        // A worker decides one request at a time, so no more than one of each other worker's can be missing.
        assert_eq!(passed(&only_first, &mut Worker::new(&shared), &user("a"), 9), 2);
    }));
    worker.interfere.push(Box::new(|| {}));
    assert_eq!(send(&both, &mut worker, &user("a")).0, 429);
    assert_eq!(passed(&only_first, &mut Worker::new(&shared), &user("a"), 9), 1);
}

#[test]
fn a_lost_write_is_decided_again() {
    let shared = RefCell::default();
    let policy = policy(PER_USER);
    let mut worker = Worker::new(&shared);
    for _ in 0..2 {
        worker.interfere.push(Box::new(|| {
            assert!(passes(&policy, &mut Worker::new(&shared), &user("a")));
        }));
    }
    assert_eq!(
        send(&policy, &mut worker, &user("a")),
        (0, vec!["user.retried".into(), "user.retried".into(), "user.passed".into()])
    );
    assert_eq!(passed(&policy, &mut Worker::new(&shared), &user("a"), 9), 0);
}

#[test]
fn a_store_that_fails_refuses() {
    let shared = RefCell::default();
    let policy = policy(PER_USER);
    let mut worker = Worker::new(&shared);
    worker.is_broken = true;
    assert_eq!(send(&policy, &mut worker, &user("a")).0, 429);
}

#[test]
fn workers_that_take_turns_share_one_bucket() {
    let shared = RefCell::default();
    let policy = policy(PER_USER);
    let mut workers: Vec<_> = (0..4).map(|_| Worker::new(&shared)).collect();
    let passed = (0..40).filter(|i| passes(&policy, &mut workers[i % 4], &user("a"))).count();
    assert_eq!(passed, 3);
}

#[test]
fn the_tightest_refusal_answers() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let limits = r#"{"name":"fast","key":[],"limit":{"requests":1,"per":"1s"}},
        {"name":"slow","key":[],"limit":{"requests":1,"per":"1m"},"response":{"status":503,"body":"later","headers":[{"name":"X-Reason","value":"slow"}]}}"#;
    let policy = policy(limits);
    assert!(passes(&policy, &mut worker, &[]));
    worker.now.0 += 500_000_000;
    let request = Request::new(&[]);
    let decision = policy.decide(&request, &mut worker).unwrap();
    assert_eq!(
        (decision.section, decision.rule, decision.reason),
        (Some(Section::RateLimits), Some("slow"), Some(Reason::Limited))
    );
    let Action::Respond(response) = decision.action else { panic!("passed") };
    let headers: Vec<_> = response.headers.iter().map(|(n, v)| (*n, std::str::from_utf8(v).unwrap())).collect();
    assert_eq!(headers, [("retry-after", "60"), ("x-reason", "slow")]);
    assert_eq!((response.status, &*response.body, response.grpc_status), (503, &b"later"[..], Some(8)));
}

#[test]
fn a_shadow_limit_refuses_nobody_and_says_so() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(&ONE_BUCKET.replace(r#""limit""#, r#""mode":"Shadow","quotaHeaders":"IETF","limit""#));
    assert_eq!(passed(&policy, &mut worker, &[], 3), 3);
    let request = Request::new(&[]);
    let decision = policy.decide(&request, &mut worker).unwrap();
    assert_eq!((decision.would_respond(), decision.action, decision.rule), (Some(429), Action::Continue, Some("all")));
    assert!(decision.response_headers.is_empty());
    assert_eq!(send(&policy, &mut worker, &[]), (0, vec!["all.wouldLimit".to_owned()]));
}

#[test]
fn a_request_that_another_limit_refuses_takes_nothing_from_a_shadow() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let shadow = ONE_BUCKET.replace(r#""limit""#, r#""mode":"Shadow","limit""#);
    let narrow = r#"{"name":"narrow","key":[],"limit":{"requests":1,"per":"1h"}}"#;
    let both = policy(&format!("{shadow},{narrow}"));
    assert_eq!(passed(&both, &mut worker, &[], 9), 1);
    let alone = policy(&shadow);
    let would: Vec<_> = (0..3).map(|_| send(&alone, &mut worker, &[]).1).collect();
    assert_eq!(would, [["all.passed"], ["all.passed"], ["all.wouldLimit"]]);
}

#[test]
fn a_cost_takes_as_much_and_one_above_the_burst_never_passes() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(
        r#"{"name":"c","key":[],"limit":{"requests":10,"per":"10s","burst":5},"cost":{"header":"x-cost","max":9}}"#,
    );
    let cost = |value: &'static str| [(&b"x-cost"[..], value.as_bytes())];
    assert!(passes(&policy, &mut worker, &cost("3")));
    assert!(!passes(&policy, &mut worker, &cost("3")));
    assert!(passes(&policy, &mut worker, &cost("2")));
    worker.now.0 += 1000 * SECOND;
    assert!(!passes(&policy, &mut worker, &cost("6")));
    // Waiting does not help.
    let headers = cost("6");
    let Action::Respond(response) = policy.decide(&Request::new(&headers), &mut worker).unwrap().action else {
        panic!("passed")
    };
    assert_eq!((response.status, response.headers.len()), (429, 0));
    assert_eq!(send(&policy, &mut worker, &cost("x")), (0, vec!["c.badCost".to_owned(), "c.passed".to_owned()]));
}

#[test]
fn quota_headers_come_with_passed_and_refused_requests() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(&ONE_BUCKET.replace(r#""limit""#, r#""quotaHeaders":"IETF","limit""#));
    for expected in ["r=2;t=1", "r=1;t=2", "r=0;t=3", "r=0;t=3"] {
        let request = Request::new(&[]);
        let decision = policy.decide(&request, &mut worker).unwrap();
        let headers: Vec<_> =
            decision.response_headers.iter().map(|(n, v)| (*n, String::from_utf8_lossy(v).into_owned())).collect();
        let state = format!("\"all\";{expected}");
        assert_eq!(headers, [("ratelimit-policy", "\"all\";q=10;w=10".to_owned()), ("ratelimit", state)]);
    }
}

#[test]
fn a_clock_that_steps_back_neither_locks_out_nor_opens() {
    for step in [1, SECOND / 2, 2 * SECOND, 86_400 * SECOND] {
        let shared = RefCell::default();
        let mut worker = Worker::new(&shared);
        let policy = policy(ONE_BUCKET);
        assert_eq!(passed(&policy, &mut worker, &[], 9), 3);
        worker.now.0 -= step;
        assert_eq!(passed(&policy, &mut worker, &[], 9), 0, "{step}");
        // Small steps are waited for, large ones believed: never longer than a second more than without a step.
        worker.now.0 += SECOND + SECOND.min(step);
        assert!(passed(&policy, &mut worker, &[], 9) >= 1, "{step}");
        assert_eq!(passed(&policy, &mut worker, &[], 9), 0, "{step}");
    }
}

#[test]
fn limits_share_state_when_name_key_and_capacity_are_the_same() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let small = PER_USER.replace(r#""limit""#, r#""capacity":64,"limit""#);
    assert_eq!(passed(&policy(&small), &mut worker, &user("a"), 9), 3);
    // A reload; so is another response, another burst, another rate.
    for (from, to) in [
        ("", ""),
        (r#""limit""#, r#""response":{"status":420},"limit""#),
        (r#""burst":3"#, r#""burst":2"#),
        (r#""burst":3"#, r#""burst":5"#),
        (r#""requests":10"#, r#""requests":20"#),
        (r#""10s""#, r#""20s""#),
    ] {
        assert_eq!(passed(&policy(&small.replacen(from, to, 1)), &mut worker, &user("a"), 9), 0, "{to}");
    }
    // Another name, another key, another capacity.
    for (from, to) in [("\"user\"", "\"u\""), (r#""x-user"}"#, r#""x-user"},{"method":{}}"#), (":64", ":128")] {
        assert_eq!(passed(&policy(&small.replacen(from, to, 1)), &mut worker, &user("a"), 9), 3, "{to}");
    }
}

#[test]
fn a_limit_that_is_tightened_or_loosened_gives_nobody_a_fresh_burst() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let hourly = |requests: u32| {
        policy(&format!(r#"{{"name":"l","key":[{{"header":"x-user"}}],"limit":{{"requests":{requests},"per":"1h"}}}}"#))
    };
    assert_eq!(passed(&hourly(100), &mut worker, &user("a"), 200), 100);
    assert_eq!(passed(&hourly(100), &mut worker, &user("b"), 50), 50);
    for requests in [50, 25, 50, 100, 200, 100, 1_000_000, 1, 100] {
        assert_eq!(passed(&hourly(requests), &mut worker, &user("a"), 9), 0, "{requests}");
    }
    // Who has used half has half left.
    assert_eq!(passed(&hourly(20), &mut worker, &user("b"), 200), 10);
    worker.now.0 += 3600 * SECOND;
    assert_eq!(passed(&hourly(25), &mut worker, &user("a"), 200), 25);
}

#[test]
fn a_worker_with_the_policy_before_a_reload_takes_from_the_same_buckets() {
    let shared = RefCell::default();
    let (mut one, mut other) = (Worker::new(&shared), Worker::new(&shared));
    let faster = policy(&PER_USER.replace(r#""burst":3"#, r#""burst":6"#));
    let before = policy(PER_USER);
    // A third of each burst at a time: three requests in all of the old, six of the new, or a mixture.
    assert!(passes(&before, &mut one, &user("a")));
    assert_eq!(passed(&faster, &mut other, &user("a"), 2), 2);
    assert!(passes(&before, &mut one, &user("a")));
    assert_eq!(passed(&faster, &mut other, &user("a"), 9), 0);
    assert_eq!(passed(&before, &mut one, &user("a"), 9), 0);
}

#[test]
fn nothing_is_written_when_a_policy_loads_but_the_salt() {
    let shared: RefCell<Shared> = RefCell::default();
    let limits: Vec<String> = (0..100).map(|i| PER_USER.replace("user\"", &format!("user{i}\""))).collect();
    let mut policy = policy(&limits.join(","));
    policy.start(&mut Worker::new(&shared)).unwrap();
    assert_eq!(shared.borrow().0.keys().collect::<Vec<_>>(), ["salt"]);
    assert_eq!(policy.tables().len(), 100);
}

#[test]
fn a_salt_that_is_too_short_is_drawn_anew() {
    let shared: RefCell<Shared> = RefCell::default();
    for salt in [&b""[..], b"short", &[0; 15], &[0; 17]] {
        shared.borrow_mut().0.insert("salt".to_owned(), salt.to_vec());
        policy(PER_USER).start(&mut Worker::new(&shared)).unwrap();
        assert_eq!(Salt::read(&shared.borrow().0["salt"]), Some(Salt(7, 7)));
    }
}

#[test]
fn memory_does_not_grow_with_the_keys() {
    let shared: RefCell<Shared> = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(&PER_USER.replace(r#""limit""#, r#""capacity":256,"limit""#));
    for i in 0..20_000 {
        worker.now.0 += 1_000_000;
        send(&policy, &mut worker, &user(&format!("client-{i}")));
    }
    let sets = &shared.borrow().0;
    assert_eq!(sets.len(), 256 / 8);
    assert!(sets.values().all(|set| set.len() <= set::LONGEST));
}

#[test]
fn half_of_the_capacity_is_held_exactly() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(&PER_USER.replace(r#""limit""#, r#""capacity":4096,"limit""#));
    let keys: Vec<String> = (0..2048).map(|i| format!("client-{i}")).collect();
    let mut passes_of = vec![0; keys.len()];
    for _ in 0..5 {
        for (key, passed) in keys.iter().zip(&mut passes_of) {
            *passed += u32::from(passes(&policy, &mut worker, &user(key)));
        }
    }
    let exact = passes_of.iter().filter(|passed| **passed == 3).count();
    assert!(exact * 1000 >= keys.len() * 999, "{exact} of {}", keys.len());
}

#[test]
fn a_full_table_shares_and_counts_and_never_opens() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(&PER_USER.replace(r#""limit""#, r#""capacity":8,"limit""#));
    for i in 0..16 {
        assert!(passes(&policy, &mut worker, &user(&format!("busy-{i}"))));
    }
    assert_eq!(send(&policy, &mut worker, &user("late")).1, ["user.passed", "user.overfull"]);
    let passed = (0..100).filter(|i| passes(&policy, &mut worker, &user(&format!("late-{i}")))).count();
    assert_eq!(passed, 2);
    assert_eq!(send(&policy, &mut worker, &user("late")), (429, vec!["user.limited".into(), "user.overfull".into()]));
    // Those who have a slot keep what is theirs.
    assert_eq!((0..9).filter(|_| passes(&policy, &mut worker, &user("busy-3"))).count(), 2);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let field = |field: &str| format!(r#"{{"name":"l","key":[],"limit":{{"requests":1,"per":"1m"}},{field}}}"#);
    for (limit, expected) in [
        (r#"{"name":"l","limit":{"requests":1,"per":"1m"}}"#.to_owned(), "rateLimits[0].key: is required"),
        (r#"{"name":"l","key":[]}"#.to_owned(), "rateLimits[0].limit: is required"),
        (
            r#"{"name":"l","key":[],"limit":{"requests":0,"per":"1m"}}"#.to_owned(),
            "rateLimits[0].limit.requests: 0: is out of range",
        ),
        (
            r#"{"name":"l","key":[],"limit":{"requests":1,"per":"0s"}}"#.to_owned(),
            "rateLimits[0].limit.per: \"0s\": must be longer",
        ),
        (
            r#"{"name":"l","key":[],"limit":{"requests":1,"per":"1m","burst":0}}"#.to_owned(),
            "rateLimits[0].limit.burst: 0: is out of range",
        ),
        (
            r#"{"name":"l","key":[{}],"limit":{"requests":1,"per":"1m"}}"#.to_owned(),
            "rateLimits[0].key[0]: {}: is empty; give one of: sourceAddress, header,",
        ),
        (
            r#"{"name":"l","key":[{"heder":"x"}],"limit":{"requests":1,"per":"1m"}}"#.to_owned(),
            "rateLimits[0].key[0].heder: unknown field `heder`; expected one of: sourceAddress, header, cookie, queryParam, path, method, hostname, peer, constant, claim, metadata; did you mean `header`?",
        ),
        (
            r#"{"name":"l","key":[{"sourceAddress":{"ipv6Prefix":129}}],"limit":{"requests":1,"per":"1m"}}"#.to_owned(),
            "rateLimits[0].key[0].sourceAddress.ipv6Prefix: 129: is out of range",
        ),
        (
            field(r#""mode":"shadow""#),
            "rateLimits[0].mode: \"shadow\": unknown value; expected one of: Enforce, Shadow; did you mean `Shadow`?",
        ),
        (field(r#""cost":{"header":"x","default":5,"max":4}"#), "rateLimits[0].cost.default: is more than `max`"),
        (
            field(r#""cost":{"default":5}"#),
            "rateLimits[0].cost.default: is more than the burst of 1: no request could ever pass",
        ),
        (field(r#""capacity":0"#), "rateLimits[0].capacity: 0: is out of range"),
        (field(r#""capacity":2000000"#), "rateLimits[0].capacity: 2000000: is out of range"),
        (field(r#""scope":{"local":{},"global":{}}"#), "rateLimits[0].scope: has both `local` and `global`; keep one"),
        (field(r#""onMissingKey":"Deny""#), "rateLimits[0].onMissingKey: has no meaning with an empty key"),
        (
            field(r#""response":{"headers":[{"name":"Retry-After","value":"1"}]}"#),
            "rateLimits[0].response.headers[0].name: retry-after is written by the limit itself",
        ),
        (format!("{ONE_BUCKET},{ONE_BUCKET}"), "rateLimits[1].name: \"all\": is already the name of rateLimits[0]"),
    ] {
        let found = problems(&limit);
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{limit}: {found:?}");
    }
}

#[test]
fn the_example_of_the_reference_is_a_limit() {
    let json = r#"{"name":"per-client","matches":[{"method":"GET"}],
        "key":[{"sourceAddress":{"ipv6Prefix":64}},{"header":"x-api-key"}],"onMissingKey":"Share",
        "limit":{"requests":100,"per":"1m","burst":20},"cost":{"header":"x-cost","default":1,"max":100},"mode":"Enforce",
        "capacity":65536,"scope":{"local":{}},
        "response":{"status":429,"body":"slow down\n","headers":[{"name":"x-reason","value":"limit"}]},"quotaHeaders":"Off"}"#;
    let mut cx = Context::new(String::new(), 1 << 20);
    let node = Node::from_json(json.as_bytes()).unwrap();
    let limit = LimitDocument::decode(&node, &crate::document::At::Root, &mut cx);
    assert!(limit.is_some(), "{:?}", cx.into_problems());
}
