//! The document as an untyped tree.
//!
//! Not `serde_json::Value`: a map that drops repeated keys would hide the mistake that matters most in a policy,
//! two fields `rules`, one of which would silently be ignored.

use super::hidden::visible;
use std::fmt;

/// One value of a JSON or YAML document.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`, or a YAML key without a value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction. Istio passes policies through a protobuf Struct, which knows only doubles, so
    /// `5.0` is read as 5 too.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in document order, repeated keys included.
    Map(Vec<(String, Node)>),
    /// A list that is still text, at this place of the document: see [`Context::source`](super::Context::source).
    Unread(std::ops::Range<u32>),
}

impl Node {
    /// What kind of value this is, with an article, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Integer(_) | Node::Float(_) => "a number",
            Node::String(_) => "a string",
            Node::List(_) | Node::Unread(_) => "a list",
            Node::Map(_) => "an object",
        }
    }

    /// A number, as [`Node::Integer`] when it is one: `100.0` and `1e2` are 100.
    pub fn number(value: f64) -> Node {
        // 2^53: up to here a double holds every integer exactly.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let whole = value.trunc() == value && value.abs() <= EXACT;
        if whole { Node::Integer(value as i64) } else { Node::Float(value) }
    }

    /// The value of `key` when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Node::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
            _ => None,
        }
    }
}

/// A value is quoted up to this number of characters.
const LONGEST: usize = 60;

/// Compact JSON, cut after 60 characters: how a problem quotes the value.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, LONGEST);
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => write!(f, "{}…", text.get(..end).unwrap_or_default()),
            None => f.write_str(&text),
        }
    }
}

impl Node {
    /// Appends JSON until `out` is longer than `longest` bytes; the rest would be cut anyway.
    fn write(&self, out: &mut String, longest: usize) {
        if out.len() > longest {
            return;
        }
        match self {
            Node::Null => out.push_str("null"),
            Node::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Node::Integer(value) => out.push_str(&value.to_string()),
            // The shortest form that is read as the same number.
            Node::Float(value) => out.push_str(&format!("{value:?}")),
            Node::String(value) => quote(value, out),
            Node::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out, longest);
                }
                out.push(']');
            }
            Node::Unread(_) => out.push_str("[…]"),
            Node::Map(entries) => {
                out.push('{');
                for (i, (key, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    quote(key, out);
                    out.push(':');
                    value.write(out, longest);
                }
                out.push('}');
            }
        }
    }
}

/// Appends `text` as a JSON string.
fn quote(text: &str, out: &mut String) {
    // Only the beginning of a long text, because messages never show more.
    let end = text.char_indices().nth(LONGEST + 1).map_or(text.len(), |(end, _)| end);
    out.push_str(&visible(&serde_json::to_string(text.get(..end).unwrap_or_default()).unwrap_or_default()));
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn repeated_keys_and_their_order_are_kept() {
        let node = Node::from_json(br#"{"b":1,"a":2,"b":3}"#).unwrap();
        assert_eq!(node.to_string(), r#"{"b":1,"a":2,"b":3}"#);
    }

    #[test]
    fn a_double_without_a_fraction_is_an_integer() {
        assert_eq!(Node::from_json(b"5.0").unwrap(), Node::Integer(5));
        assert_eq!(Node::from_json(b"5.5").unwrap(), Node::Float(5.5));
        assert_eq!(Node::from_json(b"18446744073709551615").unwrap(), Node::Float(18446744073709551615.0));
    }

    #[test]
    fn numbers_that_are_not_whole_are_quoted_so_that_they_read_the_same() {
        for (json, text) in [("5.5", "5.5"), ("-0.25", "-0.25"), ("1e300", "1e300"), ("0.0000001", "1e-7")] {
            assert_eq!(Node::from_json(json.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_long_value_is_quoted_short() {
        let text = Node::String("é".repeat(500)).to_string();
        assert_eq!(text.chars().count(), 61);
        assert!(text.ends_with('…'));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        assert!(Node::from_json("[".repeat(100_000).as_bytes()).is_err());
    }
}
