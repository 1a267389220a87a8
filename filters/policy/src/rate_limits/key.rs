//! The key of a limit: its parts are read from a request and hashed to a fingerprint.

use std::borrow::Cow;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use siphasher::sip128::{Hasher128, SipHasher13};

use super::taken::Fingerprint;
use crate::asked::AskedNames;
use crate::client::Clients;
use crate::document::{Empty, HeaderName, Name, Whole, object, one_of};
use crate::environment::Environment;
use crate::facts::{FactName, MetadataDocument};
use crate::request::Request;

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// The client's address, shortened to a prefix.
    SourceAddress {
        /// The prefix length for IPv4 addresses, 1–32.
        ipv4_prefix: u32,
        /// The prefix length for IPv6 addresses, 1–128.
        ipv6_prefix: u32,
    },
    /// The first value of a header, as an upstream and Envoy's own limits read it. If all values counted, a client
    /// could vary the others and get a new bucket with each request.
    Header(Box<str>),
    /// The first value of a cookie.
    Cookie(Box<str>),
    /// The first value of a query parameter, undecoded.
    QueryParam(Box<str>),
    /// The path without its query.
    Path,
    /// The method.
    Method,
    /// The host in lower case, without its port.
    Hostname,
    /// The caller's verified identity.
    Peer,
    /// A fixed text, the same for every request.
    Constant(Box<str>),
    /// A claim of a verified token, or other metadata that an earlier filter left; the first element of a list.
    Fact(FactName),
}

object! {
    /// The client's address as a part of a key.
    pub(crate) struct SourceAddressPart {
        /// The prefix length for IPv4 addresses.
        ipv4_prefix as "ipv4Prefix": Whole<1, 32> = Whole(32),
        /// The prefix length for IPv6 addresses. Use 64 if one client may use all addresses of a network.
        ipv6_prefix as "ipv6Prefix": Whole<1, 128> = Whole(128),
    }
}

one_of! {
    /// One part of the key of a limit.
    KeyPart {
        /// The client's address.
        "sourceAddress": SourceAddressPart => |part| {
            KeyPart::SourceAddress { ipv4_prefix: part.ipv4_prefix.0, ipv6_prefix: part.ipv6_prefix.0 }
        },
        /// The first value of this header.
        "header": HeaderName => |name| KeyPart::Header(name.0),
        /// The first value of this cookie.
        "cookie": Name => |name| KeyPart::Cookie(name.0),
        /// The first value of this query parameter, without decoding.
        "queryParam": Name => |name| KeyPart::QueryParam(name.0),
        /// The path without its query.
        "path": Empty => |Empty| KeyPart::Path,
        /// The method.
        "method": Empty => |Empty| KeyPart::Method,
        /// The host in lower case, without its port.
        "hostname": Empty => |Empty| KeyPart::Hostname,
        /// The caller's verified identity.
        "peer": Empty => |Empty| KeyPart::Peer,
        /// A fixed text, the same for every request.
        "constant": Name => |text| KeyPart::Constant(text.0),
        /// This claim of a verified token; if it is a list, its first element.
        "claim": Name => |name| KeyPart::Fact(FactName::claim(&name)),
        /// This value of the dynamic metadata of an earlier filter; if it is a list, its first element.
        "metadata": MetadataDocument => |place| KeyPart::Fact(FactName::metadata(&place)),
    }
}

impl KeyPart {
    /// Adds the header, cookie, query parameter or fact that it reads.
    pub(super) fn add_name(&self, names: &mut AskedNames) {
        match self {
            KeyPart::Header(name) => names.headers.add(name.as_bytes()),
            KeyPart::Cookie(name) => names.cookies.add(name.as_bytes()),
            KeyPart::QueryParam(name) => names.query_params.add(name.as_bytes()),
            KeyPart::Fact(name) => names.facts.add(name.as_bytes()),
            _ => {}
        }
    }

    /// Its value in `request`; `None` when the request does not have it.
    pub(super) fn value<'r>(
        &'r self,
        request: &Request<'r>,
        clients: &Clients,
        environment: &mut impl Environment,
    ) -> Option<KeyValue<'r>> {
        match self {
            KeyPart::SourceAddress { ipv4_prefix, ipv6_prefix } => {
                let address = clients.address(request, environment)?;
                Some(KeyValue::Address(masked(address, *ipv4_prefix, *ipv6_prefix)))
            }
            KeyPart::Header(name) => request.value(name.as_bytes()).map(|value| KeyValue::Text(value.into())),
            KeyPart::Cookie(name) => request.cookie(name.as_bytes()).map(|value| KeyValue::Text(value.into())),
            KeyPart::QueryParam(name) => request.query_param(name.as_bytes()).map(|value| KeyValue::Text(value.into())),
            KeyPart::Path => Some(KeyValue::Text(request.path.into())),
            KeyPart::Method => Some(KeyValue::Text(request.method.into())),
            KeyPart::Hostname => Some(KeyValue::Text(lower_case(request.host))),
            KeyPart::Peer => clients.identity(request, environment).map(KeyValue::Text),
            KeyPart::Constant(text) => Some(KeyValue::Text(text.as_bytes().into())),
            KeyPart::Fact(name) => {
                request.fact_value(name.as_bytes(), environment).map(|value| KeyValue::Text(value.into()))
            }
        }
    }
}

fn lower_case(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(u8::is_ascii_uppercase) { text.to_ascii_lowercase().into() } else { text.into() }
}

/// IPv4-mapped addresses count as IPv4, so that a client has only one address.
fn masked(address: IpAddr, ipv4_prefix: u32, ipv6_prefix: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - ipv4_prefix.min(32)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - ipv6_prefix.min(128)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

/// The value of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyValue<'r> {
    Address(IpAddr),
    Text(Cow<'r, [u8]>),
}

/// The hash of one key, part by part, each with its length, so that ("a","bc") differs from ("ab","c").
///
/// SipHash-1-3 with 128 bits, keyed with a salt that no client knows, so that nobody can choose keys that collide. Two
/// keys share a bucket when they agree in 64 bits of fingerprint and in the set: for a million busy keys in a table of
/// 131,072 sets the probability that any two do is 2⁻⁴² (n²/2 · 2⁻⁶⁴⁻¹⁷).
pub(super) struct KeyHasher(SipHasher13);

/// The hash's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Salt(pub(super) u64, pub(super) u64);

impl Salt {
    /// Reads what [`Salt::write`] wrote. `None`: it is not a salt, or too short.
    pub(super) fn read(bytes: &[u8]) -> Option<Salt> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        Some(Salt(u64::from_le_bytes(*first), u64::from_le_bytes(rest.try_into().ok()?)))
    }

    pub(super) fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.0.to_le_bytes());
        bytes.extend(self.1.to_le_bytes());
    }
}

impl KeyHasher {
    /// A key without parts.
    pub(super) fn new(salt: Salt) -> KeyHasher {
        KeyHasher(SipHasher13::new_with_keys(salt.0, salt.1))
    }

    /// The bucket of all requests without a key.
    pub(super) fn missing(salt: Salt) -> Fingerprint {
        let mut hasher = KeyHasher::new(salt);
        // No part is longer than `u32::MAX`.
        hasher.0.write_u64(u64::MAX);
        hasher.finish()
    }

    /// The next part.
    pub(super) fn part(&mut self, value: &KeyValue<'_>) {
        match value {
            KeyValue::Address(IpAddr::V4(address)) => self.bytes(&address.octets()),
            KeyValue::Address(IpAddr::V6(address)) => self.bytes(&address.octets()),
            KeyValue::Text(text) => self.bytes(text),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_u64(bytes.len() as u64);
        self.0.write(bytes);
    }

    /// The fingerprint of the parts so far.
    pub(super) fn finish(&self) -> Fingerprint {
        let hash = self.0.finish128();
        Fingerprint { print: hash.h1.max(1), spread: u32::try_from(hash.h2 >> 32).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Timestamp;
    use crate::request::Header;
    use crate::wire::{WireRequest, World};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn print(parts: &[&str]) -> Fingerprint {
        let mut hasher = KeyHasher::new(Salt(1, 2));
        parts.iter().for_each(|part| hasher.part(&KeyValue::Text(part.as_bytes().into())));
        hasher.finish()
    }

    #[test]
    fn the_border_between_parts_counts() {
        let keys: [&[&str]; 7] = [&["a", "bc"], &["ab", "c"], &["abc"], &["abc", ""], &["", "abc"], &[], &[""]];
        for (i, one) in keys.iter().enumerate() {
            for other in keys.iter().skip(i + 1) {
                assert_ne!(print(one), print(other), "{one:?} {other:?}");
            }
            assert_ne!(print(one), KeyHasher::missing(Salt(1, 2)), "{one:?}");
        }
    }

    #[test]
    fn the_salt_decides_which_keys_fall_together() {
        let hash = |salt| KeyHasher::new(salt).finish();
        assert_ne!(hash(Salt(1, 2)), hash(Salt(1, 3)));
        assert_ne!(hash(Salt(1, 2)), hash(Salt(2, 2)));
    }

    #[test]
    fn a_salt_that_is_shorter_than_it_must_be_is_none() {
        let mut bytes = Vec::new();
        Salt(3, 4).write(&mut bytes);
        assert_eq!(Salt::read(&bytes), Some(Salt(3, 4)));
        for end in 0..bytes.len() {
            assert_eq!(Salt::read(&bytes[..end]), None);
        }
        bytes.push(0);
        assert_eq!(Salt::read(&bytes), None);
    }

    /// Behind one proxy.
    fn clients() -> Clients {
        let mut settings = crate::Settings::default();
        settings.source_address.trusted_hops = Some(crate::document::Whole(1));
        settings.clients()
    }

    fn value(part: &KeyPart, request: &str) -> Option<String> {
        let wire: WireRequest = serde_json::from_str(request).unwrap();
        let owned = wire.header_map();
        let headers: Vec<Header<'_>> = owned.iter().map(|(n, v)| (&**n, &**v)).collect();
        let mut world = World::new(Timestamp(0), 0);
        part.value(&Request::new(&headers), &clients(), &mut wire.environment(&mut world)).map(|value| match value {
            KeyValue::Address(address) => address.to_string(),
            KeyValue::Text(text) => String::from_utf8_lossy(&text).into_owned(),
        })
    }

    #[test]
    fn each_form_takes_its_part_of_the_request() {
        const REQUEST: &str = r#"{"method":"POST","authority":"Shop.Example.COM:8443","path":"/a%2Fb?v=1&v=2#f",
            "headers":[["X-Key","one"],["cookie","id=7; id=8"],["x-key","two"]],"peer":"spiffe://a/b","sourceAddress":"10.0.0.1"}"#;
        const NOTHING: &str = r#"{"method":"GET","authority":"a","path":"/"}"#;
        for (part, expected, without) in [
            (KeyPart::Header("x-key".into()), "one", None),
            (KeyPart::Cookie("id".into()), "7", None),
            (KeyPart::QueryParam("v".into()), "1", None),
            (KeyPart::Path, "/a%2Fb", Some("/")),
            (KeyPart::Method, "POST", Some("GET")),
            (KeyPart::Hostname, "shop.example.com", Some("a")),
            (KeyPart::Peer, "spiffe://a/b", None),
            (KeyPart::Constant("c".into()), "c", Some("c")),
            (KeyPart::SourceAddress { ipv4_prefix: 32, ipv6_prefix: 64 }, "10.0.0.1", None),
        ] {
            assert_eq!(value(&part, REQUEST).as_deref(), Some(expected), "{part:?}");
            assert_eq!(value(&part, NOTHING).as_deref(), without, "{part:?}");
        }
    }

    #[test]
    fn an_address_is_the_clients_up_to_the_prefix() {
        for (ipv4_prefix, ipv6_prefix, peer, forwarded, expected) in [
            (32, 64, "2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::"),
            (32, 128, "2001:db8::6", "", "2001:db8::6"),
            (32, 1, "ffff::", "", "8000::"),
            (32, 64, "::ffff:192.0.2.1", "", "192.0.2.1"),
            (24, 64, "::ffff:192.0.2.1", "", "192.0.2.0"),
            (24, 64, "192.0.2.255", "", "192.0.2.0"),
            (1, 64, "192.0.2.255", "", "128.0.0.0"),
            (24, 64, "2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::"),
            (32, 64, "10.0.0.1", "6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ] {
            let request = format!(
                r#"{{"method":"GET","authority":"a","path":"/","sourceAddress":"{peer}","headers":[["x-forwarded-for","{forwarded}"]]}}"#
            );
            assert_eq!(
                value(&KeyPart::SourceAddress { ipv4_prefix, ipv6_prefix }, &request).unwrap(),
                expected,
                "{peer}"
            );
        }
    }
}
