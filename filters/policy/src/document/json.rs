//! Parses JSON into the tree.
//!
//! Long lists of a JSON document are read entry by entry, while they are decoded: the tree of a hundred thousand rules
//! would be several times as large as the rules, and the memory of a wasm module never shrinks.

use std::fmt;
use std::ops::Range;

use memchr::memchr2;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::node::Node;

/// Text that is not JSON at all.
#[derive(Debug, thiserror::Error)]
#[error("not JSON: {0}")]
pub struct NotJson(#[from] serde_json::Error);

/// JSON as text, checked once and not string by string.
pub(super) fn text(bytes: &[u8]) -> Result<&str, serde_json::Error> {
    let what = |error: std::str::Utf8Error| format!("not UTF-8 from byte {} on", error.valid_up_to());
    std::str::from_utf8(bytes).map_err(|error| serde::de::Error::custom(what(error)))
}

impl Node {
    /// Reads JSON text.
    ///
    /// # Errors
    /// When the bytes are not one JSON value, or nested deeper than 128 levels.
    pub fn from_json(bytes: &[u8]) -> Result<Node, NotJson> {
        Ok(serde_json::from_str(text(bytes)?)?)
    }

    /// Reads a JSON document, but leaves the lists of its sections (`egress.rules`) as text, for a [`Context`] with the
    /// same `source`.
    pub(crate) fn skim(source: &str) -> Result<Node, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(source);
        let node = NodeVisitor(ParseMode::Skim(Skim { source, is_section: false })).deserialize(&mut json)?;
        json.end()?;
        Ok(node)
    }
}

/// Calls `entry` with each element of a list, in order; `None` when the list cannot be read to its end.
pub(super) fn each(text: &str, entry: &mut dyn FnMut(usize, &Node)) -> Option<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    NodeVisitor(ParseMode::Each(entry)).deserialize(&mut json).and_then(|_| json.end()).ok()
}

/// The number of elements in a list: its commas plus one. Used to reserve memory, so that a long list is not copied
/// while it grows.
pub(super) fn count(text: &str) -> usize {
    let mut depth = 0usize;
    let mut commas = 0;
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                while let Some(at) = memchr2(b'"', b'\\', rest) {
                    // The byte after a backslash does not end the string.
                    let is_end = rest.get(at) == Some(&b'"');
                    rest = rest.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
                    if is_end {
                        break;
                    }
                }
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => commas += 1,
            _ => {}
        }
    }
    let is_empty = text.bytes().skip(1).find(|byte| !byte.is_ascii_whitespace()) == Some(b']');
    if is_empty { 0 } else { commas + 1 }
}

/// The text of [`Node::Unread`].
pub(super) fn slice<'s>(source: &'s str, range: &Range<u32>) -> &'s str {
    source.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// Whether the values of a map are lists of sections: one level down in the document itself, or in a section.
#[derive(Clone, Copy)]
struct Skim<'de> {
    source: &'de str,
    is_section: bool,
}

impl<'de> Skim<'de> {
    /// The next value of the map.
    fn value<A: MapAccess<'de>>(self, map: &mut A) -> Result<Node, A::Error> {
        if !self.is_section {
            return map.next_value_seed(NodeVisitor(ParseMode::Skim(Skim { is_section: true, ..self })));
        }
        let text = map.next_value::<&'de RawValue>()?.get();
        // Both are slices of one text; any other value is parsed immediately.
        let start = (text.as_ptr() as usize).checked_sub(self.source.as_ptr() as usize);
        let start = start.filter(|start| start + text.len() <= self.source.len());
        let range = start.and_then(|start| Some(start.try_into().ok()?..(start + text.len()).try_into().ok()?));
        match range.filter(|_| text.starts_with('[')) {
            Some(range) => Ok(Node::Unread(range)),
            None => serde_json::from_str(text).map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor(ParseMode::Whole))
    }
}

/// Reads any value.
struct NodeVisitor<'e, 'de>(ParseMode<'e, 'de>);

/// What the visitor does with the value. There is one visitor for all three cases, so that the parser is compiled only once.
enum ParseMode<'e, 'de> {
    /// It becomes part of the tree.
    Whole,
    /// The value is a document or a section of one, whose lists stay text.
    Skim(Skim<'de>),
    /// The value is a list, whose entries are shown one after the other and not kept.
    Each(&'e mut dyn FnMut(usize, &Node)),
}

impl<'de> DeserializeSeed<'de> for NodeVisitor<'_, 'de> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_, 'de> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Float(value as f64), Node::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        let mut count = 0;
        while let Some(item) = seq.next_element()? {
            match &mut self.0 {
                ParseMode::Each(entry) => entry(count, &item),
                _ => items.push(item),
            }
            count += 1;
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            let value = match &self.0 {
                ParseMode::Skim(skim) => skim.value(&mut map)?,
                _ => map.next_value()?,
            };
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_lists_of_sections_are_left_as_text_and_read_one_by_one() {
        let source = r#" {"egress": {"mode": "Audit", "rules": [1, {"a": ["]", ","]}, "\",\\"]}, "rateLimits": [2]} "#;
        let node = Node::skim(source).unwrap();
        assert_eq!(node.get("egress").unwrap().get("mode"), Some(&Node::String("Audit".into())));
        assert_eq!(node.get("rateLimits"), Some(&Node::List(vec![Node::Integer(2)])));
        let Some(Node::Unread(range)) = node.get("egress").unwrap().get("rules") else { panic!("{node}") };
        let mut entries = Vec::new();
        each(slice(source, range), &mut |i, node| entries.push(format!("{i} {node}"))).unwrap();
        assert_eq!(entries, ["0 1", r#"1 {"a":["]",","]}"#, r#"2 "\",\\""#]);
        assert_eq!(count(slice(source, range)), 3);
    }

    #[test]
    fn a_list_that_is_not_json_after_all_is_said_so() {
        assert_eq!(each(r#"[1, "\ud800"]"#, &mut |_, _| {}), None);
        assert!(Node::skim(r#"{"egress":{"rules":[1,}}"#).is_err());
        assert!(Node::skim(r#"{"egress":{"mode":"\ud800"}}"#).is_err());
        assert!(Node::skim("{} {}").is_err());
    }
}
