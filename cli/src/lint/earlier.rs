//! Indexes entries of `matches` by their conditions, so that not every pair must be compared.

use std::collections::HashMap;

use penstock_policy::matching::{Condition, PathMatch, RequestMatch, TextMatch};

use super::effort::Effort;
use super::shadow::path_and_above;
use crate::cover::entry_covers;

/// A condition in the form in which it is looked up. An entry only covers entries with the same or a narrower
/// condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asks<'e> {
    Path(&'e [u8]),
    Header(&'e [u8], &'e [u8]),
    Cookie(&'e [u8], &'e [u8]),
    QueryParam(&'e [u8], &'e [u8]),
    Fact(&'e [u8], &'e [u8]),
    Method(&'e [u8]),
    Host(&'e str),
    /// No condition that is looked up.
    Other,
}

/// The entries that take precedence over another one.
#[derive(Debug, Default)]
pub struct EarlierEntries<'e> {
    entries: Vec<&'e RequestMatch>,
    by: HashMap<Asks<'e>, Vec<usize>>,
}

impl<'e> EarlierEntries<'e> {
    /// Adds the next entry.
    pub fn add(&mut self, entry: &'e RequestMatch) {
        for asks in one_of(entry) {
            self.by.entry(asks).or_default().push(self.entries.len());
        }
        self.entries.push(entry);
    }

    /// The number of the first entry that covers `entry`.
    pub fn covering(&self, entry: &RequestMatch, effort: &mut Effort) -> Option<usize> {
        let mut covers = |at: usize| {
            self.entries.get(at).is_some_and(|wide| effort.spend(pairs(wide, entry)) && entry_covers(wide, entry))
        };
        let lists = all_of(entry).into_iter().filter_map(|asks| self.by.get(&asks));
        lists.filter_map(|list| list.iter().copied().find(|at| covers(*at))).min()
    }
}

type Make<'e> = fn(&'e [u8], &'e [u8]) -> Asks<'e>;

/// The conditions of an entry, each list with the function that makes its lookup keys.
fn conditions(entry: &RequestMatch) -> [(&[Condition], Make<'_>); 4] {
    [
        (&entry.headers, Asks::Header),
        (&entry.cookies, Asks::Cookie),
        (&entry.query_params, Asks::QueryParam),
        (&entry.facts, Asks::Fact),
    ]
}

/// The values of a condition that lists its values.
fn values(condition: &Condition) -> Vec<&[u8]> {
    match &condition.text {
        _ if condition.invert => Vec::new(),
        TextMatch::Exact(value) => vec![value],
        TextMatch::In(values) => values.iter().collect(),
        _ => Vec::new(),
    }
}

fn literal(entry: &RequestMatch) -> Option<&[u8]> {
    match &entry.path {
        Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => Some(path),
        _ => None,
    }
}

/// One condition of the entry, as all its lookup keys: an entry that it covers has one of them.
fn one_of(entry: &RequestMatch) -> Vec<Asks<'_>> {
    /// The maximum number of lookup keys of an entry.
    const MOST: usize = 64;
    if let Some(path) = literal(entry) {
        return vec![Asks::Path(path)];
    }
    for (list, make) in conditions(entry) {
        for condition in list {
            let values = values(condition);
            if (1..=MOST).contains(&values.len()) {
                return values.into_iter().map(|value| make(&condition.name, value)).collect();
            }
        }
    }
    if let Some(method) = &entry.method {
        return vec![Asks::Method(method)];
    }
    match entry.hostnames.as_ref().map(|hosts| hosts.patterns()) {
        Some(patterns) if patterns.len() <= MOST => patterns.iter().map(|pattern| Asks::Host(&pattern.name)).collect(),
        _ => vec![Asks::Other],
    }
}

/// All keys under which an entry that covers this one may be found.
fn all_of(entry: &RequestMatch) -> Vec<Asks<'_>> {
    let mut all = vec![Asks::Other];
    if let Some(path) = literal(entry) {
        all.extend(path_and_above(path).map(Asks::Path));
    }
    for (list, make) in conditions(entry) {
        // Each of several values is covered, so looking up one is enough.
        all.extend(list.iter().filter_map(|condition| Some(make(&condition.name, values(condition).first()?))));
    }
    all.extend(entry.method.as_deref().map(Asks::Method));
    if let Some(pattern) = entry.hostnames.as_ref().and_then(|hosts| hosts.patterns().first()) {
        let name: &str = &pattern.name;
        let above = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
        all.extend(std::iter::once(name).chain(above).map(Asks::Host));
    }
    all
}

/// The number of comparisons needed to decide whether one entry covers another.
fn pairs(wide: &RequestMatch, narrow: &RequestMatch) -> usize {
    let hosts = |entry: &RequestMatch| entry.hostnames.as_ref().map_or(0, |hosts| hosts.patterns().len());
    let lists = conditions(wide).into_iter().zip(conditions(narrow));
    hosts(wide) * hosts(narrow) + lists.map(|((wide, _), (narrow, _))| wide.len() * narrow.len()).sum::<usize>()
}
