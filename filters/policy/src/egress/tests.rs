//! The section as a whole: each class of input that an attacker chooses, and what is answered.

use crate::module::EgressAllowlist;
use crate::wire::{WireDecision, WireRequest, World};
use crate::{Policy, Timestamp};
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
fn an_authority_has_one_reading_or_none() {
    let policy = open();
    for (authority, expected) in [
        ("api.example.com", 200),
        ("API.Example.COM", 200),
        ("api.example.com.", 200),
        ("api.example.com.:443", 200),
        ("a_b.example.com", 200),
        ("1.example.com", 200),
        ("0x7f.example.com", 200),
        ("localhost", 200),
        ("localhost.", 200),
        ("evil.test", 403),
        ("example.com.evil.test", 403),
        ("evilexample.com", 403),
        ("com", 403),
        ("", 400),
        (".", 400),
        ("..", 400),
        (".api.example.com", 400),
        ("api..example.com", 400),
        ("api.example.com..", 400),
        ("-api.example.com", 400),
        ("api-.example.com", 400),
        ("user@api.example.com", 400),
        ("user:pass@api.example.com", 400),
        ("api.example.com@evil.test", 400),
        ("api.example.com:443@evil.test", 400),
        ("@api.example.com", 400),
        ("api.example.com,evil.test", 400),
        ("api.example.com, evil.test", 400),
        ("api.example.com%2eevil.test", 400),
        ("api%2eexample.com", 400),
        ("%61pi.example.com", 400),
        ("api.example.com%00", 400),
        ("api.example.com/", 400),
        ("api.example.com/path", 400),
        ("api.example.com?x", 400),
        ("api.example.com#x", 400),
        ("api.example.com\\evil.test", 400),
        ("api.example.com;x", 400),
        ("api.example.com&x", 400),
        ("api.example.com=x", 400),
        ("api.example.com|x", 400),
        ("api.example.com\u{0}", 400),
        ("api.example.com\t", 400),
        ("api.example.com\r\nhost: evil.test", 400),
        (" api.example.com", 400),
        ("api.example.com ", 400),
        ("api .example.com", 400),
        ("\"api.example.com\"", 400),
        ("<api.example.com>", 400),
        ("*.example.com", 400),
        ("http://api.example.com", 400),
        ("//api.example.com", 400),
        ("api.example.com\u{200b}", 400),
        ("api\u{3002}example.com", 400),
        ("api\u{ff0e}example.com", 400),
        ("\u{ff41}pi.example.com", 400),
        ("ap\u{131}.example.com", 400),
        ("api.example.com\u{ad}", 400),
        ("b\u{fc}cher.example.com", 400),
    ] {
        assert_eq!(status(&policy, &json!({"authority": authority})), expected, "{authority:?}");
    }
    let long = |labels: usize| format!("{}example.com", "a.".repeat(labels));
    assert_eq!(status(&policy, &json!({"authority": long(121)})), 200, "253 characters");
    assert_eq!(status(&policy, &json!({"authority": format!("{}.", long(121))})), 200, "and a dot");
    assert_eq!(status(&policy, &json!({"authority": long(122)})), 400, "255 characters");
    assert_eq!(status(&policy, &json!({"authority": format!("{}.example.com", "a".repeat(63))})), 200);
    assert_eq!(status(&policy, &json!({"authority": format!("{}.example.com", "a".repeat(64))})), 400);
}

#[test]
fn a_port_is_plain_digits_or_nothing() {
    let policy = open();
    for (port, expected) in [
        ("443", 200),
        ("8443", 200),
        ("80", 403),
        ("1", 403),
        ("65535", 403),
        ("", 400),
        ("0", 400),
        ("00443", 400),
        ("0443", 400),
        ("+443", 400),
        ("-443", 400),
        ("443 ", 400),
        (" 443", 400),
        ("44 3", 400),
        ("65536", 400),
        ("65979", 400),
        ("4294967739", 400),
        ("18446744073709552059", 400),
        ("0x1bb", 400),
        ("443.0", 400),
        ("443e0", 400),
        ("4_43", 400),
        ("https", 400),
        ("443:80", 400),
        ("443,80", 400),
        ("443@evil.test", 400),
        ("443#", 400),
        ("443/", 400),
        ("\u{ff14}\u{ff14}\u{ff13}", 400),
        ("\u{664}\u{664}\u{663}", 400),
    ] {
        assert_eq!(status(&policy, &json!({"authority": format!("api.example.com:{port}")})), expected, "{port:?}");
        assert_eq!(
            status(&policy, &json!({"authority": format!("[2001:db8::1]:{port}")})),
            if port == "8443" { 403 } else { expected },
            "{port:?}"
        );
    }
}

#[test]
fn the_implicit_port_is_the_connections_then_the_schemes_then_none() {
    let policy = open();
    for (change, expected) in [
        (json!({}), 200),
        (json!({"destinationPort": 80}), 403),
        (json!({"destinationPort": null}), 200),
        (json!({"destinationPort": null, "scheme": "HTTPS"}), 200),
        (json!({"destinationPort": null, "scheme": "http"}), 403),
        (json!({"destinationPort": null, "scheme": null}), 403),
        (json!({"destinationPort": null, "scheme": "gopher"}), 403),
        (json!({"destinationPort": 80, "authority": "api.example.com:443"}), 200),
        // No `ports`: any, known or not.
        (json!({"destinationPort": null, "scheme": null, "authority": "localhost"}), 200),
    ] {
        assert_eq!(status(&policy, &change), expected, "{change}");
    }
}

#[test]
fn an_address_has_one_spelling_that_counts() {
    let policy = open();
    for (authority, expected) in [
        ("203.0.113.7", 200),
        ("203.0.113.7:443", 200),
        ("203.0.113.255", 200),
        ("203.0.114.0", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0", 403),
        ("255.255.255.255", 403),
        ("203.0.113.7.", 400),
        ("203.0.113.07", 400),
        ("203.0.113.0x7", 400),
        ("0xcb.0.113.7", 400),
        ("0313.0.0161.7", 400),
        ("203.0.113.256", 400),
        ("203.0.113", 400),
        ("203.0.28935", 400),
        ("203.29191", 400),
        ("3405803783", 400),
        ("0xcb007107", 400),
        ("0XCB007107", 400),
        ("031300070407", 400),
        ("0x", 400),
        ("a.0x", 400),
        ("1.2.3.4.5", 400),
        ("example.1", 400),
        ("example.0xff", 400),
        ("example.0xfg", 403),
        ("example.1a", 403),
        ("[2001:db8::1]", 200),
        ("[2001:DB8::1]", 200),
        ("[2001:0db8:0:0:0:0:0:1]", 200),
        ("[2001:db8::1]:443", 200),
        ("[2001:db8::203.0.113.7]", 200),
        ("[2001:db9::1]", 403),
        ("[::]", 403),
        ("[::ffff:203.0.113.7]", 403),
        ("[::ffff:cb00:7107]", 403),
        ("[::203.0.113.7]", 403),
        ("[64:ff9b::203.0.113.7]", 403),
        ("2001:db8::1", 400),
        ("[2001:db8::1", 400),
        ("2001:db8::1]", 400),
        ("[2001:db8::1]x", 400),
        ("[2001:db8::1].", 400),
        ("[2001:db8::1]443", 400),
        ("[[2001:db8::1]]", 400),
        ("[2001:db8::1%25eth0]", 400),
        ("[2001:db8::1%eth0]", 400),
        ("[2001:db8:::1]", 400),
        ("[2001:db8::1::]", 400),
        ("[2001:db8::12345]", 400),
        ("[1:2:3:4:5:6:7]", 400),
        ("[1:2:3:4:5:6:7:8:9]", 400),
        ("[::ffff:203.0.113.07]", 400),
        ("[::ffff:203.0.113]", 400),
        ("[203.0.113.7]", 400),
        ("[api.example.com]", 400),
        ("[]", 400),
        ("[", 400),
        ("[v1.fe80::a]", 400),
        ("[ 2001:db8::1]", 400),
    ] {
        assert_eq!(status(&policy, &json!({"authority": authority})), expected, "{authority}");
    }
}

#[test]
fn an_ipv4_mapped_address_needs_its_own_range_and_finds_no_way_round_deny() {
    let policy = policy(&json!({
        "deny": [{"cidr": "169.254.0.0/16"}, {"cidr": "2001:db8:bad::/48"}, {"host": "localhost", "ports": [22]}],
        "rules": [{"name": "all", "to": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}, {"host": "localhost"}]}],
    }));
    for (authority, expected) in [
        ("1.2.3.4", 200),
        ("[2001:db8::1]", 200),
        ("[::ffff:1.2.3.4]", 200),
        ("169.254.169.254", 403),
        ("169.255.0.0", 200),
        ("[::ffff:169.254.169.254]", 403),
        ("[::ffff:a9fe:a9fe]", 403),
        ("[2001:db8:bad::1]", 403),
        ("[2001:db8:bae::1]", 200),
        ("localhost:22", 403),
        ("LOCALHOST.:22", 403),
        ("localhost:2222", 200),
    ] {
        assert_eq!(status(&policy, &json!({"authority": authority})), expected, "{authority}");
    }
    let unknown_port = json!({"authority": "localhost", "destinationPort": null, "scheme": null});
    assert_eq!(reason(&policy, &unknown_port), (403, "hostDenied"), "deny counts what is unclear");
}

#[test]
fn every_host_header_agrees_with_the_authority() {
    let policy = open();
    for (hosts, expected) in [
        (&["api.example.com"][..], 200),
        (&["API.example.com.:443"], 200),
        (&["api.example.com", "api.example.com:443"], 200),
        (&["api.example.com:8443"], 400),
        (&["evil.test"], 400),
        (&["api.example.com", "evil.test"], 400),
        (&[""], 400),
        (&["api.example.com,api.example.com"], 400),
        (&["user@api.example.com"], 400),
        (&[" api.example.com"], 400),
    ] {
        let headers: Vec<_> = hosts.iter().map(|host| ("Host", host)).collect();
        assert_eq!(status(&policy, &json!({"headers": headers})), expected, "{hosts:?}");
    }
    let addressed =
        |authority: &str, host: &str| status(&policy, &json!({"authority": authority, "headers": [["host", host]]}));
    assert_eq!(addressed("[2001:db8::1]", "[2001:0DB8::0:1]:443"), 200);
    assert_eq!(addressed("203.0.113.7", "[::ffff:203.0.113.7]"), 400);
}

#[test]
fn repeated_pseudo_headers_and_destination_overrides_are_refused() {
    for policy in [open(), scoped()] {
        for (name, value) in [
            (":authority", "evil.test"),
            (":path", "/other"),
            (":method", "DELETE"),
            (":scheme", "http"),
            ("x-envoy-original-dst-host", "10.0.0.1:80"),
            ("X-Envoy-Original-Dst-Host", ""),
        ] {
            assert_eq!(status(&policy, &json!({"headers": [[name, value]]})), 400, "{name}");
        }
    }
    for name in ["x-original-url", "X-Rewrite-URL"] {
        let change = json!({"headers": [[name, "/admin"]]});
        assert_eq!(reason(&scoped(), &change), (400, "pathOverrideHeader"));
        assert_eq!(status(&open(), &change), 200, "no path is promised, so none is overridden");
    }
}

#[test]
fn a_request_target_is_origin_form() {
    for policy in [open(), scoped()] {
        for path in [
            "",
            "*",
            "v1",
            "http://evil.test/",
            "https://api.example.com/v1",
            "//evil.test\\",
            "/v1#x",
            "/v1?#",
            "/v1 x",
            "/v1?a b",
            "/v1\\x",
            "/v1?a\\b",
            "/v1\u{7f}",
            "/v1\u{1}",
            "/v1\r\n",
            "/v1\t",
            "/v1\u{e9}",
            "/v1?\u{e9}",
            "?x",
            "evil.test:443",
            "/v1\u{0}",
        ] {
            assert_eq!(status(&policy, &json!({"path": path})), 400, "{path:?}");
        }
    }
    assert_eq!(status(&open(), &json!({"method": "OPTIONS", "path": "*"})), 200);
    assert_eq!(status(&open(), &json!({"method": "OPTIONS", "path": "**"})), 400);
    let any_method = policy(&json!({"rules": [{
        "name": "r", "to": [{"host": "api.example.com"}], "paths": [{"value": "/"}],
    }]}));
    assert_eq!(reason(&any_method, &json!({"method": "OPTIONS", "path": "*"})), (403, "pathNotAllowed"));
}

#[test]
fn the_canonical_path_is_matched_and_forwarded() {
    let policy = scoped();
    for (path, expected) in [
        ("/v1", "/v1"),
        ("/v1/", "/v1/"),
        ("/v1/a/b", "/v1/a/b"),
        ("/v1/./a", "/v1/a"),
        ("/v1/a/.", "/v1/a/"),
        ("/v1/a/..", "/v1/"),
        ("/v1/a/../b", "/v1/b"),
        ("/x/../v1/a", "/v1/a"),
        ("//v1//a//", "/v1/a/"),
        ("/v1/a//../b", "/v1/b"),
        ("/v1/%61%2D%2e%5F%7e", "/v1/a-._~"),
        ("/%76%31/a", "/v1/a"),
        ("/v1/%2e%2E/v1/a", "/v1/a"),
        ("/v1/%c3%a9", "/v1/%C3%A9"),
        ("/v1/%e2%82%ac", "/v1/%E2%82%AC"),
        ("/v1/%40%3a", "/v1/%40%3A"),
        ("/v1/@:!$&'()*+,=", "/v1/@:!$&'()*+,="),
        ("/v1/%20", "/v1/%20"),
        ("/v1/a;x=1", "/v1/a"),
        ("/v1;x/a;y/b", "/v1/a/b"),
        ("/v1/a%3bx=1/b", "/v1/a/b"),
        ("/v1/a/..;x/b", "/v1/b"),
        ("/v1/a/;x/b", "/v1/a/b"),
        ("/v1/.;x", "/v1/"),
        ("/v1/...", "/v1/..."),
        ("/v1/..a", "/v1/..a"),
        ("/v1/a..", "/v1/a.."),
        ("/health", "/health"),
        ("/v1/../health", "/health"),
        ("/health;jsessionid=1", "/health"),
        ("/v1/a?q=/../%2f%zz;x//", "/v1/a?q=/../%2f%zz;x//"),
        ("/v1//a?", "/v1/a?"),
        ("/v1/a/..?x=%41", "/v1/?x=%41"),
    ] {
        assert_eq!(forwarded(&policy, path).as_deref(), Ok(expected), "{path}");
        assert_eq!(forwarded(&policy, expected).as_deref(), Ok(expected), "canonical again: {expected}");
    }
}

#[test]
fn a_path_outside_stays_outside_however_it_is_written() {
    let policy = scoped();
    for path in [
        "/",
        "/v2",
        "/v10",
        "/V1",
        "/v1/..",
        "/v1/../v2",
        "/v1/%2e%2e/v2",
        "/v1/.%2e/v2",
        "/v1/%2E./v2",
        "/v1/..;/v2",
        "/v1/..%3B/v2",
        "/v1/..%3bx=y/v2",
        "/v1//../v2",
        "/v1/;/../v2",
        "/v1/./../v2",
        "/health/",
        "/health/x",
        "/healthz",
        "/v1%20/a",
        "/v1%09",
        "/v1:/a",
    ] {
        let decision = ask(&policy, &json!({"path": path}));
        assert_eq!((decision.status, decision.reason), (Some(403), Some("pathNotAllowed")), "{path}");
    }
}

#[test]
fn an_escape_with_two_readings_is_refused() {
    let policy = scoped();
    for (path, why) in [
        ("/v1/a%2fb", "pathEscapesDelimiter"),
        ("/v1/a%2Fb", "pathEscapesDelimiter"),
        ("/v1/..%2fv2", "pathEscapesDelimiter"),
        ("/v1/%5c..%5cv2", "pathEscapesDelimiter"),
        ("/v1/%00", "pathEscapesDelimiter"),
        ("/v1/%25", "pathEscapesDelimiter"),
        ("/v1/%252e%252e/v2", "pathEscapesDelimiter"),
        ("/v1/%25%32%66", "pathEscapesDelimiter"),
        ("/v1/%", "pathEscapeMalformed"),
        ("/v1/%2", "pathEscapeMalformed"),
        ("/v1/%zz", "pathEscapeMalformed"),
        ("/v1/%2g", "pathEscapeMalformed"),
        ("/v1/%u002e", "pathEscapeMalformed"),
        ("/v1/%+2", "pathEscapeMalformed"),
        ("/v1/%%41", "pathEscapeMalformed"),
        ("/v1/%?", "pathEscapeMalformed"),
        ("/v1/%c0%af", "pathNotUtf8"),
        ("/v1/%c0%ae%c0%ae/v2", "pathNotUtf8"),
        ("/v1/%c1%9c", "pathNotUtf8"),
        ("/v1/%e0%80%af", "pathNotUtf8"),
        ("/v1/%f0%80%80%af", "pathNotUtf8"),
        ("/v1/%f8%80%80%80%af", "pathNotUtf8"),
        ("/v1/%ff", "pathNotUtf8"),
        ("/v1/%c3", "pathNotUtf8"),
        ("/v1/%c3/%a9", "pathNotUtf8"),
        ("/v1/%c3a%a9", "pathNotUtf8"),
        ("/v1/%c3%41", "pathNotUtf8"),
        ("/v1/%a9", "pathNotUtf8"),
        ("/v1/%ed%a0%80", "pathNotUtf8"),
        ("/v1/%f4%90%80%80", "pathNotUtf8"),
        ("/..", "pathAboveRoot"),
        ("/../v1", "pathAboveRoot"),
        ("/v1/../../v1/a", "pathAboveRoot"),
        ("/%2e%2e/v1", "pathAboveRoot"),
        ("/..;/v1", "pathAboveRoot"),
        ("//../v1", "pathAboveRoot"),
    ] {
        assert_eq!(reason(&policy, &json!({"path": path})), (400, why), "{path}");
        assert_eq!(forwarded(&open(), path).as_deref(), Ok(path), "no rule looks at the path, so nobody touches it");
    }
}

#[test]
fn a_request_is_path_scoped_when_any_rule_that_it_selects_has_paths() {
    let both = |paths_first: bool, extra: Value| {
        let mut with = json!({"name": "with", "to": [{"host": "api.example.com"}], "paths": [{"value": "/v1"}]});
        for (key, value) in extra.as_object().unwrap() {
            with[key] = value.clone();
        }
        let without = json!({"name": "without", "to": [{"host": "*.example.com"}]});
        policy(&json!({"rules": if paths_first { [with, without] } else { [without, with] }}))
    };
    for first in [true, false] {
        let selected = both(first, json!({}));
        assert_eq!(forwarded(&selected, "/v2/a%2fb"), Err(400));
        assert_eq!(forwarded(&selected, "/v2//a").as_deref(), Ok("/v2/a"), "allowed by the other rule");
        for (what, extra) in [
            ("another method", json!({"methods": ["POST"]})),
            ("another caller", json!({"from": ["spiffe://cluster.local/ns/other/sa/x"]})),
            ("another port", json!({"to": [{"host": "api.example.com", "ports": [80]}]})),
            ("another host", json!({"to": [{"host": "b.example.com"}]})),
            ("no longer in force", json!({"expires": "2026-01-01T12:00:00Z"})),
            ("not yet in force", json!({"notBefore": "2026-01-01T12:00:01Z"})),
        ] {
            assert_eq!(forwarded(&both(first, extra), "/v2//a%2fb").as_deref(), Ok("/v2//a%2fb"), "{what}");
        }
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
        (json!({"authority": "mine.example.com", "method": "TRACE", "destinationPort": 80}), None, "callerNotAllowed"),
        (json!({"authority": "old.example.com", "destinationPort": 80}), Some("old"), "ruleExpired"),
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
    let outside = ask(&audit, &json!({"path": "/v1//../v2"}));
    assert_eq!(outside.headers.set, [(":path".to_owned(), "/v2".to_owned())], "what was judged is what is forwarded");
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
fn later_sections_see_and_forward_the_canonical_path() {
    let policy = Policy::from_json(
        json!({
            "egress": {"rules": [{"name": "r", "to": [{"host": "api.example.com"}], "paths": [{"value": "/b"}]}]},
            "routes": {"rules": [
                {"name": "a", "route": "a", "matches": [{"path": {"value": "/a"}}],
                    "rewrite": {"path": {"type": "ReplacePrefixMatch", "value": "/admin"}}},
                {"name": "b", "route": "b", "matches": [{"path": {"value": "/b"}}],
                    "rewrite": {"path": {"type": "ReplacePrefixMatch", "value": "/c"}}},
            ]},
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    let decision = ask(&policy, &json!({"path": "/a/../b/x?q"}));
    assert_eq!(decision.route.as_deref(), Some("b"));
    let paths: Vec<_> = decision.headers.set.iter().filter(|(name, _)| name == ":path").collect();
    assert_eq!(paths.last().map(|(_, path)| path.as_str()), Some("/c/x?q"));
    assert_eq!(ask(&policy, &json!({"path": "/a/x"})).status, Some(403));
}

#[test]
fn mistakes_are_explained_with_path_and_remedy() {
    for (egress, expected) in [
        (json!({"rules": [{"name": "r", "to": []}]}), "egress.rules[0].to: []: is empty"),
        (json!({"rules": [{"name": "r", "to": [{}]}]}), "must have either host or cidr"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test", "cidr": "::/0"}]}]}), "either host or cidr"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test", "ports": []}]}]}), "to[0].ports: []: is empty"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test", "ports": [0]}]}]}), "from 1 to 65535"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test", "ports": [65536]}]}]}), "from 1 to 65535"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "from": []}]}), "from: []: is empty"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "from": ["*"]}]}), "leave `from` out"),
        (
            json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "from": ["cluster.local/ns/a/sa/b"]}]}),
            "write spiffe://cluster.local/ns/a/sa/b",
        ),
        (
            json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "from": ["spiffe://c/ns/pay*"]}]}),
            "one whole path",
        ),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "from": ["spiffe://*/ns/a"]}]}), "before the path"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "from": ["spiffe://C/ns/a"]}]}), "not a SPIFFE ID"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "methods": ["get"]}]}), "write GET"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "paths": [{"value": "/%7Ea;b"}]}]}), "write /~a"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "paths": [{"value": "/a/%c3%a9"}]}]}), "/a/%C3%A9"),
        (
            json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "paths": [{"value": "/a%5cb"}]}]}),
            "escaped delim",
        ),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "upgrades": ["*"]}]}), "such as websocket"),
        (json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "expires": "2026-01-01"}]}), "RFC 3339"),
        (
            json!({"rules": [{"name": "r", "to": [{"host": "a.test"}], "notBefore": "2026-01-01T00:00:00Z",
            "expires": "2026-01-01T00:00:00Z"}]}),
            "would never hold",
        ),
        (
            json!({"rules": [{"name": "r", "to": [{"host": "a.test"}]}, {"name": "r", "to": [{"host": "b.test"}]}]}),
            "is already the name of egress.rules[0]",
        ),
        (json!({"rules": [{"name": "r", "to": [{"cidr": "203.0.113.7"}]}]}), "write 203.0.113.7/32"),
        (
            json!({"rules": [{"name": "r", "to": [{"cidr": "203.0.113.7/24"}]}]}),
            "write 203.0.113.0/24, or 203.0.113.7/32",
        ),
        (json!({"rules": [{"name": "r", "to": [{"cidr": "203.0.113.0/33"}]}]}), "from 0 to 32"),
        (json!({"rules": [{"name": "r", "to": [{"cidr": "203.0.113.0/+8"}]}]}), "from 0 to 32"),
        (json!({"rules": [{"name": "r", "to": [{"cidr": "203.0.113.0/024"}]}]}), "from 0 to 32"),
        (json!({"rules": [{"name": "r", "to": [{"cidr": "2001:db8::/129"}]}]}), "from 0 to 128"),
        (json!({"rules": [{"name": "r", "to": [{"cidr": "[::1]/128"}]}]}), "write ::1/128"),
        (json!({"rules": [{"name": "r", "to": [{"cidr": "10.0.0/8"}]}]}), "203.0.113.0/24"),
        (json!({"rules": [{"name": "r", "to": [{"host": "*.com"}]}]}), "star over a single label"),
        (json!({"deny": [{"host": "*"}]}), "egress.deny[0].host: \"*\": covers every host"),
        (json!({"mode": "audit"}), "did you mean `Audit`?"),
        (json!({"mode": "Shadow"}), "is not a possible value"),
        (json!({"identity": {}}), "exactly one source"),
        (json!({"identity": {"header": "x-user"}}), "is not a field here"),
        (json!({"identity": {"peerCertificate": {}, "filterState": "a"}}), "exactly one source"),
        (json!({"identity": {"workload": {}}}), "trustDomain: is required"),
        (json!({"identity": {"workload": {"trustDomain": "spiffe://c"}}}), "without spiffe://"),
        (json!({"rule": []}), "did you mean `rules`?"),
    ] {
        let message = error(&egress);
        assert!(message.contains(expected), "{egress}: {message}");
    }
}
