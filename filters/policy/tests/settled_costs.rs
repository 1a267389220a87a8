//! Limits whose cost the response says: what is reserved, and how it is settled.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn policy(rest: &Value) -> Policy {
    let mut limit = json!({"name": "tokens", "key": [{"header": "x-user"}], "limit": {"requests": 1000, "per": "1000s"},
        "cost": {"responseHeader": "X-Tokens-Used", "reserve": 100, "max": 2000}, "quotaHeaders": "IETF"});
    limit.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let document = json!({"rateLimits": [limit]}).to_string();
    Policy::from_json(document.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// One request of `user` at a second, whose response says these headers; `None`: there is no response.
fn send(policy: &Policy, world: &mut World, user: &str, second: u64, response: Option<Value>) -> WireDecision {
    let mut request = json!({"method": "GET", "authority": "a", "path": "/", "headers": [["x-user", user]]});
    if let Some(headers) = response {
        request["response"] = json!({"status": 200, "headers": headers});
    }
    let mut request: WireRequest = serde_json::from_value(request).unwrap();
    request.time = Some(Timestamp(second * 1_000_000_000));
    request.decide(policy, world)
}

/// What the user has left, as a request that costs nothing in the end is told.
fn left(policy: &Policy, world: &mut World, user: &str, second: u64) -> i64 {
    let decision = send(policy, world, user, second, Some(json!([["x-tokens-used", "0"]])));
    assert_eq!(decision.action, Some("continue"), "{decision:?}");
    let (_, value) = decision.response_headers.iter().find(|(name, _)| name == "ratelimit").unwrap();
    let remaining = value.split(";r=").nth(1).unwrap().split(';').next().unwrap();
    remaining.parse::<i64>().unwrap() + 100
}

fn world() -> World {
    World::new(Timestamp(0), 0)
}

#[test]
fn the_difference_is_settled_either_way_when_the_response_is_there() {
    for (said, expected) in [
        (Some(json!([["x-tokens-used", "100"]])), 900),
        (Some(json!([["X-Tokens-Used", "30"]])), 970),
        (Some(json!([["x-tokens-used", "0"]])), 1000),
        (Some(json!([["x-tokens-used", "700"]])), 300),
        (Some(json!([["x-tokens-used", "700"], ["x-tokens-used", "1"]])), 300),
        // Nothing usable, or nothing at all: the reserve stays.
        (Some(json!([["x-tokens-used", "many"]])), 900),
        (Some(json!([["x-tokens-used", "-5"]])), 900),
        (Some(json!([["x-tokens-used", ""]])), 900),
        (Some(json!([["x-tokens-used", "1.5"]])), 900),
        (Some(json!([["x-other", "700"]])), 900),
        (Some(json!([])), 900),
        (None, 900),
    ] {
        let (policy, mut world) = (policy(&json!({})), world());
        send(&policy, &mut world, "a", 10, said.clone());
        assert_eq!(left(&policy, &mut world, "a", 10), expected, "{said:?}");
        assert_eq!(left(&policy, &mut world, "b", 10), 1000, "another key's bucket is its own");
    }
}

#[test]
fn a_response_may_cost_more_than_the_bucket_has_and_others_wait_for_that() {
    let (policy, mut world) = (policy(&json!({})), world());
    let answer = send(&policy, &mut world, "a", 10, Some(json!([["x-tokens-used", "1500"]])));
    assert_eq!(answer.action, Some("continue"));
    // 500 in debt: 600 s until 100 are there again.
    let refused = send(&policy, &mut world, "a", 10, None);
    assert_eq!(refused.status, Some(429));
    assert!(refused.response_headers.contains(&("retry-after".to_owned(), "600".to_owned())), "{refused:?}");
    assert_eq!(send(&policy, &mut world, "a", 609, None).status, Some(429));
    assert_eq!(send(&policy, &mut world, "a", 610, None).action, Some("continue"));
}

#[test]
fn no_response_costs_more_than_max() {
    let (policy, mut world) = (policy(&json!({})), world());
    send(&policy, &mut world, "a", 10, Some(json!([["x-tokens-used", "999999999999"]])));
    assert_eq!(send(&policy, &mut world, "a", 10 + 1099, None).status, Some(429), "2000 in all");
    assert_eq!(send(&policy, &mut world, "a", 10 + 1100, None).action, Some("continue"));
}

#[test]
fn what_has_been_paid_off_by_time_is_not_given_back() {
    let (policy, mut world) = (policy(&json!({})), world());
    // The bucket has forgotten the reserve by the time that the next response says that it was too much.
    let slow: WireRequest = serde_json::from_value(json!({"method": "GET", "authority": "a", "path": "/",
        "headers": [["x-user", "a"]], "time": "1970-01-01T00:00:10Z"}))
    .unwrap();
    slow.decide(&policy, &mut world);
    assert_eq!(left(&policy, &mut world, "a", 60), 950);
    assert_eq!(left(&policy, &mut world, "a", 200), 1000, "never more than the burst");
}

#[test]
fn a_refused_request_reserves_nothing() {
    let document = json!({"rateLimits": [
        {"name": "tokens", "key": [], "limit": {"requests": 1000, "per": "1000s"}, "quotaHeaders": "IETF",
            "cost": {"responseHeader": "x-tokens-used", "reserve": 100}},
        {"name": "none", "key": [], "matches": [{"headers": [{"name": "x-user", "value": "refused"}]}],
            "limit": {"requests": 1, "per": "1h"}},
    ]});
    let policy: Policy = Policy::from_json(document.to_string().as_bytes()).unwrap();
    let mut world = world();
    send(&policy, &mut world, "refused", 10, Some(json!([["x-tokens-used", "0"]])));
    for _ in 0..5 {
        let refused = send(&policy, &mut world, "refused", 10, Some(json!([["x-tokens-used", "900"]])));
        assert_eq!(refused.status, Some(429));
    }
    assert_eq!(left(&policy, &mut world, "a", 10), 1000);
}

#[test]
fn costs_of_the_response_and_of_the_request_do_not_mix() {
    for (cost, message) in [
        (json!({"responseHeader": "x", "header": "y"}), "cost.header: cannot be combined with `responseHeader`"),
        (json!({"reserve": 5}), "cost.reserve: has no meaning without `responseHeader`"),
        (
            json!({"responseHeader": "x", "default": 5}),
            "cost.default: has no meaning with `responseHeader`; write `reserve`",
        ),
        (json!({"responseHeader": "x", "reserve": 50, "max": 40}), "cost.reserve: is more than `max`"),
        (json!({"responseHeader": "x", "reserve": 5000}), "cost.reserve: is more than the burst of 1,000"),
        (json!({"responseHeader": "x", "reserve": 0}), "cost.reserve: 0"),
        (json!({"responseHeader": ":status"}), "cost.responseHeader: \":status\""),
    ] {
        let document =
            json!({"rateLimits": [{"name": "l", "key": [], "limit": {"requests": 1000, "per": "1h"}, "cost": cost}]});
        let problems =
            Policy::<penstock_policy::module::Suite>::from_json(document.to_string().as_bytes()).unwrap_err();
        assert!(problems.to_string().replace("1000", "1,000").contains(message), "{cost}: {problems}");
    }
    assert_eq!(left(&policy(&json!({"cost": {"responseHeader": "x-tokens-used"}})), &mut world(), "a", 1), 1099);
}
