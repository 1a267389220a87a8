//! The paths of a learned rule, and which paths they cover.

use std::collections::BTreeSet;

use penstock_policy::document::Node;

use crate::import::objects::{map, text};

/// A set of canonical paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// One path.
    Exact(Box<str>),
    /// A path and everything below it, by whole segments. Has no slash at the end, so it is empty for all paths.
    Prefix(Box<str>),
    /// No path: a tunnel.
    Tunnel,
}

impl Pattern {
    /// Whether it covers every path of `other`.
    pub fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::Prefix(_), Pattern::Exact(path)) => self.has(path),
            (Pattern::Prefix(_), Pattern::Prefix(path)) => self.has_below(path),
            _ => self == other,
        }
    }

    /// Every pattern that covers this one, itself first.
    pub fn wider(&self) -> impl Iterator<Item = Pattern> {
        let path = match self {
            Pattern::Exact(path) | Pattern::Prefix(path) => Some(&**path),
            Pattern::Tunnel => None,
        };
        let own = path.filter(|_| matches!(self, Pattern::Exact(_))).into_iter();
        let above =
            path.into_iter().flat_map(|path| path.match_indices('/').map(|(at, _)| path.get(..at).unwrap_or_default()));
        std::iter::once(self.clone()).chain(own.chain(above).map(|prefix| Pattern::Prefix(prefix.into())))
    }

    /// Whether it covers this path.
    pub fn has(&self, path: &str) -> bool {
        match self {
            Pattern::Exact(exact) => **exact == *path,
            Pattern::Prefix(_) => self.has_below(path),
            Pattern::Tunnel => false,
        }
    }

    /// Whether it covers everything below this prefix.
    pub fn has_below(&self, prefix: &str) -> bool {
        match self {
            Pattern::Prefix(ours) => {
                prefix.strip_prefix(&**ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            _ => false,
        }
    }

    /// The path in a policy; `None` when it allows every path.
    pub fn node(&self) -> Option<Node> {
        let (kind, value) = match self {
            Pattern::Exact(path) => ("Exact", &**path),
            Pattern::Prefix(path) if path.is_empty() => ("PathPrefix", "/"),
            Pattern::Prefix(path) => ("PathPrefix", &**path),
            Pattern::Tunnel => return None,
        };
        Some(map([("type", text(kind)), ("value", text(value))]))
    }
}

/// The `patterns` that no other one covers, in order.
pub fn widest(mut patterns: Vec<Pattern>) -> Vec<Pattern> {
    patterns.sort();
    patterns.dedup();
    let all: BTreeSet<Pattern> = patterns.iter().cloned().collect();
    patterns.retain(|pattern| !pattern.wider().skip(1).any(|wider| wider != *pattern && all.contains(&wider)));
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_segments() {
        let prefix = |path: &str| Pattern::Prefix(path.into());
        let exact = |path: &str| Pattern::Exact(path.into());
        assert!(prefix("/a").covers(&exact("/a/b")) && prefix("/a").covers(&exact("/a")) && prefix("/a").has("/a/"));
        assert!(!prefix("/a").covers(&exact("/ab")) && !exact("/a").covers(&prefix("/a")));
        assert!(prefix("").covers(&prefix("/a")) && prefix("").has("/"));
        for path in ["", "/", "/a", "/a/", "/a/b", "/ab", "//", "/a//b"] {
            for other in ["", "/", "/a", "/a/", "/a/b", "/ab", "//", "/a//b"] {
                for narrow in [prefix(path), exact(path)] {
                    for wide in [prefix(other), exact(other)] {
                        let is_among = narrow.wider().any(|wider| wider == wide);
                        assert_eq!(is_among, wide.covers(&narrow), "{wide:?} {narrow:?}");
                    }
                }
            }
        }
        assert_eq!(widest(vec![exact("/a/b"), prefix("/a"), exact("/c"), prefix("/a")]), [exact("/c"), prefix("/a")]);
    }
}
