//! Everything that the log contains, by caller and destination.
//!
//! Memory grows with the number of different requests, not with the length of the log, and is bounded: generated names,
//! as in tunnels through DNS, cannot exhaust it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use penstock_policy::document::{At, Context, Decode, Node};
use penstock_policy::egress::CallerPattern;

use super::evidence::{Evidence, EvidenceThresholds, Sighting};
use super::observe::{Observation, ObservedPort, RequestWay};
use super::tree::Tree;

/// The maximum number of distinct pairs of caller and destination.
const MOST_CELLS: usize = 200_000;

/// The maximum number of distinct methods and upgrades.
const MOST_WAYS: usize = 200;

/// The maximum number of distinct names below one parent.
const MOST_BELOW: u32 = 10_000;

/// Interned strings, by number.
#[derive(Debug, Default)]
struct TextTable {
    numbers: HashMap<Rc<str>, u32>,
    texts: Vec<Rc<str>>,
}

impl TextTable {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Rc<str> = text.into();
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    fn text(&self, number: u32) -> Rc<str> {
        self.texts.get(number as usize).cloned().unwrap_or_else(|| "".into())
    }
}

/// The requests of one caller to one destination, by their form.
#[derive(Debug, Default)]
pub struct CallerCell {
    /// Whether the host is an IP address.
    pub is_address: bool,
    /// The paths by the number of the form.
    pub ways: BTreeMap<u32, Box<Tree>>,
}

impl CallerCell {
    fn tree(&mut self, way: u32) -> &mut Tree {
        self.ways.entry(way).or_default()
    }
}

/// Caller, host and port.
type Key = (u32, u32, ObservedPort);

/// The log so far.
#[derive(Debug, Default)]
pub struct Cells {
    cells: HashMap<Key, CallerCell>,
    callers: TextTable,
    hosts: TextTable,
    ways: Vec<RequestWay>,
    /// The number of distinct names below each parent.
    below: HashMap<Box<str>, u32>,
    /// Requests beyond the bound on names, by parent.
    pub overflow: BTreeMap<String, Evidence>,
}

/// Caller (`None` when unknown), host and port.
pub type Place = (Option<Rc<str>>, Rc<str>, u16);

/// Everything in a fixed order, with resolved ports.
#[derive(Debug)]
pub struct SeenTraffic {
    /// The requests by caller and destination.
    pub cells: BTreeMap<Place, CallerCell>,
    /// The forms by number.
    pub ways: Vec<RequestWay>,
    /// Whether the port of some authorities was unknown, so that 443 was assumed.
    pub is_port_assumed: bool,
    /// Requests beyond the bound on names, by parent.
    pub overflow: BTreeMap<String, Evidence>,
}

impl Cells {
    /// Adds a request.
    pub fn add(&mut self, seen: &Observation<'_>, sighting: &Sighting, thresholds: EvidenceThresholds) {
        let caller = seen.caller.map_or(0, |caller| self.callers.number(caller) + 1);
        if !self.hosts.numbers.contains_key(&*seen.host) && !self.has_room(&seen.host, seen.is_address) {
            let parent = parent(&seen.host, seen.is_address).unwrap_or("others").to_owned();
            return self.overflow.entry(parent).or_default().add(sighting, thresholds);
        }
        let host = self.hosts.number(&seen.host);
        let way = match self.ways.iter().position(|way| *way == seen.way) {
            Some(way) => way,
            None if self.ways.len() >= MOST_WAYS => {
                return self.overflow.entry("others".to_owned()).or_default().add(sighting, thresholds);
            }
            None => {
                self.ways.push(seen.way.clone());
                self.ways.len() - 1
            }
        };
        let is_full = self.cells.len() >= MOST_CELLS;
        let key = (caller, host, seen.port);
        if is_full && !self.cells.contains_key(&key) {
            return self.overflow.entry("others".to_owned()).or_default().add(sighting, thresholds);
        }
        let cell = self.cells.entry(key).or_default();
        cell.is_address = seen.is_address;
        cell.tree(u32::try_from(way).unwrap_or(u32::MAX)).add(&seen.path, sighting, thresholds);
    }

    /// Whether another name below its parent is within the bound.
    fn has_room(&mut self, host: &str, is_address: bool) -> bool {
        let Some(parent) = parent(host, is_address) else { return self.hosts.texts.len() < MOST_CELLS };
        if self.hosts.texts.len() >= MOST_CELLS {
            return false;
        }
        let known = self.below.entry(parent.into()).or_default();
        *known += 1;
        *known <= MOST_BELOW
    }

    /// Sorts everything. `default_port` is the policy's port for authorities without one.
    pub fn finish(self, default_port: Option<u16>, thresholds: EvidenceThresholds) -> SeenTraffic {
        let Cells { cells, callers, hosts, ways, overflow, .. } = self;
        let is_port_assumed = default_port.is_none() && cells.keys().any(|(_, _, port)| *port == ObservedPort::Unknown);
        let number = |port: ObservedPort| match port {
            ObservedPort::Number(port) => port,
            ObservedPort::Plain if !is_port_assumed => 80,
            ObservedPort::Tls | ObservedPort::Plain | ObservedPort::Unknown => 443,
        };
        let mut ordered: BTreeMap<_, CallerCell> = BTreeMap::new();
        let mut keys: Vec<Key> = cells.keys().copied().collect();
        keys.sort_unstable();
        let mut cells = cells;
        for key in keys {
            let Some(cell) = cells.remove(&key) else { continue };
            let (caller, host, port) = key;
            let caller = caller.checked_sub(1).map(|caller| callers.text(caller));
            let place = ordered.entry((caller, hosts.text(host), number(port))).or_default();
            place.is_address = cell.is_address;
            for (way, tree) in cell.ways {
                place.tree(way).absorb(*tree, thresholds);
            }
        }
        SeenTraffic { cells: ordered, ways, is_port_assumed, overflow }
    }
}

/// The parent of a host name; none for addresses and single labels.
pub fn parent(host: &str, is_address: bool) -> Option<&str> {
    host.split_once('.').map(|(_, parent)| parent).filter(|_| !is_address)
}

/// Whether a rule can express this caller exactly.
pub fn is_nameable(caller: &str) -> bool {
    let node = Node::String(caller.to_owned());
    let pattern = CallerPattern::decode(&node, &At::Root, &mut Context::new(String::new(), 1));
    pattern.is_some_and(|pattern| !pattern.has_star())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_identities_and_no_patterns() {
        assert!(is_nameable("spiffe://cluster.local/ns/a/sa/b"));
        for caller in ["spiffe://cluster.local/ns/*/sa/b", "a b", "", "*", "checkout"] {
            assert!(!is_nameable(caller), "{caller}");
        }
    }
}
