//! Indexes destinations by host and address, to find those that equal, contain or are contained in another one without
//! comparing every pair.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use penstock_policy::document::NonEmpty;
use penstock_policy::egress::{Cidr, Destination, DestinationTarget, EgressRuleDocument};

/// Destinations, each with the number of its rule.
#[derive(Debug, Default)]
pub struct RuleDestinations<'d> {
    /// Destinations by name, without `*.`.
    names: HashMap<&'d str, Vec<usize>>,
    /// The same by reversed name, so that all names below a name are adjacent.
    backwards: BTreeMap<Vec<u8>, Vec<usize>>,
    ranges: HashMap<Cidr, Vec<usize>>,
    /// Address ranges by their first address.
    starts: BTreeMap<IpAddr, Vec<(Cidr, usize)>>,
}

impl<'d> RuleDestinations<'d> {
    /// Adds a destination of the rule `number`.
    pub fn add(&mut self, number: usize, to: &'d Destination) {
        match &to.target {
            DestinationTarget::Host(host) => {
                let name: &str = &host.0.name;
                self.names.entry(name).or_default().push(number);
                self.backwards.entry(backwards(name)).or_default().push(number);
            }
            DestinationTarget::Cidr(range) => {
                self.ranges.entry(*range).or_default().push(number);
                self.starts.entry(range.address).or_default().push((*range, number));
            }
        }
    }

    /// The rules with a destination that may cover `target`, in order.
    pub fn around(&self, target: &DestinationTarget) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        match target {
            DestinationTarget::Host(host) => {
                let name: &str = &host.0.name;
                let above = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
                for name in std::iter::once(name).chain(above) {
                    found.extend(self.names.get(name).into_iter().flatten());
                }
            }
            DestinationTarget::Cidr(range) => {
                let wider = (0..=range.length).filter_map(|length| range.widened(length));
                found.extend(wider.filter_map(|wider| self.ranges.get(&wider)).flatten());
            }
        }
        in_order(found)
    }

    /// The rules with a destination that may overlap `target`, in order.
    pub fn overlapping(&self, target: &DestinationTarget) -> Vec<usize> {
        let mut found = self.around(target);
        match target {
            DestinationTarget::Host(host) => {
                let start = [backwards(&host.0.name), b".".to_vec()].concat();
                let below = self.backwards.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
                found.extend(below.flat_map(|(_, numbers)| numbers));
            }
            DestinationTarget::Cidr(range) => {
                let inside = self.starts.range(range.address..).take_while(|(start, _)| range.contains(**start));
                found.extend(inside.flat_map(|(_, ranges)| ranges).map(|(_, number)| number));
            }
        }
        in_order(found)
    }

    /// The first rule with a range of IPv6 addresses.
    pub fn first_ipv6(&self) -> Option<usize> {
        let ranges = self.ranges.iter().filter(|(range, _)| range.address.is_ipv6());
        ranges.filter_map(|(_, numbers)| numbers.iter().min()).min().copied()
    }
}

/// A rule without destinations, so that a rule with thousands of them can be varied without copying the list.
pub fn without_destinations(rule: &EgressRuleDocument) -> EgressRuleDocument {
    EgressRuleDocument {
        name: rule.name.clone(),
        owner: rule.owner.clone(),
        reason: rule.reason.clone(),
        from: rule.from.clone(),
        to: NonEmpty(Vec::new()),
        methods: rule.methods.clone(),
        paths: rule.paths.clone(),
        connect: rule.connect,
        upgrades: rule.upgrades.clone(),
        not_before: rule.not_before,
        expires: rule.expires,
    }
}

fn backwards(name: &str) -> Vec<u8> {
    name.bytes().rev().collect()
}

fn in_order(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_policy::document::{At, Context, Decode, Node};

    fn destination(text: &str) -> Destination {
        let field = if text.contains('/') { "cidr" } else { "host" };
        let node = Node::from_json(format!(r#"{{"{field}":"{text}"}}"#).as_bytes()).unwrap();
        let mut cx = Context::new(String::new(), 0);
        Destination::decode(&node, &At::Root, &mut cx).unwrap()
    }

    #[test]
    fn what_is_found_is_what_comparing_every_pair_finds() {
        let texts = [
            "a.test",
            "*.a.test",
            "b.a.test",
            "*.b.a.test",
            "ba.test",
            "*.c.a.test",
            "c.test",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3/32",
            "0.0.0.0/0",
            "11.0.0.0/8",
            "::/0",
            "2001:db8::/32",
            "2001:db8::1/128",
            "10.0.0.0/9",
        ];
        let all: Vec<Destination> = texts.iter().map(|text| destination(text)).collect();
        let mut index = RuleDestinations::default();
        all.iter().enumerate().for_each(|(number, to)| index.add(number, to));
        for to in &all {
            let covers = |other: &Destination| crate::cover::target_covers(&other.target, &to.target);
            let overlaps =
                |other: &Destination| covers(other) || crate::cover::target_covers(&to.target, &other.target);
            let numbers = |holds: &dyn Fn(&Destination) -> bool| -> Vec<usize> {
                all.iter().enumerate().filter(|(_, other)| holds(other)).map(|(number, _)| number).collect()
            };
            let (around, overlapping) = (index.around(&to.target), index.overlapping(&to.target));
            assert!(numbers(&covers).iter().all(|number| around.contains(number)), "{to:?}");
            assert!(numbers(&overlaps).iter().all(|number| overlapping.contains(number)), "{to:?}");
            // Finds no destination of the other kind, and no neighbours.
            let name = |to: &Destination| matches!(to.target, DestinationTarget::Host(_));
            assert!(overlapping.iter().all(|number| name(&all[*number]) == name(to)), "{to:?}");
        }
        assert_eq!(index.first_ipv6(), Some(12));
        assert!(!index.overlapping(&destination("10.1.0.0/16").target).contains(&11));
        assert!(!index.overlapping(&destination("*.a.test").target).contains(&4));
    }
}
