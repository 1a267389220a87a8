//! Path matches: exact, by whole segments, or by expression.

use std::sync::Arc;

use super::regex::{Answers, Asked, Regex};
use super::text::regex;
use crate::document::{At, Context, Decode, Fields, Kind, Node, words};
use crate::trie::Trie;

words! {
    /// A condition on the path.
    pub enum PathMatchType {
        /// Byte for byte.
        Exact = "Exact",
        /// Whole segments from the start.
        PathPrefix = "PathPrefix",
        /// The whole path matches the expression.
        RegularExpression = "RegularExpression",
    }
}

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

impl Decode for PathMatch {
    const KIND: Kind = Kind::Object(&["type", "value"]);

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let kind = fields.get_or("type", PathMatchType::PathPrefix, at, cx);
        let value = fields.get::<String>("value", at, cx);
        let (kind, value) = (kind?, value?);
        let value_at = at.field("value");
        if kind == PathMatchType::RegularExpression {
            return regex(":path", &value, &value_at, cx).map(PathMatch::Regex);
        }
        check_literal(&value, &value_at, cx)?;
        Some(match kind {
            PathMatchType::Exact => PathMatch::Exact(value.as_bytes().into()),
            _ => PathMatch::Prefix(value.strip_suffix('/').unwrap_or(&value).as_bytes().into()),
        })
    }
}

/// Refuses literal paths that no request could ever have, by the rules of the Gateway API's `HTTPPathMatch`.
fn check_literal(value: &str, at: &At<'_>, cx: &mut Context) -> Option<()> {
    let problem = if !value.starts_with('/') {
        Some(("must begin with a slash", Some(format!("write /{value}"))))
    } else if value.contains(['?', '#']) {
        let path = value.split(['?', '#']).next().unwrap_or_default();
        Some((
            "has a query or fragment, which paths are matched without",
            Some(format!("write {path}, and use `queryParams`")),
        ))
    } else if let Some(bad) = value.bytes().find(|b| !b.is_ascii_graphic()) {
        let encoded: String = value
            .bytes()
            .map(|b| if b.is_ascii_graphic() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let help = (bad >= 0x20 && bad != 0x7f).then(|| format!("write it percent-encoded: {encoded}"));
        Some(("has characters that no request path can have", help))
    } else if value.as_bytes().windows(2).any(|two| two == b"//")
        || value.as_bytes().split(|&b| b == b'/').any(|segment| matches!(segment, b"." | b".."))
        || value.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f"))
    {
        let help = "leave out //, /./, /../ and %2F: proxies resolve them before a rule sees the path";
        Some(("is not in normal form", Some(help.to_owned())))
    } else {
        None
    };
    match problem {
        None => Some(()),
        Some((message, help)) => {
            cx.problem(at, &Node::String(value.to_owned()), message, help);
            None
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
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(json: &str) -> Result<PathMatch, String> {
        let mut cx = Context::new(String::new(), 1 << 20);
        let path = PathMatch::decode(&Node::from_json(json.as_bytes()).unwrap(), &At::Root, &mut cx);
        path.ok_or_else(|| cx.into_problems().iter().map(|p| format!("{p}\n")).collect())
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
            let matcher = read(&json).unwrap();
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
            assert_eq!(read(&json).unwrap().matches(path.as_bytes()), expected, "{value} {path}");
            let mut trie = PathTrie::default();
            *trie.exact(value.as_bytes()).unwrap() = Some(());
            let mut found = false;
            trie.covering(path.as_bytes(), |()| found = true);
            assert_eq!(found, expected, "trie: {value} {path}");
        }
    }

    #[test]
    fn paths_that_no_request_has_are_refused_with_the_right_form() {
        for (value, message) in [
            ("cart", "write /cart"),
            ("", "must begin with a slash"),
            ("/a?b=c", "write /a, and use `queryParams`"),
            ("/a#b", "write /a"),
            ("/café", "/caf%C3%A9"),
            ("/a b", "/a%20b"),
            ("/a//b", "normal form"),
            ("/a/../b", "normal form"),
            ("/a%2fb", "normal form"),
        ] {
            let error = read(&format!(r#"{{"value":"{value}"}}"#)).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
        assert!(read(r#"{"type":"prefix","value":"/"}"#).unwrap_err().contains("did you mean `PathPrefix`?"));
    }
}
