//! How clients are distinguished: by their addresses behind trusted proxies, and by their identities.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::document::{At, Context, NonEmpty, Whole, object};
use crate::environment::Environment;
use crate::identity::IdentitySource;
use crate::request::Request;

object! {
    /// How the client's address is found. Set one of the two fields.
    #[derive(Default)]
    pub struct SourceAddress check = SourceAddress::check {
        /// The number of trusted proxies in front that append to `x-forwarded-for`. With 0, the peer of the connection
        /// is the client.
        trusted_hops as "trustedHops": Option<Whole<0, 32>>,
        /// The addresses of the trusted proxies. The client is the last entry of `x-forwarded-for` that is in none of
        /// these ranges.
        trusted_proxies as "trustedProxies": Option<NonEmpty<Cidr>>,
    }
}

impl SourceAddress {
    /// How many proxies are trusted, by count.
    pub fn hops(&self) -> u32 {
        self.trusted_hops.map_or(0, |hops| hops.0)
    }

    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let is_one = self.trusted_hops.is_some() != self.trusted_proxies.is_some();
        if !is_one {
            let help = "count the proxies with trustedHops, or give their addresses with trustedProxies".to_owned();
            cx.problem_at(at, "must have either trustedHops or trustedProxies", help);
        }
        is_one
    }
}

/// How a policy distinguishes its clients.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    source_address: SourceAddress,
    identity: IdentitySource,
}

impl Clients {
    /// Clients with the address found by `source_address` and the identity by `identity`.
    pub(crate) fn new(source_address: SourceAddress, identity: IdentitySource) -> Clients {
        Clients { source_address, identity }
    }

    /// Where the caller's verified identity comes from.
    pub(crate) fn source(&self) -> &IdentitySource {
        &self.identity
    }

    /// The address of the client.
    pub(crate) fn address(&self, request: &Request<'_>, environment: &mut impl Environment) -> Option<IpAddr> {
        request.client_address(|| client_address(request, &self.source_address, environment))
    }

    /// The verified identity of the caller.
    pub(crate) fn identity<'a>(
        &self,
        request: &Request<'a>,
        environment: &mut impl Environment,
    ) -> Option<Cow<'a, [u8]>> {
        request.identity(|| environment.identity(&self.identity).filter(|identity| !identity.is_empty()))
    }
}

/// The address of the client, by the proxies that `settings` trusts to append to `x-forwarded-for`.
///
/// Never an entry that a client could have written: with `trustedHops` entries are counted from the right; with
/// `trustedProxies` the search from the right ends at the first address outside the ranges. If an entry on the way is
/// not an address, or there are too few entries, the client is unknown and the address of the connection's peer is
/// used.
pub fn client_address(
    request: &Request<'_>,
    settings: &SourceAddress,
    environment: &mut impl Environment,
) -> Option<IpAddr> {
    let peer = environment.source_address()?;
    let found = match &settings.trusted_proxies {
        None => match settings.hops() {
            0 => None,
            hops => behind_hops(request, peer, hops),
        },
        Some(ranges) => {
            let is_trusted = |address: IpAddr| ranges.0.iter().any(|range| range.contains(address.to_canonical()));
            if is_trusted(peer) { behind_ranges(request, peer, is_trusted) } else { None }
        }
    };
    Some(found.unwrap_or(peer))
}

/// The entry that the outermost of `hops` proxies has appended.
fn behind_hops(request: &Request<'_>, peer: IpAddr, hops: u32) -> Option<IpAddr> {
    let mut entries = entries_in_front(request, peer, hops);
    for _ in 1..hops {
        // Every entry that is counted must be an address; otherwise the count means nothing.
        parse(entries.next()?)?;
    }
    parse(entries.next()?)
}

/// The last entry outside the trusted ranges; if all are trusted, the first one, which is then the client's own.
fn behind_ranges(request: &Request<'_>, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut found = None;
    for entry in entries_in_front(request, peer, 1) {
        let address = parse(entry)?;
        found = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    found
}

/// The entries of `x-forwarded-for` that the proxies in front have written, the last one first. Envoy itself appends an
/// entry when it uses the remote address, which is skipped here: it equals the peer's address. For a peer on loopback
/// Envoy appends its own machine's address instead, which a filter cannot find out; then the last of more than `needed`
/// entries is taken for it.
fn entries_in_front<'a>(request: &Request<'a>, peer: IpAddr, needed: u32) -> impl Iterator<Item = &'a [u8]> {
    let entries = || request.values_from_last(b"x-forwarded-for").flat_map(|value| value.rsplit(|&b| b == b','));
    let last = entries().next().and_then(parse);
    let is_own = last.is_some_and(|last| last == peer.to_canonical())
        || (peer.to_canonical().is_loopback() && entries().nth(needed as usize).is_some());
    entries().skip(usize::from(is_own))
}

/// One entry of `x-forwarded-for`: a bare address; some proxies write `ip:port` or brackets. IPv4-mapped addresses
/// are the IPv4 address that they carry.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?.parse().ok()?,
        None => match text.parse() {
            Ok(address) => address,
            // `ip:port` is only unambiguous for IPv4.
            Err(_) => IpAddr::V4(text.split_once(':')?.0.parse().ok()?),
        },
    };
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FixedEnvironment;
    use crate::Scratch;
    use crate::document::{At, Context, Decode, Node, Whole};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn connected(peer: &str) -> FixedEnvironment {
        FixedEnvironment { source_address: peer.parse().ok(), ..FixedEnvironment::default() }
    }

    #[test]
    fn however_many_limits_ask_a_decision_finds_address_and_identity_once() {
        let forwarded = "10.0.0.1,".repeat(5_000) + "192.0.2.7";
        let headers = [(&b"x-forwarded-for"[..], forwarded.as_bytes())];
        let scratch = Scratch::default();
        let request = Request::new(&headers).with_scratch(&scratch);
        let mut environment = FixedEnvironment { peer: Some(b"spiffe://a/b".to_vec()), ..connected("10.0.0.9") };
        let clients = Clients::new(SourceAddress::default(), IdentitySource::default());
        for _ in 0..100 {
            assert_eq!(clients.address(&request, &mut environment), "10.0.0.9".parse().ok());
            assert_eq!(clients.identity(&request, &mut environment).as_deref(), Some(&b"spiffe://a/b"[..]));
        }
        assert_eq!(environment.asked, 2);
    }

    #[test]
    fn a_client_cannot_write_where_the_hops_are_counted() {
        let peer = "10.0.0.1";
        for (hops, forwarded, expected) in [
            (0, &["1.1.1.1"][..], peer),
            (1, &["1.1.1.1"], "1.1.1.1"),
            (1, &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (1, &["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
            (1, &["6.6.6.6, 1.1.1.1, 10.0.0.1"], "1.1.1.1"),
            (2, &["6.6.6.6, 1.1.1.1, 2.2.2.2"], "1.1.1.1"),
            (2, &["6.6.6.6, 1.1.1.1, 2.2.2.2,10.0.0.1"], "1.1.1.1"),
            (2, &["1.1.1.1, nonsense"], peer),
            (2, &["2.2.2.2"], peer),
            (1, &["nonsense"], peer),
            (1, &[], peer),
            (1, &["1.1.1.1:4711"], "1.1.1.1"),
            (1, &["[2001:db8::1]:4711"], "2001:db8::1"),
            (1, &["::ffff:1.1.1.1"], "1.1.1.1"),
        ] {
            let headers: Vec<_> = forwarded.iter().map(|v| (&b"x-forwarded-for"[..], v.as_bytes())).collect();
            let settings = SourceAddress { trusted_hops: Some(Whole(hops)), trusted_proxies: None };
            let address = client_address(&Request::new(&headers), &settings, &mut connected(peer));
            assert_eq!(address, expected.parse().ok(), "{hops} {forwarded:?}");
        }
    }
    fn address(settings: &str, peer: &'static str, forwarded: &[&str]) -> Option<IpAddr> {
        let node = Node::from_json(settings.as_bytes()).unwrap();
        let settings = SourceAddress::decode(&node, &At::Root, &mut Context::new(String::new(), 0)).unwrap();
        let headers: Vec<_> = forwarded.iter().map(|v| (&b"x-forwarded-for"[..], v.as_bytes())).collect();
        client_address(&Request::new(&headers), &settings, &mut connected(peer))
    }

    #[test]
    fn of_a_peer_on_loopback_the_last_entry_is_the_proxys_own() {
        for peer in ["127.0.0.1", "127.0.0.6", "::1", "::ffff:127.0.0.1"] {
            for (hops, forwarded, expected) in [
                (1, &["203.0.113.7, 172.17.0.2"][..], "203.0.113.7"),
                (1, &["203.0.113.7", "172.17.0.2"], "203.0.113.7"),
                (1, &["6.6.6.6, 203.0.113.7, 172.17.0.2"], "203.0.113.7"),
                (2, &["6.6.6.6, 203.0.113.7, 10.0.0.9, 172.17.0.2"], "203.0.113.7"),
                // As many entries as proxies: the proxy has not appended an entry of its own, or the request came
                // without any.
                (1, &["203.0.113.7"], "203.0.113.7"),
                (2, &["203.0.113.7, 10.0.0.9"], "203.0.113.7"),
                (2, &["203.0.113.7"], peer),
                (1, &["nonsense, 172.17.0.2"], peer),
                (1, &[], peer),
                (0, &["203.0.113.7, 172.17.0.2"], peer),
            ] {
                let found = address(&format!(r#"{{"trustedHops": {hops}}}"#), peer, forwarded);
                assert_eq!(found, expected.parse().ok(), "{peer} {hops} {forwarded:?}");
            }
        }
    }

    #[test]
    fn by_range_the_last_entry_that_no_trusted_proxy_has_is_the_client() {
        let ranges = r#"{"trustedProxies": ["10.0.0.0/8", "fd00::/8", "127.0.0.0/8"]}"#;
        for (peer, forwarded, expected) in [
            ("10.0.0.1", &["203.0.113.7"][..], "203.0.113.7"),
            ("10.0.0.1", &["203.0.113.7, 10.0.0.1"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.7, 10.2.2.2, 10.0.0.1"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6", "203.0.113.7", "fd00::2", "10.0.0.1"], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7, ::ffff:10.2.2.2"], "203.0.113.7"),
            ("10.0.0.1", &["[2001:db8::7]:4711, 10.2.2.2:80"], "2001:db8::7"),
            // An address that is no trusted proxy is the client, whatever entries it wrote.
            ("198.51.100.9", &["203.0.113.7"], "198.51.100.9"),
            ("198.51.100.9", &["203.0.113.7, 10.0.0.1"], "198.51.100.9"),
            // All trusted: the outermost.
            ("10.0.0.1", &["10.9.9.9, 10.2.2.2"], "10.9.9.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["nonsense, 10.2.2.2"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7, nonsense, 10.2.2.2"], "10.0.0.1"),
            // A loopback peer: Envoy then appends the address of its own machine, which no range contains.
            ("127.0.0.1", &["203.0.113.7, 172.17.0.2"], "203.0.113.7"),
            ("127.0.0.1", &["203.0.113.7, 10.2.2.2, 172.17.0.2"], "203.0.113.7"),
            ("::1", &["203.0.113.7, 172.17.0.2"], "::1"),
        ] {
            assert_eq!(address(ranges, peer, forwarded), expected.parse().ok(), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn proxies_are_counted_or_named_and_never_both() {
        for (settings, fine) in [
            (r#"{"trustedHops": 1}"#, true),
            (r#"{"trustedProxies": ["10.0.0.0/8"]}"#, true),
            (r#"{"trustedHops": 1, "trustedProxies": ["10.0.0.0/8"]}"#, false),
            (r#"{"trustedHops": 0, "trustedProxies": ["10.0.0.0/8"]}"#, false),
            (r#"{"trustedProxies": []}"#, false),
            (r#"{"trustedProxies": ["10.0.0.1"]}"#, false),
            ("{}", false),
        ] {
            let node = Node::from_json(settings.as_bytes()).unwrap();
            let mut cx = Context::new(String::new(), 0);
            assert_eq!(SourceAddress::decode(&node, &At::Root, &mut cx).is_some(), fine, "{settings}");
        }
    }
}
