//! What `explain` says is what `decide` does: for every case of the contract, and for random policies and requests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]
#![cfg(not(target_arch = "wasm32"))]

use penstock_policy::document::Node;
use penstock_policy::explain::{Note, Notes};
use penstock_policy::matching::RequestMatch;
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

fn policy(document: &Value) -> Policy {
    Policy::from_node(&Node::from_json(document.to_string().as_bytes()).unwrap()).unwrap()
}

/// Decides and explains the requests, each in a world of its own, and compares; gives the last trace.
fn agree(policy: &Policy, requests: &[WireRequest]) -> (WireDecision, Notes) {
    let (mut decides, mut explains) = (World::new(Timestamp(7), 3), World::new(Timestamp(7), 3));
    let mut last = None;
    for request in requests {
        let decided = request.decide(policy, &mut decides);
        let (explained, trace) = request.explain(policy, &mut explains);
        assert_eq!(decided, explained, "{request:?}");
        check_notes(&explained, &trace);
        last = Some((explained, trace));
    }
    last.unwrap()
}

/// The notes tell the same story as the decision.
fn check_notes(decision: &WireDecision, trace: &Notes) {
    for note in &trace.0 {
        match note {
            Note::Route(rule) => {
                assert!(
                    decision.section == Some("routes") && decision.rule.as_ref() == Some(rule)
                        || decision.would_respond.is_some()
                );
            }
            Note::Canary(canary) => {
                let chosen = &canary.variants[canary.chosen];
                assert_eq!(decision.variant.as_ref(), Some(&chosen.name));
                assert_eq!(decision.route.as_ref(), Some(&chosen.route));
                let total: f64 = canary.variants.iter().map(|variant| variant.share).sum();
                assert!((total - 1.0).abs() < 1e-9);
                // The greatest score is the one that the weights give.
                if canary.overridden_by.is_none() {
                    let score = |place: usize| canary.variants[place].score.unwrap();
                    assert!((0..canary.variants.len()).all(|other| score(other) <= score(canary.weighted)));
                }
            }
            Note::Limit(limit) if limit.refuses() => assert_eq!(limit.before, limit.after),
            Note::Denied(entries) => {
                let denies = decision.reason == Some("hostDenied");
                assert!(!entries.is_empty() || !denies, "{decision:?}");
                assert!(entries.is_empty() || denies || decision.section == Some("rateLimits"), "{decision:?}");
            }
            _ => {}
        }
    }
    let refused = trace.0.iter().any(|note| matches!(note, Note::Limit(limit) if limit.refuses()));
    assert!(refused || decision.reason != Some("limited"), "{decision:?} {trace:?}");
}

#[test]
fn every_case_of_the_contract_is_explained_as_it_is_decided() {
    let mut cases = 0;
    for file in [
        include_str!("contract/egress-cases.jsonl"),
        include_str!("contract/routes-cases.jsonl"),
        include_str!("contract/next-cases.jsonl"),
    ] {
        for line in file.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            agree(&policy(&case["policy"]), &[serde_json::from_value(case["request"].clone()).unwrap()]);
            cases += 1;
        }
    }
    for line in include_str!("contract/limits-sequences.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let steps = case["steps"].as_array().unwrap().iter();
        let requests: Vec<WireRequest> = steps
            .flat_map(|step| {
                let request: WireRequest = serde_json::from_value(step["request"].clone()).unwrap();
                std::iter::repeat_n(request, usize::try_from(step["times"].as_u64().unwrap()).unwrap())
            })
            .collect();
        agree(&policy(&case["policy"]), &requests);
        cases += 1;
    }
    assert!(cases >= 149, "{cases}");
}

fn entry() -> impl Strategy<Value = Value> {
    let condition = |kinds: Vec<&'static str>| {
        (select(vec!["x", "y", "id"]), select(kinds), select(vec!["1", "2"]), prop::bool::weighted(0.2)).prop_map(
            |(name, kind, value, invert)| match kind {
                "In" => json!({"name": name, "type": "In", "values": ["1", value], "invert": invert}),
                "Present" => json!({"name": name, "type": "Present", "invert": invert}),
                kind => json!({"name": name, "type": kind, "value": value, "invert": invert}),
            },
        )
    };
    let kinds = vec!["Exact", "Prefix", "Suffix", "Contains", "RegularExpression", "In", "Present"];
    (
        option::weighted(0.3, select(vec!["GET", "POST"])),
        option::weighted(0.3, vec(select(vec!["a.test", "*.a.test", "*.test"]), 1..3)),
        option::weighted(
            0.6,
            (select(vec!["Exact", "PathPrefix", "RegularExpression"]), select(vec!["/a", "/a/b", "/"])),
        ),
        option::weighted(0.5, vec(condition(kinds.clone()), 1..3)),
        option::weighted(0.3, vec(condition(kinds.clone()), 1..3)),
        option::weighted(0.3, vec(condition(kinds), 1..3)),
    )
        .prop_map(|(method, hostnames, path, headers, query, cookies)| {
            let mut entry = serde_json::Map::new();
            for (key, value) in [
                ("method", method.map(|v| json!(v))),
                ("hostnames", hostnames.map(|v| json!(v))),
                ("path", path.map(|(kind, value)| json!({"type": kind, "value": value}))),
                ("headers", headers.map(|v| json!(v))),
                ("queryParams", query.map(|v| json!(v))),
                ("cookies", cookies.map(|v| json!(v))),
            ] {
                entry.extend(value.map(|value| (key.to_owned(), value)));
            }
            if entry.is_empty() {
                entry.insert("method".to_owned(), json!("GET"));
            }
            Value::Object(entry)
        })
}

fn matches() -> impl Strategy<Value = Value> {
    option::weighted(0.8, vec(entry(), 1..3)).prop_map(|entries| json!(entries))
}

/// A policy with some of all sections; `null` fields are left out.
fn document() -> impl Strategy<Value = Value> {
    let egress_rule = (
        select(vec![
            json!({"host": "a.test"}),
            json!({"host": "*.a.test", "ports": [443]}),
            json!({"cidr": "10.0.0.0/8"}),
        ]),
        option::weighted(0.3, select(vec![json!(["GET"]), json!(["POST"])])),
        option::weighted(0.3, select(vec![json!([{"value": "/a"}]), json!([{"type": "Exact", "value": "/a/b"}])])),
        option::weighted(0.3, Just(json!(["spiffe://c/ns/a"]))),
    )
        .prop_map(|(to, methods, paths, from)| json!({"to": [to], "methods": methods, "paths": paths, "from": from}));
    let egress = (vec(egress_rule, 1..4), vec(select(vec![json!({"host": "*.a.test"}), json!({"cidr": "10.1.0.0/16"})]), 0..2), any::<bool>())
        .prop_map(|(rules, deny, audit)| json!({"rules": rules, "deny": deny, "mode": if audit { "Audit" } else { "Enforce" }}));
    let limit = (
        matches(),
        select(vec![json!([]), json!([{"header": "id"}]), json!([{"sourceAddress": {}}, {"path": {}}])]),
        1..4u32,
        select(vec!["Enforce", "Shadow"]),
        select(vec!["Share", "Skip", "Deny"]),
    )
        .prop_map(|(matches, key, requests, mode, missing)| {
            let missing = if key == json!([]) { Value::Null } else { json!(missing) };
            json!({"matches": matches, "key": key, "limit": {"requests": requests, "per": "1s"}, "mode": mode,
                "onMissingKey": missing, "cost": {"header": "x", "default": 1, "max": 3}})
        });
    let rule = matches().prop_map(|matches| json!({"matches": matches, "route": "r"}));
    let canary = (
        matches(),
        option::weighted(
            0.8,
            select(vec![json!({"header": "id"}), json!({"cookie": {"name": "id"}}), json!({"sourceAddress": {}})]),
        ),
        0..100u32,
        any::<bool>(),
    )
        .prop_map(|(matches, stickiness, weight, ramp)| {
            let ramp = ramp.then(|| {
                json!({"variant": "b", "startsAt": "2026-01-01T00:00:00Z",
                "steps": [{"weight": 10, "for": "1h"}, {"weight": 60}]})
            });
            json!({"matches": matches, "stickiness": stickiness, "ramp": ramp,
                "overrides": [{"header": {"name": "x", "value": "2"}, "variant": "b"}],
                "variants": [{"name": "a", "weight": 50, "route": "va"}, {"name": "b", "weight": weight}]})
        });
    let sections = (
        option::weighted(0.5, egress),
        option::weighted(0.6, vec(limit, 1..4)),
        option::weighted(0.6, vec(rule, 1..4)),
        option::weighted(0.6, vec(canary, 1..3)),
    );
    sections.prop_map(|(egress, limits, rules, canaries)| {
        let mut document = json!({"egress": egress, "rateLimits": limits, "canaries": canaries,
            "routes": rules.map(|rules| json!({"rules": rules, "default": "d"}))});
        for list in ["/egress/rules", "/rateLimits", "/canaries", "/routes/rules"] {
            let items = document.pointer_mut(list).and_then(Value::as_array_mut);
            for (i, item) in items.into_iter().flatten().enumerate() {
                item["name"] = json!(format!("n{i}"));
            }
        }
        without_nulls(document)
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn request() -> impl Strategy<Value = WireRequest> {
    (
        select(vec!["GET", "POST", "CONNECT"]),
        select(vec!["a.test", "b.a.test", "c.test:443", "10.1.2.3", "0x7f.1", "a.test:80"]),
        select(vec!["/", "/a", "/a/b?x=1", "/a/../a/b", "/%2e", "/a%2fb", "x", "/a;v=1/b?id=2"]),
        vec((select(vec!["x", "y", "id", "cookie"]), select(vec!["1", "2", "id=7; x=1", "12"])), 0..4),
        option::of(select(vec!["10.0.0.1", "2001:db8::1"])),
        option::of(Just("spiffe://c/ns/a".to_owned())),
        select(vec!["2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z", "2026-01-01T02:00:00.5Z"]),
    )
        .prop_map(|(method, authority, path, headers, source, peer, time)| WireRequest {
            method: method.to_owned(),
            scheme: Some("https".to_owned()),
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            source_address: source.map(|address| address.parse().unwrap()),
            peer,
            time: Timestamp::parse(time),
            ..WireRequest::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_requests_are_explained_as_they_are_decided(document in document(), requests in vec(request(), 1..6)) {
        agree(&policy(&document), &requests);
    }

    #[test]
    fn an_entry_holds_when_each_of_its_conditions_does(entry in entry(), request in request()) {
        use penstock_policy::document::{At, Context, Decode};
        let node = Node::from_json(entry.to_string().as_bytes()).unwrap();
        let entry = RequestMatch::decode(&node, &At::Root, &mut Context::new(String::new(), 1 << 20)).unwrap();
        let owned = request.header_map();
        let headers: Vec<_> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
        let request = penstock_policy::Request::new(&headers);
        let verdicts = entry.verdicts(&request);
        prop_assert_eq!(verdicts.iter().all(|verdict| verdict.holds), entry.holds(&request), "{:?}", verdicts);
    }
}

#[test]
fn the_buckets_of_a_refused_request_stay_as_they_were() {
    let limits = policy(&json!({"rateLimits": [
        {"name": "wide", "key": [], "limit": {"requests": 10, "per": "10s"}},
        {"name": "narrow", "key": [{"header": "id"}], "limit": {"requests": 1, "per": "1s"}},
    ]}));
    let request: WireRequest = serde_json::from_value(
        json!({"method": "GET", "authority": "a", "path": "/", "headers": [["id", "7"]], "time": "2026-01-01T00:00:00Z"}),
    )
    .unwrap();
    let remaining = |trace: &Notes| -> Vec<(u32, u32)> {
        let note = |note: &Note| match note {
            Note::Limit(limit) => Some((limit.before.remaining, limit.after.remaining)),
            _ => None,
        };
        trace.0.iter().filter_map(note).collect()
    };
    assert_eq!(remaining(&agree(&limits, std::slice::from_ref(&request)).1), [(10, 9), (1, 0)]);
    assert_eq!(remaining(&agree(&limits, &[request.clone(), request]).1), [(9, 9), (0, 0)]);
}
