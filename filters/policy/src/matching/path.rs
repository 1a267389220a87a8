//! Path matches: exact, by whole segments, or by expression.

use std::sync::Arc;

use super::regex::{Answers, Asked, Regex};
use crate::trie::Trie;

/// A compiled path match. Sees the path without query and fragment, as received: nothing is decoded.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Byte for byte.
    Exact(Box<[u8]>),
    /// Whole segments from the start; without a trailing slash, so empty for `/`.
    Prefix(Box<[u8]>),
    /// The whole path matches.
    Regex(Arc<Regex>),
}

impl PathMatch {
    /// Whether `path` matches. A path that does not begin with `/` (CONNECT, `OPTIONS *`) has no segments: it
    /// matches no prefix.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            PathMatch::Exact(value) => path == &**value,
            PathMatch::Prefix(prefix) => {
                matches!(path.strip_prefix(&**prefix), Some([] | [b'/', ..])) && !path.is_empty()
            }
            PathMatch::Regex(regex) => regex.matches(path),
        }
    }

    /// The same, with what is known of the request already.
    pub(crate) fn matches_with(&self, path: &[u8], answers: Option<(&Answers, Asked)>) -> bool {
        match self {
            PathMatch::Regex(regex) => regex.matches_any(std::iter::once(path), answers),
            other => other.matches(path),
        }
    }
}

/// The segments of a path that begins with `/`; none for another.
fn segments(path: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    Some(path.strip_prefix(b"/")?.split(|&b| b == b'/'))
}

/// Values by path match.
#[derive(Clone, Debug)]
pub struct PathTrie<T>(Trie<T>);

impl<T> Default for PathTrie<T> {
    fn default() -> Self {
        PathTrie(Trie::default())
    }
}

impl<T> PathTrie<T> {
    /// The value for exactly `path`.
    pub fn exact(&mut self, path: &[u8]) -> Option<&mut Option<T>> {
        Some(&mut self.0.slot(segments(path)?)?.exact)
    }

    /// The value for the segments of `prefix` and everything below; `prefix` has no trailing slash.
    pub fn prefix(&mut self, prefix: &[u8]) -> Option<&mut Option<T>> {
        Some(match segments(prefix) {
            Some(segments) => &mut self.0.slot(segments)?.below,
            None => &mut self.0.slot(std::iter::empty())?.below,
        })
    }

    /// Shows the value of every prefix and exact path that covers `path`, shortest first.
    pub fn covering<'t>(&'t self, path: &[u8], mut visit: impl FnMut(&'t T)) {
        let Some(segments) = segments(path) else { return };
        self.0.walk(segments, |slot, last| {
            if let Some(value) = &slot.below {
                visit(value);
            }
            if let Some(value) = slot.exact.as_ref().filter(|_| last) {
                visit(value);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{At, Context, Decode, Node};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(json: &str) -> PathMatch {
        let mut cx = Context::new(String::new(), 1 << 20);
        PathMatch::decode(&Node::from_json(json.as_bytes()).unwrap(), &At::Root, &mut cx).unwrap()
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        for (prefix, path, expected) in [
            ("/v2", "/v2", true),
            ("/v2", "/v2/", true),
            ("/v2", "/v2/x", true),
            ("/v2", "/v2example", false),
            ("/v2", "/V2", false),
            ("/v2/", "/v2", true),
            ("/v2/", "/v2/x", true),
            ("/", "/", true),
            ("/", "/anything", true),
            ("/", "", false),
            ("/", "*", false),
        ] {
            let json = format!(r#"{{"value":"{prefix}"}}"#);
            let matcher = read(&json);
            assert_eq!(matcher.matches(path.as_bytes()), expected, "{prefix} {path}");
            let PathMatch::Prefix(prefix_bytes) = matcher else { panic!("a prefix by default") };
            let mut trie = PathTrie::default();
            *trie.prefix(&prefix_bytes).unwrap() = Some(());
            let mut found = false;
            trie.covering(path.as_bytes(), |()| found = true);
            assert_eq!(found, expected, "trie: {prefix} {path}");
        }
    }

    #[test]
    fn exact_means_byte_for_byte_with_its_trailing_slash() {
        for (value, path, expected) in
            [("/a", "/a", true), ("/a", "/a/", false), ("/a/", "/a", false), ("/a/", "/a/", true), ("/", "/", true)]
        {
            let json = format!(r#"{{"type":"Exact","value":"{value}"}}"#);
            assert_eq!(read(&json).matches(path.as_bytes()), expected, "{value} {path}");
            let mut trie = PathTrie::default();
            *trie.exact(value.as_bytes()).unwrap() = Some(());
            let mut found = false;
            trie.covering(path.as_bytes(), |()| found = true);
            assert_eq!(found, expected, "trie: {value} {path}");
        }
    }
}
