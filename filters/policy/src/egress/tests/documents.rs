//! What a policy may say.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn mistakes_are_explained_with_path_and_remedy() {
    for (egress, expected) in [
        (json!({"rules": [{"name": "r", "to": []}]}), "egress.rules[0].to: []: is empty"),
        (json!({"rules": [{"name": "r", "to": [{}]}]}), "needs one of: host, cidr"),
        (
            json!({"rules": [{"name": "r", "to": [{"host": "a.test", "cidr": "::/0"}]}]}),
            "has both `host` and `cidr`; keep one",
        ),
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
        (json!({"rules": [{"name": "r", "to": [{"host": "*.com"}]}]}), "wildcard over a single label"),
        (json!({"deny": [{"host": "*"}]}), "egress.deny[0].host: \"*\": covers every host"),
        (json!({"mode": "audit"}), "did you mean `Audit`?"),
        (json!({"mode": "Shadow"}), "unknown value; expected one of: Enforce, Audit"),
        (json!({"identity": {}}), "is empty; give one of: peerCertificate"),
        (json!({"identity": {"header": "x-user"}}), "unknown field `header`"),
        (
            json!({"identity": {"peerCertificate": {}, "filterState": "a"}}),
            "has both `filterState` and `peerCertificate`; keep one",
        ),
        (json!({"identity": {"workload": {}}}), "trustDomain: is required"),
        (json!({"identity": {"workload": {"trustDomain": "spiffe://c"}}}), "without spiffe://"),
        (json!({"rule": []}), "did you mean `rules`?"),
    ] {
        let message = error(&egress);
        assert!(message.contains(expected), "{egress}: {message}");
    }
}

#[test]
fn nothing_after_egress_changes_where_a_request_goes_or_what_it_asks_for() {
    let document = |rule: Value, settings: Value| {
        json!({
            "settings": settings,
            "egress": {"rules": [{"name": "r", "to": [{"host": "a.test"}]}]},
            "routes": {"rules": [{"name": "ok", "route": "a"}, rule]},
        })
    };
    let rule = |extra: Value| {
        let mut rule = json!({"name": "r", "route": "a", "matches": [{"path": {"value": "/x"}}]});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        rule
    };
    let error = |document: &Value| {
        Policy::<crate::module::Suite>::from_json(document.to_string().as_bytes()).err().map(|e| e.to_string())
    };
    for (extra, place) in [
        (json!({"rewrite": {"hostname": "b.test"}}), "routes.rules[1].rewrite.hostname: "),
        (
            json!({"rewrite": {"path": {"type": "ReplaceFullPath", "value": "/admin"}}}),
            "routes.rules[1].rewrite.path: ",
        ),
        (json!({"rewrite": {"path": {"type": "ReplacePrefixMatch", "value": "/y"}}}), "routes.rules[1].rewrite.path: "),
    ] {
        let message = error(&document(rule(extra), json!({}))).unwrap();
        assert!(message.starts_with(place), "{message}");
    }
    for name in [
        "x-envoy-original-dst-host",
        "X-Original-URL",
        "x-rewrite-url",
        "X-HTTP-Method-Override",
        "x-http-method",
        "x-method-override",
    ] {
        for change in [
            json!({"set": [{"name": name, "value": "v"}]}),
            json!({"add": [{"name": name, "value": "v"}]}),
            json!({"remove": [name]}),
        ] {
            let changed = document(rule(json!({"requestHeaders": change})), json!({}));
            assert!(error(&changed).unwrap().starts_with("routes.rules[1].requestHeaders."), "{changed}");
            let mut alone = changed;
            alone.as_object_mut().unwrap().remove("egress");
            assert_eq!(error(&alone), None, "without egress nothing is promised: {alone}");
        }
        let route_header = document(rule(json!({})), json!({"routeHeader": name}));
        assert!(error(&route_header).unwrap().contains("settings.routeHeader"), "{name}");
    }
    let harmless = json!({"requestHeaders": {"set": [{"name": "x-team", "value": "v"}]}, "timeout": "2s"});
    assert_eq!(error(&document(rule(harmless), json!({}))), None);
}
