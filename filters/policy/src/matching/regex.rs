//! Regular expressions over bytes: linear time, anchored to the whole value, bounded in size.
//!
//! The syntax is that of RE2 as far as both agree (ASCII classes, no look-around, no back-references); the engine is
//! a Pike VM (Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009): O(pattern × text), no state
//! that an attacker could blow up.

use std::cell::Cell;
use std::fmt;

use regex_automata::nfa::thompson::{Compiler, Config, WhichCaptures, pikevm};
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Hir, HirKind, Look};

/// The most bytes that one compiled expression may take.
const MAX_SIZE: usize = 256 * 1024;

/// An expression that matches whole values only.
pub struct Regex {
    pattern: Box<str>,
    literal_prefix: Box<[u8]>,
    vm: pikevm::PikeVM,
    /// The engine's working memory, kept between requests; taken out while in use.
    cache: Cell<Option<Box<pikevm::Cache>>>,
}

/// Why a pattern was refused, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRegex(String);

impl Regex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// A syntax error with its place, or a program of more than 256 KiB.
    pub fn new(pattern: &str) -> Result<Regex, BadRegex> {
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .nest_limit(64)
            .build()
            .parse(pattern)
            .map_err(|error| BadRegex(one_line(&error)))?;
        let literal_prefix = literal_prefix(&hir);
        // Anchors as nodes, not as text: `(?x)a # comment` would swallow a closing parenthesis.
        let whole = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
        let nfa = Compiler::new()
            .configure(Config::new().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(Some(MAX_SIZE)))
            .build_from_hir(&whole)
            .map_err(|_| BadRegex(format!("needs more than {} KiB when compiled", MAX_SIZE / 1024)))?;
        let vm = pikevm::PikeVM::new_from_nfa(nfa).map_err(|error| BadRegex(error.to_string()))?;
        Ok(Regex { pattern: pattern.into(), literal_prefix: literal_prefix.into(), vm, cache: Cell::new(None) })
    }

    /// Whether the whole of `value` matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        if !value.starts_with(&self.literal_prefix) {
            return false;
        }
        let mut cache = self.cache.take().unwrap_or_else(|| Box::new(self.vm.create_cache()));
        let input = Input::new(value).anchored(Anchored::Yes).earliest(true);
        let matched = self.vm.is_match(&mut cache, input);
        self.cache.set(Some(cache));
        matched
    }

    /// The bytes that every matching value begins with.
    pub fn literal_prefix(&self) -> &[u8] {
        &self.literal_prefix
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Bytes of heap that the compiled program takes.
    pub fn size(&self) -> usize {
        self.vm.get_nfa().memory_usage()
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}

/// The same expression compiled again: programs are shared by reference count, working memory is not.
impl Clone for Regex {
    fn clone(&self) -> Self {
        Regex {
            pattern: self.pattern.clone(),
            literal_prefix: self.literal_prefix.clone(),
            vm: self.vm.clone(),
            cache: Cell::new(None),
        }
    }
}

/// The literal that `hir` begins with; empty when it begins with a choice.
fn literal_prefix(hir: &Hir) -> Vec<u8> {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.to_vec(),
        HirKind::Capture(capture) => literal_prefix(&capture.sub),
        HirKind::Concat(parts) => {
            let mut prefix = Vec::new();
            for part in parts {
                match part.kind() {
                    HirKind::Literal(literal) => prefix.extend_from_slice(&literal.0),
                    // A written `^` does not end the literal: every value starts there.
                    HirKind::Look(Look::Start) if prefix.is_empty() => {}
                    _ => {
                        if prefix.is_empty() {
                            prefix = literal_prefix(part);
                        }
                        break;
                    }
                }
            }
            prefix
        }
        _ => Vec::new(),
    }
}

/// The error's own words and column; its picture of the pattern takes several lines, and the pattern is quoted anyway.
fn one_line(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => format!("{} (at character {})", error.kind(), error.span().start.column),
        regex_syntax::Error::Translate(error) => {
            format!("{} (at character {})", error.kind(), error.span().start.column)
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn matches(pattern: &str, value: &str) -> bool {
        Regex::new(pattern).unwrap().matches(value.as_bytes())
    }

    #[test]
    fn the_whole_value_must_match() {
        assert!(matches("/v[0-9]+/items", "/v2/items"));
        assert!(!matches("/v[0-9]+/items", "/v2/items/5"));
        assert!(!matches("/v[0-9]+/items", "x/v2/items"));
        assert!(matches("a|ab", "ab"), "an early alternative must not hide a longer one");
        assert!(matches("^a$", "a"));
        assert!(matches("(?x) a # comment", "a"));
        assert!(matches("(?m)^a$", "a") && !matches("(?m)^a$", "a\nb"));
        assert!(matches("", "") && !matches("", "a"));
        assert!(matches("(?i)beta", "BETA"));
        assert!(!matches("a", "a\n"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_ordinary_values() {
        let regex = Regex::new("a.b").unwrap();
        assert!(regex.matches(b"a\xffb"));
        assert!(Regex::new("é+").unwrap().matches("é".as_bytes()));
    }

    #[test]
    fn the_literal_prefix_is_what_every_match_begins_with() {
        for (pattern, prefix) in [
            ("/v[0-9]+", "/v"),
            ("^/api/(a|b)", "/api/"),
            ("(/x/y)z?", "/x/y"),
            ("abc", "abc"),
            ("a?b", ""),
            ("a|b", ""),
            ("(?i)ab", ""),
            ("ab*", "a"),
        ] {
            let regex = Regex::new(pattern).unwrap();
            assert_eq!(String::from_utf8_lossy(regex.literal_prefix()), prefix, "{pattern}");
        }
    }

    #[test]
    fn bad_patterns_say_where() {
        assert_eq!(Regex::new("a(b").unwrap_err().to_string(), "unclosed group (at character 2)");
        assert!(Regex::new(r"(a)\1").unwrap_err().to_string().contains("backreferences"));
        assert!(Regex::new("(?=a)").unwrap_err().to_string().contains("look-around"));
        assert!(Regex::new(r"\pL").unwrap_err().to_string().contains("Unicode"));
        assert!(Regex::new("(((((a{100}){100}){100}){100}){100})").unwrap_err().to_string().contains("256 KiB"));
        assert!(Regex::new(&"(".repeat(10_000)).is_err());
    }

    #[test]
    fn time_is_linear_in_the_text() {
        let regex = Regex::new("(a*)*b").unwrap();
        assert!(!regex.matches("a".repeat(20_000).as_bytes()));
    }
}
