//! The input documents, and small helpers that all sources use.

use penstock_policy::document::{GatewayDuration, Node};

/// Makes a map.
pub fn map(entries: impl IntoIterator<Item = (&'static str, Node)>) -> Node {
    Node::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Makes a string.
pub fn text(text: impl Into<String>) -> Node {
    Node::String(text.into())
}

/// The names in `retries` of the conditions for a retry.
pub(super) const RETRY_ON: &str = "retryOn";

/// The duration of a unit such as `Minute`.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "second" => "1s",
        "minute" => "1m",
        "hour" => "1h",
        "day" => "24h",
        "week" => "168h",
        "month" => "720h",
        "year" => "8760h",
        _ => return None,
    })
}

/// Converts a duration of Go or protobuf, such as `0.5s`, `1m30s` or `500ms`, to the notation of a policy.
pub(super) fn duration(written: &str) -> Option<String> {
    if GatewayDuration::parse(written).is_some() {
        return Some(written.to_owned());
    }
    let mut millis = 0.0;
    let mut rest = written.trim();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at_checked(end)?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let scale = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            "us" | "µs" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        millis += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    // A policy cannot express anything shorter than a millisecond; longer units are for readability.
    let whole = millis.ceil();
    if written.trim().is_empty() || !(0.0..1e12).contains(&whole) {
        return None;
    }
    let mut left = whole as u64;
    let mut text = String::new();
    for (unit, scale) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if left / scale > 0 {
            text += &format!("{}{unit}", left / scale);
            left %= scale;
        }
    }
    let text = if text.is_empty() { "0s".to_owned() } else { text };
    GatewayDuration::parse(&text).map(|_| text)
}

/// All input documents, with their files.
pub struct Objects<'d>(pub(super) &'d [(String, Node)]);

impl<'d> Objects<'d> {
    /// The objects of a kind in order, each with its file.
    pub(super) fn of(&self, kind: &str, group: &str) -> Vec<&'d (String, Node)> {
        self.0.iter().filter(|(_, node)| is(node, kind, group)).collect()
    }
}

/// Whether an object is of this kind and group.
pub(super) fn is(node: &Node, kind: &str, group: &str) -> bool {
    let text = |field: &str| match node.get(field) {
        Some(Node::String(text)) => text.as_str(),
        _ => "",
    };
    let version = text("apiVersion");
    text("kind") == kind && (version.is_empty() || version.split('/').next() == Some(group))
}
