//! Claims and other metadata in conditions, keys and stickiness.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn policy(document: &Value) -> Policy {
    Policy::from_json(document.to_string().as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn decide(policy: &Policy, more: &Value, world: &mut World) -> WireDecision {
    let mut request = json!({"method": "GET", "authority": "shop.example.com", "path": "/"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value::<WireRequest>(request).unwrap().decide(policy, world)
}

fn world() -> World {
    World::new(Timestamp(0), 7)
}

fn holds(entry: &Value, request: &Value) -> bool {
    let policy = policy(&json!({"routes": {"rules": [{"name": "r", "matches": [entry], "route": "a"}]}}));
    decide(&policy, request, &mut world()).route.is_some()
}

#[test]
fn conditions_on_claims_compare_as_those_on_headers_do() {
    let request = json!({"claims": {
        "sub": "u-1", "tier": "pro", "groups": ["dev", "ops"], "realm": {"team": "search", "roles": [1, 2]}, "age": 42,
        "admin": true, "none": null, "empty": [], "https://shop.example.com/role": "buyer",
    }});
    for (condition, expected) in [
        (json!({"name": "tier", "value": "pro"}), true),
        (json!({"name": "tier", "value": "Pro"}), false),
        (json!({"name": "tier", "value": "pro", "invert": true}), false),
        (json!({"name": "tier", "value": "free", "invert": true}), true),
        (json!({"name": "nobody", "value": "free", "invert": true}), true),
        (json!({"name": "nobody", "value": ""}), false),
        (json!({"name": "tier", "type": "In", "values": ["free", "pro"]}), true),
        (json!({"name": "groups", "value": "ops"}), true),
        (json!({"name": "groups", "value": "ops", "invert": true}), false),
        (json!({"name": "groups", "value": "dev,ops"}), false),
        (json!({"name": "groups", "type": "RegularExpression", "value": "o.s"}), true),
        (json!({"name": "groups", "type": "Contains", "value": "ev"}), true),
        (json!({"name": "groups", "type": "Prefix", "value": "op"}), true),
        (json!({"name": "groups", "type": "Suffix", "value": "ps"}), true),
        (json!({"name": "groups", "type": "Present"}), true),
        (json!({"name": "age", "value": "42"}), true),
        (json!({"name": "age", "value": "42.0"}), false),
        (json!({"name": "admin", "value": "true"}), true),
        (json!({"name": "realm.team", "value": "search"}), true),
        (json!({"name": "realm.roles", "value": "2"}), true),
        (json!({"name": "realm", "type": "Present"}), true),
        (json!({"name": "realm", "type": "Contains", "value": "search"}), false),
        (json!({"name": "none", "type": "Present"}), false),
        (json!({"name": "empty", "type": "Present"}), false),
        (json!({"name": "none", "type": "Present", "invert": true}), true),
        (json!({"name": "https://shop.example.com/role", "value": "buyer"}), true),
    ] {
        assert_eq!(holds(&json!({"claims": [condition]}), &request), expected, "{condition}");
    }
    let all = json!({"claims": [{"name": "tier", "value": "pro"}, {"name": "groups", "value": "qa"}]});
    assert!(!holds(&all, &request), "all conditions must hold");
}

#[test]
fn a_request_without_a_token_has_no_claims_and_no_header_is_one() {
    let condition = json!({"claims": [{"name": "tier", "value": "pro"}]});
    for request in [
        json!({}),
        json!({"claims": {}}),
        json!({"headers": [["tier", "pro"], ["x-jwt-claim-tier", "pro"], ["authorization", "Bearer eyJ0aWVyIjoicHJvIn0"]]}),
        json!({"metadata": {"other": {"payload": {"tier": "pro"}}}}),
        json!({"metadata": {"envoy.filters.http.jwt_authn": {"tier": "pro"}}}),
    ] {
        assert!(!holds(&condition, &request), "{request}");
    }
    assert!(holds(&condition, &json!({"metadata": {"envoy.filters.http.jwt_authn": {"payload": {"tier": "pro"}}}})));
}

#[test]
fn settings_say_where_the_claims_are() {
    let policy = policy(&json!({
        "settings": {"claims": {"namespace": "my.filter", "path": ["a", "b"]}},
        "routes": {"rules": [{"name": "r", "matches": [{"claims": [{"name": "tier", "value": "pro"}]}], "route": "a"}]},
    }));
    let route = |request: Value| decide(&policy, &request, &mut world()).route;
    assert_eq!(route(json!({"metadata": {"my.filter": {"a": {"b": {"tier": "pro"}}}}})).as_deref(), Some("a"));
    assert_eq!(route(json!({"metadata": {"envoy.filters.http.jwt_authn": {"payload": {"tier": "pro"}}}})), None);
}

#[test]
fn metadata_is_looked_up_by_namespace_and_path() {
    let request =
        json!({"metadata": {"envoy.filters.http.ext_authz": {"team": "search", "ids": [7], "a": {"b": false}}}});
    for (path, value, expected) in [
        (json!(["team"]), "search", true),
        (json!(["ids"]), "7", true),
        (json!(["a", "b"]), "false", true),
        (json!(["a.b"]), "false", false),
        (json!(["nothing"]), "", false),
    ] {
        let entry = json!({"metadata": [{"namespace": "envoy.filters.http.ext_authz", "path": path, "value": value}]});
        assert_eq!(holds(&entry, &request), expected, "{entry}");
    }
}

#[test]
fn limits_count_by_claims_and_metadata() {
    for (part, of) in [
        (json!({"claim": "sub"}), &(|id: &str| json!({"claims": {"sub": id}})) as &dyn Fn(&str) -> Value),
        (json!({"claim": "org.id"}), &|id| json!({"claims": {"org": {"id": [id, "more"]}}})),
        (
            json!({"metadata": {"namespace": "n", "path": ["a", "b"]}}),
            &|id| json!({"metadata": {"n": {"a": {"b": id}}}}),
        ),
    ] {
        let policy = policy(&json!({"rateLimits": [
            {"name": "l", "key": [part], "onMissingKey": "Deny", "limit": {"requests": 1, "per": "1h"}},
        ]}));
        let mut world = world();
        let mut status = |request: Value| decide(&policy, &request, &mut world).status;
        assert_eq!([of("a"), of("b"), of("a")].map(&mut status), [None, None, Some(429)], "{part}");
        let missing = decide(&policy, &json!({"headers": [["sub", "c"]]}), &mut World::new(Timestamp(0), 0));
        assert_eq!((missing.status, missing.reason), (Some(429), Some("missingKey")), "{part}");
    }
}

#[test]
fn canaries_stick_to_claims_as_they_do_to_headers() {
    let canary = |stickiness: Value| {
        policy(&json!({"canaries": [{"name": "c", "stickiness": stickiness,
            "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}]}))
    };
    let by_header = canary(json!({"header": "x-user"}));
    let by_claim = canary(json!({"claim": "sub"}));
    let by_list =
        canary(json!([{"metadata": {"namespace": "n", "path": ["user"]}}, {"claim": "sub"}, {"header": "x-user"}]));
    for user in ["alice", "bob", "carol", "dave", "erin"] {
        let expected = decide(&by_header, &json!({"headers": [["x-user", user]]}), &mut world()).variant;
        let claims = json!({"claims": {"sub": user}});
        assert_eq!(decide(&by_claim, &claims, &mut world()).variant, expected, "{user}");
        assert_eq!(decide(&by_list, &claims, &mut world()).variant, expected, "{user}");
        let both = json!({"claims": {"sub": "other"}, "metadata": {"n": {"user": user}}});
        assert_eq!(decide(&by_list, &both, &mut world()).variant, expected, "{user}");
    }
}

#[test]
fn many_rules_on_claims_are_found_by_the_claims_that_a_request_has() {
    let rules: Vec<Value> = (0..200)
        .map(|i| {
            let condition = match i % 4 {
                0 => json!({"name": "tenant", "value": format!("t{i}")}),
                1 => json!({"name": "tenant", "type": "In", "values": [format!("t{i}"), format!("u{i}")]}),
                2 => json!({"name": "groups", "type": "Prefix", "value": format!("g{i}-")}),
                _ => json!({"name": format!("flag{i}"), "type": "Present"}),
            };
            json!({"name": format!("r{i}"), "matches": [{"claims": [condition]}], "route": format!("route{i}")})
        })
        .collect();
    let policy = policy(&json!({"routes": {"rules": rules, "default": "none"}}));
    let route = |claims: Value| decide(&policy, &json!({"claims": claims}), &mut world()).route.unwrap();
    assert_eq!(route(json!({"tenant": "t40"})), "route40");
    assert_eq!(route(json!({"tenant": ["t80", "u41"]})), "route41");
    assert_eq!(route(json!({"groups": ["x", "g42-admins"]})), "route42");
    assert_eq!(route(json!({"flag43": {"deep": 1}})), "route43");
    assert_eq!(route(json!({"flag43": true, "tenant": "t0"})), "route0");
    assert_eq!(route(json!({"tenant": "t1000"})), "none");
}

#[test]
fn wrong_conditions_on_claims_say_what_would_be_right() {
    for (entry, message) in [
        (json!({"claims": [{"value": "pro"}]}), "claims[0].name: is required"),
        (json!({"claims": [{"name": "tier"}]}), "claims[0].value: is required"),
        (json!({"claims": []}), "claims: []: is empty"),
        (json!({"claims": [{"name": "a\u{200b}b", "value": "1"}]}), "hidden character U+200B"),
        (json!({"claims": [{"name": "tier", "value": 1}]}), "put it in quotes"),
        (json!({"claims": {"tier": "pro"}}), "write a list"),
        (json!({"metadata": [{"path": ["a"], "value": "1"}]}), "metadata[0].namespace: is required"),
        (json!({"metadata": [{"namespace": "n", "path": [], "value": "1"}]}), "path: []: is empty"),
        (json!({"metadata": [{"namespace": "n", "path": "a", "value": "1"}]}), "is a string"),
        (json!({"claim": [{"name": "tier", "value": "pro"}]}), "did you mean `claims`?"),
    ] {
        let document = json!({"routes": {"rules": [{"name": "r", "matches": [entry], "route": "a"}]}});
        let problems =
            Policy::<penstock_policy::module::Suite>::from_json(document.to_string().as_bytes()).unwrap_err();
        assert!(problems.to_string().contains(message), "{entry}: {problems}");
    }
}
