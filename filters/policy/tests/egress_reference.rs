//! The engine agrees with a naive reference on generated policies and requests, and what it forwards, it would match
//! and forward again.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod reference;

use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use reference::{Answer, decide};
use serde_json::{Value, json};

const TIMES: [&str; 4] =
    ["2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"];
const CALLERS: [&str; 5] = [
    "spiffe://c.local/ns/a/sa/x",
    "spiffe://c.local/ns/a/sa/y",
    "spiffe://c.local/ns/b/sa/x",
    "spiffe://c.local/ns/a/sa/x/y",
    "spiffe://c.local/ns/a/sa/",
];

fn destination() -> impl Strategy<Value = Value> {
    let target = select(vec![
        json!({"host": "a.test"}),
        json!({"host": "*.a.test"}),
        json!({"host": "b.a.test"}),
        json!({"host": "*.b.a.test"}),
        json!({"host": "localhost"}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "10.1.2.3/32"}),
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "::/0"}),
        json!({"cidr": "64:ff9b::/32"}),
        json!({"cidr": "2001:db8::/33"}),
        json!({"cidr": "::ffff:10.1.2.0/120"}),
    ]);
    (target, prop::option::of(select(vec![json!([443]), json!([80, 443]), json!([8443])]))).prop_map(
        |(mut target, ports)| {
            if let Some(ports) = ports {
                target["ports"] = ports;
            }
            target
        },
    )
}

fn optional<T: std::fmt::Debug + Clone + 'static>(all: Vec<T>) -> impl Strategy<Value = Option<Vec<T>>> {
    let longest = all.len().min(3);
    prop::option::of(subsequence(all, 1..=longest))
}

fn rule() -> impl Strategy<Value = Value> {
    let paths = vec![
        json!({"type": "PathPrefix", "value": "/v1"}),
        json!({"type": "PathPrefix", "value": "/v1/b/"}),
        json!({"type": "Exact", "value": "/v1/b"}),
        json!({"type": "Exact", "value": "/a/"}),
        json!({"type": "PathPrefix", "value": "/"}),
        json!({"type": "PathPrefix", "value": "/%C3%A9"}),
    ];
    let from = vec![CALLERS[0], CALLERS[1], CALLERS[3], "spiffe://c.local/ns/a/sa/*", "spiffe://c.local/ns/*/sa/x"];
    (
        prop::collection::vec(destination(), 1..3),
        optional(from),
        optional(vec!["GET", "POST", "CONNECT"]),
        optional(paths),
        any::<bool>(),
        optional(vec!["websocket", "h2c", "bytestream"]),
        prop::option::of(select(vec![(TIMES[0], TIMES[2]), (TIMES[1], TIMES[2]), (TIMES[1], TIMES[3])])),
    )
        .prop_map(|(to, from, methods, paths, connect, upgrades, window)| {
            let mut rule = json!({"to": to, "connect": connect});
            let mut set = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    rule[name] = value;
                }
            };
            set("from", from.map(|v| json!(v)));
            set("methods", methods.map(|v| json!(v)));
            set("paths", paths.map(|v| json!(v)));
            set("upgrades", upgrades.map(|v| json!(v)));
            set("notBefore", window.map(|(start, _)| json!(start)));
            set("expires", window.map(|(_, end)| json!(end)));
            rule
        })
}

fn policy() -> impl Strategy<Value = Value> {
    let audit = prop::bool::weighted(0.2);
    let deny = prop::collection::vec(destination(), 0..2);
    let default_port = prop::option::weighted(0.3, select(vec![80u16, 443, 8443]));
    (audit, prop::bool::weighted(0.2), default_port, deny, prop::collection::vec(rule(), 0..6)).prop_map(
        |(audit, verify_sni, default_port, deny, mut rules)| {
            for (i, rule) in rules.iter_mut().enumerate() {
                rule["name"] = json!(format!("r{i}"));
            }
            let mode = if audit { "Audit" } else { "Enforce" };
            let mut policy = json!({"mode": mode, "verifySni": verify_sni, "deny": deny, "rules": rules});
            if let Some(port) = default_port {
                policy["defaultPort"] = json!(port);
            }
            policy
        },
    )
}

fn pieces(all: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(select(all), 0..=most).prop_map(|parts| parts.concat())
}

fn authority() -> impl Strategy<Value = String> {
    let known = select(vec![
        "a.test",
        "b.a.test",
        "x.b.a.test",
        "A.Test.",
        "localhost",
        "10.1.2.3",
        "10.9.9.9",
        "11.0.0.1",
        "[2001:db8::1]",
        "[::ffff:10.1.2.3]",
        "[::1]",
        "[64:ff9b::10.1.2.3]",
        "[64:ff9b:1:a01:2:300::]",
        "[2002:a01:203::1]",
        "[2001:db8::5efe:10.1.2.3]",
    ]);
    let port = select(vec!["", "", ":443", ":80", ":8443", ":0443", ":"]);
    prop_oneof![
        4 => (known, port).prop_map(|(host, port)| format!("{host}{port}")),
        1 => pieces(
            &["a", "b", "test", ".", ".", ":", "443", "@", "%2e", "0x", "7f", "10", "-", "_", "[", "]", "::", "1", "/", "A",
              "\u{e9}", " ", ","],
            6
        ),
    ]
}

fn target() -> impl Strategy<Value = String> {
    let parts: &[&str] = &[
        "/",
        "/",
        "/",
        "v1",
        "b",
        "a",
        "..",
        ".",
        ";x",
        "%2e",
        "%2E",
        "%3b",
        "%2f",
        "%41",
        "%c3%a9",
        "%c3",
        "%",
        "?",
        "%zz",
        "#",
        "x=1",
        "%ef%bc%8e",
        "%EF%BC%8F",
        "%e2%80",
        "%a5",
    ];
    prop_oneof![
        2 => select(vec!["/", "/../v1", "/v1", "/v1/b", "/v1/b/c", "/a/", "*", "", "/v1?x=/../", "/%c3%A9/x"]).prop_map(str::to_owned),
        3 => pieces(parts, 8).prop_map(|rest| format!("/{rest}")),
    ]
}

fn request() -> impl Strategy<Value = Value> {
    let header = prop_oneof![
        3 => select(vec![("upgrade", "websocket"), ("upgrade", "h2c, WebSocket"), ("X-HTTP-Method-Override", "POST"),
            ("x-method-override", "DELETE"), ("x-original-url", "/x"), ("x-envoy-original-dst-host", "10.0.0.1"),
            ("x-other", "1")])
            .prop_map(|(name, value)| (name.to_owned(), value.to_owned())),
        1 => authority().prop_map(|host| ("host".to_owned(), host)),
    ];
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(header, 1..3)];
    (
        (select(vec!["GET", "GET", "POST", "CONNECT", "OPTIONS", "HEAD", "G T", ""]), authority(), target(), headers),
        (
            prop::option::of(select(vec!["http", "https"])),
            prop::option::of(select(vec![80u16, 443, 8443])),
            prop::option::of(select(CALLERS.to_vec())),
            select(TIMES.to_vec()),
            prop::option::weighted(0.1, select(vec!["websocket", "connect-udp", "bytestream"])),
            prop::option::of(select(vec!["a.test", "b.a.test", "A.TEST."])),
        ),
    )
        .prop_map(|((method, authority, path, headers), (scheme, port, peer, time, protocol, sni))| {
            let mut request = json!({"authority": authority, "time": time, "headers": headers});
            request["method"] = json!(if protocol.is_some() { "CONNECT" } else { method });
            request["path"] = json!(if method == "CONNECT" && protocol.is_none() { "" } else { &path });
            for (name, value) in [
                ("scheme", scheme.map(|v| json!(v))),
                ("destinationPort", port.map(|v| json!(v))),
                ("peer", peer.map(|v| json!(v))),
                ("protocol", protocol.map(|v| json!(v))),
                ("sni", sni.map(|v| json!(v))),
            ] {
                if let Some(value) = value {
                    request[name] = value;
                }
            }
            request
        })
}

fn ask(policy: &Policy, request: &Value) -> WireDecision {
    let request: WireRequest = serde_json::from_value(request.clone()).unwrap();
    request.decide(policy, &mut World::new(Timestamp(0), 0))
}

fn answer(decision: &WireDecision) -> Answer {
    let target = decision.headers.set.iter().find(|(name, _)| name == ":path").map(|(_, value)| value.clone());
    Answer { status: decision.status.unwrap_or(0), would_respond: decision.would_respond, target }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_naive_reference(egress in policy(), requests in prop::collection::vec(request(), 8)) {
        let compiled = Policy::from_json(json!({"egress": egress}).to_string().as_bytes()).unwrap();
        for request in requests {
            let decision = ask(&compiled, &request);
            prop_assert_eq!(answer(&decision), decide(&egress, &request), "{}: {:?}", request, decision.reason);
        }
    }

    #[test]
    fn what_is_forwarded_is_matched_and_forwarded_again(egress in policy(), request in request()) {
        let compiled = Policy::from_json(json!({"egress": egress}).to_string().as_bytes()).unwrap();
        let first = ask(&compiled, &request);
        if first.status.is_none() {
            let mut forwarded = request;
            if let Some(target) = answer(&first).target {
                forwarded["path"] = json!(target);
            }
            let again = ask(&compiled, &forwarded);
            prop_assert_eq!((again.status, again.would_respond, again.rule), (None, first.would_respond, first.rule));
            prop_assert!(again.headers.set.is_empty(), "it was canonical: {}", forwarded);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// So many that they are found by caller.
    #[test]
    fn many_rules_for_one_host_are_decided_as_if_each_was_asked(
        mut rules in prop::collection::vec((rule(), select(vec![json!([443]), json!([80]), json!(null)])), 20..40),
        requests in prop::collection::vec(request(), 8),
    ) {
        for (i, (rule, ports)) in rules.iter_mut().enumerate() {
            rule["name"] = json!(format!("r{i}"));
            rule["to"] = json!([{"host": "a.test"}]);
            if !ports.is_null() {
                rule["to"][0]["ports"] = ports.take();
            }
        }
        let egress = json!({"rules": rules.iter().map(|(rule, _)| rule).collect::<Vec<_>>()});
        let compiled = Policy::from_json(json!({"egress": egress}).to_string().as_bytes()).unwrap();
        for mut request in requests {
            request["authority"] = json!("a.test");
            let decision = ask(&compiled, &request);
            prop_assert_eq!(answer(&decision), decide(&egress, &request), "{}: {:?}", request, decision.reason);
        }
    }
}

/// A generator that never reaches an outcome proves nothing about it.
#[test]
fn the_generators_reach_every_outcome() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..15_000 {
        let (egress, request) = (policy(), request()).new_tree(&mut runner).unwrap().current();
        let compiled = Policy::from_json(json!({"egress": egress}).to_string().as_bytes()).unwrap();
        let decision = ask(&compiled, &request);
        *seen.entry(decision.reason.unwrap_or("allowed").to_owned()).or_default() += 1;
        if decision.status.is_none() && decision.would_respond.is_none() && answer(&decision).target.is_some() {
            *seen.entry("allowed with another path".to_owned()).or_default() += 1;
        }
    }
    for reason in [
        "allowed",
        "allowed with another path",
        "hostDenied",
        "hostNotAllowed",
        "portNotAllowed",
        "callerUnknown",
        "callerNotAllowed",
        "ruleNotYetValid",
        "ruleExpired",
        "methodNotAllowed",
        "methodOverrideNotAllowed",
        "connectNotAllowed",
        "upgradeNotAllowed",
        "pathNotAllowed",
        "sniMismatch",
        "authorityMissing",
        "authorityMalformed",
        "hostIsAmbiguousNumber",
        "portMalformed",
        "hostHeaderMismatch",
        "methodMalformed",
        "pathNotOriginForm",
        "pathMalformed",
        "connectWithoutPort",
        "destinationOverrideHeader",
        "pathOverrideHeader",
        "pathEscapeMalformed",
        "pathEscapesDelimiter",
        "pathNotUtf8",
        "pathAboveRoot",
    ] {
        assert!(seen.get(reason).is_some_and(|&n| n > 0), "{reason}: {seen:?}");
    }
}
