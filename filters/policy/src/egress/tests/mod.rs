//! The section as a whole: each class of input that an attacker chooses, and what is answered.

use crate::module::EgressAllowlist;
mod connections;
mod documents;
mod form;
mod paths;

use crate::wire::{WireDecision, WireRequest, World};
use crate::{Policy, Reason, Timestamp};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const CALLER: &str = "spiffe://cluster.local/ns/payments/sa/checkout";

fn policy(egress: &Value) -> Policy {
    Policy::from_json(json!({"egress": egress}).to_string().as_bytes()).unwrap()
}

fn error(egress: &Value) -> String {
    let json = json!({"egress": egress}).to_string();
    Policy::<EgressAllowlist>::from_json(json.as_bytes()).unwrap_err().to_string()
}

/// A request to `authority` that the rule of [`open`] allows, with `change` on top.
fn ask(policy: &Policy, change: &Value) -> WireDecision {
    let mut request = json!({
        "method": "GET", "scheme": "https", "authority": "api.example.com", "path": "/v1/things",
        "destinationPort": 443, "peer": CALLER, "time": "2026-01-01T12:00:00Z",
    });
    for (key, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(request.as_object_mut().unwrap().remove(key)),
            value => request[key] = value.clone(),
        }
    }
    let request: WireRequest = serde_json::from_value(request).unwrap();
    request.decide(policy, &mut World::new(Timestamp(0), 7))
}

/// 200 for what goes on.
fn status(policy: &Policy, change: &Value) -> u16 {
    ask(policy, change).status.unwrap_or(200)
}

fn reason(policy: &Policy, change: &Value) -> (u16, &'static str) {
    let decision = ask(policy, change);
    (decision.status.unwrap_or(200), decision.reason.unwrap_or(""))
}

/// Anybody to anything below example.com, on the usual ports, and to some addresses.
fn open() -> Policy {
    policy(&json!({"rules": [{"name": "open", "to": [
        {"host": "*.example.com", "ports": [443, 8443]}, {"host": "example.com", "ports": [443]},
        {"cidr": "203.0.113.0/24", "ports": [443]}, {"cidr": "2001:db8::/32", "ports": [443]},
        {"host": "localhost"},
    ]}]}))
}

/// GET and POST below one path.
fn scoped() -> Policy {
    policy(&json!({"rules": [{
        "name": "scoped", "to": [{"host": "api.example.com", "ports": [443]}], "methods": ["GET", "POST"],
        "paths": [{"type": "PathPrefix", "value": "/v1"}, {"type": "Exact", "value": "/health"}],
    }]}))
}

fn forwarded(policy: &Policy, path: &str) -> Result<String, u16> {
    let decision = ask(policy, &json!({"path": path}));
    match decision.status {
        Some(status) => Err(status),
        None => Ok(decision.headers.set.first().map_or(path, |(_, value)| value).to_owned()),
    }
}

#[test]
fn methods_are_tokens_and_none_implies_another() {
    let policy = scoped();
    for (method, expected) in [
        ("GET", (200, "")),
        ("POST", (200, "")),
        ("HEAD", (403, "methodNotAllowed")),
        ("get", (403, "methodNotAllowed")),
        ("PUT", (403, "methodNotAllowed")),
        ("GETS", (403, "methodNotAllowed")),
        ("", (400, "methodMalformed")),
        ("GET ", (400, "methodMalformed")),
        ("GE T", (400, "methodMalformed")),
        ("GET\r\n", (400, "methodMalformed")),
        ("G\u{c9}T", (400, "methodMalformed")),
        ("GET/1", (400, "methodMalformed")),
        ("(GET)", (400, "methodMalformed")),
    ] {
        assert_eq!(reason(&policy, &json!({"method": method})), expected, "{method:?}");
    }
}

#[test]
fn an_overriding_method_must_be_listed_too() {
    for name in ["x-http-method-override", "X-HTTP-Method", "X-Method-Override"] {
        for (value, expected) in [
            ("POST", 200),
            ("GET", 200),
            ("DELETE", 403),
            ("post", 403),
            ("", 403),
            ("POST,DELETE", 403),
            (" POST", 403),
        ] {
            let headers = json!({"headers": [[name, value]]});
            assert_eq!(status(&scoped(), &headers), expected, "{name}: {value:?}");
            assert_eq!(status(&open(), &headers), 200, "any method is allowed");
        }
        let twice = json!({"headers": [[name, "POST"], [name, "DELETE"]]});
        assert_eq!(reason(&scoped(), &twice), (403, "methodOverrideNotAllowed"));
    }
}

#[test]
fn tunnels_and_upgrades_need_their_own_word() {
    let to = json!([{"host": "api.example.com", "ports": [443]}]);
    let rule = |extra: Value| {
        let mut rule = json!({"name": "r", "to": to});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        policy(&json!({"rules": [rule]}))
    };
    let none = rule(json!({}));
    let tunnel = rule(json!({"connect": true}));
    let listed = rule(json!({"connect": true, "methods": ["CONNECT"]}));
    let unlisted = rule(json!({"connect": true, "methods": ["GET"]}));
    let pathed = rule(json!({"connect": true, "paths": [{"value": "/"}]}));
    let socket = rule(json!({"upgrades": ["WebSocket"], "methods": ["GET"]}));
    let bytes = rule(json!({"upgrades": ["bytestream"]}));
    let connect = |authority: &str| json!({"method": "CONNECT", "authority": authority, "path": ""});
    let extended = |protocol: &str| json!({"method": "CONNECT", "protocol": protocol, "path": "/ws"});
    let upgrade = |value: &str| json!({"headers": [["upgrade", value]]});
    for (policy, change, expected) in [
        (&none, connect("api.example.com:443"), (403, "connectNotAllowed")),
        (&tunnel, connect("api.example.com:443"), (200, "")),
        (&tunnel, connect("api.example.com"), (400, "connectWithoutPort")),
        (&tunnel, connect("api.example.com:22"), (403, "portNotAllowed")),
        (&tunnel, connect("evil.test:443"), (403, "hostNotAllowed")),
        (&tunnel, connect("[::1]:443"), (403, "hostNotAllowed")),
        (&tunnel, connect("http://api.example.com:443"), (400, "portMalformed")),
        (&listed, connect("api.example.com:443"), (200, "")),
        (&unlisted, connect("api.example.com:443"), (403, "methodNotAllowed")),
        (&pathed, connect("api.example.com:443"), (403, "pathNotAllowed")),
        // Some clients write a path, which says nothing about what goes through the tunnel.
        (
            &pathed,
            json!({"method": "CONNECT", "authority": "api.example.com:443", "path": "/"}),
            (403, "pathNotAllowed"),
        ),
        (&tunnel, extended("websocket"), (403, "upgradeNotAllowed")),
        (&socket, extended("websocket"), (200, "")),
        (&socket, extended("WEBSOCKET"), (200, "")),
        (&socket, extended("connect-udp"), (403, "upgradeNotAllowed")),
        (&socket, extended(""), (403, "upgradeNotAllowed")),
        (&tunnel, extended("bytestream"), (400, "connectWithoutPort")),
        (
            &bytes,
            json!({"method": "CONNECT", "protocol": "bytestream", "authority": "api.example.com:443"}),
            (403, "connectNotAllowed"),
        ),
        (
            &tunnel,
            json!({"method": "CONNECT", "protocol": "bytestream", "authority": "api.example.com:443"}),
            (403, "upgradeNotAllowed"),
        ),
        (&socket, json!({"protocol": "websocket"}), (400, "protocolWithoutConnect")),
        (&none, upgrade("websocket"), (403, "upgradeNotAllowed")),
        (&socket, upgrade("websocket"), (200, "")),
        (&socket, upgrade("websocket, WEBSOCKET"), (200, "")),
        (&socket, upgrade("websocket,h2c"), (403, "upgradeNotAllowed")),
        (&socket, upgrade("h2c"), (403, "upgradeNotAllowed")),
        (&socket, upgrade(""), (403, "upgradeNotAllowed")),
        (&socket, upgrade("websocket,"), (403, "upgradeNotAllowed")),
        (&socket, json!({"headers": [["upgrade", "websocket"], ["upgrade", "h2c"]]}), (403, "upgradeNotAllowed")),
        (&socket, json!({"method": "POST", "headers": [["upgrade", "websocket"]]}), (403, "methodNotAllowed")),
    ] {
        assert_eq!(reason(policy, &change), expected, "{change}");
    }
}

#[test]
fn only_the_verified_identity_counts_and_a_star_is_one_segment() {
    let rule =
        |from: &str| policy(&json!({"rules": [{"name": "r", "to": [{"host": "api.example.com"}], "from": [from]}]}));
    let exact = rule(CALLER);
    let sa = rule("spiffe://cluster.local/ns/payments/sa/*");
    let ns = rule("spiffe://cluster.local/ns/*/sa/checkout");
    for (policy, peer, expected) in [
        (&exact, CALLER, 200),
        (&exact, "spiffe://cluster.local/ns/payments/sa/checkout/", 403),
        (&exact, "spiffe://cluster.local/ns/payments/sa/Checkout", 403),
        (&exact, "SPIFFE://cluster.local/ns/payments/sa/checkout", 403),
        (&exact, "spiffe://cluster.local/ns/payments/sa/check%6fut", 403),
        (&exact, "spiffe://cluster.local/ns/payments/sa/*", 403),
        (&exact, "spiffe://evil.local/ns/payments/sa/checkout", 403),
        (&exact, "", 403),
        (&sa, CALLER, 200),
        (&sa, "spiffe://cluster.local/ns/payments/sa/", 403),
        (&sa, "spiffe://cluster.local/ns/payments/sa", 403),
        (&sa, "spiffe://cluster.local/ns/payments/sa/a/b", 403),
        (&sa, "spiffe://cluster.local/ns/payments/sa/..", 403),
        (&sa, "spiffe://cluster.local/ns/payments-evil/sa/x", 403),
        (&sa, "spiffe://cluster.localx/ns/payments/sa/x", 403),
        (&ns, CALLER, 200),
        (&ns, "spiffe://cluster.local/ns/a/b/sa/checkout", 403),
        (&ns, "spiffe://cluster.local/ns//sa/checkout", 403),
    ] {
        assert_eq!(status(policy, &json!({"peer": peer})), expected, "{peer}");
    }
    assert_eq!(reason(&exact, &json!({"peer": null})), (403, "callerUnknown"));
    for header in ["x-forwarded-client-cert", "x-smokescreen-role", "x-penstock-peer", "authorization"] {
        assert_eq!(status(&exact, &json!({"peer": null, "headers": [[header, CALLER]]})), 403);
    }
    assert_eq!(status(&open(), &json!({"peer": null})), 200, "no `from`: any caller, known or not");
}

#[test]
fn a_rule_holds_from_its_first_instant_until_before_its_last() {
    let policy = policy(&json!({"rules": [{
        "name": "r", "to": [{"host": "api.example.com"}],
        "notBefore": "2026-01-01T00:00:00Z", "expires": "2026-01-02T01:00:00+01:00",
    }]}));
    for (time, expected) in [
        ("2025-12-31T23:59:59.999999999Z", (403, "ruleNotYetValid")),
        ("2026-01-01T00:00:00Z", (200, "")),
        ("2026-01-01T23:59:59.999999999Z", (200, "")),
        ("2026-01-02T00:00:00Z", (403, "ruleExpired")),
        ("2026-01-02T00:30:00+01:00", (200, "")),
    ] {
        assert_eq!(reason(&policy, &json!({"time": time})), expected, "{time}");
    }
    assert_eq!(ask(&policy, &json!({"time": "2027-01-01T00:00:00Z"})).rule.as_deref(), Some("r"));
}

#[test]
fn audit_forwards_only_what_would_be_403_and_says_so() {
    let audit = policy(&json!({
        "mode": "Audit", "verifySni": true, "deny": [{"host": "bad.example.com"}],
        "rules": [
            {"name": "scoped", "to": [{"host": "api.example.com", "ports": [443]}], "methods": ["GET"],
                "paths": [{"value": "/v1"}]},
            {"name": "old", "to": [{"host": "old.example.com"}], "expires": "2020-01-01T00:00:00Z"},
            {"name": "mine", "to": [{"host": "mine.example.com"}], "from": ["spiffe://cluster.local/ns/a/sa/b"]},
            {"name": "bad", "to": [{"host": "*.example.com", "ports": [443]}], "methods": ["TRACE"]},
        ],
    }));
    for (change, rule, why) in [
        (json!({"authority": "evil.test"}), None, "hostNotAllowed"),
        (json!({"authority": "10.0.0.1"}), None, "hostNotAllowed"),
        (json!({"authority": "bad.example.com"}), None, "hostDenied"),
        (json!({"authority": "api.example.com:22"}), None, "portNotAllowed"),
        (json!({"authority": "mine.example.com", "method": "TRACE", "scheme": "http"}), None, "callerNotAllowed"),
        (json!({"authority": "old.example.com", "scheme": "http"}), Some("old"), "ruleExpired"),
        (json!({"method": "DELETE"}), Some("scoped"), "methodNotAllowed"),
        (json!({"path": "/v2"}), Some("scoped"), "pathNotAllowed"),
        (json!({"headers": [["upgrade", "h2c"]]}), Some("scoped"), "upgradeNotAllowed"),
        (json!({"method": "CONNECT", "path": "", "authority": "evil.test:443"}), None, "hostNotAllowed"),
    ] {
        let decision = ask(&audit, &change);
        assert_eq!(decision.action, Some("continue"), "{change}");
        assert_eq!((decision.would_respond, decision.reason), (Some(403), Some(why)), "{change}");
        assert_eq!((decision.section, decision.rule.as_deref()), (Some("egress"), rule), "{change}");
        assert_eq!(decision.body, None);
    }
    for path in ["/v1//../v2", "/app//page;jsessionid=ABC"] {
        let outside = ask(&audit, &json!({"path": path}));
        assert_eq!((outside.would_respond, outside.headers.set.len()), (Some(403), 0), "{path} goes on as it came");
    }
    let inside = ask(&audit, &json!({"path": "/v2/..//v1", "sni": "api.example.com"}));
    assert_eq!(inside.headers.set, [(":path".to_owned(), "/v1".to_owned())], "what a rule allows is what is forwarded");
    for (change, expected) in [
        (json!({"authority": "evil.test,api.example.com"}), 400),
        (json!({"authority": ""}), 400),
        (json!({"path": "/v1/%2f"}), 400),
        (json!({"path": "/../v1"}), 400),
        (json!({"headers": [["host", "evil.test"]]}), 400),
        (json!({"headers": [["x-original-url", "/"]]}), 400),
        (json!({"headers": [["x-envoy-original-dst-host", "10.0.0.1:1"]]}), 400),
        (json!({"sni": "evil.test"}), 421),
    ] {
        let decision = ask(&audit, &change);
        assert_eq!((decision.status, decision.would_respond), (Some(expected), None), "{change}");
    }
    assert_eq!(ask(&audit, &json!({"sni": "api.example.com"})).would_respond, None, "allowed is allowed");
}

#[test]
fn deny_beats_every_rule() {
    let policy = policy(&json!({
        "deny": [{"host": "*.ads.example.com"}, {"host": "secret.example.com"}, {"host": "p.example.com", "ports": [80]}],
        "rules": [
            {"name": "wide", "to": [{"host": "*.example.com"}]},
            {"name": "exact", "to": [{"host": "secret.example.com"}, {"host": "x.ads.example.com"}]},
        ],
    }));
    for (authority, expected) in [
        ("secret.example.com", 403),
        ("SECRET.example.com.:8080", 403),
        ("x.ads.example.com", 403),
        ("a.b.ads.example.com", 403),
        ("ads.example.com", 200),
        ("notsecret.example.com", 200),
        ("secret.example.com.example.com", 200),
        ("p.example.com:80", 403),
        ("p.example.com:443", 200),
    ] {
        assert_eq!(status(&policy, &json!({"authority": authority})), expected, "{authority}");
    }
}

#[test]
fn the_server_name_of_the_connection_is_the_host() {
    let verified = policy(&json!({"verifySni": true, "rules": [
        {"name": "r", "to": [{"host": "*.example.com"}, {"cidr": "203.0.113.7/32"}]},
    ]}));
    for (authority, sni, expected) in [
        ("api.example.com", json!("api.example.com"), 200),
        ("API.example.com.:443", json!("Api.Example.com"), 200),
        ("api.example.com", json!("b.example.com"), 421),
        ("api.example.com", json!("xapi.example.com"), 421),
        ("api.example.com", json!(""), 421),
        ("api.example.com", json!(null), 421),
        ("203.0.113.7", json!("203.0.113.7"), 421),
        ("203.0.113.7", json!(null), 421),
        ("evil.test", json!("api.example.com"), 403),
    ] {
        assert_eq!(status(&verified, &json!({"authority": authority, "sni": sni})), expected, "{authority} {sni}");
    }
}

#[test]
fn the_answer_is_json_and_carries_an_id() {
    let decision = ask(&open(), &json!({"authority": "EVIL.test.:8443"}));
    let body = r#"{"error":"egress denied","reason":"hostNotAllowed","host":"evil.test","rule":null}"#;
    assert_eq!(decision.body.as_deref(), Some(body));
    let header = |name: &str| decision.response_headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    assert_eq!(header("x-penstock-decision-id").map(|id| id.len()), Some(16));
    let malformed = ask(&open(), &json!({"authority": "a\"b"})).body.unwrap();
    assert_eq!(malformed, r#"{"error":"egress denied","reason":"authorityMalformed","host":null,"rule":null}"#);
    let quoted =
        policy(&json!({"rules": [{"name": "a \"b\"", "to": [{"host": "api.example.com"}], "methods": ["PUT"]}]}));
    let body: Value = serde_json::from_str(&ask(&quoted, &json!({})).body.unwrap()).unwrap();
    assert_eq!(body["rule"], "a \"b\"");
    let v6: Value = serde_json::from_str(&ask(&open(), &json!({"authority": "[::1]"})).body.unwrap()).unwrap();
    assert_eq!(v6["host"], "[::1]");
}

#[test]
fn a_caller_learns_no_rule_that_is_not_for_it() {
    let policy = policy(&json!({"rules": [
        {"name": "secret-project", "to": [{"host": "api.example.com"}], "from": ["spiffe://cluster.local/ns/a/sa/b"]},
    ]}));
    let decision = ask(&policy, &json!({}));
    assert_eq!((decision.reason, decision.rule), (Some("callerNotAllowed"), None));
    assert!(!decision.body.unwrap().contains("secret-project"));
}

#[test]
fn the_first_rule_in_document_order_is_named() {
    let policy = policy(&json!({"rules": [
        {"name": "other", "to": [{"host": "b.example.com"}]},
        {"name": "wide", "to": [{"host": "*.example.com"}]},
        {"name": "exact", "to": [{"host": "api.example.com"}]},
        {"name": "exact-path", "to": [{"host": "api.example.com"}], "paths": [{"value": "/v1"}]},
    ]}));
    assert_eq!(ask(&policy, &json!({})).rule.as_deref(), Some("wide"));
    assert_eq!(ask(&policy, &json!({"authority": "b.example.com"})).rule.as_deref(), Some("other"));
}

#[test]
fn of_rules_that_come_equally_near_the_refusal_names_the_first_in_document_order() {
    let rule = |name: &str, host: &str| json!({"name": name, "to": [{"host": host}], "methods": ["POST"]});
    let (narrow, wide) = (rule("narrow", "api.example.com"), rule("wide", "*.example.com"));
    let second = rule("second", "api.example.com");
    for (rules, expected) in [([&narrow, &wide, &second], "narrow"), ([&wide, &second, &narrow], "wide")] {
        let decision = ask(&policy(&json!({"rules": rules})), &json!({}));
        assert_eq!((decision.reason, decision.rule.as_deref()), (Some("methodNotAllowed"), Some(expected)));
    }
}
