//! The rules of one destination by caller: among a hundred thousand rules for different callers, one look-up finds the
//! few that could apply.
//!
//! Each pattern is stored under the hash of its text, or of the text before its first star. A caller is looked up by its
//! whole text and by every prefix that ends in a slash. A hash collision costs a comparison but changes no decision,
//! because every rule that is found is evaluated. Patterns with the same text before a star (`ns/*/sa/a`, `ns/*/sa/b`)
//! are found together.

use std::hash::Hasher;

use hashbrown::HashMap;
use rustc_hash::{FxBuildHasher, FxHasher};
use smallvec::SmallVec;

use super::caller::CallerPattern;

/// With fewer entries than this each is evaluated in turn.
const FEW: usize = 16;

/// The entries of a bucket by their callers.
#[derive(Debug)]
pub(super) struct Callers {
    /// The numbers of the entries of each hash, in order.
    filed: HashMap<u32, SmallVec<[u32; 2]>, FxBuildHasher>,
    /// How many patterns there are.
    count: usize,
    /// The entries for any caller, in order.
    open: Vec<u32>,
    /// Whether any pattern has a star.
    has_stars: bool,
    /// The ports of all entries that are not for any caller; `None`: one of them has any port.
    ports: Option<Vec<u16>>,
}

impl Callers {
    /// Indexes entries by the patterns of their rules, `None` for any caller, together with their ports, `None` for any
    /// port. `None` when there are too few entries to gain from it.
    pub fn new<'p>(
        entries: impl ExactSizeIterator<Item = (Option<&'p [CallerPattern]>, Option<&'p [u16]>)>,
    ) -> Option<Box<Callers>> {
        if entries.len() < FEW {
            return None;
        }
        let mut callers = Callers {
            filed: HashMap::default(),
            count: 0,
            open: Vec::new(),
            has_stars: false,
            ports: Some(Vec::new()),
        };
        for (number, (patterns, ports)) in entries.enumerate() {
            let number = u32::try_from(number).ok()?;
            match patterns {
                Some(patterns) => callers.file(number, patterns, ports),
                None => callers.open.push(number),
            }
        }
        (callers.count >= FEW).then(|| Box::new(callers))
    }

    fn file(&mut self, number: u32, patterns: &[CallerPattern], ports: Option<&[u16]>) {
        self.count += patterns.len();
        for pattern in patterns {
            let text = pattern.as_str();
            let start = text.split('*').next().filter(|_| pattern.has_star());
            self.has_stars |= start.is_some();
            self.filed.entry(hash(start.unwrap_or(text).as_bytes())).or_default().push(number);
        }
        match (ports, &mut self.ports) {
            (None, all) => *all = None,
            (Some(ports), Some(all)) => {
                for &port in ports {
                    if let Err(at) = all.binary_search(&port) {
                        all.insert(at, port);
                    }
                }
            }
            (Some(_), None) => {}
        }
    }

    /// Whether any entry that is not for any caller has `port`.
    pub fn have_port(&self, port: impl FnOnce() -> Option<u16>) -> bool {
        self.ports.as_ref().is_none_or(|ports| port().is_some_and(|port| ports.binary_search(&port).is_ok()))
    }

    /// The entries for any caller.
    pub fn open(&self) -> &[u32] {
        &self.open
    }

    /// The entries that could apply to `caller`, and sometimes others: several lists, each in order.
    pub fn find(&self, caller: &[u8]) -> SmallVec<[&[u32]; 4]> {
        let filed = |text: &[u8]| self.filed.get(&hash(text)).map(|numbers| &**numbers);
        let mut found = SmallVec::from_iter(filed(caller));
        if self.has_stars {
            let starts = caller.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            found.extend(starts.filter_map(|(at, _)| filed(caller.get(..=at)?)));
        }
        found
    }
}

/// Clients cannot choose the entries, and identities are verified, so the hash needs no secret key.
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
        assert!(callers.have_port(|| Some(443)) && !callers.have_port(|| Some(80)) && !callers.have_port(|| None));
        for caller in ["spiffe://a/ns/n7/sa/x", "spiffe://a/ns/n7/sa/y", "spiffe://a/ns/n4999/sa/x", "spiffe://b/", "x"]
        {
            let mut numbers: Vec<u32> = callers.find(caller.as_bytes()).concat();
            assert!(numbers.len() <= 4, "{caller}: {numbers:?}");
            numbers.extend(callers.open());
            for (number, patterns) in (0u32..).zip(&all) {
                let covered = patterns.is_none_or(|patterns| patterns.iter().any(|p| p.covers(caller.as_bytes())));
                assert!(!covered || numbers.contains(&number), "{caller}: {number}");
            }
        }
    }
}
