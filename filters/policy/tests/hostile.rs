//! Requests and policies that were made to take long: each is decided in time linear in its bytes.
//!
//! The exact budgets are those of `meter/`; these tests run natively in seconds and name what each input was. Before its
//! mend every one of them took from a tenth of a second to several seconds in a release build.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]
#![cfg(not(target_arch = "wasm32"))]

use std::time::{Duration, Instant};

use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};

/// As much as Envoy takes of a request's headers unless it is told otherwise.
const BYTES: usize = 56 << 10;

/// What a decision may take in a debug build on a machine that does other things.
const PATIENCE: Duration = Duration::from_millis(400);

/// The decision, and the least time that it took in three rounds, or in more while other work makes each of them long.
fn decide(policy: &Policy, request: &Value) -> (Value, Duration) {
    let wire: WireRequest = serde_json::from_value(request.clone()).unwrap();
    let mut least = Duration::MAX;
    let mut decision = Value::Null;
    for round in 0..30 {
        if round >= 3 && least < PATIENCE {
            break;
        }
        let mut world = World::new(Timestamp(0), 0);
        let begun = Instant::now();
        let decided = wire.decide(policy, &mut world);
        least = least.min(begun.elapsed());
        decision = serde_json::to_value(decided).unwrap();
    }
    (decision, least)
}

fn quick(policy: &Value, request: &Value) -> Value {
    let policy = Policy::from_json(policy.to_string().as_bytes()).unwrap();
    let (decision, took) = decide(&policy, request);
    assert!(took < PATIENCE, "{took:?}");
    decision
}

fn request(path: &str, headers: &[(&str, String)]) -> Value {
    json!({"method": "GET", "authority": "shop.example.com", "path": path, "headers": headers})
}

/// Rules that one field tells apart; the rule `i` wants the value `vi`.
fn rules(field: &str, name: &str, count: usize) -> Value {
    let rule = |i: usize| json!({"name": format!("r{i}"), "route": format!("r{i}"), "matches": [{field: [{"name": name, "value": format!("v{i}")}]}]});
    json!({"routes": {"rules": (0..count).map(rule).collect::<Vec<_>>()}})
}

/// `name=x0`, `name=x1`, and so on, as many as fit.
fn pairs(name: impl Fn(usize) -> String, between: &str) -> String {
    let mut text = String::new();
    for i in 0.. {
        let pair = format!("{}=x{i}{between}", name(i));
        if text.len() + pair.len() > BYTES {
            return text;
        }
        text.push_str(&pair);
    }
    text
}

#[test]
fn thousands_of_pairs_of_one_name_are_looked_at_once_each() {
    for count in [12, 2000] {
        let repeated = pairs(|_| "v".into(), "&");
        let decision = quick(&rules("queryParams", "v", count), &request(&format!("/?{repeated}&v=v1"), &[]));
        assert_eq!(decision.get("route"), None, "the first value counts");
        let decision = quick(&rules("queryParams", "v", count), &request(&format!("/?v=v7&{repeated}"), &[]));
        assert_eq!(decision["route"], "r7");
        let repeated = pairs(|_| "v".into(), ";");
        for (cookies, route) in [(format!("{repeated}v=v1"), None), (format!("v=v7;{repeated}"), Some("r7"))] {
            let decision = quick(&rules("cookies", "v", count), &request("/", &[("cookie", cookies)]));
            assert_eq!(decision.get("route").and_then(Value::as_str), route);
        }
    }
}

#[test]
fn thousands_of_names_that_rules_ask_for_are_found_in_one_pass() {
    let rule = |i: usize| json!({"name": format!("r{i}"), "route": format!("r{i}"), "matches": [{"cookies": [{"name": format!("n{i}"), "type": "RegularExpression", "value": "y.*"}]}]});
    let policy = json!({"routes": {"rules": (0..5000).map(rule).collect::<Vec<_>>()}});
    let decision =
        quick(&policy, &request("/", &[("cookie", format!("{}n4999=yes", pairs(|i| format!("n{i}"), ";")))]));
    assert_eq!(decision["route"], "r4999");
}

#[test]
fn a_header_with_all_values_of_a_list_tries_each_rule_once() {
    let values: Vec<String> = (0..60).map(|i| format!("v{i}")).collect();
    let rule = |i: usize| json!({"name": format!("r{i}"), "route": "r", "matches": [{"headers": [{"name": "x", "type": "In", "values": values}, {"name": "y", "type": "Prefix", "value": format!("{i}-")}]}]});
    let policy = json!({"routes": {"rules": (0..1000).map(rule).collect::<Vec<_>>()}});
    let mut headers: Vec<(&str, String)> = values.iter().map(|value| ("x", value.clone())).collect();
    headers.push(("y", "none".into()));
    assert_eq!(quick(&policy, &request("/", &headers)).get("route"), None);
}

#[test]
fn thousands_of_overrides_cost_no_more_than_a_few() {
    let policy = |count: usize| {
        let over = |i: usize| json!({"cookie": {"name": "user", "value": format!("u{i}")}, "variant": if i.is_multiple_of(2) { "v1" } else { "v2" }});
        json!({"canaries": [{"name": "c", "stickiness": {"header": "x-user"}, "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 0}],
            "overrides": (0..count).map(over).collect::<Vec<_>>()}]})
    };
    let cookies = |user: &str| request("/", &[("cookie", format!("{}user={user}", pairs(|i| format!("n{i}"), ";")))]);
    for (count, user, variant) in [(5000, "u4999", "v2"), (5000, "u0", "v1"), (5000, "u5000", "v1"), (3, "u1", "v2")] {
        assert_eq!(quick(&policy(count), &cookies(user))["variant"], variant, "{count} {user}");
    }
    // The first that holds wins, whatever it looks at.
    let mixed = json!({"canaries": [{"name": "c", "variants": [{"name": "a", "weight": 1}, {"name": "b", "weight": 0}, {"name": "c", "weight": 0}],
        "overrides": [{"header": {"name": "x", "type": "Prefix", "value": "1"}, "variant": "b"}, {"cookie": {"name": "x", "value": "1"}, "variant": "c"},
            {"header": {"name": "x", "value": "12"}, "variant": "c"}]}]});
    for (headers, variant) in [
        (vec![("x", "12".to_owned())], "b"),
        (vec![("x", "2".to_owned()), ("cookie", "x=1; x=2".to_owned())], "c"),
        (vec![("cookie", "x=2; x=1".to_owned())], "a"),
    ] {
        assert_eq!(quick(&mixed, &request("/", &headers))["variant"], variant, "{headers:?}");
    }
}

#[test]
fn twenty_expressions_are_one_pass_whatever_the_value_is() {
    let rule = |i: usize| {
        json!({"name": format!("r{i}"), "route": format!("r{i}"), "matches": [{"headers": [
            {"name": "x-agent", "type": "RegularExpression", "value": format!(".*(Bot{i}|crawler{i}|spider{i}).*")}]}]})
    };
    let policy = json!({"routes": {"rules": (0..20).map(rule).collect::<Vec<_>>()}});
    // Seven values, each as long as an expression takes, with the beginnings of all that could match.
    let value: String =
        "Bot crawler1 spider Bot2 ".chars().filter(|c| !c.is_ascii_digit()).cycle().take(8000).collect();
    let hostile: Vec<(&str, String)> = (0..7).map(|_| ("x-agent", value.clone())).collect();
    assert_eq!(quick(&policy, &request("/", &hostile)).get("route"), None);
    let mut found = hostile.clone();
    found.push(("x-agent", "a spider7".into()));
    assert_eq!(quick(&policy, &request("/", &found))["route"], "r7");
}

#[test]
fn an_expression_sees_nothing_of_a_value_above_8_kib_and_that_is_counted() {
    let policy = |invert: bool| {
        json!({"routes": {"rules": [{"name": "r", "route": "r", "matches": [{"headers": [
            {"name": "x", "type": "RegularExpression", "value": "(?i).*[a-z0-9]{1,200}x.*", "invert": invert}]}]}]}})
    };
    let long = request("/", &[("x", "ax".repeat(28 << 10))]);
    assert_eq!(quick(&policy(false), &long).get("route"), None);
    assert_eq!(quick(&policy(true), &long)["route"], "r");
    assert_eq!(quick(&policy(false), &request("/", &[("x", "ax".repeat(4 << 10))]))["route"], "r");
    let counted = |request: &Value| {
        let policy: Policy = Policy::from_json(policy(false).to_string().as_bytes()).unwrap();
        let wire: WireRequest = serde_json::from_value(request.clone()).unwrap();
        let owned = wire.header_map();
        let headers: Vec<penstock_policy::Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
        let scratch = penstock_policy::Scratch::default();
        let view = penstock_policy::Request::new(&headers).with_scratch(&scratch);
        let decision = policy.decide(&view, &mut wire.environment(&mut World::new(Timestamp(0), 0))).unwrap();
        let names = policy.metrics().names();
        decision.counts.iter().filter(|metric| &*names[metric.index()] == "penstock.long_values_total").count()
    };
    assert_eq!(counted(&long), 1);
    assert_eq!(counted(&request("/", &[("x", "ax".into())])), 0);
}
