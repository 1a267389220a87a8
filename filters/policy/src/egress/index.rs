//! Rules by destination: one look-up finds the rules that could allow a request, however many there are.

use std::net::IpAddr;

use super::authority::UriHost;
use super::callers::Callers;
use super::document::{Destination, DestinationTarget, EgressRuleDocument};
use super::embedded::embedded_ipv4;
use super::facts::Facts;
use crate::cidr::CidrMap;
use crate::environment::Environment;
use crate::matching::HostTrie;
use crate::reason::Reason;

/// Destinations by name and by address.
#[derive(Debug)]
pub(super) struct Destinations {
    names: HostTrie<DestinationEntries>,
    addresses: CidrMap<DestinationEntries>,
}

/// All destinations with one pattern or range.
#[derive(Debug)]
pub(super) struct DestinationEntries {
    /// In the order of their rules.
    entries: Box<[DestinationEntry]>,
    /// Whether any of the rules has `paths`.
    pub has_paths: bool,
    /// The same entries by caller, when they are many.
    callers: Option<Box<Callers>>,
}

impl DestinationEntries {
    /// Calls `ask` with every entry that the caller could use, until it returns that the following entries, later in
    /// the document, need not be evaluated. Returns why the other entries do not allow the request, if there are any.
    pub fn evaluate_each<'b, E: Environment>(
        &'b self,
        facts: &mut Facts<'_, E>,
        mut ask: impl FnMut(&'b DestinationEntry, &mut Facts<'_, E>) -> bool,
    ) -> Option<Reason> {
        let Some(callers) = &self.callers else {
            let _ = self.entries.iter().all(|entry| ask(entry, facts));
            return None;
        };
        let _ = callers.open().iter().filter_map(|&at| self.entries.get(at as usize)).all(|entry| ask(entry, facts));
        if !callers.have_port(|| facts.port()) {
            return Some(Reason::PortNotAllowed);
        }
        let Some(caller) = facts.caller() else { return Some(Reason::CallerUnknown) };
        for numbers in callers.find(caller) {
            let _ = numbers.iter().filter_map(|&at| self.entries.get(at as usize)).all(|entry| ask(entry, facts));
        }
        Some(Reason::CallerNotAllowed)
    }
}

/// One destination of one rule.
#[derive(Clone, Debug)]
pub(super) struct DestinationEntry {
    /// The number of the rule; for `deny` of the entry.
    pub rule: u32,
    ports: Option<Box<[u16]>>,
}

impl DestinationEntry {
    /// Whether `port` is one of the destination's ports; evaluated only when some are listed. An unknown port is none
    /// of them.
    pub fn has_port(&self, port: impl FnOnce() -> Option<u16>) -> bool {
        self.ports.as_deref().is_none_or(|ports| port().is_some_and(|port| ports.contains(&port)))
    }
}

impl Destinations {
    /// Indexes `destinations`, each with the number of its rule, in ascending order; `rule` gives the rule.
    pub fn new<'d>(
        destinations: impl Iterator<Item = (u32, &'d Destination)>,
        rule: impl Fn(u32) -> Option<&'d EgressRuleDocument>,
    ) -> Destinations {
        let mut names: HostTrie<Vec<DestinationEntry>> = HostTrie::default();
        let mut addresses: CidrMap<Vec<DestinationEntry>> = CidrMap::default();
        for (number, destination) in destinations {
            let ports = destination.ports.as_ref().map(|ports| {
                // The document's type says 1–65535.
                ports.0.iter().filter_map(|port| u16::try_from(port.0).ok()).collect()
            });
            let entry = DestinationEntry { rule: number, ports };
            match &destination.target {
                DestinationTarget::Host(host) => {
                    if let Some(bucket) = names.entry(&host.0) {
                        bucket.get_or_insert_default().push(entry);
                    }
                }
                DestinationTarget::Cidr(range) => addresses.entry(*range).push(entry),
            }
        }
        let bucket = |entries: Vec<DestinationEntry>| DestinationEntries {
            has_paths: entries.iter().any(|entry| rule(entry.rule).is_some_and(|rule| rule.paths.is_some())),
            callers: Callers::new(
                entries
                    .iter()
                    .map(|entry| (rule(entry.rule).and_then(EgressRuleDocument::callers), entry.ports.as_deref())),
            ),
            entries: entries.into(),
        };
        Destinations { names: names.map(bucket), addresses: addresses.map(bucket) }
    }

    /// Calls `each` with the entries of every pattern or range that covers `host`, widest first.
    pub fn covering<'t>(&'t self, host: &UriHost<'_>, visit: impl FnMut(&'t DestinationEntries)) {
        match host {
            UriHost::Name(name) => self.names.covering(name, visit),
            UriHost::Address(address) => self.addresses.covering(*address, visit),
        }
    }

    /// Whether any destination covers `host` and `port`, as `deny` evaluates it. What is unknown counts as covered:
    /// without a port every port, because the next hop chooses it, and the IPv4 addresses inside an IPv6 address.
    pub fn denies(&self, host: &UriHost<'_>, port: Option<u16>) -> bool {
        let mut found = false;
        self.each_denying(host, port, |_| found = true);
        found
    }

    /// Calls `each` with every entry that [`Destinations::denies`] means.
    pub fn each_denying(&self, host: &UriHost<'_>, port: Option<u16>, mut each: impl FnMut(&DestinationEntry)) {
        let covers = |entry: &&DestinationEntry| {
            entry.ports.as_deref().is_none_or(|ports| port.is_none_or(|port| ports.contains(&port)))
        };
        let mut visit = |bucket: &DestinationEntries| bucket.entries.iter().filter(covers).for_each(&mut each);
        self.covering(host, &mut visit);
        if let UriHost::Address(IpAddr::V6(address)) = host {
            for inside in embedded_ipv4(*address) {
                self.addresses.covering(IpAddr::V4(inside), &mut visit);
            }
        }
    }
}
