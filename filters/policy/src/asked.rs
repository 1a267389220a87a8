//! The names of headers, cookies and query parameters that a policy reads, and their values in one request.
//!
//! A client may send thousands of pairs, but a policy reads only a few names, which are all known when it loads. So the
//! first section that needs a request's cookies or query parses them once, into a table of only these names: this takes
//! linear time, and stores nothing else that a client sent.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::bytes::same;
use crate::facts::{ClaimsDocument, FactPlace};
use crate::small_map::SmallMap;

/// A Bloom filter over the names of a set: one bit for a name, chosen by its length and last byte. Most names that
/// clients send are in no policy, and are recognised here without hashing them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NameFilter(u64);

impl NameFilter {
    /// Adds a name.
    pub(crate) fn add(&mut self, name: &[u8]) {
        self.0 |= NameFilter::bit(name);
    }

    /// Whether `name` may have been added; `false` is certain.
    pub(crate) fn may_have(self, name: &[u8]) -> bool {
        self.0 & NameFilter::bit(name) != 0
    }

    fn bit(name: &[u8]) -> u64 {
        let last = name.last().copied().map_or(0, usize::from);
        1 << ((name.len() + last * 7) % 64)
    }
}

/// A set of names, numbered from 0.
#[derive(Debug, Default)]
pub(crate) struct NameSet {
    numbers: HashMap<Box<[u8]>, u32, FxBuildHasher>,
    filter: NameFilter,
    names: Vec<Box<[u8]>>,
}

impl NameSet {
    /// Adds a name.
    pub(crate) fn add(&mut self, name: &[u8]) {
        if self.numbers.contains_key(name) {
            return;
        }
        let Ok(number) = u32::try_from(self.names.len()) else { return };
        self.filter.add(name);
        self.numbers.insert(name.into(), number);
        self.names.push(name.into());
    }

    /// The number of a name.
    pub(crate) fn number(&self, name: &[u8]) -> Option<u32> {
        if !self.filter.may_have(name) {
            return None;
        }
        if let [only] = self.names.as_slice() {
            return same(only, name).then_some(0);
        }
        self.numbers.get(name).copied()
    }

    /// The names, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(|name| &**name)
    }

    /// The name of a number.
    pub(crate) fn name(&self, number: u32) -> Option<&[u8]> {
        self.names.get(number as usize).map(|name| &**name)
    }
}

/// The names that a policy reads.
#[derive(Debug, Default)]
pub(crate) struct AskedNames {
    pub(crate) headers: NameSet,
    pub(crate) cookies: NameSet,
    pub(crate) query_params: NameSet,
    /// The numbers of the facts, by the bytes of their names.
    pub(crate) facts: NameSet,
    /// Where each fact is, by its number.
    pub(crate) fact_places: Box<[FactPlace]>,
}

impl AskedNames {
    /// Called when all names have been added: computes where each fact is.
    pub(crate) fn place_facts(&mut self, claims: &ClaimsDocument) {
        self.fact_places = self.facts.iter().map(|name| FactPlace::new(name, claims)).collect();
    }
}

/// Where a value is: the number of the request's header, the first byte, and the length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) header: u32,
    pub(crate) start: u32,
    pub(crate) length: u32,
}

impl Span {
    /// The part of `text` that begins at `start`.
    pub(crate) fn new(header: usize, start: usize, length: usize) -> Span {
        // No header is longer than `u32::MAX`.
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { header: number(header), start: number(start), length: number(length) }
    }

    /// The part of `text`.
    pub(crate) fn of(self, text: &[u8]) -> Option<&[u8]> {
        text.get(self.start as usize..)?.get(..self.length as usize)
    }
}

/// For each name that the policy reads: its first value in the request.
pub(crate) type Pairs = SmallMap<Span>;
