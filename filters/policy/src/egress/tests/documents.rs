//! What a policy may say.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
