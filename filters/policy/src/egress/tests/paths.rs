//! Canonical paths.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
        ("/v1/%ef%bc%9f%ef%bd%81", "/v1/%EF%BC%9F%EF%BD%81"),
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
        ("/v1/%ef%bc%8e%ef%bc%8e%ef%bc%8fadmin", "pathEscapesDelimiter"),
        ("/v1/%EF%BC%8E%EF%BC%8E/admin", "pathEscapesDelimiter"),
        ("/v1/%e2%80%a5/admin", "pathEscapesDelimiter"),
        ("/v1/%e2%80%a4./admin", "pathEscapesDelimiter"),
        ("/v1/.%ef%b9%92/admin", "pathEscapesDelimiter"),
        ("/v1/%ef%bc%bc..%ef%bc%bcadmin", "pathEscapesDelimiter"),
        ("/v1/%ef%b9%a8", "pathEscapesDelimiter"),
        ("/v1/%ef%bc%852f", "pathEscapesDelimiter"),
        ("/v1/..%ef%bc%9bx/admin", "pathEscapesDelimiter"),
        ("/v1/%e2%84%80dmin", "pathEscapesDelimiter"),
        ("/v1/%f0%9f%84%80", "pathEscapesDelimiter"),
        ("/v1/%c3%a9%ef%bc%8f", "pathEscapesDelimiter"),
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
fn later_sections_see_and_forward_the_canonical_path() {
    let policy = Policy::from_json(
        json!({
            "egress": {"rules": [{"name": "r", "to": [{"host": "api.example.com"}], "paths": [{"value": "/b"}]}]},
            "routes": {"rules": [
                {"name": "a", "route": "a", "matches": [{"path": {"value": "/a"}}]},
                {"name": "b", "route": "b", "matches": [{"path": {"value": "/b"}}]},
            ]},
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    let decision = ask(&policy, &json!({"path": "/a/../b/x?q"}));
    assert_eq!(decision.route.as_deref(), Some("b"));
    let paths: Vec<_> = decision.headers.set.iter().filter(|(name, _)| name == ":path").collect();
    assert_eq!(paths.last().map(|(_, path)| path.as_str()), Some("/b/x?q"));
    assert_eq!(ask(&policy, &json!({"path": "/a/x"})).status, Some(403));
}
