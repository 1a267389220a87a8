//! Merges the route tables of the sources into one list in which the first matching rule decides.
//!
//! Proxies first choose a virtual host and then never look at another one. In a single list, the rules of the most
//! specific hosts come first, and their unmatched requests must not fall through to rules of less specific hosts. Where
//! they would, the list gets a rule that leads to [`UNROUTED`].

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use penstock_policy::document::Node;
use penstock_policy::matching::HostPattern;

use super::destination::ImportedDestination;
use super::matching::Match;

/// The route for requests that the source answers itself or refuses. No upstream may be reachable by it.
pub const UNROUTED: &str = "unrouted";

/// The hosts of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleHost {
    /// This host.
    Exact(String),
    /// Every host below this name.
    Star(String),
    /// Every host.
    Any,
}

impl RuleHost {
    /// Parses a host of a source; `None` when a policy cannot express it.
    pub fn parse(text: &str) -> Option<RuleHost> {
        let lower = text.to_ascii_lowercase();
        if lower.is_empty() || lower == "*" {
            return Some(RuleHost::Any);
        }
        let pattern = HostPattern::parse(&lower).ok()?;
        let name = pattern.name.to_string();
        Some(if pattern.wildcard { RuleHost::Star(name) } else { RuleHost::Exact(name) })
    }

    /// The host in a policy; `None` for all hosts.
    pub fn pattern(&self) -> Option<String> {
        match self {
            RuleHost::Exact(name) => Some(name.clone()),
            RuleHost::Star(name) => Some(format!("*.{name}")),
            RuleHost::Any => None,
        }
    }

    /// Whether it contains every host of `other`.
    pub fn covers(&self, other: &RuleHost) -> bool {
        let below = |name: &str, parent: &str| name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
        match (self, other) {
            (RuleHost::Any, _) => true,
            (_, RuleHost::Any) | (RuleHost::Exact(_), RuleHost::Star(_)) => false,
            (RuleHost::Exact(a), RuleHost::Exact(b)) => a == b,
            (RuleHost::Star(parent), RuleHost::Exact(name)) => below(name, parent),
            (RuleHost::Star(parent), RuleHost::Star(name)) => parent == name || below(name, parent),
        }
    }

    /// The other patterns that contain all of its hosts.
    pub fn around(&self) -> impl Iterator<Item = RuleHost> {
        let name = match self {
            RuleHost::Exact(name) | RuleHost::Star(name) => name.as_str(),
            RuleHost::Any => "",
        };
        let above = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
        above.map(|above| RuleHost::Star(above.to_owned())).chain((*self != RuleHost::Any).then_some(RuleHost::Any))
    }

    /// Whether both have a host in common.
    pub fn meets(&self, other: &RuleHost) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The intersection, when it is a single pattern.
    pub fn intersection(&self, other: &RuleHost) -> Option<RuleHost> {
        match () {
            () if self.covers(other) => Some(other.clone()),
            () if other.covers(self) => Some(self.clone()),
            () => None,
        }
    }

    /// Orders the most specific first: exact names, then wildcards by length.
    fn width(&self) -> (u8, std::cmp::Reverse<usize>) {
        match self {
            RuleHost::Exact(_) => (0, std::cmp::Reverse(0)),
            RuleHost::Star(name) => (1, std::cmp::Reverse(name.len())),
            RuleHost::Any => (2, std::cmp::Reverse(0)),
        }
    }
}

/// What a rule does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleAction {
    /// Forwards to one of these destinations, by weight.
    Split(WeightedSplit),
    /// Redirects.
    Redirect(Node),
    /// The source answers it itself, or does something that a policy cannot express, for this reason.
    Leave(String),
    /// The rule's conditions cannot be expressed, for this reason, so it never matches.
    Omit(String),
}

/// The destinations of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightedSplit {
    /// The destinations with their weights.
    pub to: Vec<(ImportedDestination, i64)>,
    /// Conditions that choose one of them: `{header: …}` or `{cookie: …}`.
    pub overrides: Vec<((&'static str, Node), ImportedDestination)>,
    /// How the choice sticks.
    pub stickiness: Option<Node>,
}

/// A rule of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedRule {
    /// Its name.
    pub name: String,
    /// The hosts that it is restricted to; empty for all.
    pub only: Vec<RuleHost>,
    /// Its matches, of which one must be true. Never empty.
    pub matches: Vec<Match>,
    /// What it does.
    pub action: RuleAction,
    /// Its other effects.
    pub effects: Vec<(&'static str, Node)>,
    /// The objects that it belongs to, whose limits apply to it.
    pub tags: Vec<String>,
    /// Its place in the source, for the report.
    pub place: String,
}

impl ImportedRule {
    /// A rule for every request.
    pub fn new(name: impl Into<String>, action: RuleAction) -> ImportedRule {
        ImportedRule {
            name: name.into(),
            only: Vec::new(),
            matches: vec![Match::default()],
            action,
            effects: Vec::new(),
            tags: Vec::new(),
            place: String::new(),
        }
    }

    /// The same rule with its place in the source.
    pub fn at(self, place: String) -> ImportedRule {
        ImportedRule { place, ..self }
    }

    /// Whether it matches every request.
    fn is_total(&self) -> bool {
        !matches!(self.action, RuleAction::Omit(_)) && self.only.is_empty() && self.matches.iter().any(Match::is_total)
    }
}

/// A rule at its position in the list.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The hosts that it applies to; never empty.
    pub hosts: Vec<RuleHost>,
    /// The rule.
    pub rule: Rc<ImportedRule>,
}

/// The rules of all sources.
#[derive(Debug, Default)]
pub struct RuleTable {
    hosts: Vec<(RuleHost, Vec<Rc<ImportedRule>>)>,
    /// The position of each host.
    places: HashMap<RuleHost, usize>,
    /// Rules of sources without virtual hosts, in order.
    flat: Vec<Placed>,
}

impl RuleTable {
    /// Appends a rule to those of a host.
    pub fn push(&mut self, host: &RuleHost, rule: Rc<ImportedRule>) {
        let place = *self.places.entry(host.clone()).or_insert(self.hosts.len());
        match self.hosts.get_mut(place) {
            Some((_, rules)) => rules.push(rule),
            None => self.hosts.push((host.clone(), vec![rule])),
        }
    }

    /// Keeps requests to a host from rules of less specific hosts, even when the host has no rule.
    pub fn close(&mut self, host: &RuleHost) {
        if !self.places.contains_key(host) {
            self.places.insert(host.clone(), self.hosts.len());
            self.hosts.push((host.clone(), Vec::new()));
        }
    }

    /// Adds a rule of a source without virtual hosts, after all others.
    pub fn push_flat(&mut self, hosts: Vec<RuleHost>, rule: ImportedRule) {
        self.flat.push(Placed { hosts, rule: Rc::new(rule) });
    }

    /// The tags of all rules with virtual hosts.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().flat_map(|(_, rules)| rules).flat_map(|rule| rule.tags.iter().map(String::as_str))
    }

    /// Whether there are rules with and without virtual hosts.
    pub fn is_mixed(&self) -> bool {
        !self.hosts.is_empty() && !self.flat.is_empty()
    }

    /// All rules in the order in which they are evaluated.
    pub fn order(mut self) -> Vec<Placed> {
        // Adjacent hosts with equal rules share one rule.
        let mut firsts: HashMap<*const ImportedRule, usize> = HashMap::new();
        for (i, rule) in self.hosts.iter().filter_map(|(_, rules)| rules.first()).enumerate() {
            firsts.entry(Rc::as_ptr(rule)).or_insert(i);
        }
        let first = |rules: &[Rc<ImportedRule>]| rules.first().and_then(|rule| firsts.get(&Rc::as_ptr(rule)).copied());
        self.hosts.sort_by_cached_key(|(host, rules)| (host.width(), first(rules)));
        let mut groups: Vec<(Vec<RuleHost>, Vec<Rc<ImportedRule>>)> = Vec::new();
        for (host, rules) in self.hosts {
            let same = |(hosts, known): &(Vec<RuleHost>, Vec<Rc<ImportedRule>>)| {
                hosts.first().is_some_and(|known| known.width() == host.width())
                    && known.len() == rules.len()
                    && known.iter().zip(&rules).all(|(a, b)| Rc::ptr_eq(a, b))
            };
            match groups.last_mut().filter(|group| same(group)) {
                Some((hosts, _)) => hosts.push(host),
                None => groups.push((vec![host], rules)),
            }
        }
        let acts = |rule: &Rc<ImportedRule>| matches!(rule.action, RuleAction::Split(_) | RuleAction::Redirect(_));
        let flat_acts = self.flat.iter().any(|flat| acts(&flat.rule));
        // For each group, whether a later group with less specific hosts would take some of its requests.
        let mut later: HashSet<&RuleHost> = HashSet::new();
        let mut have_wider: Vec<bool> = Vec::with_capacity(groups.len());
        for (hosts, rules) in groups.iter().rev() {
            have_wider.push(flat_acts || hosts.iter().any(|host| host.around().any(|around| later.contains(&around))));
            if rules.iter().any(acts) {
                later.extend(hosts);
            }
        }
        let mut placed = Vec::new();
        for ((hosts, rules), wider) in groups.iter().zip(have_wider.into_iter().rev()) {
            let mut is_closed = false;
            for rule in rules {
                if is_closed {
                    break;
                }
                is_closed = rule.is_total();
                let within = |only: &&RuleHost| hosts.iter().any(|host| host.covers(only));
                let hosts = match rule.only.as_slice() {
                    [] => hosts.clone(),
                    only => only.iter().filter(within).cloned().collect(),
                };
                if !hosts.is_empty() {
                    placed.push(Placed { hosts, rule: rule.clone() });
                }
            }
            if !is_closed && wider {
                let name = hosts.first().and_then(RuleHost::pattern).unwrap_or_else(|| "any-host".to_owned());
                let why =
                    "the source has no rule for other requests to this host, and does not use the rules of other hosts";
                let rest =
                    ImportedRule::new(format!("{}-rest", name.replace("*.", "")), RuleAction::Leave(why.to_owned()));
                placed.push(Placed { hosts: hosts.clone(), rule: Rc::new(rest) });
            }
        }
        placed.extend(self.flat);
        placed
    }
}
