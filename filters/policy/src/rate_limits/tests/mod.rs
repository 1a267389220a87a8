#[cfg(not(target_arch = "wasm32"))]
mod exactness;
mod global;

use super::limit::MOST_TRIES;
use super::*;
use crate::decision::{Action, Decision};
use crate::document::{Context, Decode, Node};
use crate::environment::{StoreConflict, Version};
use crate::metrics::Metric;
use crate::reason::Reason;
use crate::request::Header;
use crate::section::Section;
use crate::{Policy, module};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: u64 = 1_000_000_000;

/// What all workers share: values and their versions.
#[derive(Default)]
struct Shared {
    values: HashMap<Vec<u8>, (Vec<u8>, Version)>,
    version: u32,
}

impl Shared {
    fn write(&mut self, key: &[u8], value: &[u8]) -> Version {
        self.version += 1;
        self.values.insert(key.to_vec(), (value.to_vec(), Version(self.version)));
        Version(self.version)
    }
}

/// One worker. `interfere` runs before a write, once: another worker that is faster.
struct Worker<'s> {
    shared: &'s RefCell<Shared>,
    now: Timestamp,
    peer: Option<IpAddr>,
    remembered: HashMap<Vec<u8>, (Vec<u8>, Version)>,
    interfere: Vec<Box<dyn FnOnce() + 's>>,
    calls: Vec<&'static str>,
}

impl<'s> Worker<'s> {
    fn new(shared: &'s RefCell<Shared>) -> Self {
        Worker { shared, now: at(1_000_000), peer: None, remembered: HashMap::new(), interfere: vec![], calls: vec![] }
    }
}

impl Environment for Worker<'_> {
    fn now(&mut self) -> Timestamp {
        self.calls.push("now");
        self.now
    }
    fn source_address(&mut self) -> Option<IpAddr> {
        self.peer
    }
    fn destination_port(&mut self) -> Option<u16> {
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
    fn load(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<Version> {
        self.calls.push("load");
        value.clear();
        let (stored, version) = self.shared.borrow().values.get(key).cloned()?;
        value.extend_from_slice(&stored);
        self.remembered.insert(key.to_vec(), (stored, version));
        Some(version)
    }
    fn store(&mut self, key: &[u8], value: &[u8], expected: Option<Version>) -> Result<Version, StoreConflict> {
        if let Some(interfere) = self.interfere.pop() {
            interfere();
        }
        self.calls.push("store");
        let current = self.shared.borrow().values.get(key).map(|(_, version)| *version);
        if current.is_some() && expected.is_some() && current != expected {
            self.remembered.remove(key);
            return Err(StoreConflict);
        }
        let version = self.shared.borrow_mut().write(key, value);
        self.remembered.insert(key.to_vec(), (value.to_vec(), version));
        Ok(version)
    }
    fn create(&mut self, key: &[u8], value: &[u8]) -> Result<Version, StoreConflict> {
        self.store(key, value, Some(Version(u32::MAX)))
    }
    fn recall<T>(&mut self, key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<(T, Version)> {
        self.remembered.get(key).map(|(value, version)| (read(value), *version))
    }
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
    worker.calls.clear();
    let request = Request::new(headers);
    let decision = policy.decide(&request, worker).unwrap();
    let name = |metric: &Metric| policy.metrics().names()[metric.index()].replacen("penstock.rateLimits.", "", 1);
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
fn an_uncontended_decision_is_the_time_and_a_write() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let policy = policy(PER_USER);
    passes(&policy, &mut worker, &user("a"));
    passes(&policy, &mut worker, &user("a"));
    assert_eq!(worker.calls, ["now", "store"]);
    passes(&policy, &mut worker, &user("a"));
    // A refusal is never out of memory alone.
    assert!(!passes(&policy, &mut worker, &user("a")));
    assert_eq!(worker.calls, ["now", "load"]);
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
fn a_store_that_never_takes_a_write_refuses() {
    let shared = RefCell::default();
    let policy = policy(PER_USER);
    let mut worker = Worker::new(&shared);
    for _ in 0..2 * MOST_TRIES {
        worker.interfere.push(Box::new(|| {
            let mut shared = shared.borrow_mut();
            let keys: Vec<_> = shared.values.keys().cloned().collect();
            for key in keys {
                shared.write(&key, b"");
            }
        }));
    }
    passes(&policy, &mut Worker::new(&shared), &user("a"));
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
fn limits_share_state_only_when_they_are_the_same_limit_of_the_same_plugin() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let start = |json: &str, instance: &[u8]| {
        let mut policy = policy(json);
        policy.start(instance, &mut Worker::new(&shared));
        policy
    };
    let small = PER_USER.replace(r#""limit""#, r#""capacity":64,"limit""#);
    assert_eq!(passed(&start(&small, b"one"), &mut worker, &user("a"), 9), 3);
    // A reload; so is another response or another burst.
    assert_eq!(passed(&start(&small, b"one"), &mut worker, &user("a"), 9), 0);
    let other_response = small.replace(r#""limit""#, r#""response":{"status":420},"limit""#);
    assert_eq!(passed(&start(&other_response, b"one"), &mut worker, &user("a"), 9), 0);
    let tightened = small.replace(r#""burst":3"#, r#""burst":2"#);
    assert_eq!(passed(&start(&tightened, b"one"), &mut worker, &user("a"), 9), 0);
    // Another plugin, another name, another key, another rate.
    assert_eq!(passed(&start(&small, b"two"), &mut worker, &user("a"), 9), 3);
    assert_eq!(passed(&start(&small.replace("\"user\"", "\"u\""), b"one"), &mut worker, &user("a"), 9), 3);
    assert_eq!(passed(&start(&small.replace("\"10s\"", "\"20s\""), b"one"), &mut worker, &user("a"), 9), 3);
}

#[test]
fn memory_does_not_grow_with_the_keys() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let mut policy = policy(&PER_USER.replace(r#""limit""#, r#""capacity":256,"limit""#));
    policy.start(b"", &mut worker);
    let size = || shared.borrow().values.iter().map(|(key, (value, _))| key.len() + value.len()).sum::<usize>();
    let values = shared.borrow().values.len();
    assert_eq!(values, 1 + 256 / 8);
    for i in 0..20_000 {
        worker.now.0 += 1_000_000;
        send(&policy, &mut worker, &user(&format!("client-{i}")));
    }
    assert_eq!(shared.borrow().values.len(), values);
    assert!(size() <= values * (14 + set::LONGEST), "{}", size());
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
            "rateLimits[0].key[0].heder: unknown field `heder`; expected one of: sourceAddress, header, cookie, queryParam, path, method, hostname, peer, constant; did you mean `header`?",
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
