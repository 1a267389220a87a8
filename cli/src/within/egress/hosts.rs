//! Selects a few hosts that represent all of them: one of each set of names or addresses that the same patterns and
//! ranges cover.
//!
//! Patterns of names are nested or disjoint, and so are ranges: such a set is a pattern or range without those inside
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use penstock_policy::egress::{Cidr, DestinationTarget, EgressDocument};
use penstock_policy::matching::HostPattern;

/// The longest DNS name in text form.
const MAX_NAME: usize = 253;

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// The name in lower case.
    Name(String),
    /// An IP address.
    Address(IpAddr),
}

impl Point {
    /// The host as an authority writes it.
    pub fn authority(&self) -> String {
        match self {
            Point::Name(name) => name.clone(),
            Point::Address(IpAddr::V4(address)) => address.to_string(),
            Point::Address(IpAddr::V6(address)) => format!("[{address}]"),
        }
    }
}

/// Every pattern and range in two documents.
#[derive(Debug, Default)]
pub struct Mentioned {
    /// By labels from the right: whether the name itself, and whether all names below it, are mentioned.
    names: BTreeMap<String, (bool, bool)>,
    /// First and last address, by IP version.
    v4: BTreeSet<(u128, u128)>,
    v6: BTreeSet<(u128, u128)>,
    /// IPv4 ranges of `deny`, which also apply to IPv4 addresses inside IPv6 addresses.
    denied: Vec<Cidr>,
}

impl Mentioned {
    /// Collects the patterns and ranges of the documents.
    pub fn of(documents: &[&EgressDocument]) -> Mentioned {
        let mut mentioned = Mentioned::default();
        for document in documents {
            let rules = document.rules.0.iter().flat_map(|rule| &rule.to.0);
            rules.chain(&document.deny).for_each(|to| mentioned.add(&to.target));
            for denied in &document.deny {
                if let DestinationTarget::Cidr(range) = &denied.target
                    && let IpAddr::V4(address) = range.address
                {
                    mentioned.denied.push(*range);
                    for (form, bits) in carriers(address) {
                        let range = Cidr { address: IpAddr::V6(form), length: bits + range.length };
                        mentioned.v6.insert(bounds(&range));
                    }
                }
            }
        }
        mentioned
    }

    fn add(&mut self, target: &DestinationTarget) {
        match target {
            DestinationTarget::Host(host) => {
                let entry = self.names.entry(reversed(&host.0.name)).or_default();
                if host.0.wildcard { entry.1 = true } else { entry.0 = true }
            }
            DestinationTarget::Cidr(range) if range.address.is_ipv4() => drop(self.v4.insert(bounds(range))),
            DestinationTarget::Cidr(range) => drop(self.v6.insert(bounds(range))),
        }
    }

    /// A name that no pattern covers.
    pub fn unlisted(&self) -> Point {
        let name = (0..=self.names.len()).map(|n| format!("unlisted{n}.example.com"));
        let name = name.into_iter().find(|name| {
            let labels = reversed(name);
            !self.names.get(&labels).is_some_and(|(exact, _)| *exact)
        });
        // A pattern may cover all of example.com.
        let covered = ["com", "com.example"].iter().any(|above| self.names.get(*above).is_some_and(|(_, all)| *all));
        match name {
            Some(name) if !covered => Point::Name(name),
            _ => {
                let fresh = (0..=self.names.len()).map(|n| format!("unlisted{n}.invalid"));
                let is_fresh = |name: &String| !self.names.contains_key(&reversed(name));
                Point::Name(fresh.into_iter().find(is_fresh).unwrap_or_default())
            }
        }
    }

    /// Hosts that represent all that `target` covers: each covered host is covered by the same patterns and ranges as
    /// one of these.
    pub fn cells(&self, target: &DestinationTarget) -> Vec<Point> {
        match target {
            DestinationTarget::Host(host) => self.names_of(&host.0),
            DestinationTarget::Cidr(range) => self.addresses_of(range).into_iter().map(Point::Address).collect(),
        }
    }

    fn names_of(&self, pattern: &HostPattern) -> Vec<Point> {
        if !pattern.wildcard {
            return vec![Point::Name(pattern.name.to_string())];
        }
        let top = reversed(&pattern.name);
        let mut found: Vec<Point> = self.below(&pattern.name).into_iter().collect();
        for (labels, (exact, all)) in self.names.range(format!("{top}.")..format!("{top}/")) {
            let name = reversed(labels);
            if *all {
                found.extend(self.below(&name));
            }
            if *exact {
                found.push(Point::Name(name));
            }
        }
        found
    }

    /// A name directly below `parent` that no pattern mentions.
    fn below(&self, parent: &str) -> Option<Point> {
        let names =
            (0..=self.names.len()).map(|n| if n == 0 { format!("x.{parent}") } else { format!("x{n}.{parent}") });
        let is_fresh = |name: &String| !self.names.get(&reversed(name)).is_some_and(|(exact, _)| *exact);
        names.take_while(|name| name.len() <= MAX_NAME).find(is_fresh).map(Point::Name)
    }

    fn addresses_of(&self, range: &Cidr) -> Vec<IpAddr> {
        let is_v4 = range.address.is_ipv4();
        let ranges = if is_v4 { &self.v4 } else { &self.v6 };
        let (first, last) = bounds(range);
        let inside: BTreeSet<(u128, u128)> =
            ranges.range((first, 0)..=(last, u128::MAX)).filter(|(_, end)| *end <= last).copied().collect();
        let mut all: Vec<(u128, u128)> = vec![(first, last)];
        all.extend(inside.iter().filter(|range| **range != (first, last)));
        let mut found: Vec<IpAddr> =
            all.iter().filter_map(|range| gap(*range, &inside)).map(|bits| address(bits, is_v4)).collect();
        if !is_v4 && !self.denied.is_empty() {
            // ISATAP addresses exist in every network. The first address that no inner range takes is either the start
            // of the range, or follows one of them.
            let after = |end: u128| (end | u128::from(u64::MAX)).checked_add(1);
            let networks: BTreeSet<u128> =
                inside.iter().filter_map(|(_, end)| after(*end)).chain([first]).filter(|bits| *bits <= last).collect();
            for denied in &self.denied {
                for inner in self.addresses_of(denied) {
                    let IpAddr::V4(inner) = inner else { continue };
                    let isatap = networks.iter().flat_map(|network| isatap(inner, *network));
                    let forms = scattered(inner).into_iter().chain(isatap);
                    found.extend(forms.filter(|bits| (first..=last).contains(bits)).map(|bits| address(bits, false)));
                }
            }
        }
        found
    }
}

/// The labels from right to left.
fn reversed(name: &str) -> String {
    name.rsplit('.').collect::<Vec<_>>().join(".")
}

fn address(bits: u128, is_v4: bool) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if is_v4 => IpAddr::V4(Ipv4Addr::from_bits(bits)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// First and last address.
fn bounds(range: &Cidr) -> (u128, u128) {
    let (first, width) = match range.address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let free = u32::saturating_sub(width, u32::from(range.length));
    let size = 1u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
    (first, first.saturating_add(size))
}

/// The first address of `range` that is in no inner range.
fn gap(range: (u128, u128), ranges: &BTreeSet<(u128, u128)>) -> Option<u128> {
    let (first, last) = range;
    let mut cursor = first;
    for &(start, end) in ranges.range((first, 0)..=(last, u128::MAX)) {
        if (start, end) == range || end > last {
            continue;
        }
        if start > cursor {
            return Some(cursor);
        }
        if end >= cursor {
            cursor = end.checked_add(1)?;
        }
    }
    (cursor <= last).then_some(cursor)
}

/// The IPv6 forms of an IPv4 range that are prefixes, with the bits before the address: see the engine's
/// `embedded_ipv4`.
fn carriers(address: Ipv4Addr) -> [(Ipv6Addr, u8); 7] {
    let low = u128::from(address.to_bits());
    let form = |high: u128, bits: u8| (Ipv6Addr::from_bits(high | low << (96 - u32::from(bits))), bits);
    [
        form(0xffff << 32, 96),
        form(0, 96),
        form(0xffff << 48, 96),
        form(0x0064_ff9b << 96, 96),
        form(0x0064_ff9b_0001 << 80, 96),
        form(0x2002 << 112, 16),
        form(0x2001_0000 << 96, 32),
    ]
}

/// The other forms: NAT64 with prefixes of 48, 56 and 64 bits, and a Teredo client.
fn scattered(address: Ipv4Addr) -> [u128; 4] {
    let low = u128::from(address.to_bits());
    let local = 0x0064_ff9b_0001 << 80;
    let byte = |n: u32| low >> (24 - 8 * n) & 0xff;
    [
        // Bits 64 to 71 are not part of the address.
        local | (low >> 16) << 64 | byte(2) << 48 | byte(3) << 40,
        local | byte(0) << 64 | byte(1) << 48 | byte(2) << 40 | byte(3) << 32,
        local | low << 24,
        0x2001_0000 << 96 | (!low & 0xffff_ffff),
    ]
}

/// The ISATAP form in the network of `network`.
fn isatap(address: Ipv4Addr, network: u128) -> [u128; 2] {
    let network = network & !u128::from(u64::MAX);
    let low = u128::from(address.to_bits());
    [network | 0x5efe << 32 | low, network | 0x0200_5efe << 32 | low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str) -> EgressDocument {
        let node = penstock_policy::document::Node::from_json(json.as_bytes()).unwrap();
        crate::documents::Documents::of(&node).egress.unwrap()
    }

    #[test]
    fn a_star_has_a_fresh_name_and_everything_mentioned_below_it() {
        let document = document(
            r#"{"egress":{"deny":[{"host":"d.a.test"},{"host":"x.a.test"}],"rules":[{"name":"r","to":[{"host":"*.a.test"},{"host":"*.b.a.test"},{"host":"c.test"}]}]}}"#,
        );
        let mentioned = Mentioned::of(&[&document]);
        let star = &document.rules.0[0].to.0[0].target;
        let names: Vec<String> = mentioned.cells(star).iter().map(Point::authority).collect();
        assert_eq!(names, ["x1.a.test", "x.b.a.test", "d.a.test", "x.a.test"]);
    }

    #[test]
    fn a_range_has_an_address_outside_of_those_inside_it_and_one_of_each() {
        let document = document(
            r#"{"egress":{"deny":[{"cidr":"10.0.0.0/9"}],"rules":[{"name":"r","to":[{"cidr":"10.0.0.0/8"},{"cidr":"10.128.0.0/9"},{"cidr":"10.1.2.3/32"},{"cidr":"::/0"}]}]}}"#,
        );
        let mentioned = Mentioned::of(&[&document]);
        let of = |to: usize| -> Vec<String> {
            mentioned.cells(&document.rules.0[0].to.0[to].target).iter().map(Point::authority).collect()
        };
        // The two halves cover the whole range.
        assert_eq!(of(0), ["10.0.0.0", "10.1.2.3", "10.128.0.0"]);
        let carrying = of(3);
        for form in ["[::ffff:10.0.0.0]", "[64:ff9b::a00:0]", "[2002:a00::]", "[::5efe:a00:0]"] {
            assert!(carrying.iter().any(|address| address == form), "{form} in {carrying:?}");
        }
    }
}
