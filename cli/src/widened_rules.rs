//! An egress rule and everything that widens it, for the tests of whatever compares rules.

use serde_json::{Value, json};

/// The rule, without a name.
pub fn base() -> Value {
    json!({"to": [{"host": "a.test", "ports": [443]}], "from": ["spiffe://c/ns/a/sa/b"], "methods": ["GET"],
        "paths": [{"value": "/v1"}], "notBefore": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z"})
}

/// The rule with another value of a field; null: without the field.
pub fn with(field: &str, value: Value) -> Value {
    let mut rule = base();
    match value.is_null() {
        true => drop(rule.as_object_mut().unwrap().remove(field)),
        false => rule[field] = value,
    }
    rule
}

/// Each field that can be widened, and the rule with it widened.
pub fn wider() -> Vec<(&'static str, Value)> {
    let widened = [
        ("from", Value::Null),
        ("from", json!(["spiffe://c/ns/*/sa/b"])),
        ("methods", Value::Null),
        ("methods", json!(["GET", "DELETE"])),
        ("paths", Value::Null),
        ("paths", json!([{"value": "/"}])),
        ("paths", json!([{"value": "/v1"}, {"type": "Exact", "value": "/v2"}])),
        ("paths", json!([{"value": "/v1"}, {"type": "RegularExpression", "value": "/v[0-9]{3}"}])),
        ("to", json!([{"host": "a.test"}])),
        ("to", json!([{"host": "*.a.test", "ports": [443]}, {"host": "a.test", "ports": [443]}])),
        ("to", json!([{"host": "a.test", "ports": [443, 80]}])),
        ("to", json!([{"host": "a.test", "ports": [443]}, {"cidr": "10.0.0.0/8"}])),
        ("upgrades", json!(["websocket"])),
        ("notBefore", Value::Null),
        ("notBefore", json!("2025-01-01T00:00:00Z")),
        ("expires", Value::Null),
        ("expires", json!("2028-01-01T00:00:00Z")),
    ];
    widened.into_iter().map(|(field, value)| (field, with(field, value))).collect()
}
