//! Arithmetic on sets of paths: whether one covers another, and what is left of one without others, as an expression.
//! RE2 has no look-ahead, so "all but these" is written out character by character, as the complement of a trie.

use std::collections::BTreeMap;

use penstock_policy::matching::Regex;

use super::matching::{PathSet, escaped};

/// Whether the sets are disjoint. `false` when unknown.
pub fn are_disjoint(one: &PathSet, other: &PathSet) -> bool {
    let below = |path: &str, prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (one, other) {
        (PathSet::Exact(a), PathSet::Exact(b)) => a != b,
        (PathSet::Exact(path), PathSet::Regex(expression)) | (PathSet::Regex(expression), PathSet::Exact(path)) => {
            Regex::new(expression).is_ok_and(|regex| !regex.matches(path.as_bytes()))
        }
        (PathSet::Exact(path), PathSet::Segments(prefix)) | (PathSet::Segments(prefix), PathSet::Exact(path)) => {
            !below(path, prefix)
        }
        (PathSet::Exact(path), PathSet::Letters(prefix)) | (PathSet::Letters(prefix), PathSet::Exact(path)) => {
            !path.starts_with(prefix.as_str())
        }
        (PathSet::Segments(a), PathSet::Segments(b)) => !below(a, b) && !below(b, a),
        (PathSet::Letters(a), PathSet::Letters(b)) => !a.starts_with(b.as_str()) && !b.starts_with(a.as_str()),
        (PathSet::Segments(path), PathSet::Letters(letters)) | (PathSet::Letters(letters), PathSet::Segments(path)) => {
            !path.starts_with(letters.as_str()) && !letters.starts_with(&format!("{path}/"))
        }
        _ => false,
    }
}

/// Whether `wide` contains every path of `narrow`. `false` when unknown.
pub fn covers(wide: &PathSet, narrow: &PathSet) -> bool {
    match (wide, narrow) {
        (PathSet::Any, _) => true,
        (a, b) if a == b => true,
        (_, PathSet::Any) => false,
        (PathSet::Regex(expression), PathSet::Exact(path)) => {
            Regex::new(expression).is_ok_and(|regex| regex.matches(path.as_bytes()))
        }
        (PathSet::Letters(letters), PathSet::Exact(path) | PathSet::Segments(path) | PathSet::Letters(path)) => {
            path.starts_with(letters.as_str())
        }
        (PathSet::Segments(prefix), PathSet::Exact(path) | PathSet::Segments(path)) => {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        (PathSet::Segments(prefix), PathSet::Letters(letters)) => letters.starts_with(&format!("{prefix}/")),
        _ => false,
    }
}

/// A set of strings: single ones, and all with a given prefix.
#[derive(Default)]
struct Letters {
    next: BTreeMap<char, Letters>,
    /// The string that ends at this node is in the set.
    has: bool,
    /// All strings that continue from this node are in the set, and this one.
    has_all: bool,
}

impl Letters {
    fn slot(&mut self, text: &str) -> &mut Letters {
        text.chars().fold(self, |node, c| node.next.entry(c).or_default())
    }

    /// An expression for the continuations that are not in the set; `None` when there are none.
    fn complement(&self) -> Option<String> {
        if self.has_all {
            return None;
        }
        let mut alternatives = Vec::new();
        if self.next.is_empty() {
            alternatives.push(if self.has { ".+" } else { ".*" }.to_owned());
        } else {
            if !self.has {
                alternatives.push(String::new());
            }
            let class: String = self
                .next
                .keys()
                .map(|c| if "]\\^-[".contains(*c) { format!("\\{c}") } else { c.to_string() })
                .collect();
            alternatives.push(format!("[^{class}].*"));
            for (c, node) in &self.next {
                alternatives.extend(node.complement().map(|rest| format!("{}{rest}", escaped(c.to_string()))));
            }
        }
        match alternatives.as_slice() {
            [one] => Some(one.clone()),
            _ => Some(format!("(?:{})", alternatives.join("|"))),
        }
    }

    /// An expression for the strings that start with `prefix` and are not in the set.
    fn from(&self, prefix: &str) -> Option<String> {
        let mut node = self;
        for c in prefix.chars() {
            if node.has_all {
                return None;
            }
            match node.next.get(&c) {
                Some(next) => node = next,
                None => return Some(format!("{}.*", escaped(prefix))),
            }
        }
        node.complement().map(|rest| format!("{}{rest}", escaped(prefix)))
    }

    fn contains(&self, text: &str) -> bool {
        let mut node = self;
        for c in text.chars() {
            if node.has_all {
                return true;
            }
            match node.next.get(&c) {
                Some(next) => node = next,
                None => return false,
            }
        }
        node.has || node.has_all
    }
}

/// What is left of a set without others.
pub enum PathRemainder {
    /// Nothing.
    Nothing,
    /// These paths.
    Paths(PathSet),
    /// Unknown, because an expression is involved.
    Unknown,
}

/// Subtracts all of `others` from `paths`.
pub fn without(paths: &PathSet, others: &[PathSet]) -> PathRemainder {
    let others: Vec<&PathSet> = others.iter().filter(|other| !are_disjoint(paths, other)).collect();
    if others.is_empty() {
        return PathRemainder::Paths(paths.clone());
    }
    if others.iter().any(|other| covers(other, paths)) {
        return PathRemainder::Nothing;
    }
    let mut set = Letters::default();
    for other in others {
        match other {
            PathSet::Any => return PathRemainder::Nothing,
            PathSet::Exact(path) => set.slot(path).has = true,
            PathSet::Letters(prefix) => set.slot(prefix).has_all = true,
            PathSet::Segments(path) => {
                set.slot(path).has = true;
                set.slot(&format!("{path}/")).has_all = true;
            }
            PathSet::Regex(_) => return PathRemainder::Unknown,
        }
    }
    let expression = match paths {
        PathSet::Any => set.from("/"),
        PathSet::Letters(prefix) => set.from(prefix),
        PathSet::Segments(path) => {
            let itself = (!set.contains(path)).then(|| escaped(path));
            match (itself, set.from(&format!("{path}/"))) {
                (Some(itself), Some(below)) => Some(format!("{itself}|{below}")),
                (itself, below) => itself.or(below),
            }
        }
        // Everything in it that overlaps covers it.
        PathSet::Exact(_) => None,
        PathSet::Regex(_) => return PathRemainder::Unknown,
    };
    expression.map_or(PathRemainder::Nothing, |expression| PathRemainder::Paths(PathSet::Regex(expression)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn has(set: &PathSet, path: &str) -> bool {
        match set {
            PathSet::Any => path.starts_with('/'),
            PathSet::Exact(exact) => path == exact,
            PathSet::Segments(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathSet::Letters(prefix) => path.starts_with(prefix.as_str()),
            PathSet::Regex(expression) => Regex::new(expression).unwrap().matches(path.as_bytes()),
        }
    }

    fn sets() -> impl Strategy<Value = PathSet> {
        let path = "(/[ab.]{1,2}){1,2}";
        prop_oneof![
            Just(PathSet::Any),
            path.prop_map(PathSet::Exact),
            path.prop_map(PathSet::Segments),
            "(/[ab]{1,2}){1,2}/?".prop_map(PathSet::Letters),
        ]
    }

    proptest! {
        #[test]
        fn subtracting_sets_leaves_exactly_the_paths_in_none_of_the_others(
            set in sets(), others in prop::collection::vec(sets(), 0..4), paths in prop::collection::vec("(/[ab.]{0,2}){1,3}", 1..20)
        ) {
            let rest = without(&set, &others);
            for path in &paths {
                let expected = has(&set, path) && !others.iter().any(|other| has(other, path));
                let found = match &rest {
                    PathRemainder::Nothing => false,
                    PathRemainder::Paths(rest) => has(rest, path),
                    PathRemainder::Unknown => panic!("no expression was given"),
                };
                prop_assert_eq!(found, expected, "{:?} without {:?}: {}", set, others, path);
                for other in &others {
                    prop_assert!(!(are_disjoint(&set, other) && has(&set, path) && has(other, path)));
                    prop_assert!(!covers(&set, other) || !has(other, path) || has(&set, path));
                }
            }
        }
    }
}
