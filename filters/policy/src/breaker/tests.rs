use super::Outcome;
use crate::state::State;
use crate::wire::{WireDecision, WireRequest, World};
use crate::{Policy, Timestamp};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const START: u64 = 1_700_000_000;

fn policy(document: &Value) -> Policy {
    Policy::from_json(document.to_string().as_bytes()).unwrap()
}

fn errors(document: &Value) -> Vec<String> {
    match Policy::<crate::module::Suite>::from_json(document.to_string().as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn rollback() -> Value {
    json!({"canaries": [{"name": "shop", "stickiness": {"header": "x-user"},
        "overrides": [{"header": {"name": "x-canary", "value": "always"}, "variant": "v2"}],
        "variants": [{"name": "v1", "weight": 50}, {"name": "v2", "weight": 50}],
        "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": 20, "errorPercent": 10,
            "cooldown": "10m"}}]})
}

fn failover() -> Value {
    json!({"routes": {"rules": [{"name": "pay", "route": "eu",
        "failover": {"route": "us", "errorPercent": 50, "window": "10s", "minRequests": 20, "cooldown": "30s"}}]}})
}

/// A request of `user` at a second after [`START`], answered with `status` after `latency`.
fn ask(policy: &Policy, world: &mut World, second: u64, user: usize, status: u16, latency: &str) -> WireDecision {
    world.now = Timestamp((START + second) * 1_000_000_000);
    let request = json!({"method": "GET", "authority": "a.test", "path": "/", "headers": [["x-user", user.to_string()]],
        "response": {"status": status, "latency": latency}});
    serde_json::from_value::<WireRequest>(request).unwrap().decide(policy, world)
}

fn world() -> World {
    World::new(Timestamp(0), 1)
}

/// How many of `users` go to `route`, all answered with `status`.
fn count(policy: &Policy, world: &mut World, second: u64, users: usize, status: u16, route: &str) -> usize {
    let all = (0..users).map(|user| ask(policy, world, second, user, status, "1ms"));
    all.filter(|decision| decision.route.as_deref() == Some(route)).count()
}

#[test]
fn a_failing_variant_is_taken_out_probed_and_restored() {
    let (policy, mut world) = (policy(&rollback()), world());
    let canary = policy.canaries().unwrap().iter().next().unwrap();
    let by_weight = |user: &usize| canary.variant_of(user.to_string().as_bytes(), Timestamp(0)) == Some("v2");
    let healthy = (0..1000).filter(by_weight).count();
    assert_eq!(count(&policy, &mut world, 0, 1000, 200, "v2"), healthy);
    // Twenty failures, then never again.
    assert_eq!(count(&policy, &mut world, 120, 1000, 503, "v2"), 20);
    assert_eq!(
        world.events.drain(..).collect::<Vec<_>>(),
        ["canary shop: variant v2: 20 of 20 requests failed: all go to v1, a probe follows in 600 s"]
    );
    let out = ask(&policy, &mut world, 121, 3, 200, "1ms");
    assert_eq!((out.route.as_deref(), out.section), (Some("v1"), Some("canaries")));
    let of_v2 = (0..1000).filter(|user| ask(&policy, &mut world, 121, *user, 200, "1ms").reason == Some("rolledBack"));
    assert_eq!(of_v2.count(), healthy);
    // Half-open: a tenth of its users, always the same, until there are enough.
    let probes = count(&policy, &mut world, 120 + 600, 200, 200, "v2");
    assert!((3..20).contains(&probes), "{probes}");
    assert_eq!(world.events.drain(..).collect::<Vec<_>>(), ["canary shop: variant v2: 10 % of its requests probe it"]);
    let restored = count(&policy, &mut world, 120 + 601, 1000, 200, "v2");
    assert_eq!(
        world.events.drain(..).collect::<Vec<_>>(),
        ["canary shop: variant v2: 0 of 20 requests failed: restored"]
    );
    assert!(restored > 100, "{restored}");
    assert_eq!(count(&policy, &mut world, 120 + 602, 1000, 200, "v2"), healthy);
}

#[test]
fn probes_that_fail_open_it_again() {
    let (policy, mut world) = (policy(&rollback()), world());
    assert_eq!(count(&policy, &mut world, 0, 1000, 503, "v2"), 20);
    // Two of at least twenty are ten percent.
    assert_eq!(count(&policy, &mut world, 600, 1000, 503, "v2"), 2);
    assert_eq!(count(&policy, &mut world, 1100, 1000, 200, "v2"), 0);
    assert_eq!(world.events.len(), 3, "{:?}", world.events);
}

#[test]
fn grpc_fails_by_its_own_status() {
    for status in 0..=16 {
        let (policy, mut world) = (policy(&failover()), world());
        let request = json!({"method": "POST", "authority": "a.test", "path": "/", "response": {"status": 200, "grpcStatus": status}});
        let request: WireRequest = serde_json::from_value(request).unwrap();
        world.now = Timestamp(START * 1_000_000_000);
        let routes = (0..25).map(|_| request.decide(&policy, &mut world).route);
        let failed_over = routes.last().unwrap().as_deref() == Some("us");
        assert_eq!(failed_over, [2, 4, 12, 13, 14, 15].contains(&status), "{status}");
    }
}

#[test]
fn everyone_means_those_who_are_told_too() {
    let (policy, mut world) = (policy(&rollback()), world());
    count(&policy, &mut world, 0, 1000, 503, "v2");
    let request = json!({"method": "GET", "authority": "a.test", "path": "/", "headers": [["x-canary", "always"]]});
    let request: WireRequest = serde_json::from_value(request).unwrap();
    let decision = request.decide(&policy, &mut world);
    assert_eq!((decision.variant.as_deref(), decision.reason), (Some("v1"), Some("rolledBack")));
}

#[test]
fn errors_of_the_stable_variant_are_its_own_affair() {
    let (policy, mut world) = (policy(&rollback()), world());
    for user in 0..2000 {
        let stable = ask(&policy, &mut world, 0, user, 200, "1ms").route.as_deref() == Some("v1");
        if stable {
            ask(&policy, &mut world, 0, user, 503, "1ms");
        }
    }
    assert!(world.events.is_empty(), "{:?}", world.events);
}

#[test]
fn latency_alone_rolls_back() {
    let mut document = rollback();
    let rollback = document["canaries"][0]["rollback"].as_object_mut().unwrap();
    rollback.remove("errorPercent");
    rollback.insert("latency".into(), json!({"percentile": 90, "above": "800ms"}));
    let (policy, mut world) = (policy(&document), world());
    for user in 0..400 {
        ask(&policy, &mut world, 0, user, 500, "800ms");
    }
    assert!(world.events.is_empty(), "{:?}", world.events);
    for user in 0..400 {
        ask(&policy, &mut world, 30, user, 200, "801ms");
    }
    assert_eq!(world.events.len(), 1, "{:?}", world.events);
    assert!(world.events[0].contains("slower than 800 ms: all go to v1"), "{:?}", world.events);
}

#[test]
fn a_failing_route_fails_over_and_comes_back() {
    let (policy, mut world) = (policy(&failover()), world());
    assert_eq!(count(&policy, &mut world, 0, 100, 200, "eu"), 100);
    assert_eq!(count(&policy, &mut world, 60, 100, 504, "eu"), 20);
    let decision = ask(&policy, &mut world, 61, 0, 200, "1ms");
    assert_eq!((decision.route.as_deref(), decision.reason), (Some("us"), Some("failedOver")));
    let probes = count(&policy, &mut world, 90, 1000, 200, "eu");
    assert!(probes > 500, "a tenth until twenty were good, then all: {probes}");
    assert_eq!(world.events.len(), 3, "{:?}", world.events);
}

#[test]
fn workers_agree_within_fifty_milliseconds() {
    let (policy, mut world) = (policy(&failover()), world());
    let request: WireRequest =
        serde_json::from_value(json!({"method": "GET", "authority": "a.test", "path": "/"})).unwrap();
    let failed = Outcome { failed: true, latency: None };
    let start = START * 1_000_000_000;
    world.now = Timestamp(start);
    assert_eq!(request.decide(&policy, &mut world).route.as_deref(), Some("eu"));
    // Another worker is another memory over the same state.
    let this = std::mem::take(&mut world.worker);
    for _ in 0..20 {
        policy.breakers().observe(super::Watch(0), failed, &mut request.environment(&mut world));
    }
    assert_eq!(request.decide(&policy, &mut world).route.as_deref(), Some("us"));
    world.worker = this;
    assert_eq!(request.decide(&policy, &mut world).route.as_deref(), Some("eu"));
    world.now = Timestamp(start + super::PATIENCE);
    assert_eq!(request.decide(&policy, &mut world).route.as_deref(), Some("us"));
}

#[test]
fn a_memory_that_outlives_its_policy_knows_nothing_of_the_next() {
    let (before, mut world) = (policy(&failover()), world());
    assert_eq!(count(&before, &mut world, 0, 100, 503, "eu"), 20);
    let mut changed = failover();
    changed["routes"]["rules"][0]["name"] = json!("other");
    let after = policy(&changed);
    assert_eq!(ask(&after, &mut world, 0, 0, 200, "1ms").route.as_deref(), Some("eu"));
}

#[test]
fn successes_wait_for_each_other_and_failures_do_not() {
    let (policy, mut world) = (policy(&failover()), world());
    let request: WireRequest =
        serde_json::from_value(json!({"method": "GET", "authority": "a.test", "path": "/"})).unwrap();
    let outcome = |failed| Outcome { failed, latency: None };
    let mut writes = 0;
    let mut last = Vec::new();
    for millisecond in 0..1000 {
        world.now = Timestamp(START * 1_000_000_000 + millisecond * 1_000_000);
        let environment = &mut request.environment(&mut world);
        policy.breakers().observe(super::Watch(0), outcome(millisecond == 500), environment);
        let value = environment.read(policy.breakers().0[0].key(), <[u8]>::to_vec).unwrap();
        writes += usize::from(value != last);
        last = value;
    }
    assert!((15..=22).contains(&writes), "{writes}");
}

#[test]
fn a_changed_breaker_starts_anew_and_an_unchanged_one_goes_on() {
    let mut world = world();
    let before = policy(&failover());
    assert_eq!(count(&before, &mut world, 0, 100, 503, "eu"), 20);
    assert_eq!(count(&policy(&failover()), &mut world, 1, 100, 200, "eu"), 0);
    let mut changed = failover();
    changed["routes"]["rules"][0]["failover"]["errorPercent"] = json!(60);
    assert_eq!(count(&policy(&changed), &mut world, 2, 100, 200, "eu"), 100);
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_remedy() {
    let with = |rollback: Value| {
        json!({"canaries": [{"name": "a", "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}],
            "rollback": rollback}]})
    };
    for (document, expected) in [
        (
            with(json!({"variant": "v2", "to": "v1"})),
            "canaries[0].rollback: watches nothing; give `errorPercent`, `latency` or both",
        ),
        (
            with(json!({"variant": "v2", "to": "v2", "errorPercent": 5})),
            "canaries[0].rollback.to: \"v2\": is the variant itself; name another one",
        ),
        (
            with(json!({"variant": "v2", "to": "v3", "errorPercent": 5})),
            "canaries[0].rollback.to: \"v3\": is not the name of a variant; expected one of: v1, v2; did you mean `v1`?",
        ),
        (
            with(json!({"variant": "v2", "to": "v1", "latency": {"percentile": 100, "above": "1s"}})),
            "canaries[0].rollback.latency.percentile: 100: is out of range; write a percentile from 1 to 99.99, such as 99",
        ),
        (
            json!({"routes": {"rules": [{"name": "a", "route": "b", "failover": {"route": "b"}}]}}),
            "routes.rules[0].failover.route: \"b\": is the rule's own route; name another one",
        ),
    ] {
        assert_eq!(errors(&document), [expected], "{document}");
    }
    let few = policy(&with(json!({"variant": "v2", "to": "v1", "minRequests": 50,
        "latency": {"percentile": 99.5, "above": "1s"}})));
    assert_eq!(
        few.warnings()[0].to_string(),
        "canaries[0].rollback.minRequests: is so small that a single slow request rolls the variant back; with this percentile write 100 or more"
    );
    assert!(policy(&rollback()).warnings().is_empty());
}

#[test]
fn every_transition_has_its_counter() {
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    let names = |document: &Value| sorted(policy(document).metrics().names());
    let transitions = |section: &str, rule: &str, variant: &str, first: &str| {
        [first, "halfOpen", "restored"].map(|outcome| {
            format!(
                "penstock.breaker_transitions_total.section.{section}.rule.{rule}.variant.{variant}.outcome.{outcome}"
            )
        })
    };
    let canary = transitions("canaries", "shop", "v2", "rolledBack");
    let variants = ["v1", "v2"].map(|variant| format!("penstock.variant_requests_total.rule.shop.variant.{variant}"));
    assert_eq!(names(&rollback()), sorted([&canary[..], &variants].concat()));
    let matched = |rule: &str| format!("penstock.requests_total.section.routes.rule.{rule}.outcome.matched");
    let route = transitions("routes", "pay", "eu", "failedOver");
    assert_eq!(names(&failover()), sorted([&[matched("_default"), matched("pay")], &route[..]].concat()));
}
