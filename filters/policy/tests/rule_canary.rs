//! Rules that lead to a canary: it decides in the rule's place, with the rule's own effects.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};

fn policy(json: &Value) -> Policy {
    Policy::from_json(json.to_string().as_bytes()).unwrap()
}

/// Two rules that name one canary, a canary that no rule names, and a default.
fn shop() -> Value {
    json!({
        "routes": {"default": "front", "rules": [
            {
                "name": "cart",
                "matches": [{"path": {"value": "/cart"}}],
                "canary": "cart",
                "requestHeaders": {"set": [{"name": "x-team", "value": "cart"}], "remove": ["x-debug"]},
                "rewrite": {"path": {"type": "ReplacePrefixMatch", "value": "/basket"}, "hostname": "cart.internal"},
                "timeout": "2s",
                "retries": {"attempts": 2, "retryOn": ["5xx"]}
            },
            {"name": "wishes", "matches": [{"path": {"value": "/wishes"}}], "canary": "cart"}
        ]},
        "canaries": [
            {
                "name": "cart",
                "stickiness": {"cookie": {"name": "id"}},
                "overrides": [{"header": {"name": "x-canary", "value": "always"}, "variant": "v2"}],
                "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1, "route": "cart-v2"}],
                "rollback": {"variant": "v2", "to": "v1", "minRequests": 5, "errorPercent": 50, "window": "60s"}
            },
            {"name": "all", "matches": [{"headers": [{"name": "x-beta", "type": "Present"}]}], "variants": [{"name": "beta", "weight": 1}]}
        ]
    })
}

fn ask(policy: &Policy, world: &mut World, path: &str, headers: &[(&str, &str)], status: u16) -> WireDecision {
    let request = json!({
        "method": "GET", "authority": "a.test", "path": path, "headers": headers,
        "response": {"status": status, "latency": "1ms"},
    });
    serde_json::from_value::<WireRequest>(request).unwrap().decide(policy, world)
}

fn world() -> World {
    World::new(Timestamp(1_700_000_000_000_000_000), 1)
}

#[test]
fn the_rule_keeps_its_effects_and_the_canary_chooses_the_route() {
    let policy = policy(&shop());
    let mut seen = Vec::new();
    for user in 0..40 {
        let id = format!("id={user}");
        let headers = [("cookie", id.as_str()), ("x-debug", "1")];
        let decision = ask(&policy, &mut world(), "/cart/1?q=1", &headers, 200);
        assert_eq!((decision.section, decision.rule.as_deref()), (Some("routes"), Some("cart")));
        let variant = decision.variant.clone().unwrap();
        let route = if variant == "v2" { "cart-v2" } else { "v1" };
        assert_eq!(decision.route.as_deref(), Some(route));
        let set = |name: &str| decision.headers.set.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(set(":path"), Some("/basket/1?q=1"));
        assert_eq!(set(":authority"), Some("cart.internal"));
        assert_eq!(set("x-team"), Some("cart"));
        assert_eq!(set("x-envoy-upstream-rq-timeout-ms"), Some("2000"));
        assert_eq!(set("x-envoy-max-retries"), Some("2"));
        assert_eq!(set("x-penstock-route"), Some(route));
        assert_eq!(decision.headers.remove, ["x-debug"]);
        seen.push(variant);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["v1", "v2"], "the weights choose");
}

#[test]
fn a_user_has_one_variant_whichever_rule_asks_the_canary() {
    let policy = policy(&shop());
    for user in 0..100 {
        let id = format!("id={user}");
        let variants = ["/cart", "/wishes"]
            .map(|path| ask(&policy, &mut world(), path, &[("cookie", id.as_str())], 200).variant.unwrap());
        assert_eq!(variants[0], variants[1], "{user}");
    }
}

#[test]
fn a_canary_that_a_rule_names_is_asked_by_rules_alone() {
    let policy = policy(&shop());
    let decision = ask(&policy, &mut world(), "/", &[], 200);
    assert_eq!((decision.route.as_deref(), decision.variant.as_deref()), (Some("front"), None));
    let decision = ask(&policy, &mut world(), "/", &[("x-beta", "1")], 200);
    assert_eq!((decision.section, decision.variant.as_deref()), (Some("canaries"), Some("beta")));
    let decision = ask(&policy, &mut world(), "/cart", &[("x-beta", "1")], 200);
    assert_eq!((decision.section, decision.rule.as_deref()), (Some("routes"), Some("cart")), "the rule comes first");
}

#[test]
fn cookie_override_and_rollback_work_as_for_any_canary() {
    let policy = policy(&shop());
    let mut world = world();
    let new = ask(&policy, &mut world, "/cart", &[], 200);
    assert_eq!(new.response_headers.len(), 1);
    assert!(new.response_headers[0].1.starts_with("id="), "{new:?}");
    let told = ask(&policy, &mut world, "/cart", &[("x-canary", "always"), ("cookie", "id=1")], 200);
    assert_eq!((told.variant.as_deref(), told.reason), (Some("v2"), Some("override")));
    assert!(told.response_headers.is_empty());
    for _ in 0..10 {
        ask(&policy, &mut world, "/cart", &[("x-canary", "always"), ("cookie", "id=1")], 503);
    }
    let back = ask(&policy, &mut world, "/wishes", &[("x-canary", "always"), ("cookie", "id=1")], 200);
    assert_eq!((back.variant.as_deref(), back.reason), (Some("v1"), Some("rolledBack")));
    assert_eq!(back.route.as_deref(), Some("v1"));
    assert!(world.events.iter().any(|event| event.starts_with("canary cart: variant v2")), "{:?}", world.events);
}

#[test]
fn a_rule_leads_to_exactly_one_place() {
    for (rule, expected) in [
        (r#"{"name":"r"}"#, "routes.rules[0]: needs one of: route, canary, redirect"),
        (r#"{"name":"r","route":"a","canary":"c"}"#, "routes.rules[0]: has both `route` and `canary`"),
        (
            r#"{"name":"r","canary":"c","failover":{"route":"b"}}"#,
            "routes.rules[0].failover: watches a route, but the rule has none",
        ),
    ] {
        let canaries = r#"[{"name":"c","variants":[{"name":"v","weight":1}]}]"#;
        let json = format!(r#"{{"routes":{{"rules":[{rule}]}},"canaries":{canaries}}}"#);
        let found = Policy::<penstock_policy::module::Suite>::from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{found}");
    }
}
