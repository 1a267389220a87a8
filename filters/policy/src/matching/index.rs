//! The index over `matches` entries: finds the first entry that matches a request without trying each of them.
//!
//! It is a decision tree that is built when the policy loads. Each inner node groups its entries by one dimension (such
//! as host, path, header or method): the one that splits them into the smallest groups. Entries without a condition on
//! that dimension are kept in a group of their own. A look-up follows the request's values, so its cost depends on the
//! number of the request's labels, segments and headers, and not on the number of entries. Every entry that the index
//! finds is checked in full, so a bug in the index could miss an entry but never match a wrong one. A property test
//! compares the index with a linear scan.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::host::{HostPattern, HostTrie};
use super::path::{PathMatch, PathTrie};
use super::request::RequestMatch;
use super::text::{Condition, TextMatch};
use crate::asked::{NameFilter, Span};
use crate::environment::Environment;
use crate::request::{AskedPairs, Header, Request};
use crate::trie::{ROOT, Trie};

type Map<K, V> = HashMap<K, V, FxBuildHasher>;

/// The largest number of entries for which trying each is cheaper than another look-up.
const LEAF: usize = 8;

/// The index over a list of entries. An entry's rank is its position in that list. The lowest rank wins.
#[derive(Debug)]
pub struct Index {
    root: IndexNode,
}

#[derive(Debug)]
enum IndexNode {
    /// Ranks of entries, in ascending order. A look-up tries each of them.
    Leaf(Box<[u32]>),
    Split(Box<IndexSplit>),
}

#[derive(Debug)]
struct IndexSplit {
    /// The lowest rank in this subtree. The subtree is skipped if an entry with a lower rank has matched.
    min: u32,
    by: DimensionTable,
    /// The children: the numbers in `by` are their positions.
    below: Box<[IndexNode]>,
    /// Entries without a condition on this dimension.
    rest: IndexNode,
}

/// One dimension's table from values to the numbers of children. All tables are tries, so that the module contains the
/// code of only one hash table.
#[derive(Debug)]
enum DimensionTable {
    Host(HostTrie<u32>),
    Path(PathTrie<u32>),
    Method(Trie<u32>),
    Header(FieldTrie),
    Query(FieldTrie),
    Cookie(FieldTrie),
    Fact(FieldTrie),
}

/// The values of named fields: the first level of the trie has the names, the second the values.
#[derive(Debug, Default)]
struct FieldTrie {
    trie: Trie<u32>,
    filter: NameFilter,
    /// Each name once.
    names: Vec<Box<[u8]>>,
}

impl Index {
    /// Builds the index over `entries`.
    pub fn new(entries: &[RequestMatch]) -> Index {
        // Entries with several values are filed under each; nested, that could multiply. Beyond this number, the rest
        // stays in leaves, which are slower but correct.
        let mut budget = 64 * entries.len() + 1024;
        let ranks = (0..entries.len()).filter_map(|i| u32::try_from(i).ok()).collect();
        Index { root: build(entries, ranks, &Dimension::ALL, &mut budget) }
    }

    /// The lowest rank whose entry matches `request`. `entries` must be those that the index was built from.
    pub fn first(&self, entries: &[RequestMatch], request: &Request<'_>) -> Option<usize> {
        let mut best = u32::MAX;
        let mut tried = Tried::default();
        visit(&self.root, request, &mut best, &mut |rank| {
            tried.is_new(rank, entries.len()) && holds(entries, rank, request)
        });
        (best != u32::MAX).then_some(best as usize)
    }

    /// As [`Index::first`], but first asks the platform for facts if an entry that could win needs them.
    pub(crate) fn first_asking(
        &self,
        entries: &[RequestMatch],
        request: &Request<'_>,
        environment: &mut impl Environment,
    ) -> Option<usize> {
        let first = self.first(entries, request);
        if !request.wants_facts() {
            return first;
        }
        request.load_facts(environment);
        self.first(entries, request)
    }

    /// Calls `each` with the rank of every entry that matches `request`: in no particular order, and possibly several
    /// times with the same rank.
    pub fn each(&self, entries: &[RequestMatch], request: &Request<'_>, mut each: impl FnMut(usize)) {
        let mut never = u32::MAX;
        let mut tried = Tried::default();
        visit(&self.root, request, &mut never, &mut |rank| {
            if tried.is_new(rank, entries.len()) && holds(entries, rank, request) {
                each(rank as usize);
            }
            false
        });
    }
}

/// The entries that have been tried for one request. An entry with several values is stored under each of them, and a
/// client can send all of them in one request.
#[derive(Default)]
struct Tried {
    count: usize,
    /// One bit for each entry; empty during the first tries.
    bits: Vec<u64>,
}

impl Tried {
    /// The first tries are not recorded, because trying an entry again costs less.
    const FEW: usize = 64;

    /// Whether to try the entry: always among the first tries, and once afterwards.
    fn is_new(&mut self, rank: u32, entries: usize) -> bool {
        self.count += 1;
        if self.count <= Tried::FEW {
            return true;
        }
        self.bits.resize(entries / 64 + 1, 0);
        let Some(bits) = self.bits.get_mut(rank as usize / 64) else { return true };
        let bit = 1 << (rank % 64);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }
}

fn holds(entries: &[RequestMatch], rank: u32, request: &Request<'_>) -> bool {
    entries.get(rank as usize).is_some_and(|entry| entry.holds(request))
}

/// Visits the parts of the tree that match `request` and can contain a lower rank than `best`. If `accept` returns
/// `true` for a rank, that rank is the new `best`.
fn visit(node: &IndexNode, request: &Request<'_>, best: &mut u32, accept: &mut dyn FnMut(u32) -> bool) {
    let split = match node {
        IndexNode::Leaf(ranks) => {
            for &rank in ranks {
                if rank >= *best {
                    return;
                }
                if accept(rank) {
                    *best = rank;
                    return;
                }
            }
            return;
        }
        IndexNode::Split(split) => split,
    };
    if split.min >= *best {
        return;
    }
    let mut found = |number: &u32| {
        if let Some(node) = split.below.get(*number as usize) {
            visit(node, request, best, accept);
        }
    };
    match &split.by {
        DimensionTable::Host(trie) => trie.covering(request.host, found),
        DimensionTable::Path(trie) => trie.covering(request.path, found),
        DimensionTable::Method(trie) => {
            trie.child(ROOT, request.method).and_then(|(_, slot)| slot.exact.as_ref()).into_iter().for_each(found)
        }
        DimensionTable::Header(trie) => trie.covering_headers(request.headers(), &mut found),
        DimensionTable::Query(trie) => trie.covering_pairs(
            request.asked_query_params(),
            |span| request.query_value(span),
            |name| request.query_param(name),
            &mut found,
        ),
        DimensionTable::Cookie(trie) => trie.covering_pairs(
            request.asked_cookies(),
            |span| request.cookie_value(span),
            |name| request.cookie(name),
            &mut found,
        ),
        DimensionTable::Fact(trie) => trie.covering_facts(request, &mut found),
    }
    visit(&split.rest, request, best, accept);
}

impl FieldTrie {
    /// The number of the child for the field `name` with this value. Without a value: for the field with any value,
    /// for entries whose condition is not a comparison with exact values.
    fn entry(&mut self, name: &[u8], value: Option<&[u8]>) -> Option<&mut Option<u32>> {
        if self.trie.child(ROOT, name).is_none() {
            self.filter.add(name);
            self.names.push(name.into());
        }
        Some(&mut self.trie.slot([name].into_iter().chain(value))?.exact)
    }

    /// Visits the children for the request's headers, each child once even if a client sends a header a thousand times.
    fn covering_headers(&self, headers: &[Header<'_>], visit: &mut dyn FnMut(&u32)) {
        let mut found: SmallVec<[u32; 8]> = SmallVec::new();
        for (name, value) in headers {
            if self.filter.may_have(name) {
                self.each_below(name, value, |number| found.push(*number));
            }
        }
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found.iter().for_each(visit);
    }

    /// Visits the children for the first value of each name. It goes through the names of the request or through those
    /// of the trie, whichever are fewer.
    fn covering_pairs<'a>(
        &self,
        pairs: Option<AskedPairs<'a>>,
        value_at: impl Fn(Span) -> Option<&'a [u8]>,
        value_of: impl Fn(&[u8]) -> Option<&'a [u8]>,
        visit: &mut dyn FnMut(&u32),
    ) {
        match pairs {
            Some(pairs) if pairs.len() < self.names.len() => {
                for (name, span) in pairs.iter() {
                    if let Some(value) = value_at(span) {
                        self.each_below(name, value, &mut *visit);
                    }
                }
            }
            _ => {
                for name in &self.names {
                    if let Some(value) = value_of(name) {
                        self.each_below(name, value, &mut *visit);
                    }
                }
            }
        }
    }

    /// Visits the children for the request's facts, each child once: a fact may have several values.
    fn covering_facts(&self, request: &Request<'_>, visit: &mut dyn FnMut(&u32)) {
        let mut found: SmallVec<[u32; 8]> = SmallVec::new();
        for name in &self.names {
            let Some(fact) = request.fact(name).filter(|fact| fact.is_there()) else { continue };
            // A fact can be present without a text, so the entries for any value need a look-up of their own.
            self.each_below(name, &[], |number| found.push(*number));
            fact.values().for_each(|value| self.each_below(name, value, |number| found.push(*number)));
        }
        found.sort_unstable();
        found.dedup();
        found.iter().for_each(visit);
    }

    /// Visits the child for the field with this value, and the child for the field with any value.
    fn each_below(&self, name: &[u8], value: &[u8], mut visit: impl FnMut(&u32)) {
        let Some((field, present)) = self.trie.child(ROOT, name) else { return };
        present.exact.iter().for_each(&mut visit);
        if let Some((_, slot)) = self.trie.child(field, value) {
            slot.exact.iter().for_each(visit);
        }
    }
}

/// The dimensions by which entries can be grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Host,
    Path,
    Header,
    Query,
    Cookie,
    Fact,
    Method,
}

impl Dimension {
    const ALL: [Dimension; 7] = [
        Dimension::Host,
        Dimension::Path,
        Dimension::Header,
        Dimension::Query,
        Dimension::Cookie,
        Dimension::Fact,
        Dimension::Method,
    ];
}

/// One key of a dimension's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum DimensionKey<'e> {
    Host(&'e HostPattern),
    ExactPath(&'e [u8]),
    PathPrefix(&'e [u8]),
    Method(&'e [u8]),
    Value(&'e [u8], &'e [u8]),
    Present(&'e [u8]),
}

/// The keys under which one entry is stored in one dimension. Without a key, the entry goes into [`IndexSplit::rest`].
fn keys<'e>(entry: &'e RequestMatch, dimension: Dimension, load: &Map<DimensionKey<'e>, u32>) -> Vec<DimensionKey<'e>> {
    let conditions = match dimension {
        Dimension::Host => {
            return entry.hostnames.iter().flat_map(|hosts| hosts.patterns()).map(DimensionKey::Host).collect();
        }
        Dimension::Path => return entry.path.iter().filter_map(path_key).collect(),
        Dimension::Method => return entry.method.iter().map(|method| DimensionKey::Method(method)).collect(),
        Dimension::Header => &entry.headers,
        Dimension::Query => &entry.query_params,
        Dimension::Cookie => &entry.cookies,
        Dimension::Fact => &entry.facts,
    };
    // All conditions must hold, so the keys of one condition are enough: those that the fewest entries share.
    let shared = |key: &DimensionKey<'e>| load.get(key).copied().unwrap_or(0);
    conditions
        .iter()
        .map(condition_keys)
        .filter(|keys| !keys.is_empty())
        .min_by_key(|keys| keys.iter().map(shared).max())
        .unwrap_or_default()
}

fn path_key(path: &PathMatch) -> Option<DimensionKey<'_>> {
    match path {
        PathMatch::Exact(path) => Some(DimensionKey::ExactPath(path)),
        PathMatch::Prefix(prefix) => Some(DimensionKey::PathPrefix(prefix)),
        PathMatch::Regex(regex) => {
            // Only whole segments of the literal: `/v[0-9]` begins with `/v`, which is not a whole segment.
            let literal = regex.literal_prefix();
            let end = literal.iter().rposition(|&b| b == b'/')?;
            literal.first().filter(|&&b| b == b'/')?;
            literal.get(..end).map(DimensionKey::PathPrefix)
        }
    }
}

fn condition_keys(condition: &Condition) -> Vec<DimensionKey<'_>> {
    if condition.invert {
        return Vec::new();
    }
    match &condition.text {
        TextMatch::Exact(value) => vec![DimensionKey::Value(&condition.name, value)],
        TextMatch::In(values) => values.iter().map(|value| DimensionKey::Value(&condition.name, value)).collect(),
        _ => vec![DimensionKey::Present(&condition.name)],
    }
}

/// For each key of this dimension, the number of entries with a condition that has the key.
fn load<'e>(entries: &'e [RequestMatch], ranks: &[u32], dimension: Dimension) -> Map<DimensionKey<'e>, u32> {
    let mut load = Map::default();
    let mut count = |key| *load.entry(key).or_default() += 1;
    for entry in ranks.iter().filter_map(|&rank| entries.get(rank as usize)) {
        match dimension {
            Dimension::Header => entry.headers.iter().flat_map(condition_keys).for_each(&mut count),
            Dimension::Query => entry.query_params.iter().flat_map(condition_keys).for_each(&mut count),
            Dimension::Cookie => entry.cookies.iter().flat_map(condition_keys).for_each(&mut count),
            Dimension::Fact => entry.facts.iter().flat_map(condition_keys).for_each(&mut count),
            _ => keys(entry, dimension, &Map::default()).into_iter().for_each(&mut count),
        }
    }
    load
}

/// The expected number of entries to try after a split: those without a key, and those that have the request's key.
fn cost(entries: &[RequestMatch], ranks: &[u32], dimension: Dimension, load: &Map<DimensionKey<'_>, u32>) -> usize {
    let (mut rest, mut widest) = (0, 0);
    for entry in ranks.iter().filter_map(|&rank| entries.get(rank as usize)) {
        match keys(entry, dimension, load).iter().map(|key| load.get(key).copied().unwrap_or(0)).max() {
            None => rest += 1,
            Some(shared) => widest = widest.max(shared as usize),
        }
    }
    rest + widest
}

fn build(entries: &[RequestMatch], ranks: Vec<u32>, dimensions: &[Dimension], budget: &mut usize) -> IndexNode {
    let leaf = |ranks: Vec<u32>| IndexNode::Leaf(ranks.into());
    if ranks.len() <= LEAF {
        return leaf(ranks);
    }
    let choices = dimensions.iter().map(|&dimension| {
        let load = load(entries, &ranks, dimension);
        (cost(entries, &ranks, dimension, &load), dimension, load)
    });
    let Some((cost, dimension, load)) = choices.min_by_key(|(cost, ..)| *cost) else { return leaf(ranks) };
    if cost >= ranks.len() {
        return leaf(ranks);
    }
    let remaining: Vec<Dimension> = dimensions.iter().copied().filter(|&d| d != dimension).collect();
    let min = ranks.first().copied().unwrap_or(u32::MAX);
    let mut rest = Vec::new();
    let mut by = match dimension {
        Dimension::Host => DimensionTable::Host(HostTrie::default()),
        Dimension::Path => DimensionTable::Path(PathTrie::default()),
        Dimension::Method => DimensionTable::Method(Trie::default()),
        Dimension::Header => DimensionTable::Header(FieldTrie::default()),
        Dimension::Query => DimensionTable::Query(FieldTrie::default()),
        Dimension::Cookie => DimensionTable::Cookie(FieldTrie::default()),
        Dimension::Fact => DimensionTable::Fact(FieldTrie::default()),
    };
    let mut below: Vec<Vec<u32>> = Vec::new();
    for &rank in &ranks {
        let Some(entry) = entries.get(rank as usize) else { continue };
        let keys = keys(entry, dimension, &load);
        let Some(left) = budget.checked_sub(keys.len()) else { return leaf(ranks) };
        *budget = left;
        let mut filed = !keys.is_empty();
        for key in keys {
            let next = u32::try_from(below.len()).ok();
            let number = place(&mut by, key).and_then(|place| {
                *place = place.or(next);
                *place
            });
            if number.is_some() && number == next {
                below.push(Vec::new());
            }
            match number.and_then(|number| below.get_mut(number as usize)) {
                Some(bucket) if bucket.last() != Some(&rank) => bucket.push(rank),
                Some(_) => {}
                None => filed = false,
            }
        }
        if !filed {
            rest.push(rank);
        }
    }
    let below = below.into_iter().map(|ranks| build(entries, ranks, &remaining, budget)).collect();
    let rest = build(entries, rest, &remaining, budget);
    IndexNode::Split(Box::new(IndexSplit { min, by, below, rest }))
}

/// The place for the number of `key`'s child. `None` if the key belongs to another dimension.
fn place<'t>(by: &'t mut DimensionTable, key: DimensionKey<'_>) -> Option<&'t mut Option<u32>> {
    match (by, key) {
        (DimensionTable::Host(trie), DimensionKey::Host(pattern)) => trie.entry(pattern),
        (DimensionTable::Path(trie), DimensionKey::ExactPath(path)) => trie.exact(path),
        (DimensionTable::Path(trie), DimensionKey::PathPrefix(prefix)) => trie.prefix(prefix),
        (DimensionTable::Method(trie), DimensionKey::Method(method)) => {
            Some(&mut trie.slot([method].into_iter())?.exact)
        }
        (
            DimensionTable::Header(trie)
            | DimensionTable::Query(trie)
            | DimensionTable::Cookie(trie)
            | DimensionTable::Fact(trie),
            DimensionKey::Value(name, value),
        ) => trie.entry(name, Some(value)),
        (
            DimensionTable::Header(trie)
            | DimensionTable::Query(trie)
            | DimensionTable::Cookie(trie)
            | DimensionTable::Fact(trie),
            DimensionKey::Present(name),
        ) => trie.entry(name, None),
        _ => None,
    }
}
