//! Long lists of a JSON document are read entry by entry, while they are decoded: the tree of a hundred thousand rules
//! would be several times as large as the rules, and the memory of a wasm module never shrinks.

use std::ops::Range;

use serde::de::{DeserializeSeed, MapAccess};
use serde_json::value::RawValue;

use super::decode::Context;
use super::node::{Mode, Node, NodeVisitor};

impl Node {
    /// Reads a JSON document, but leaves the lists of its sections (`egress.rules`) as text, for a [`Context`] with the
    /// same `source`.
    pub(crate) fn skim(source: &str) -> Result<Node, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(source);
        let node = NodeVisitor(Mode::Skim(Skim { source, is_section: false })).deserialize(&mut json)?;
        json.end()?;
        Ok(node)
    }
}

/// Shows `entry` what a list has, one after the other; `None` when it cannot be read to its end.
pub(super) fn each(text: &str, entry: &mut dyn FnMut(usize, &Node)) -> Option<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    NodeVisitor(Mode::Each(entry)).deserialize(&mut json).and_then(|_| json.end()).ok()
}

/// How many entries a list has: its commas and one. So that a long list is not copied while it grows.
pub(super) fn count(text: &str) -> usize {
    let mut depth = 0usize;
    let mut commas = 0;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next().filter(|&byte| byte != b'"') {
                    if byte == b'\\' {
                        bytes.next();
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

impl Context<'_> {
    /// The text of [`Node::Unread`].
    pub(super) fn text(&self, range: &Range<u32>) -> &str {
        self.source.get(range.start as usize..range.end as usize).unwrap_or_default()
    }
}

/// Where the values of a map are lists of sections: in the document itself, one level down; or in a section.
#[derive(Clone, Copy)]
pub(super) struct Skim<'de> {
    source: &'de str,
    is_section: bool,
}

impl<'de> Skim<'de> {
    /// The next value of the map.
    pub(super) fn value<A: MapAccess<'de>>(self, map: &mut A) -> Result<Node, A::Error> {
        if !self.is_section {
            return map.next_value_seed(NodeVisitor(Mode::Skim(Skim { is_section: true, ..self })));
        }
        let text = map.next_value::<&'de RawValue>()?.get();
        // Both are slices of one text; a value elsewhere would be read here and now.
        let start = (text.as_ptr() as usize).checked_sub(self.source.as_ptr() as usize);
        let start = start.filter(|start| start + text.len() <= self.source.len());
        let range = start.and_then(|start| Some(start.try_into().ok()?..(start + text.len()).try_into().ok()?));
        match range.filter(|_| text.starts_with('[')) {
            Some(range) => Ok(Node::Unread(range)),
            None => serde_json::from_str(text).map_err(serde::de::Error::custom),
        }
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
        let mut cx = Context::new(String::new(), 0);
        cx.source = source;
        assert_eq!(node.get("egress").unwrap().get("mode"), Some(&Node::String("Audit".into())));
        assert_eq!(node.get("rateLimits"), Some(&Node::List(vec![Node::Integer(2)])));
        let Some(Node::Unread(range)) = node.get("egress").unwrap().get("rules") else { panic!("{node}") };
        let mut entries = Vec::new();
        each(cx.text(range), &mut |i, node| entries.push(format!("{i} {node}"))).unwrap();
        assert_eq!(entries, ["0 1", r#"1 {"a":["]",","]}"#, r#"2 "\",\\""#]);
        assert_eq!(count(cx.text(range)), 3);
    }

    #[test]
    fn a_list_that_is_not_json_after_all_is_said_so() {
        assert_eq!(each(r#"[1, "\ud800"]"#, &mut |_, _| {}), None);
        assert!(Node::skim(r#"{"egress":{"rules":[1,}}"#).is_err());
        assert!(Node::skim(r#"{"egress":{"mode":"\ud800"}}"#).is_err());
        assert!(Node::skim("{} {}").is_err());
    }
}
