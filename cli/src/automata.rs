//! Sets of strings as automata: decides whether one set contains another, and if not, finds a string that shows it.
//!
//! Patterns are parsed by the engine's own parser, so that they mean the same here. Automata of regular expressions can
//! be large; above a bound the comparison is given up.

use std::collections::{HashSet, VecDeque};

use penstock_policy::matching::{LONGEST_VALUE, PathMatch, TextMatch};
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, Repetition};

/// Upper bounds for the size of an automaton in bytes, and for the steps of a comparison.
const MOST_BYTES: usize = 4 << 20;
const MOST_STEPS: usize = 200_000;

/// An automaton that matches whole strings.
pub type Dfa = dense::DFA<Vec<u32>>;

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextDifference {
    /// Every string of the first set is in the second.
    None,
    /// A string that is in the first set and not in the second.
    Text(Vec<u8>),
    /// Unknown: an expression is too large to compare.
    Unknown,
}

/// The paths that a match accepts, as an expression.
pub fn of_path(path: &PathMatch) -> Option<Hir> {
    match path {
        PathMatch::Exact(path) => Some(Hir::literal(path.clone())),
        PathMatch::Prefix(prefix) => {
            let below = Hir::concat(vec![Hir::literal(*b"/"), anything()]);
            Some(match prefix.is_empty() {
                true => below,
                false => Hir::concat(vec![Hir::literal(prefix.clone()), repeated(below, Some(1))]),
            })
        }
        PathMatch::Regex(regex) => regex.hir(),
    }
}

/// The values that a comparison accepts, as an expression.
fn of_text(text: &TextMatch) -> Option<Hir> {
    let literal = |text: &[u8]| Hir::literal(text.to_vec());
    Some(match text {
        TextMatch::Exact(value) => literal(value),
        TextMatch::Prefix(begin) => Hir::concat(vec![literal(begin), anything()]),
        TextMatch::Suffix(end) => Hir::concat(vec![anything(), literal(end)]),
        TextMatch::Contains(inner) => Hir::concat(vec![anything(), literal(inner.needle()), anything()]),
        TextMatch::In(values) => Hir::alternation(values.iter().map(literal).collect()),
        TextMatch::Present => anything(),
        TextMatch::Regex(regex) => return regex.hir(),
    })
}

/// Matches any bytes.
fn anything() -> Hir {
    let byte = ClassBytes::new([ClassBytesRange::new(0, 0xff)]);
    repeated(Hir::class(Class::Bytes(byte)), None)
}

fn repeated(sub: Hir, max: Option<u32>) -> Hir {
    Hir::repetition(Repetition { min: 0, max, greedy: true, sub: Box::new(sub) })
}

/// One automaton for the union of the expressions; each must match a whole string.
pub fn compile(expressions: &[Hir]) -> Option<Dfa> {
    let nfa = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(MOST_BYTES))
        .which_captures(thompson::WhichCaptures::None);
    let nfa = thompson::Compiler::new().configure(nfa).build_many_from_hir(expressions).ok()?;
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .dfa_size_limit(Some(MOST_BYTES))
        .determinize_size_limit(Some(MOST_BYTES));
    dense::Builder::new().configure(config).build_from_nfa(&nfa).ok()
}

/// The start state of an automaton.
pub fn begin(dfa: &Dfa) -> Option<StateID> {
    dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).ok()
}

/// Whether a string may end in this state.
pub fn ends(dfa: &Dfa, state: StateID) -> bool {
    dfa.is_match_state(dfa.next_eoi_state(state))
}

/// Whether `wide` accepts every path that `narrow` accepts, in any form.
pub fn path_covers(wide: &PathMatch, narrow: &PathMatch) -> bool {
    // Expressions never match very long paths, but other forms do.
    if matches!(wide, PathMatch::Regex(_)) && !matches!(narrow, PathMatch::Regex(_)) {
        return false;
    }
    of_path(wide)
        .zip(of_path(narrow))
        .is_some_and(|(wide, narrow)| difference(&[wide], &narrow) == TextDifference::None)
}

/// Whether `wide` accepts every value that `narrow` accepts.
pub fn text_covers(wide: &TextMatch, narrow: &TextMatch) -> bool {
    if matches!(wide, TextMatch::Regex(_)) && !matches!(narrow, TextMatch::Regex(_)) {
        return false;
    }
    of_text(wide)
        .zip(of_text(narrow))
        .is_some_and(|(wide, narrow)| difference(&[wide], &narrow) == TextDifference::None)
}

/// A value that `narrow` accepts and no match of `wide` does, made of printable characters.
pub fn value_outside(narrow: &TextMatch, wide: &[&TextMatch]) -> Option<Vec<u8>> {
    let is_outside = |value: &[u8]| narrow.matches(value) && !wide.iter().any(|wide| wide.matches(value));
    let short = || {
        let wide = wide.iter().map(|text| of_text(text)).collect::<Option<Vec<Hir>>>()?;
        let (narrow, wide) = (compile(&[of_text(narrow)?])?, compile(&wide)?);
        let mut letters = letters(&narrow, &wide);
        letters.retain(|letter| (b' '..=b'~').contains(letter));
        search(&narrow, &wide, &letters)
    };
    if let Some(TextDifference::Text(value)) = short() {
        return Some(value).filter(|value| is_outside(value));
    }
    let long = vec![b'x'; LONGEST_VALUE + 1];
    let value = match narrow {
        TextMatch::Prefix(begin) => [&**begin, &long].concat(),
        TextMatch::Suffix(end) => [&long, &**end].concat(),
        TextMatch::Contains(inner) => [&long, inner.needle()].concat(),
        TextMatch::Present => long,
        TextMatch::Exact(_) | TextMatch::In(_) | TextMatch::Regex(_) => return None,
    };
    Some(value).filter(|value| is_outside(value))
}

/// A string that `narrow` accepts and `wide` does not. Both automata run side by side, breadth first, so the string is
/// short.
pub fn difference(wide: &[Hir], narrow: &Hir) -> TextDifference {
    let (Some(narrow), Some(wide)) = (compile(std::slice::from_ref(narrow)), compile(wide)) else {
        return TextDifference::Unknown;
    };
    search(&narrow, &wide, &letters(&narrow, &wide)).unwrap_or(TextDifference::Unknown)
}

fn search(narrow: &Dfa, wide: &Dfa, letters: &[u8]) -> Option<TextDifference> {
    let first = (begin(narrow)?, begin(wide)?);
    let mut states = vec![(first, 0, 0u8)];
    let mut seen = HashSet::from([first]);
    let mut queue = VecDeque::from([0usize]);
    let mut steps = 0usize;
    while let Some(at) = queue.pop_front() {
        let ((in_narrow, in_wide), ..) = *states.get(at)?;
        if ends(narrow, in_narrow) && !ends(wide, in_wide) {
            return Some(TextDifference::Text(spelled(at, |at| {
                states.get(at).map(|(_, before, byte)| (*before, *byte))
            })?));
        }
        for &byte in letters {
            steps += 1;
            if steps > MOST_STEPS {
                return Some(TextDifference::Unknown);
            }
            let next = (narrow.next_state(in_narrow, byte), wide.next_state(in_wide, byte));
            if !narrow.is_dead_state(next.0) && seen.insert(next) {
                queue.push_back(states.len());
                states.push((next, at, byte));
            }
        }
    }
    Some(TextDifference::None)
}

/// Reconstructs the bytes that led to a state: for each state, its predecessor and the byte that led to it are
/// recorded. The start state is number 0.
pub fn spelled(mut at: usize, step: impl Fn(usize) -> Option<(usize, u8)>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while at != 0 {
        let (before, byte) = step(at)?;
        bytes.push(byte);
        at = before;
    }
    bytes.reverse();
    Some(bytes)
}

/// One byte of each class that both automata treat alike, common characters first.
fn letters(narrow: &Dfa, wide: &Dfa) -> Vec<u8> {
    const PLAIN: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789/-_.ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let others = (b' '..=b'~').chain(0x80..=0xff).chain(0..b' ').chain([0x7f]);
    let mut seen = HashSet::new();
    let class = |byte: u8| (narrow.byte_classes().get(byte), wide.byte_classes().get(byte));
    PLAIN.iter().copied().chain(others).filter(|byte| seen.insert(class(*byte))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_policy::document::{At, Context, Decode, Node};
    use penstock_policy::matching::RequestMatch;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// The comparison of a header, written as `Type value`.
    fn text(text: &str) -> TextMatch {
        let (kind, value) = text.split_once(' ').unwrap_or((text, ""));
        let mut header = serde_json::json!({"name": "x", "type": kind});
        match kind {
            "Present" => {}
            "In" => header["values"] = value.split(',').collect(),
            _ => header["value"] = value.into(),
        }
        let json = serde_json::json!({"headers": [header]}).to_string();
        let node = Node::from_json(json.as_bytes()).unwrap();
        let mut cx = Context::new(String::new(), 1 << 20);
        let entry = RequestMatch::decode(&node, &At::Root, &mut cx).unwrap();
        entry.headers[0].text.clone()
    }

    #[test]
    fn a_value_outside_is_found_and_none_where_there_is_none() {
        for (narrow, wide, expected) in [
            ("RegularExpression v[0-9]+", "RegularExpression v[0-9]*", None),
            ("RegularExpression v[0-9]*", "RegularExpression v[0-9]+", Some("v")),
            ("RegularExpression v[ab]", "In va,vb", None),
            ("RegularExpression v[abc]", "In va,vb", Some("vc")),
            ("RegularExpression v[0-9]{2}", "Prefix v", None),
            ("RegularExpression .*x", "Suffix x", None),
            ("RegularExpression .*xy.*", "Contains xy", None),
            ("RegularExpression (?i)a", "Exact a", Some("A")),
            ("RegularExpression .*", "Present", None),
            ("RegularExpression é", "Exact é", None),
            ("Prefix a", "RegularExpression a[b-z].*", Some("a")),
            ("Exact a", "RegularExpression a|b", None),
        ] {
            let (narrow, wide) = (text(narrow), text(wide));
            let found = value_outside(&narrow, &[&wide]).map(|value| String::from_utf8(value).unwrap());
            assert_eq!(found.as_deref(), expected, "{narrow:?} {wide:?}");
        }
    }

    #[test]
    fn no_expression_has_the_long_values_of_a_prefix() {
        let (narrow, wide) = (text("Prefix a"), text("RegularExpression a(?s:.*)"));
        assert!(!text_covers(&wide, &narrow) && text_covers(&narrow, &wide));
        assert_eq!(value_outside(&narrow, &[&wide]).unwrap().len(), LONGEST_VALUE + 2);
    }

    #[test]
    fn what_is_too_large_is_not_called_covered() {
        let large = text("RegularExpression .*a.{9}");
        let larger = text("RegularExpression .*[ab].{9}");
        assert!(!text_covers(&larger, &large));
        assert_eq!(difference(&[of_text(&larger).unwrap()], &of_text(&large).unwrap()), TextDifference::Unknown);
    }

    fn any_text() -> impl Strategy<Value = TextMatch> {
        let part = select(vec!["a", "b", "ab", "[ab]", "a*", "(a|bb)", "b?", ".", "(?i:A)", "[^a]+"]);
        let expression =
            prop::collection::vec(part, 1..4).prop_map(|parts| format!("RegularExpression {}", parts.concat()));
        let other = select(vec!["Exact a", "Exact ab", "Prefix a", "Suffix b", "Contains ab", "In a,ab", "Present"]);
        prop_oneof![3 => expression, 1 => other.prop_map(str::to_owned)].prop_map(|one| text(&one))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_covered_matches_wherever_the_other_does(
            wide in any_text(),
            narrow in any_text(),
            values in prop::collection::vec("[abA]{0,5}", 30),
        ) {
            if text_covers(&wide, &narrow) {
                for value in &values {
                    prop_assert!(!narrow.matches(value.as_bytes()) || wide.matches(value.as_bytes()), "{value}");
                }
            } else {
                let value = value_outside(&narrow, &[&wide]);
                let is_equal = values.iter().all(|value| !narrow.matches(value.as_bytes()) || wide.matches(value.as_bytes()));
                // Patterns that are written as literals and as expressions are compared by what they match.
                prop_assert!(value.is_some() || is_equal, "{wide:?} {narrow:?}");
            }
        }
    }
}
