//! Guarantees that users of other gateways rely on: evaluates the policies in `docs/filters/canary.md` under "From
//! other gateways".

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use penstock::yaml::Located;
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/filters/canary.md");

/// The policy on the page with a canary of this name.
fn policy(canary: &str) -> Policy {
    let name = format!("- name: {canary} ");
    let block = PAGE.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = block.into_iter().find(|block| block.contains(&name)).unwrap();
    Policy::from_node(&Located::read(block).unwrap().node).unwrap_or_else(|problems| panic!("{problems}"))
}

fn ask(policy: &Policy, world: &mut World, host: &str, more: &Value) -> WireDecision {
    let mut request = json!({"method": "GET", "authority": format!("{host}.example.com"), "path": "/"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value::<WireRequest>(request).unwrap().decide(policy, world)
}

/// How many of 2,000 requests take v2.
fn of_2000(policy: &Policy, host: &str, headers: &Value) -> usize {
    let mut world = World::new(Timestamp(0), 1);
    let headers = json!({ "headers": headers });
    let variants = (0..2000).map(|_| ask(policy, &mut world, host, &headers).variant);
    variants.filter(|variant| variant.as_deref() == Some("v2")).count()
}

#[test]
fn ingress_nginx_header_before_cookie_before_weight() {
    let policy = policy("by-header");
    for (headers, all) in [
        (json!([["x-canary", "always"]]), true),
        (json!([["x-canary", "never"]]), false),
        (json!([["cookie", "canary=always"]]), true),
        (json!([["cookie", "canary=never"]]), false),
        (json!([["x-canary", "always"], ["cookie", "canary=never"]]), true),
        (json!([["x-canary", "never"], ["cookie", "canary=always"]]), false),
        // Any other value is ignored.
        (json!([["x-canary", "v2"], ["cookie", "canary=always"]]), true),
        (json!([["x-canary", ""], ["cookie", "a=b; canary=never"]]), false),
    ] {
        assert_eq!(of_2000(&policy, "by-header", &headers), if all { 2000 } else { 0 }, "{headers}");
    }
    for headers in [json!([]), json!([["x-canary", "Always"]]), json!([["cookie", "canary=1"]])] {
        // Ten percent, with more than five standard deviations to each side.
        assert!((130..270).contains(&of_2000(&policy, "by-header", &headers)), "{headers}");
    }
}

#[test]
fn ingress_nginx_header_value_and_header_pattern() {
    let (by_value, by_pattern) = (policy("by-value"), policy("by-pattern"));
    for (region, value, pattern) in [
        ("eu", true, false),
        ("EU", false, false),
        ("eu-west", false, true),
        ("old-eu-north-1", false, true),
        ("eu-south", false, false),
        // With a value or a pattern, these values have no special meaning.
        ("always", false, false),
        ("never", false, false),
    ] {
        let headers = json!([["x-region", region]]);
        assert_eq!(of_2000(&by_value, "by-value", &headers), if value { 2000 } else { 0 }, "{region}");
        assert_eq!(of_2000(&by_pattern, "by-pattern", &headers), if pattern { 2000 } else { 0 }, "{region}");
    }
}

#[test]
fn gateway_api_weights_are_chance_in_proportion() {
    let policy = policy("http-route");
    let mut world = World::new(Timestamp(0), 1);
    let mut counts = [0; 3];
    for _ in 0..20_000 {
        // The same client each time: nothing is sticky.
        let decision = ask(&policy, &mut world, "any", &json!({"sourceAddress": "192.0.2.1"}));
        counts[["v1", "v2", "v3"].iter().position(|name| decision.variant.as_deref() == Some(name)).unwrap()] += 1;
        assert!(decision.response_headers.is_empty());
    }
    assert!((14_600..15_400).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    let zero = json!({"canaries": [{"name": "zero", "variants": [{"name": "v1", "weight": 0}]}]});
    assert!(Policy::<penstock_policy::module::Suite>::from_json(zero.to_string().as_bytes()).is_err());
}

#[test]
fn istio_consistent_hash_keeps_a_user_by_header_cookie_or_address() {
    let policy = policy("http-header-name");
    let mut world = World::new(Timestamp(0), 1);
    let mut second = [0; 3];
    for user in 0..200 {
        let cookie = format!("other=1; user=user-{user}");
        let address = format!("203.0.{}.{}", user / 100, user % 100);
        // The entry that a client writes itself has no effect, because the trusted proxy appends the last one.
        let forged = format!("198.51.100.{user}, {address}");
        let users = [
            (
                "header",
                [json!([["x-user", user.to_string()]]), json!([["x-user", user.to_string()], ["x-other", "1"]])],
            ),
            ("cookie", [json!([["cookie", cookie]]), json!([["x-user", "1"], ["cookie", cookie]])]),
            ("address", [json!([["x-forwarded-for", address]]), json!([["x-forwarded-for", forged]])]),
        ];
        for (kind, (host, requests)) in users.into_iter().enumerate() {
            let variants: Vec<_> = requests
                .iter()
                .cycle()
                .take(6)
                .map(|headers| {
                    let decision =
                        ask(&policy, &mut world, host, &json!({"headers": headers, "sourceAddress": "10.0.0.1"}));
                    assert!(decision.response_headers.is_empty());
                    decision.variant.unwrap()
                })
                .collect();
            assert!(variants.iter().all(|variant| *variant == variants[0]), "{host}: {variants:?}");
            second[kind] += usize::from(variants[0] == "v2");
        }
    }
    assert!(second.iter().all(|count| (60..140).contains(count)), "{second:?}");
    let new = ask(&policy, &mut world, "cookie", &json!({}));
    let (name, cookie) = &new.response_headers[0];
    assert!(name == "set-cookie" && cookie.contains("; Path=/shop; Max-Age=3600; "), "{cookie}");
    let id = cookie.split(';').next().unwrap();
    for _ in 0..20 {
        let again = ask(&policy, &mut world, "cookie", &json!({"headers": [["cookie", id]]}));
        assert_eq!(again.variant, new.variant);
    }
}
