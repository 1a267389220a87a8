//! Every request that only the new policy passes is covered by a reported loosening.

use penstock_policy::wire::{WireRequest, World};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::proofs::unproved;
use super::verdict::Strictness;
use super::*;

fn egress() -> impl Strategy<Value = Value> {
    let destination = select(vec![
        json!({"host": "a.test"}),
        json!({"host": "a.test", "ports": [443]}),
        json!({"host": "b.a.test", "ports": [443, 80]}),
        json!({"host": "*.a.test"}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "10.1.0.0/16", "ports": [443]}),
        json!({"cidr": "::/0"}),
    ]);
    let optional = |values: Vec<Value>| select([vec![Value::Null; values.len()], values].concat());
    let rule = (
        vec(destination.clone(), 1..3),
        optional(vec![json!(["GET"]), json!(["GET", "POST"]), json!(["POST"]), json!(["POST", "PUT", "GET"])]),
        optional(vec![json!([{"value": "/a"}]), json!([{"type": "Exact", "value": "/a/b"}]), json!([{"type": "RegularExpression", "value": "/a.*"}]), json!([{"type": "RegularExpression", "value": "/a(/[a-z]+)?"}])]),
        optional(vec![json!(["spiffe://c/ns/a"]), json!(["spiffe://c/ns/*"])]),
        optional(vec![json!("2026-06-01T00:00:00Z"), json!("2027-01-01T00:00:00Z")]),
        (any::<bool>(), optional(vec![json!(["websocket"]), json!(["websocket", "h2c"]), json!(["h2c"])])),
    )
        .prop_map(|(to, methods, paths, from, expires, (connect, upgrades))| {
            json!({"to": to, "methods": methods, "paths": paths, "from": from, "expires": expires, "connect": connect, "upgrades": upgrades})
        });
    let default_port = optional(vec![json!(80), json!(443), json!(8443)]);
    (vec(rule, 0..4), vec(destination, 0..2), prop::bool::weighted(0.3), any::<bool>(), default_port).prop_map(|(rules, deny, audit, sni, port)| {
        let mut egress = json!({"rules": rules, "deny": deny, "verifySni": sni, "mode": if audit { "Audit" } else { "Enforce" }});
        for (i, rule) in egress["rules"].as_array_mut().unwrap().iter_mut().enumerate() {
            rule["name"] = json!(format!("r{i}"));
            rule.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        if !port.is_null() {
            egress["defaultPort"] = port;
        }
        json!({"egress": egress})
    })
}

/// Two policies that differ slightly, as in reviews, or completely.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    (egress(), egress(), 0..8usize, any::<bool>()).prop_map(|(old, other, what, back)| {
        let mut new = old.clone();
        let (mine, theirs) = (&mut new["egress"], &other["egress"]);
        match what {
            0 => *mine = theirs.clone(),
            1 => mine["deny"] = theirs["deny"].clone(),
            // Rules merged or split, by method or by upgrade.
            5 | 6 => {
                let field = if what == 5 { "methods" } else { "upgrades" };
                if let Some(rule) = mine["rules"].get(0).cloned()
                    && let Some(items) = rule[field].as_array().filter(|items| items.len() > 1)
                {
                    let split = items.iter().enumerate().map(|(i, item)| {
                        let mut part = rule.clone();
                        part["name"] = json!(format!("s{i}"));
                        part[field] = json!([item]);
                        part
                    });
                    let rules = split.chain(mine["rules"].as_array().unwrap().iter().skip(1).cloned()).collect();
                    mine["rules"] = Value::Array(rules);
                }
            }
            2 => drop(mine["rules"].as_array_mut().unwrap().pop()),
            3 => {
                if let (Some(rule), Some(their)) = (mine["rules"].get_mut(0), theirs["rules"].get(0)) {
                    *rule = their.clone();
                }
            }
            4 => mine["verifySni"] = theirs["verifySni"].clone(),
            _ => match theirs.get("defaultPort") {
                Some(port) => mine["defaultPort"] = port.clone(),
                None => drop(mine.as_object_mut().unwrap().remove("defaultPort")),
            },
        }
        if back { (new, old) } else { (old, new) }
    })
}

fn request() -> impl Strategy<Value = WireRequest> {
    (
        select(vec!["GET", "POST", "CONNECT"]),
        select(vec![
            "a.test",
            "b.a.test",
            "b.a.test:80",
            "10.1.2.3:443",
            "10.2.2.3",
            "[::ffff:10.1.2.3]",
            "[64:ff9b::10.1.2.3]",
            "[2001:db8::5efe:10.1.2.3]",
            "c.test",
        ]),
        select(vec!["/", "/a", "/a/b", "/a%2fb", "/a/../b"]),
        select(vec![None, Some("spiffe://c/ns/a"), Some("spiffe://c/ns/b")]),
        select(vec!["2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z", "2027-07-01T00:00:00Z"]),
        select(vec![None, Some("a.test")]),
        (
            select(vec![None, Some("websocket"), Some("websocket, h2c"), Some("h2c"), Some("H2C"), Some("other")]),
            vec(
                (
                    select(vec!["x-http-method-override", "x-http-method", "x-method-override"]),
                    select(vec!["GET", "POST", "PUT"]),
                ),
                0..3,
            ),
        ),
    )
        .prop_map(|(method, authority, path, peer, time, sni, (upgrade, overrides))| WireRequest {
            method: method.to_owned(),
            scheme: Some("https".to_owned()),
            authority: if method == "CONNECT" && !authority.ends_with("80") && !authority.ends_with("443") {
                format!("{authority}:443")
            } else {
                authority.to_owned()
            },
            path: if method == "CONNECT" { String::new() } else { path.to_owned() },
            headers: upgrade
                .map(|protocols| ("upgrade", protocols))
                .into_iter()
                .chain(overrides)
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            peer: peer.map(str::to_owned),
            sni: sni.map(str::to_owned),
            time: Timestamp::parse(time),
            ..WireRequest::default()
        })
}

/// Removes fields without meaning: what happens to requests without an empty key, and nulls.
fn tidy(mut policy: Value) -> Value {
    let limit = policy["rateLimits"][0].as_object_mut().unwrap();
    if limit["key"].as_array().unwrap().is_empty() {
        limit.remove("onMissingKey");
    }
    limit.retain(|_, value| !value.is_null());
    policy
}

/// A policy with one limit.
fn limit_of_any_key() -> impl Strategy<Value = Value> {
    let part = select(vec![
        json!({"header": "x"}),
        json!({"header": "y"}),
        json!({"cookie": "c"}),
        json!({"queryParam": "q"}),
        json!({"path": {}}),
        json!({"method": {}}),
        json!({"hostname": {}}),
        json!({"peer": {}}),
        json!({"constant": "k"}),
        json!({"sourceAddress": {}}),
        json!({"sourceAddress": {"ipv6Prefix": 64}}),
    ]);
    let matches = select(vec![
        Value::Null,
        json!([{"method": "GET"}]),
        json!([{"path": {"value": "/a"}}]),
        json!([{"headers": [{"name": "x", "type": "Present"}]}]),
        json!([{"headers": [{"name": "x", "value": "1", "invert": true}]}]),
        json!([{"headers": [{"name": "x", "type": "RegularExpression", "value": "[0-9]+"}]}]),
        json!([{"headers": [{"name": "x", "type": "In", "values": ["1", "2"]}]}, {"method": "POST"}]),
        json!([{"path": {"type": "RegularExpression", "value": "/a(/.*)?"}}]),
    ]);
    (vec(part, 0..3), select(vec!["Share", "Skip", "Deny"]), matches, 1..4u32, 0..3u32).prop_map(
        |(mut key, missing, matches, requests, hops)| {
            key.dedup();
            let mut limit =
                json!({"name": "l", "key": key, "onMissingKey": missing, "limit": {"requests": requests, "per": "1h"}});
            if !matches.is_null() {
                limit["matches"] = matches;
            }
            json!({"rateLimits": [limit], "settings": {"sourceAddress": {"trustedHops": hops}}})
        },
    )
}

/// A request with some of the attributes that limits count by.
fn counted() -> impl Strategy<Value = WireRequest> {
    let header = select(vec![
        ("x", "1"),
        ("x", "2"),
        ("y", "1"),
        ("cookie", "c=1"),
        ("x-forwarded-for", "203.0.113.1"),
        ("x-forwarded-for", "203.0.113.2, 203.0.113.3"),
    ]);
    (
        select(vec!["GET", "POST"]),
        select(vec!["/", "/a?q=1", "/a?q=2"]),
        select(vec![None, Some("10.0.0.1"), Some("2001:db8::1"), Some("2001:db8::2")]),
        select(vec![None, Some("spiffe://c/ns/a")]),
        vec(header, 0..4),
    )
        .prop_map(|(method, path, address, peer, headers)| WireRequest {
            method: method.to_owned(),
            scheme: Some("https".to_owned()),
            authority: "a.test".to_owned(),
            path: path.to_owned(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            peer: peer.map(str::to_owned),
            source_address: address.map(|address| address.parse().unwrap()),
            ..WireRequest::default()
        })
}

/// The default number of cases; `PROPTEST_CASES` sets more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_with_a_new_result_is_covered_by_a_reported_change(pair in pair(), requests in vec(request(), 1..60)) {
        let (old, new) = (file(&pair.0), file(&pair.1));
        let (changes, _) = compare(&old, &new, Timestamp(0));
        for request in requests {
            let decided = |file: &PolicyFile| Strictness::of(&request.decide(&file.policy, &mut World::new(Timestamp(0), 0)));
            let (was, is) = (decided(&old), decided(&new));
            if was > is {
                prop_assert!(changes.count(ChangeClass::Loosened) > 0, "{request:?}\n{}\n{}\n{changes:?}", pair.0, pair.1);
            }
            if is == Strictness::Refused && was != is {
                prop_assert!(changes.count(ChangeClass::Tightened) > 0, "{request:?}\n{}\n{}\n{changes:?}", pair.0, pair.1);
            }
        }
        let mut unproved = unproved(&pair.0, &pair.1, &changes);
        // In Audit, only some requests with the wrong server name are tried.
        if pair.0["egress"]["mode"] == "Audit" {
            unproved.retain(|change| !change.contains("egress.verifySni"));
        }
        prop_assert!(unproved.is_empty(), "{unproved:?}\n{}\n{}", pair.0, pair.1);
    }

    #[test]
    fn a_limit_that_is_not_loosened_lets_no_more_requests_pass_whatever_it_counts_by(
        pair in (limit_of_any_key(), limit_of_any_key(), 0..6usize).prop_map(|(old, other, what)| {
            let mut new = old.clone();
            match what {
                0 => new = other,
                1 => new["rateLimits"][0]["key"] = other["rateLimits"][0]["key"].clone(),
                2 => drop(new["rateLimits"][0]["key"].as_array_mut().unwrap().pop()),
                3 => new["settings"] = other["settings"].clone(),
                4 => new["rateLimits"][0]["onMissingKey"] = other["rateLimits"][0]["onMissingKey"].clone(),
                _ => new["rateLimits"][0]["matches"] = other["rateLimits"][0]["matches"].clone(),
            }
            (tidy(old), tidy(new))
        }),
        requests in vec(counted(), 1..40),
    ) {
        let passed = |policy: &Value| {
            let file = file(policy);
            let mut world = World::new(Timestamp(1_000_000_000), 0);
            requests.iter().filter(|request| request.decide(&file.policy, &mut world).action == Some("continue")).count()
        };
        let (changes, _) = compare(&file(&pair.0), &file(&pair.1), Timestamp(0));
        if changes.count(ChangeClass::Loosened) == 0 {
            prop_assert!(passed(&pair.1) <= passed(&pair.0), "{} {} {changes:?} {requests:?}", pair.0, pair.1);
        }
        // If it is unclear whether a limit stays as tight, it is reported as loosened for safety; then there is a
        // reason instead of a proof.
        for change in unproved(&pair.0, &pair.1, &changes) {
            prop_assert!(change.contains("no_proof: Some"), "{change}\n{}\n{}", pair.0, pair.1);
        }
    }

    #[test]
    fn a_limit_that_is_not_loosened_lets_no_more_requests_pass(
        limits in [(1..9u32, 1..9u32, 1..9u32, 1..3u32), (1..9u32, 1..9u32, 1..9u32, 1..3u32)],
        gaps in vec(0..3000u64, 1..60),
    ) {
        let policy = |(requests, seconds, burst, cost): (u32, u32, u32, u32)| {
            json!({"rateLimits": [{"name": "l", "key": [], "limit": {"requests": requests, "per": format!("{seconds}s"), "burst": burst.max(cost)}, "cost": {"default": cost}}]})
        };
        let [old, new] = limits.map(|limit| file(&policy(limit)));
        let passed = |file: &PolicyFile| {
            let mut world = World::new(Timestamp(1_000_000_000), 0);
            let request = WireRequest { method: "GET".to_owned(), authority: "a".to_owned(), path: "/".to_owned(), ..WireRequest::default() };
            gaps.iter().filter(|gap| {
                world.now.0 += *gap * 1_000_000;
                request.decide(&file.policy, &mut world).action == Some("continue")
            }).count()
        };
        let (changes, _) = compare(&old, &new, Timestamp(0));
        if changes.count(ChangeClass::Loosened) == 0 {
            prop_assert!(passed(&new) <= passed(&old), "{limits:?} {changes:?}");
        }
    }
}
