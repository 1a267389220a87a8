//! Finds egress rules that a wider rule makes redundant.

use std::collections::HashMap;

use penstock_policy::egress::{Cidr, Destination, DestinationTarget, EgressRuleDocument};
use penstock_policy::matching::PathMatch;

use super::effort::Effort;
use crate::cover::{items, rule_covers};

/// Indexes destinations by host, so that not every pair must be compared.
pub struct ByDestination<'d> {
    by_name: HashMap<&'d str, Vec<usize>>,
    by_range: HashMap<Cidr, Vec<usize>>,
    lengths: Vec<u8>,
}

impl<'d> ByDestination<'d> {
    /// For these destinations, numbered in order.
    pub fn new(destinations: impl Iterator<Item = &'d Destination>) -> ByDestination<'d> {
        let mut index = ByDestination { by_name: HashMap::new(), by_range: HashMap::new(), lengths: Vec::new() };
        for (i, to) in destinations.enumerate() {
            index.add(i, to);
        }
        index
    }

    fn add(&mut self, number: usize, to: &'d Destination) {
        match &to.target {
            DestinationTarget::Host(host) => self.by_name.entry(&*host.0.name).or_default().push(number),
            DestinationTarget::Cidr(range) => {
                self.by_range.entry(*range).or_default().push(number);
                if !self.lengths.contains(&range.length) {
                    self.lengths.push(range.length);
                }
            }
        }
    }

    /// Lists of all destinations that may cover `to`, each in order.
    pub fn candidates(&self, to: &Destination) -> Vec<&[usize]> {
        let mut found: Vec<&[usize]> = Vec::new();
        match &to.target {
            DestinationTarget::Host(host) => {
                let name: &str = &host.0.name;
                let above = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
                found
                    .extend(std::iter::once(name).chain(above).filter_map(|name| self.by_name.get(name)).map(|v| &**v));
            }
            DestinationTarget::Cidr(range) => {
                let wider = self.lengths.iter().filter_map(|&length| range.widened(length));
                found.extend(wider.filter_map(|range| self.by_range.get(&range)).map(|v| &**v));
            }
        }
        found
    }
}

/// The literal of a path match, without a slash at its end.
fn literal(path: &PathMatch) -> Option<&[u8]> {
    match path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => Some(path),
        PathMatch::Regex(_) => None,
    }
}

/// A literal and its prefixes of whole segments, the longest first; for a very long literal only itself and `/`.
pub fn path_and_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    const LONGEST: usize = 4096;
    let above = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let above = above.filter(move |at| path.len() <= LONGEST || *at == 0);
    std::iter::once(path).chain(above.filter_map(|at| path.get(..at)))
}

/// Indexes rules by their paths and destinations.
pub struct Wider<'r> {
    /// Rules without paths, with expressions, or with a large number of paths.
    any_path: ByDestination<'r>,
    by_path: HashMap<&'r [u8], ByDestination<'r>>,
    rules: &'r [EgressRuleDocument],
}

impl<'r> Wider<'r> {
    /// For the rules of a policy.
    pub fn new(rules: &'r [EgressRuleDocument]) -> Wider<'r> {
        /// The maximum number of index entries of a rule.
        const MOST: usize = 64;
        let mut wider = Wider { any_path: ByDestination::new(std::iter::empty()), by_path: HashMap::new(), rules };
        for (i, rule) in rules.iter().enumerate() {
            let paths: Option<Vec<&[u8]>> =
                items(&rule.paths).and_then(|paths| paths.iter().map(|p| literal(&p.0)).collect());
            match paths.filter(|paths| paths.len() * rule.to.0.len() <= MOST) {
                Some(paths) => {
                    for path in paths {
                        let index = wider.by_path.entry(path).or_insert_with(|| ByDestination::new(std::iter::empty()));
                        rule.to.0.iter().for_each(|to| index.add(i, to));
                    }
                }
                None => rule.to.0.iter().for_each(|to| wider.any_path.add(i, to)),
            }
        }
        wider
    }

    /// The first rule that covers rule `i`; if two allow the same, the earlier one counts.
    pub fn of(&self, i: usize, effort: &mut Effort) -> Option<&'r EgressRuleDocument> {
        let rule = self.rules.get(i)?;
        let to = rule.to.0.first()?;
        let mut candidates = self.any_path.candidates(to);
        if let Some(path) = items(&rule.paths).and_then(|paths| literal(&paths.first()?.0)) {
            let above = path_and_above(path).filter_map(|path| self.by_path.get(path));
            candidates.extend(above.flat_map(|index| index.candidates(to)));
        }
        let mut shadows = |other: usize| {
            let Some(wide) = self.rules.get(other).filter(|_| other != i) else { return false };
            effort.spend(pairs(wide, rule)) && rule_covers(wide, rule) && (other < i || !rule_covers(rule, wide))
        };
        let firsts = candidates.into_iter().filter_map(|list| list.iter().copied().find(|other| shadows(*other)));
        self.rules.get(firsts.min()?)
    }
}

/// The number of comparisons needed to decide whether one rule covers another.
fn pairs(wide: &EgressRuleDocument, narrow: &EgressRuleDocument) -> usize {
    fn product<T, U>(wide: Option<&[T]>, narrow: Option<&[U]>) -> usize {
        wide.map_or(0, <[T]>::len) * narrow.map_or(0, <[U]>::len)
    }
    wide.to.0.len() * narrow.to.0.len()
        + product(items(&wide.from), items(&narrow.from))
        + product(items(&wide.methods), items(&narrow.methods))
        + product(items(&wide.paths), items(&narrow.paths))
        + wide.upgrades.len() * narrow.upgrades.len()
}
