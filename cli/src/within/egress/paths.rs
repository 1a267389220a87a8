//! Finds a path that one list of matches covers and others do not.
//!
//! Without regular expressions, comparing the literals is enough. With expressions, automata for all matches run side
//! by side over the canonical paths, breadth first, so the path found is short.

use std::collections::{HashSet, VecDeque};

use penstock_policy::egress::canonical;
use penstock_policy::matching::{LONGEST_VALUE, PathMatch};
use regex_automata::dfa::Automaton;
use regex_automata::util::primitives::StateID;

use crate::automata::{self, Dfa, begin, ends, spelled};
use crate::cover::path_covers;

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathDifference {
    /// Every path is covered.
    None,
    /// This path is not covered.
    Path(String),
    /// Unknown: an expression is too large, or has syntax that this comparison does not support.
    Unknown,
}

/// A canonical path that `team` matches and no match of `platform` does; a match of `None` has every path. `star` adds
/// the path `*`, which `OPTIONS` may have.
pub fn difference(team: Option<&[&PathMatch]>, platform: &[&PathMatch], star: bool) -> PathDifference {
    let all = [&PathMatch::Prefix(Box::default())];
    if star
        && team.is_none_or(|team| team.iter().any(|path| path.matches(b"*")))
        && !platform.iter().any(|path| path.matches(b"*"))
    {
        return PathDifference::Path("*".to_owned());
    }
    let mut unknown = false;
    for path in team.unwrap_or(&all) {
        match one(path, platform) {
            PathDifference::None => {}
            PathDifference::Unknown => unknown = true,
            found => return found,
        }
    }
    if unknown { PathDifference::Unknown } else { PathDifference::None }
}

fn one(path: &PathMatch, platform: &[&PathMatch]) -> PathDifference {
    if platform.iter().any(|wide| path_covers(wide, path)) {
        return PathDifference::None;
    }
    let outside = |path: &str| !platform.iter().any(|wide| wide.matches(path.as_bytes()));
    match path {
        PathMatch::Exact(literal) => match text(literal) {
            Some(literal) if outside(&literal) => PathDifference::Path(literal),
            _ => PathDifference::None,
        },
        PathMatch::Prefix(prefix) => {
            let Some(prefix) = text(prefix) else { return PathDifference::Unknown };
            let itself = if prefix.is_empty() { "/".to_owned() } else { prefix.clone() };
            if outside(&itself) {
                return PathDifference::Path(itself);
            }
            let below = (0..=platform.len()).map(|n| format!("{prefix}/x{n}"));
            match below.into_iter().find(|path| outside(path)) {
                Some(path) => PathDifference::Path(path),
                None => {
                    // No expression matches a path of this length.
                    let long = format!("{prefix}/{}", "x".repeat(LONGEST_VALUE + 1));
                    match automata(path, platform) {
                        found @ PathDifference::Path(_) => found,
                        _ if outside(&long) => PathDifference::Path(long),
                        _ => PathDifference::Unknown,
                    }
                }
            }
        }
        PathMatch::Regex(_) => automata(path, platform),
    }
}

fn text(literal: &[u8]) -> Option<String> {
    String::from_utf8(literal.to_vec()).ok()
}

/// The maximum number of steps of a comparison.
const MOST_STEPS: usize = 100_000;

fn automata(path: &PathMatch, platform: &[&PathMatch]) -> PathDifference {
    let compiled = |paths: &[&PathMatch]| {
        automata::compile(&paths.iter().map(|path| automata::of_path(path)).collect::<Option<Vec<_>>>()?)
    };
    let (Some(team), Some(platform)) = (compiled(&[path]), compiled(platform)) else { return PathDifference::Unknown };
    search(&team, &platform).unwrap_or(PathDifference::Unknown)
}

/// Runs both automata together with one for canonical paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PathState {
    team: StateID,
    platform: StateID,
    form: CanonicalPart,
}

fn search(team: &Dfa, platform: &Dfa) -> Option<PathDifference> {
    let first = PathState { team: begin(team)?, platform: begin(platform)?, form: CanonicalPart::Start };
    let mut states = vec![(first, 0, 0u8)];
    let mut seen = HashSet::from([first]);
    let mut queue = VecDeque::from([0usize]);
    let (mut steps, mut is_doubtful) = (0usize, false);
    while let Some(at) = queue.pop_front() {
        let (state, ..) = *states.get(at)?;
        if state.form.is_complete() && ends(team, state.team) && !ends(platform, state.platform) {
            let path = spelled(at, |at| states.get(at).map(|(_, before, byte)| (*before, *byte)))?;
            let path = String::from_utf8(path).ok()?;
            // The form here is slightly wider than what the engine accepts as canonical.
            if canonical(path.as_bytes()).is_ok_and(|canonical| *canonical == *path.as_bytes()) {
                return Some(PathDifference::Path(path));
            }
            // Other branches may reach this state with a canonical path.
            is_doubtful = true;
        }
        for byte in LETTERS.bytes() {
            steps += 1;
            if steps > MOST_STEPS {
                return Some(PathDifference::Unknown);
            }
            let Some(form) = state.form.next(byte) else { continue };
            let next = PathState {
                team: team.next_state(state.team, byte),
                platform: platform.next_state(state.platform, byte),
                form,
            };
            if !team.is_dead_state(next.team) && seen.insert(next) {
                queue.push_back(states.len());
                states.push((next, at, byte));
            }
        }
    }
    Some(if is_doubtful { PathDifference::Unknown } else { PathDifference::None })
}

/// The bytes of canonical paths, plain letters first.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789/-_~ABCDEFGHIJKLMNOPQRSTUVWXYZ.!$&'()*+,=:@\"<>[]^`{|}%";

/// The state of a canonical path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CanonicalPart {
    /// Before the first slash.
    Start,
    /// After a slash.
    Slash,
    /// After a slash and one or two dots.
    Dots(u8),
    /// Inside a segment.
    Segment,
    /// After a percent sign, with this many bytes of the character still to come.
    Percent(u8),
    /// After a percent sign and a digit.
    Digit(u8, u8),
    /// Between the escaped bytes of a character.
    Between(u8),
}

impl CanonicalPart {
    /// Whether a path may end in this state.
    fn is_complete(self) -> bool {
        matches!(self, CanonicalPart::Slash | CanonicalPart::Segment)
    }

    fn next(self, byte: u8) -> Option<CanonicalPart> {
        let inside = |byte: u8| match byte {
            b'%' => Some(CanonicalPart::Percent(0)),
            b'/' => Some(CanonicalPart::Slash),
            _ => Some(CanonicalPart::Segment),
        };
        let value = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
        match self {
            CanonicalPart::Start => (byte == b'/').then_some(CanonicalPart::Slash),
            CanonicalPart::Slash => match byte {
                b'/' => None,
                b'.' => Some(CanonicalPart::Dots(1)),
                _ => inside(byte),
            },
            CanonicalPart::Dots(dots) => match byte {
                b'/' => None,
                b'.' if dots < 2 => Some(CanonicalPart::Dots(dots + 1)),
                _ => inside(byte),
            },
            CanonicalPart::Segment => inside(byte),
            CanonicalPart::Percent(more) => match byte {
                b'0'..=b'9' | b'A'..=b'F' => Some(CanonicalPart::Digit(more, byte)),
                _ => None,
            },
            CanonicalPart::Digit(more, high) => {
                if !matches!(byte, b'0'..=b'9' | b'A'..=b'F') {
                    return None;
                }
                let octet = value(high)? << 4 | value(byte)?;
                match (more, octet) {
                    (0, b'/' | b'\\' | b'%' | b';' | 0 | b'-' | b'.' | b'_' | b'~') => None,
                    (0, 0..0x80) if octet.is_ascii_alphanumeric() => None,
                    (0, 0..0x80) => Some(CanonicalPart::Segment),
                    (0, 0xC2..0xE0) => Some(CanonicalPart::Between(1)),
                    (0, 0xE1..0xED | 0xEE) => Some(CanonicalPart::Between(2)),
                    (0, 0xF1..0xF4) => Some(CanonicalPart::Between(3)),
                    (1, 0x80..0xC0) => Some(CanonicalPart::Segment),
                    (2 | 3, 0x80..0xC0) => Some(CanonicalPart::Between(more - 1)),
                    // The range of the second byte is restricted, which is checked for the path that is found.
                    (0, 0xE0 | 0xED | 0xEF) => Some(CanonicalPart::Between(2)),
                    (0, 0xF0 | 0xF4) => Some(CanonicalPart::Between(3)),
                    _ => None,
                }
            }
            CanonicalPart::Between(more) => (byte == b'%').then_some(CanonicalPart::Percent(more)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_policy::document::{At, Context, Decode, Node};

    fn path(text: &str) -> PathMatch {
        let (kind, value) = text.split_once(' ').unwrap();
        let json = serde_json::json!({"type": kind, "value": value}).to_string();
        let node = Node::from_json(json.as_bytes()).unwrap();
        PathMatch::decode(&node, &At::Root, &mut Context::new(String::new(), 1 << 20)).unwrap()
    }

    fn compare(team: &[&str], platform: &[&str]) -> PathDifference {
        let (team, platform): (Vec<_>, Vec<_>) =
            (team.iter().map(|text| path(text)).collect(), platform.iter().map(|text| path(text)).collect());
        difference(Some(&team.iter().collect::<Vec<_>>()), &platform.iter().collect::<Vec<_>>(), false)
    }

    #[test]
    fn a_path_outside_is_found_and_none_where_there_is_none() {
        let found = |path: &str| PathDifference::Path(path.to_owned());
        let long = |path: &str| PathDifference::Path(format!("{path}{}", "x".repeat(LONGEST_VALUE + 1)));
        for (team, platform, expected) in [
            (&["PathPrefix /a"][..], &["PathPrefix /"][..], PathDifference::None),
            (&["PathPrefix /a"], &["Exact /a", "PathPrefix /a/x0"], found("/a/x1")),
            (&["Exact /a", "Exact /b"], &["Exact /b", "Exact /a"], PathDifference::None),
            (&["RegularExpression /v[0-9]+"], &["RegularExpression /v[0-9]*"], PathDifference::None),
            (&["RegularExpression /v[0-9]*"], &["RegularExpression /v[0-9]+"], found("/v")),
            (&["RegularExpression /[ab]"], &["Exact /a", "Exact /b"], PathDifference::None),
            (&["RegularExpression /[abc]"], &["Exact /a", "Exact /b"], found("/c")),
            // Expressions do not match the longest paths.
            (&["PathPrefix /a"], &["RegularExpression /a(/.*)?"], long("/a/")),
            (&["PathPrefix /a"], &["RegularExpression /a(/[a-z].*)?"], found("/a/")),
            (
                &["PathPrefix /a"],
                &["RegularExpression /a/?", "RegularExpression /a/[^/].*", "PathPrefix /a/x"],
                long("/a/"),
            ),
            (&["RegularExpression .*"], &["PathPrefix /"], PathDifference::None),
            // `\<` is a plain `<` in the engine, and a word boundary in other implementations.
            (&["RegularExpression /<[ab]"], &[r"RegularExpression /\<[abc]"], PathDifference::None),
            (&["RegularExpression (?i)/A"], &["Exact /a"], found("/A")),
            (&["RegularExpression /%C3%A9"], &["Exact /a"], found("/%C3%A9")),
            // No canonical path contains them.
            (&["RegularExpression /%2F"], &["Exact /a"], PathDifference::None),
            (&["RegularExpression /a//b"], &["Exact /a"], PathDifference::None),
        ] {
            assert_eq!(compare(team, platform), expected, "{team:?} {platform:?}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_not_called_covered() {
        assert_eq!(
            compare(&["RegularExpression /.*a.{9}"], &["RegularExpression /.*[ab].{9}"]),
            PathDifference::Unknown
        );
    }
}
