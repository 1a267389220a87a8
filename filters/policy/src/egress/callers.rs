//! The rules of one destination by caller: of a hundred thousand that name different callers, one look finds the few that
//! could be meant.
//!
//! Each pattern is filed under the hash of its text, or of the text before its first star; a caller is looked up by its
//! whole text and by everything that ends in a slash. A hash that collides costs a comparison, no mistake: whoever is
//! found is asked. Patterns that begin alike and then have a star (`ns/*/sa/a`, `ns/*/sa/b`) are found together.

use std::hash::Hasher;

use rustc_hash::FxHasher;
use smallvec::SmallVec;

use super::caller::CallerPattern;

/// Fewer entries are asked one by one.
const FEW: usize = 16;

/// The entries of a bucket by their callers.
#[derive(Debug)]
pub(super) struct Callers {
    /// Hash and number of an entry, in this order.
    by_hash: Box<[(u32, u32)]>,
    /// The entries for any caller, in order.
    open: Box<[u32]>,
    /// Whether any pattern has a star.
    has_stars: bool,
    /// The ports of all entries that are not for any caller; `None`: one of them has any port.
    ports: Option<Vec<u16>>,
}

/// Numbers of entries, each part in order.
pub(super) type Found<'c> = SmallVec<[&'c [(u32, u32)]; 4]>;

impl Callers {
    /// Files entries by the patterns of their rules, `None` for any caller; the other part is their ports, `None` for
    /// any. `None` when it is not worth it.
    pub fn new<'p>(
        entries: impl ExactSizeIterator<Item = (Option<&'p [CallerPattern]>, Option<&'p [u16]>)>,
    ) -> Option<Box<Callers>> {
        if entries.len() < FEW {
            return None;
        }
        let (mut by_hash, mut open, mut has_stars) = (Vec::new(), Vec::new(), false);
        let mut all_ports = Some(Vec::<u16>::new());
        for (number, (patterns, ports)) in (0u32..).zip(entries) {
            let Some(patterns) = patterns else {
                open.push(number);
                continue;
            };
            by_hash.extend(patterns.iter().map(|pattern| {
                let text = pattern.as_str();
                let start = text.split('*').next().filter(|_| pattern.has_star());
                has_stars |= start.is_some();
                (hash(start.unwrap_or(text).as_bytes()), number)
            }));
            match (ports, &mut all_ports) {
                (None, all) => *all = None,
                (Some(ports), Some(all)) => {
                    let new = ports.iter().filter(|port| all.binary_search(port).is_err()).copied().collect::<Vec<_>>();
                    all.extend(new);
                    all.sort_unstable();
                }
                (Some(_), None) => {}
            }
        }
        by_hash.sort_unstable();
        // Two patterns of one rule that begin alike.
        by_hash.dedup();
        let callers = Callers { by_hash: by_hash.into(), open: open.into(), has_stars, ports: all_ports };
        (callers.by_hash.len() >= FEW).then(|| Box::new(callers))
    }

    /// Whether any entry that is not for any caller has `port`.
    pub fn have_port(&self, port: Option<u16>) -> bool {
        self.ports.as_ref().is_none_or(|ports| port.is_some_and(|port| ports.binary_search(&port).is_ok()))
    }

    /// The entries for any caller.
    pub fn open(&self) -> &[u32] {
        &self.open
    }

    /// The entries that could be for `caller`, and others now and then.
    pub fn find(&self, caller: &[u8]) -> Found<'_> {
        let mut found = SmallVec::from_iter([self.filed_under(caller)]);
        if self.has_stars {
            let starts = caller.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            found.extend(starts.filter_map(|(at, _)| caller.get(..=at)).map(|start| self.filed_under(start)));
        }
        found
    }

    fn filed_under(&self, text: &[u8]) -> &[(u32, u32)] {
        let hash = hash(text);
        let from = self.by_hash.partition_point(|(other, _)| *other < hash);
        let rest = self.by_hash.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|(other, _)| *other == hash)).unwrap_or_default()
    }
}

/// The policy chooses what is filed, and identities are verified: no keyed hash is needed.
fn hash(text: &[u8]) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write(text);
    let hash = hasher.finish();
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{At, Context, Decode, Node};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn pattern(text: String) -> CallerPattern {
        CallerPattern::decode(&Node::String(text), &At::Root, &mut Context::new(String::new(), 0)).unwrap()
    }

    #[test]
    fn whoever_a_pattern_covers_finds_its_entry_among_few() {
        let mut patterns: Vec<_> = (0..5_000).map(|i| vec![pattern(format!("spiffe://a/ns/n{i}/sa/x"))]).collect();
        patterns.push(vec![pattern("spiffe://a/ns/n7/sa/*".into()), pattern("spiffe://a/ns/n7/sa/y".into())]);
        patterns.push(vec![pattern("spiffe://a/ns/*/sa/x".into())]);
        let all = patterns.iter().map(|patterns| Some(&**patterns)).chain([None]).collect::<Vec<_>>();
        let callers = Callers::new(all.iter().map(|patterns| (*patterns, Some(&[443][..])))).unwrap();
        assert!(callers.have_port(Some(443)) && !callers.have_port(Some(80)) && !callers.have_port(None));
        for caller in ["spiffe://a/ns/n7/sa/x", "spiffe://a/ns/n7/sa/y", "spiffe://a/ns/n4999/sa/x", "spiffe://b/", "x"] {
            let found = callers.find(caller.as_bytes());
            let mut numbers: Vec<u32> = found.iter().flat_map(|part| part.iter().map(|(_, number)| *number)).collect();
            assert!(numbers.len() <= 4, "{caller}: {numbers:?}");
            numbers.extend(callers.open());
            for (number, patterns) in (0u32..).zip(&all) {
                let covered = patterns.is_none_or(|patterns| patterns.iter().any(|p| p.covers(caller.as_bytes())));
                assert!(!covered || numbers.contains(&number), "{caller}: {number}");
            }
        }
    }
}
