//! Address ranges, and a map that is looked up by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::document::{At, Context, Decode, Kind, Node, wrong_kind};

/// An address range: a network address and the number of leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The first address; the bits after the prefix are zero.
    pub address: IpAddr,
    /// 0–32 or 0–128.
    pub length: u8,
}

impl Cidr {
    /// Whether `address` is in the range. An IPv6 address is never in an IPv4 range, whatever it maps to.
    pub fn contains(&self, address: IpAddr) -> bool {
        first_of(address, self.length) == self.address
    }

    /// The range of `length` bits that contains this one; `None` when it would be narrower.
    pub fn widened(&self, length: u8) -> Option<Cidr> {
        (length <= self.length).then(|| Cidr { address: first_of(self.address, length), length })
    }

    /// Whether every address of `other` is in the range.
    pub fn covers(&self, other: &Cidr) -> bool {
        self.length <= other.length && self.contains(other.address)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// `address` with all bits after the first `length` cleared.
fn first_of(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    // A shift by the full width gives `None`: then no bit counts.
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask))
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask))
        }
    }
}

/// What is wrong with a range, and what would be right.
fn read(text: &str) -> Result<Cidr, (&'static str, String)> {
    let form = "write it like 203.0.113.0/24 or 2001:db8::/32".to_owned();
    if let Some(inside) = text.strip_prefix('[') {
        return Err(("has brackets", format!("write {}", inside.replace(']', ""))));
    }
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else { return Err(("is not an address range", form)) };
    let widest = if address.is_ipv4() { 32u8 } else { 128 };
    let Some(length) = length else { return Err(("has no prefix length", format!("write {address}/{widest}"))) };
    let plain = length == "0" || (!length.starts_with('0') && length.bytes().all(|b| b.is_ascii_digit()));
    let Some(length) = length.parse::<u8>().ok().filter(|&length| plain && length <= widest) else {
        return Err(("has a bad prefix length", format!("write a whole number from 0 to {widest} after the slash")));
    };
    let first = first_of(address, length);
    if first != address {
        return Err(("has bits set after its prefix", format!("write {first}/{length}, or {address}/{widest}")));
    }
    Ok(Cidr { address, length })
}

impl Decode for Cidr {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: an address range such as 203.0.113.0/24";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        match read(text) {
            Ok(cidr) => Some(cidr),
            Err((message, help)) => {
                cx.problem(at, node, message, help);
                None
            }
        }
    }
}

/// Values by range. One hash look-up for each prefix length that occurs, so at most 33 or 129 whatever the number of
/// ranges; a binary trie would take as many steps and twenty times the memory.
#[derive(Clone, Debug)]
pub struct CidrMap<T> {
    ranges: HashMap<Cidr, T, FxBuildHasher>,
    /// The lengths that occur, of IPv4 and of IPv6.
    lengths: [Vec<u8>; 2],
}

impl<T> Default for CidrMap<T> {
    fn default() -> Self {
        CidrMap { ranges: HashMap::default(), lengths: [Vec::new(), Vec::new()] }
    }
}

impl<T: Default> CidrMap<T> {
    /// The value of `range`, made when absent.
    pub fn entry(&mut self, range: Cidr) -> &mut T {
        let [v4, v6] = &mut self.lengths;
        let lengths = if range.address.is_ipv4() { v4 } else { v6 };
        if !lengths.contains(&range.length) {
            lengths.push(range.length);
            lengths.sort_unstable();
        }
        self.ranges.entry(range).or_default()
    }
}

impl<T> CidrMap<T> {
    /// Calls `each` with the value of every range that contains `address`, widest first.
    pub fn covering<'t>(&'t self, address: IpAddr, mut visit: impl FnMut(&'t T)) {
        let [v4, v6] = &self.lengths;
        for &length in if address.is_ipv4() { v4 } else { v6 } {
            if let Some(value) = self.ranges.get(&Cidr { address: first_of(address, length), length }) {
                visit(value);
            }
        }
    }

    /// The same ranges with every value replaced.
    pub fn map<U>(self, mut convert: impl FnMut(T) -> U) -> CidrMap<U> {
        let ranges = self.ranges.into_iter().map(|(range, value)| (range, convert(value))).collect();
        CidrMap { ranges, lengths: self.lengths }
    }
}
