//! One of the two policies, indexed by destination.

use std::collections::BTreeMap;
use std::net::IpAddr;

use penstock_policy::document::Node;
use penstock_policy::egress::{
    CidrMap, Destination, DestinationTarget, EgressDocument, EgressRuleDocument, Mode, embedded_ipv4,
};
use penstock_policy::matching::HostTrie;

use super::hosts::Point;
use crate::cover::items;
use crate::documents::named;

/// A policy's `egress`, indexed.
pub struct EgressSide<'d> {
    /// What happens to a request that no rule allows.
    pub mode: Mode,
    /// Whether the server name must be the host.
    pub verify_sni: bool,
    /// The parsed section.
    pub document: &'d EgressDocument,
    default_port: Option<u16>,
    allow: SideDestinations<'d>,
    deny: SideDestinations<'d>,
    /// By rule: conditions that this comparison does not understand.
    conditions: BTreeMap<&'d str, Vec<(&'d str, &'d Node)>>,
}

/// The fields of a rule that this comparison understands, or that do not affect decisions.
const UNDERSTOOD: [&str; 11] =
    ["name", "owner", "reason", "from", "to", "methods", "paths", "connect", "upgrades", "notBefore", "expires"];

/// Destinations by host, each with the number of its rule.
#[derive(Default)]
struct SideDestinations<'d> {
    names: HostTrie<Vec<(usize, &'d Destination)>>,
    addresses: CidrMap<Vec<(usize, &'d Destination)>>,
}

impl<'d> SideDestinations<'d> {
    fn add(&mut self, number: usize, to: &'d Destination) {
        match &to.target {
            DestinationTarget::Host(host) => {
                if let Some(entry) = self.names.entry(&host.0) {
                    entry.get_or_insert_default().push((number, to));
                }
            }
            DestinationTarget::Cidr(range) => self.addresses.entry(*range).push((number, to)),
        }
    }

    fn covering(&self, point: &Point) -> Vec<(usize, &'d Destination)> {
        let mut found = Vec::new();
        match point {
            Point::Name(name) => self.names.covering(name.as_bytes(), |entries| found.extend_from_slice(entries)),
            Point::Address(address) => self.addresses.covering(*address, |entries| found.extend_from_slice(entries)),
        }
        found
    }
}

/// The port of a request's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPort {
    /// The authority contains it.
    Given(u16),
    /// The authority does not contain it, on a connection with or without TLS.
    Absent {
        /// With TLS.
        tls: bool,
    },
}

/// The part of a policy for one host and port.
pub struct HostRules<'d> {
    /// The rules with such a destination, in document order.
    pub rules: Vec<&'d EgressRuleDocument>,
    /// Whether `deny` covers it.
    pub is_denied: bool,
}

impl<'d> EgressSide<'d> {
    /// Indexes a policy's section.
    pub fn new(policy: &'d Node, document: &'d EgressDocument) -> EgressSide<'d> {
        let default_port = document.default_port.and_then(|port| u16::try_from(port.0).ok());
        let (mut allow, mut deny) = (SideDestinations::default(), SideDestinations::default());
        for (number, rule) in document.rules.0.iter().enumerate() {
            rule.to.0.iter().for_each(|to| allow.add(number, to));
        }
        document.deny.iter().enumerate().for_each(|(number, to)| deny.add(number, to));
        let mut conditions = BTreeMap::new();
        for (name, rule) in named(policy, &["egress", "rules"]) {
            let Node::Map(fields) = rule else { continue };
            let others = fields.iter().filter(|(field, _)| !UNDERSTOOD.contains(&field.as_str()));
            let others: Vec<(&str, &Node)> = others.map(|(field, value)| (field.as_str(), value)).collect();
            if !others.is_empty() {
                conditions.insert(name, others);
            }
        }
        EgressSide {
            mode: document.mode,
            verify_sni: document.verify_sni,
            document,
            default_port,
            allow,
            deny,
            conditions,
        }
    }

    /// The conditions of a rule that this comparison does not understand.
    pub fn conditions(&self, rule: &EgressRuleDocument) -> &[(&'d str, &'d Node)] {
        self.conditions.get(&*rule.name.0).map_or(&[], Vec::as_slice)
    }

    /// The ports in the destinations that contain `point`.
    pub fn ports(&self, point: &Point) -> Vec<u16> {
        let all = self.allow.covering(point).into_iter().chain(self.denials(point));
        all.flat_map(|(_, to)| listed(to).into_iter().flatten()).collect()
    }

    /// Whether an entry of `deny` that contains `point` is restricted to some ports.
    pub fn denies_ports(&self, point: &Point) -> bool {
        self.denials(point).iter().any(|(_, to)| to.ports.is_some())
    }

    /// The entries of `deny` that contain `point`, including IPv4 ranges that contain the address inside an IPv6
    /// address.
    fn denials(&self, point: &Point) -> Vec<(usize, &'d Destination)> {
        let mut found = self.deny.covering(point);
        if let Point::Address(IpAddr::V6(address)) = point {
            for inner in embedded_ipv4(*address) {
                found.extend(self.deny.covering(&Point::Address(IpAddr::V4(inner))));
            }
        }
        found
    }

    /// The port that this policy sees.
    pub fn port(&self, port: RequestPort) -> u16 {
        match port {
            RequestPort::Given(port) => port,
            RequestPort::Absent { tls } => self.default_port.unwrap_or(if tls { 443 } else { 80 }),
        }
    }

    /// Whether a destination includes the port.
    pub fn has_port(&self, to: &Destination, port: RequestPort) -> bool {
        listed(to).is_none_or(|ports| ports.contains(&self.port(port)))
    }

    /// The part of the policy for `point` and `port`.
    pub fn at(&self, point: &Point, port: RequestPort) -> HostRules<'d> {
        let mut numbers: Vec<usize> = self
            .allow
            .covering(point)
            .into_iter()
            .filter(|(_, to)| self.has_port(to, port))
            .map(|(number, _)| number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let rules = &self.document.rules.0;
        // If the authority has no port, an entry of `deny` matches whatever its ports are.
        let is_denied = self
            .denials(point)
            .iter()
            .any(|(_, to)| matches!(port, RequestPort::Absent { .. }) || self.has_port(to, port));
        HostRules { rules: numbers.into_iter().filter_map(|number| rules.get(number)).collect(), is_denied }
    }
}

/// The ports that a destination lists; `None` for any.
fn listed(to: &Destination) -> Option<Vec<u16>> {
    items(&to.ports).map(|ports| ports.iter().filter_map(|port| u16::try_from(port.0).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Documents;

    #[test]
    fn a_field_that_this_comparison_does_not_know_is_a_condition() {
        let rule = r#"{"name":"r","to":[{"host":"a.test"}],"methods":["GET"]"#;
        let policy =
            |more: &str| Node::from_json(format!(r#"{{"egress":{{"rules":[{rule}{more}}}]}}}}"#).as_bytes()).unwrap();
        let documents = Documents::of(&policy(""));
        let document = documents.egress.as_ref().unwrap();
        let (plain, conditional) = (policy(""), policy(r#","onlyOnMondays":true"#));
        assert_eq!(EgressSide::new(&plain, document).conditions(&document.rules.0[0]), []);
        let side = EgressSide::new(&conditional, document);
        assert_eq!(side.conditions(&document.rules.0[0]), [("onlyOnMondays", &Node::Bool(true))]);
    }
}
