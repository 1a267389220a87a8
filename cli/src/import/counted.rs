//! Determines the requests of a limit that is attached to an object: those that the object's rules take, and that no
//! earlier rule takes.

use std::collections::{BTreeSet, HashMap, HashSet};

use penstock_policy::document::Node;

use super::matching::{Match, PathSet, excludes, inverted};
use super::paths::{self, PathRemainder};
use super::placed_index::PlacedIndex;
use super::table::{ImportedRule, Placed, RuleAction, RuleHost};

/// A limit for the requests of the rules of some objects, which are counted together.
#[derive(Debug)]
pub struct TaggedLimit {
    /// The objects. Never empty.
    pub tags: Vec<String>,
    /// Rules of the objects that have their own limits.
    pub except: Vec<String>,
    /// Additional matches of which one must be true. Never empty.
    pub also: Vec<Match>,
    /// The limit without its `matches`.
    pub limit: Vec<(&'static str, Node)>,
    /// Its place in the source.
    pub place: String,
}

/// All rules in their order, indexed for the questions that limits need answered.
pub struct PlacedRules<'p> {
    placed: &'p [Placed],
    by_tag: HashMap<&'p str, Vec<usize>>,
    index: PlacedIndex<'p>,
}

impl<'p> PlacedRules<'p> {
    /// Rules in the order in which they are evaluated.
    pub fn new(placed: &'p [Placed]) -> PlacedRules<'p> {
        let mut by_tag: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, one) in placed.iter().enumerate() {
            one.rule.tags.iter().for_each(|tag| by_tag.entry(tag).or_default().push(i));
        }
        PlacedRules { placed, by_tag, index: PlacedIndex::new(placed) }
    }

    /// The `matches` of a limit; an empty list matches every request.
    pub fn matches(&self, limit: &TaggedLimit) -> Result<Vec<Node>, String> {
        let all: Result<Vec<Option<Vec<Node>>>, String> =
            limit.also.iter().map(|also| self.requests_of(limit, also)).collect();
        let lists: Vec<Vec<Node>> = all?.into_iter().flatten().collect();
        match () {
            () if lists.is_empty() => Err("it limits none of the rules".to_owned()),
            () if lists.iter().any(Vec::is_empty) => Ok(Vec::new()),
            () => Ok(lists.concat()),
        }
    }

    /// The entries of `matches` for the requests that a limit counts (an empty list for all requests, `None` for no
    /// request), restricted to those for which `also` is true. An error says why they cannot be expressed.
    fn requests_of(&self, limit: &TaggedLimit, also: &Match) -> Result<Option<Vec<Node>>, String> {
        let placed = self.placed;
        let is_mine = |rule: &ImportedRule| {
            rule.tags.iter().any(|tag| limit.tags.contains(tag))
                && !rule.tags.iter().any(|tag| limit.except.contains(tag))
        };
        let (mut entries, mut known) = (Vec::new(), HashSet::new());
        let of_tags = limit.tags.iter().filter_map(|tag| self.by_tag.get(tag.as_str()));
        for i in of_tags.flatten().copied().collect::<BTreeSet<usize>>() {
            let Some(mine) = placed.get(i).filter(|mine| is_mine(&mine.rule)) else { continue };
            let before = self.index.before(i, mine);
            if let RuleAction::Omit(why) = &mine.rule.action {
                return Err(format!("it is unclear when its rule {} matches ({why})", mine.rule.name));
            }
            for entry in &mine.rule.matches {
                let mut entry = entry.clone();
                let mut excluded = Vec::new();
                let mut is_empty = false;
                let mut conditional = Vec::new();
                let others = before.iter().filter_map(|&k| placed.get(k));
                for earlier in others.filter(|earlier| !is_mine(&earlier.rule)) {
                    let meets = mine.hosts.iter().any(|host| earlier.hosts.iter().any(|other| other.meets(host)));
                    if !meets {
                        continue;
                    }
                    let all = mine.hosts.iter().all(|host| earlier.hosts.iter().any(|other| other.covers(host)));
                    let is_known = !matches!(earlier.rule.action, RuleAction::Omit(_));
                    for other in &earlier.rule.matches {
                        let other_method =
                            other.method.as_ref().filter(|method| entry.method.as_ref() != Some(*method));
                        let is_other_method = entry.method.is_some() && other_method.is_some();
                        let contradicts = [(&other.headers, &entry.headers), (&other.query, &entry.query)]
                            .iter()
                            .any(|(a, b)| a.iter().any(|a| b.iter().any(|b| excludes(a, b))));
                        if is_other_method || contradicts || paths::are_disjoint(&other.path, &entry.path) {
                            continue;
                        }
                        let is_whole = all && is_known && other_method.is_none();
                        if is_whole && other.headers.is_empty() && other.query.is_empty() && other.claims.is_empty() {
                            is_empty |= paths::covers(&other.path, &entry.path);
                            excluded.push(other.path.clone());
                        } else {
                            conditional.push((earlier, other, is_whole));
                        }
                    }
                }
                // For paths that another rule takes in any case, the choice does not matter.
                conditional.retain(|(_, other, _)| !excluded.iter().any(|path| paths::covers(path, &other.path)));
                for (earlier, other, is_whole) in conditional {
                    let is_whole = is_whole && paths::covers(&other.path, &entry.path);
                    let (list, condition) = match (&*other.headers, &*other.query, &*other.claims) {
                        ([condition], [], []) if is_whole => (&mut entry.headers, condition),
                        ([], [condition], []) if is_whole => (&mut entry.query, condition),
                        ([], [], [condition]) if is_whole => (&mut entry.claims, condition),
                        _ => return Err(format!("some of its requests match rule {}", earlier.rule.name)),
                    };
                    let inverted = inverted(condition);
                    if !list.contains(&inverted) {
                        list.push(inverted);
                    }
                }
                entry.headers.extend(also.headers.iter().cloned());
                entry.query.extend(also.query.iter().cloned());
                match (&entry.method, &also.method) {
                    (Some(own), Some(method)) if own != method => is_empty = true,
                    (None, Some(method)) => entry.method = Some(method.clone()),
                    _ => {}
                }
                match paths::without(&entry.path, &excluded) {
                    PathRemainder::Nothing => is_empty = true,
                    PathRemainder::Paths(rest) => entry.path = rest,
                    PathRemainder::Unknown => {
                        return Err("its paths and those of other rules are regular expressions".to_owned());
                    }
                }
                if also.path != entry.path && also.path != PathSet::Any {
                    entry.path = match () {
                        () if paths::covers(&entry.path, &also.path) => also.path.clone(),
                        () if paths::covers(&also.path, &entry.path) => entry.path,
                        () if paths::are_disjoint(&also.path, &entry.path) => {
                            is_empty = true;
                            entry.path
                        }
                        () => return Err("it is unclear which paths both match".to_owned()),
                    };
                }
                if is_empty {
                    continue;
                }
                let hosts: Vec<String> = mine.hosts.iter().filter_map(RuleHost::pattern).collect();
                // A wildcard for all hosts makes the other hosts redundant.
                let hosts = if mine.hosts.contains(&RuleHost::Any) { Vec::new() } else { hosts };
                match entry.node(&hosts) {
                    Some(node) if !known.insert(format!("{node:?}")) => {}
                    Some(node) => entries.push(node),
                    None => return Ok(Some(Vec::new())),
                }
            }
        }
        Ok((!entries.is_empty()).then_some(entries))
    }
}
