//! Host names: the patterns of `hostnames`, and a set of them that is looked up by label.

use std::hash::{Hash, Hasher};

use hashbrown::{Equivalent, HashMap};
use rustc_hash::FxBuildHasher;

use crate::bytes::same;
use crate::document::{At, Context, Decode, Kind, Node, wrong_kind};
use crate::trie::Trie;

/// The longest label of a DNS name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The longest DNS name in text form.
const MAX_NAME: usize = 253;

/// An exact name, or `*.` and a name: one or more labels before it, never the name itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// Whether the pattern began with `*.`.
    pub wildcard: bool,
    /// The name without `*.`, in lower case.
    pub name: Box<str>,
}

/// Why a text is not a host pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct BadHost {
    message: &'static str,
    help: Option<String>,
}

fn bad<T>(message: &'static str, help: impl Into<Option<String>>) -> Result<T, BadHost> {
    Err(BadHost { message, help: help.into() })
}

/// Whether `name` is a DNS name without trailing dot: labels with dots between them, each 1–63 of `[A-Za-z0-9_-]` without a
/// hyphen at either end. It takes one pass, because egress calls it for every request.
pub(crate) fn is_name(name: &[u8]) -> bool {
    // As if a dot came before: what is not allowed behind one is not allowed at the start.
    let (mut before, mut length) = (b'.', 0);
    for &byte in name {
        length += 1;
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            before = b'a';
            continue;
        }
        // The dot is counted with the label before it.
        let is_fine = match byte {
            b'-' => before != b'.',
            b'.' => before == b'a' && length <= MAX_LABEL + 1,
            _ => false,
        };
        if !is_fine {
            return false;
        }
        if byte == b'.' {
            length = 0;
        }
        before = byte;
    }
    before == b'a' && length <= MAX_LABEL && name.len() <= MAX_NAME
}

impl HostPattern {
    /// Reads a pattern in the one form in which a policy may write it: lower case, no port, no trailing dot.
    ///
    /// # Errors
    /// With the form that would be right, where there is one.
    pub fn parse(text: &str) -> Result<HostPattern, BadHost> {
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if is_name(name.as_bytes()) && !name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Ok(HostPattern { wildcard, name: name.into() });
        }
        if text.is_empty() {
            return bad("is empty", "write a name such as shop.example.com".to_owned());
        }
        if text == "*" {
            return bad("matches every host", "leave the field out for that".to_owned());
        }
        if let Some((_, rest)) = text.split_once("://") {
            return bad(
                "is a URL, not a host name",
                format!("write {}", rest.split(['/', ':']).next().unwrap_or(rest)),
            );
        }
        if let Some((host, _)) = text.split_once('/') {
            return bad("has a path", format!("write {host}; paths have their own field"));
        }
        if text.starts_with('[') || text.matches(':').count() > 1 {
            return bad("is an IPv6 address, not a host name", None);
        }
        if let Some((host, _)) = text.split_once(':') {
            return bad("has a port", format!("write {host}; hosts match on every port"));
        }
        if !text.is_ascii() {
            return bad("is not ASCII", "write the A-label form (xn--…) of the name".to_owned());
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return bad("has upper case", format!("write {}", text.to_ascii_lowercase()));
        }
        if let Some(name) = text.strip_suffix('.') {
            return bad("ends in a dot", format!("write {name}"));
        }
        if let Some(name) = name.strip_prefix('.') {
            return bad("begins with a dot", format!("write *.{name} for everything below {name}"));
        }
        if name.contains('*') {
            return bad(
                "has a star inside",
                "a star stands only for whole labels on the left: *.example.com".to_owned(),
            );
        }
        if name.len() > MAX_NAME {
            return bad("is longer than 253 characters", None);
        }
        for label in name.split('.') {
            if label.is_empty() {
                return bad("has an empty label", None);
            }
            if label.len() > MAX_LABEL {
                return bad("has a label of more than 63 characters", None);
            }
            if label.starts_with('-') || label.ends_with('-') {
                return bad("has a label that begins or ends in a hyphen", None);
            }
        }
        bad("is not a host name", "use letters, digits, hyphens and dots".to_owned())
    }

    /// Whether the pattern covers `host`, compared ASCII-case-insensitively. Nothing covers what is too long for a
    /// DNS name.
    pub fn matches(&self, host: &[u8]) -> bool {
        if host.len() > MAX_NAME {
            return false;
        }
        let name = self.name.as_bytes();
        if !self.wildcard {
            return is_host(host, name);
        }
        // At least one byte and a dot before the name.
        host.len()
            .checked_sub(name.len())
            .and_then(|at| host.split_at_checked(at))
            .is_some_and(|(before, end)| is_host(end, name) && before.len() > 1 && before.ends_with(b"."))
    }
}

impl Decode for HostPattern {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a host name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        match HostPattern::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                cx.problem(at, node, error.message, error.help);
                None
            }
        }
    }
}

/// The labels of a host name from the right, as stored by [`HostTrie`].
fn labels_from_right(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    host.rsplit(|&b| b == b'.')
}

/// Whether a host is `name`, which is in lower case. Nearly every client sends lower case, too.
fn is_host(host: &[u8], name: &[u8]) -> bool {
    same(host, name) || host.eq_ignore_ascii_case(name)
}

/// A name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LowerName(Box<[u8]>);

/// A host as a client wrote it; hashes as its [`LowerName`] does.
struct AnyCase<'h>(&'h [u8]);

impl Hash for AnyCase<'_> {
    /// By words of four bytes, with the bit set in which letters of either case differ.
    fn hash<H: Hasher>(&self, state: &mut H) {
        const CASE: u32 = 0x2020_2020;
        let (words, rest) = self.0.as_chunks::<4>();
        for word in words {
            state.write_u32(u32::from_le_bytes(*word) | CASE);
        }
        state.write_u32(rest.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) | CASE);
    }
}

impl Hash for LowerName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        AnyCase(&self.0).hash(state);
    }
}

impl Equivalent<LowerName> for AnyCase<'_> {
    fn equivalent(&self, name: &LowerName) -> bool {
        is_host(self.0, &name.0)
    }
}

/// A map from host patterns to values. One look-up finds an exact name; patterns with a star are found label by label.
#[derive(Clone, Debug)]
pub struct HostTrie<T> {
    /// The number of each exact name. The code of one hash table serves all types of values.
    names: HashMap<LowerName, u32, FxBuildHasher>,
    values: Vec<Option<T>>,
    stars: Option<Trie<T>>,
}

impl<T> Default for HostTrie<T> {
    fn default() -> Self {
        HostTrie { names: HashMap::default(), values: Vec::new(), stars: None }
    }
}

impl<T> HostTrie<T> {
    /// The value of `pattern`, to be filled in.
    pub fn entry(&mut self, pattern: &HostPattern) -> Option<&mut Option<T>> {
        let name = pattern.name.as_bytes();
        if pattern.wildcard {
            return Some(&mut self.stars.get_or_insert_default().slot(labels_from_right(name))?.below);
        }
        let next = u32::try_from(self.values.len()).ok()?;
        let number = *self.names.entry(LowerName(name.into())).or_insert(next);
        if number == next {
            self.values.push(None);
        }
        self.values.get_mut(number as usize)
    }

    /// Calls the function with the value of every pattern that covers `host`, widest first.
    pub fn covering<'t>(&'t self, host: &[u8], mut visit: impl FnMut(&'t T)) {
        if let Some(stars) = &self.stars {
            let mut lower = [0; MAX_NAME];
            let Some(lower) = lower.get_mut(..host.len()) else { return };
            lower.copy_from_slice(host);
            lower.make_ascii_lowercase();
            stars.walk(labels_from_right(lower), |slot, last| {
                slot.below.as_ref().filter(|_| !last).into_iter().for_each(&mut visit);
            });
        }
        let number = self.names.get(&AnyCase(host));
        number.and_then(|number| self.values.get(*number as usize)?.as_ref()).into_iter().for_each(visit);
    }

    /// The same trie with every value replaced.
    pub fn map<U>(self, mut convert: impl FnMut(T) -> U) -> HostTrie<U> {
        HostTrie {
            names: self.names,
            values: self.values.into_iter().map(|value| value.map(&mut convert)).collect(),
            stars: self.stars.map(|stars| stars.map(convert)),
        }
    }
}

/// A set of host patterns: the `hostnames` of an entry.
#[derive(Clone, Debug)]
pub struct HostSet {
    patterns: Box<[HostPattern]>,
    /// Only for long lists; short ones are compared one by one.
    index: Option<HostTrie<()>>,
}

impl HostSet {
    /// A set of `patterns`.
    pub fn new(patterns: Vec<HostPattern>) -> HostSet {
        const SHORT: usize = 8;
        let index = (patterns.len() > SHORT).then(|| {
            let mut trie = HostTrie::default();
            for pattern in &patterns {
                if let Some(entry) = trie.entry(pattern) {
                    *entry = Some(());
                }
            }
            trie
        });
        HostSet { patterns: patterns.into(), index }
    }

    /// Whether any pattern covers `host`.
    pub fn contains(&self, host: &[u8]) -> bool {
        match &self.index {
            None => self.patterns.iter().any(|pattern| pattern.matches(host)),
            Some(trie) => {
                let mut found = false;
                trie.covering(host, |()| found = true);
                found
            }
        }
    }

    /// The patterns as written.
    pub fn patterns(&self) -> &[HostPattern] {
        &self.patterns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_star_stands_for_one_or_more_labels_and_never_the_apex() {
        let pattern = HostPattern::parse("*.shop.example.com").unwrap();
        for (host, expected) in [
            ("a.shop.example.com", true),
            ("a.b.shop.example.com", true),
            ("A.Shop.Example.COM", true),
            ("shop.example.com", false),
            (".shop.example.com", false),
            ("notshop.example.com", false),
            ("shop.example.com.evil.test", false),
        ] {
            assert_eq!(pattern.matches(host.as_bytes()), expected, "{host}");
        }
    }

    #[test]
    fn the_set_agrees_with_its_patterns_whatever_its_length() {
        let mut patterns: Vec<_> = (0..20).map(|i| HostPattern::parse(&format!("h{i}.test")).unwrap()).collect();
        patterns.push(HostPattern::parse("*.example.com").unwrap());
        let set = HostSet::new(patterns);
        let long = format!("{}.example.com", "a".repeat(300));
        for host in [
            "h3.test",
            "H3.TEST",
            "x.h3.test",
            "test",
            "a.example.com",
            "a.b.example.com",
            "example.com",
            "",
            ".",
            &long,
        ] {
            let expected = set.patterns().iter().any(|p| p.matches(host.as_bytes()));
            assert_eq!(set.contains(host.as_bytes()), expected, "{host}");
        }
    }

    #[test]
    fn a_refused_pattern_names_the_form_that_would_be_right() {
        for (text, help) in [
            ("*", "leave the field out"),
            ("Shop.example.com", "write shop.example.com"),
            ("shop.example.com.", "write shop.example.com"),
            ("shop.example.com:443", "write shop.example.com;"),
            ("https://shop.example.com/x", "write shop.example.com"),
            ("shop.example.com/x", "write shop.example.com;"),
            (".example.com", "write *.example.com"),
            ("a.*.example.com", "*.example.com"),
            ("a*.example.com", "*.example.com"),
            ("bücher.example", "A-label"),
            ("", "shop.example.com"),
        ] {
            let help_found = HostPattern::parse(text).unwrap_err().help.unwrap_or_default();
            assert!(help_found.contains(help), "{text}: {help_found}");
        }
        for text in
            ["a..b", "-a.test", "a-.test", "a b", "a\0b", "[::1]", "::1", &"a".repeat(64), "*.", "*.*.example.com"]
        {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }
}
