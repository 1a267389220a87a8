//! Finds the rules that may have requests in common with a rule, by host, path, and the values that headers, parameters
//! and the method must have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use penstock_policy::document::Node;

use super::matching::{Match, PathSet};
use super::table::{Placed, RuleHost};

/// The rules by their hosts.
pub struct PlacedIndex<'p> {
    /// By the letters of the host from the end, so that all hosts below a name stand together.
    by_host: BTreeMap<String, PathIndex<'p>>,
}

/// Rules by the paths of their entries.
#[derive(Default)]
struct PathIndex<'p> {
    /// By a literal path, or the beginning of paths.
    literal: BTreeMap<&'p str, ValueIndex<'p>>,
    /// With any path, or an expression.
    others: ValueIndex<'p>,
}

/// What an entry requires to have one value: the method (`""`), a header or a parameter.
type ValueName = (&'static str, String);

/// Rules by the values that their entries require; those that require values of the same names stand together.
#[derive(Default)]
struct ValueIndex<'p> {
    by_names: BTreeMap<Vec<ValueName>, SameNames<'p>>,
}

/// Rules whose entries require values of the same names.
#[derive(Default)]
struct SameNames<'p> {
    all: Vec<usize>,
    /// For each name, the rules by value.
    by_value: Vec<HashMap<&'p str, Vec<usize>>>,
}

/// The values that an entry requires, by name.
fn values(entry: &Match) -> BTreeMap<ValueName, &str> {
    let text = |node: &'_ Node, field: &str| match node.get(field) {
        Some(Node::String(text)) => Some(text.clone()),
        _ => None,
    };
    let mut found: BTreeMap<ValueName, &str> = BTreeMap::new();
    found.extend(entry.method.as_deref().map(|method| (("method", String::new()), method)));
    for (field, list) in [("header", &entry.headers), ("parameter", &entry.query)] {
        for condition in list.iter().filter(|node| node.get("type").is_none() && node.get("invert").is_none()) {
            if let (Some(name), Some(Node::String(value))) = (text(condition, "name"), condition.get("value")) {
                found.entry((field, name.to_ascii_lowercase())).or_insert(value);
            }
        }
    }
    found
}

impl<'p> ValueIndex<'p> {
    fn add(&mut self, entry: &'p Match, rule: usize) {
        let values = values(entry);
        let same = self.by_names.entry(values.keys().cloned().collect()).or_default();
        same.all.push(rule);
        same.by_value.resize_with(values.len(), HashMap::new);
        for (by_value, value) in same.by_value.iter_mut().zip(values.values()) {
            by_value.entry(value).or_default().push(rule);
        }
    }

    /// Adds the rules that do not require another value of something than `wanted`.
    fn find(&self, wanted: &BTreeMap<ValueName, &str>, found: &mut BTreeSet<usize>) {
        for (names, same) in &self.by_names {
            let of_value = names.iter().zip(&same.by_value).filter_map(|(name, by_value)| {
                wanted.get(name).map(|value| by_value.get(value).map_or(&[][..], Vec::as_slice))
            });
            found.extend(of_value.min_by_key(|rules| rules.len()).unwrap_or(&same.all));
        }
    }
}

/// The letters with which all paths of a set begin; `None`: an expression, or all paths.
fn literal(path: &PathSet) -> Option<&str> {
    match path {
        PathSet::Exact(path) | PathSet::Segments(path) | PathSet::Letters(path) => Some(path),
        PathSet::Any | PathSet::Regex(_) => None,
    }
}

impl<'p> PathIndex<'p> {
    fn add(&mut self, entry: &'p Match, rule: usize) {
        match literal(&entry.path) {
            Some(literal) => self.literal.entry(literal).or_default().add(entry, rule),
            None => self.others.add(entry, rule),
        }
    }

    /// Adds the rules that may have requests in common with `entry`.
    fn find(&self, entry: &Match, found: &mut BTreeSet<usize>) {
        let wanted = values(entry);
        self.others.find(&wanted, found);
        let Some(letters) = literal(&entry.path) else {
            return self.literal.values().for_each(|index| index.find(&wanted, found));
        };
        let beginnings = (0..letters.len()).filter_map(|end| letters.get(..end));
        beginnings.filter_map(|beginning| self.literal.get(beginning)).for_each(|index| index.find(&wanted, found));
        let from = self.literal.range::<str, _>((Bound::Included(letters), Bound::Unbounded));
        from.take_while(|(path, _)| path.starts_with(letters)).for_each(|(_, index)| index.find(&wanted, found));
    }
}

/// The key of a host in the index.
fn from_the_end(host: &RuleHost) -> String {
    match host {
        RuleHost::Exact(name) => name.chars().rev().collect(),
        RuleHost::Star(name) => name.chars().rev().chain(".*".chars()).collect(),
        RuleHost::Any => "*".to_owned(),
    }
}

impl<'p> PlacedIndex<'p> {
    /// Rules by their number.
    pub fn new(placed: &'p [Placed]) -> PlacedIndex<'p> {
        let mut by_host: BTreeMap<String, PathIndex<'_>> = BTreeMap::new();
        for (i, one) in placed.iter().enumerate() {
            for host in &one.hosts {
                let index = by_host.entry(from_the_end(host)).or_default();
                one.rule.matches.iter().for_each(|entry| index.add(entry, i));
            }
        }
        PlacedIndex { by_host }
    }

    /// The rules before number `i` that may have requests in common with it.
    pub fn before(&self, i: usize, mine: &Placed) -> BTreeSet<usize> {
        let mut indexes: BTreeMap<&str, &PathIndex<'_>> = BTreeMap::new();
        for host in &mine.hosts {
            let wider = std::iter::once(host.clone()).chain(host.around()).map(|host| from_the_end(&host));
            indexes
                .extend(wider.filter_map(|key| self.by_host.get_key_value(&key)).map(|(key, index)| (&**key, index)));
            let below = match host {
                RuleHost::Exact(_) => continue,
                RuleHost::Star(name) => format!("{}.", name.chars().rev().collect::<String>()),
                RuleHost::Any => String::new(),
            };
            let from = self.by_host.range::<str, _>((Bound::Included(&*below), Bound::Unbounded));
            indexes.extend(from.take_while(|(key, _)| key.starts_with(&below)).map(|(key, index)| (&**key, index)));
        }
        let mut found = BTreeSet::new();
        for index in indexes.values() {
            mine.rule.matches.iter().for_each(|entry| index.find(entry, &mut found));
        }
        found.split_off(&i);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::matching::{condition, inverted};
    use crate::import::table::{ImportedRule, RuleAction};
    use std::rc::Rc;

    fn placed(entry: Match) -> Placed {
        let rule = ImportedRule { matches: vec![entry], ..ImportedRule::new("r", RuleAction::Leave(String::new())) };
        Placed { hosts: vec![RuleHost::Exact("h.test".to_owned())], rule: Rc::new(rule) }
    }

    fn of(headers: Vec<Node>) -> Placed {
        placed(Match { headers, ..Match::default() })
    }

    #[test]
    fn of_ten_thousand_rules_that_differ_in_one_value_none_is_compared_with_another() {
        let header = |i: usize| condition("x-user", "Exact", &format!("u{i}"));
        let tls = || condition("x-forwarded-proto", "Exact", "https");
        let make: [&dyn Fn(usize) -> Placed; 4] = [
            &|i| of(vec![header(i)]),
            &|i| of(vec![tls(), header(i)]),
            &|i| placed(Match { query: vec![header(i)], method: Some("GET".to_owned()), ..Match::default() }),
            &|i| placed(Match { headers: vec![header(i)], ..Match::path(PathSet::Segments("/api".to_owned())) }),
        ];
        for make in make {
            let all: Vec<Placed> = (0..10_000).map(make).collect();
            let index = PlacedIndex::new(&all);
            let compared: usize = all.iter().enumerate().map(|(i, one)| index.before(i, one).len()).sum();
            assert_eq!(compared, 0);
        }
    }

    #[test]
    fn rules_that_may_have_a_request_in_common_are_found() {
        let header = |name: &str, value: &str| condition(name, "Exact", value);
        let all = [
            of(vec![header("A", "1")]),
            of(vec![header("a", "2")]),
            of(vec![header("b", "1")]),
            of(vec![condition("a", "Present", "")]),
            of(vec![inverted(&header("a", "1"))]),
            of(vec![header("a", "1"), header("b", "2")]),
            of(Vec::new()),
            placed(Match { method: Some("PUT".to_owned()), ..Match::default() }),
            placed(Match { query: vec![header("a", "2")], ..Match::default() }),
            of(vec![header("a", "1"), header("b", "1")]),
        ];
        let before = PlacedIndex::new(&all).before(9, &all[9]);
        assert_eq!(before.into_iter().collect::<Vec<_>>(), [0, 2, 3, 4, 6, 7, 8]);
    }
}
