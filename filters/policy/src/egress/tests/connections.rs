//! Connections that nobody decrypts.

use super::super::Connection;
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn connect(policy: &Policy, sni: &str, destination: &str, port: u16) -> (bool, &'static str) {
    let (is_open, reason, _) = connect_by(policy, sni, destination, port);
    (is_open, reason)
}

/// Whether the connection is opened, why not, and by which rule or in spite of which rule.
fn connect_by(policy: &Policy, sni: &str, destination: &str, port: u16) -> (bool, &'static str, Option<String>) {
    let connection = Connection {
        sni: (!sni.is_empty()).then_some(sni.as_bytes()),
        destination: destination.parse().ok(),
        port: Some(port),
    };
    let request: WireRequest = serde_json::from_value(json!({
        "method": "GET", "authority": "", "path": "", "peer": CALLER, "time": "2026-01-01T12:00:00Z",
    }))
    .unwrap();
    let mut world = World::new(Timestamp(0), 7);
    let verdict = policy.egress().unwrap().decide_connection(&connection, &mut request.environment(&mut world));
    let rule = verdict.outcome.rule.map(|rule| rule.to_string());
    (verdict.is_open(), verdict.outcome.reason.map_or("", Reason::as_str), rule)
}

fn rules() -> Value {
    json!([
        {"name": "named", "to": [{"host": "api.example.com", "ports": [443]}, {"host": "*.cdn.test", "ports": [443]}]},
        {"name": "ranged", "to": [{"cidr": "203.0.113.0/24", "ports": [443]}, {"cidr": "2001:db8::/32"}]},
        {"name": "http", "to": [{"host": "http.test"}], "methods": ["GET"]},
        {"name": "pathed", "to": [{"host": "http.test"}], "paths": [{"value": "/"}]},
        {"name": "other", "to": [{"host": "other.test"}], "from": ["spiffe://cluster.local/ns/other/sa/x"]},
        {"name": "mine", "to": [{"host": "mine.test"}], "from": [CALLER]},
        {"name": "old", "to": [{"host": "old.test"}], "expires": "2026-01-01T00:00:00Z"},
    ])
}

#[test]
fn a_connection_needs_a_listed_name_or_a_listed_address() {
    let policy = policy(&json!({"rules": rules(), "deny": [{"host": "bad.cdn.test"}, {"cidr": "203.0.113.66/32"}]}));
    let elsewhere = "198.51.100.1";
    for (sni, destination, port, expected) in [
        ("api.example.com", elsewhere, 443, (true, "")),
        ("API.example.com.", elsewhere, 443, (true, "")),
        ("a.cdn.test", elsewhere, 443, (true, "")),
        ("cdn.test", elsewhere, 443, (false, "hostNotAllowed")),
        ("api.example.com", elsewhere, 8443, (false, "portNotAllowed")),
        ("evil.test", elsewhere, 443, (false, "hostNotAllowed")),
        ("", elsewhere, 443, (false, "serverNameMissing")),
        ("", "203.0.113.7", 443, (true, "")),
        ("", "203.0.113.7", 22, (false, "portNotAllowed")),
        ("", "2001:db8::1", 22, (true, "")),
        ("", "::ffff:203.0.113.7", 443, (false, "serverNameMissing")),
        ("203.0.113.7", elsewhere, 443, (false, "serverNameMissing")),
        ("203.0.113.7", "203.0.113.7", 443, (true, "")),
        ("0xcb007107", elsewhere, 443, (false, "serverNameMissing")),
        ("2001:db8::1", elsewhere, 443, (false, "serverNameMissing")),
        ("[2001:db8::1]", elsewhere, 443, (false, "serverNameMissing")),
        ("::1", elsewhere, 443, (false, "serverNameMissing")),
        ("fe80::1", elsewhere, 443, (false, "serverNameMissing")),
        ("[fe80::1]", "203.0.113.7", 443, (true, "")),
        ("fe80::1", "203.0.113.7", 443, (true, "")),
        ("::ffff:203.0.113.7", elsewhere, 443, (false, "serverNameMissing")),
        ("fe80::1%eth0", elsewhere, 443, (false, "serverNameMalformed")),
        ("[::1]:443", elsewhere, 443, (false, "serverNameMalformed")),
        ("ech-outer.test", "203.0.113.7", 443, (true, "")),
        ("a b", "203.0.113.7", 443, (false, "serverNameMalformed")),
        ("api.example.com:443", elsewhere, 443, (false, "serverNameMalformed")),
        ("user@api.example.com", elsewhere, 443, (false, "serverNameMalformed")),
        ("api.example.com\0", elsewhere, 443, (false, "serverNameMalformed")),
        ("bad.cdn.test", elsewhere, 443, (false, "hostDenied")),
        ("a.cdn.test", "203.0.113.66", 443, (false, "hostDenied")),
        ("", "203.0.113.66", 443, (false, "hostDenied")),
        ("", "", 443, (false, "serverNameMissing")),
        ("http.test", elsewhere, 443, (false, "ruleNeedsHttp")),
        ("other.test", elsewhere, 443, (false, "callerNotAllowed")),
        ("mine.test", elsewhere, 443, (true, "")),
        ("old.test", elsewhere, 443, (false, "ruleExpired")),
    ] {
        assert_eq!(connect(&policy, sni, destination, port), expected, "{sni:?} {destination} {port}");
    }
}

#[test]
fn audit_opens_what_is_not_listed_but_not_what_has_no_reading() {
    let audit = policy(&json!({"mode": "Audit", "rules": rules()}));
    assert_eq!(connect(&audit, "evil.test", "", 443), (true, "hostNotAllowed"));
    assert_eq!(connect(&audit, "", "", 443), (true, "serverNameMissing"));
    for address in ["::1", "fe80::1", "2001:db8::1", "[::1]", "192.0.2.1"] {
        assert_eq!(connect(&audit, address, "", 443), (true, "serverNameMissing"), "{address} is no name");
    }
    assert_eq!(connect(&audit, "evil test", "", 443), (false, "serverNameMalformed"));
}

#[test]
fn of_rules_that_come_equally_near_the_refusal_names_the_first_in_the_document() {
    let rule = |name: &str, to: Value| json!({"name": name, "to": [to], "methods": ["GET"]});
    let narrow = rule("narrow", json!({"host": "a.cdn.test"}));
    let wide = rule("wide", json!({"host": "*.cdn.test"}));
    let address = rule("address", json!({"cidr": "203.0.113.0/24"}));
    // The index finds names before addresses, and wide patterns before narrow ones.
    for (rules, expected) in [
        ([&narrow, &wide, &address], "narrow"),
        ([&narrow, &address, &wide], "narrow"),
        ([&wide, &narrow, &address], "wide"),
        ([&wide, &address, &narrow], "wide"),
        ([&address, &narrow, &wide], "address"),
        ([&address, &wide, &narrow], "address"),
    ] {
        let policy = policy(&json!({"rules": rules}));
        let found = connect_by(&policy, "a.cdn.test", "203.0.113.7", 443);
        assert_eq!(found, (false, "ruleNeedsHttp", Some(expected.to_owned())), "{policy:?}");
    }
}
