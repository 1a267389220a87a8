//! Who the client is: the connection's peer, or what trusted proxies say of theirs.

use std::net::IpAddr;

use crate::environment::Environment;
use crate::request::Request;

/// The address of the client, with `trusted_hops` proxies in front that append to `x-forwarded-for`.
///
/// Read from the right, where a client cannot write: the connection's peer is hop 0, each entry before it one hop
/// further. Envoy with `use_remote_address` has appended the peer already; then its entry counts once. A list with
/// fewer hops than that, or an entry that is no address, was not written by the proxies that the policy trusts: the
/// peer itself counts, as in Envoy. An Envoy without `use_remote_address` has used up the last entry itself: there only
/// 0 hops are safe, and nothing tells it from one with (see `docs/security-model.md`).
pub fn client_address(request: &Request<'_>, trusted_hops: u32, environment: &mut impl Environment) -> Option<IpAddr> {
    let peer = environment.source_address()?;
    if trusted_hops == 0 {
        return Some(peer);
    }
    let mut hops = request.values_from_last(b"x-forwarded-for").flat_map(|value| value.rsplit(|&b| b == b','));
    let mut entry = hops.next();
    if entry.and_then(parse).is_some_and(|last| last == peer) {
        entry = hops.next();
    }
    for _ in 1..trusted_hops {
        // Every hop on the way must be an address, or the count means nothing.
        if entry.and_then(parse).is_none() {
            return Some(peer);
        }
        entry = hops.next();
    }
    Some(entry.and_then(parse).unwrap_or(peer))
}

/// One entry of `x-forwarded-for`: a bare address; some proxies write `ip:port` or brackets. IPv4-mapped addresses
/// are the IPv4 address that they carry.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?.parse().ok()?,
        None => match text.parse() {
            Ok(address) => address,
            // `ip:port`: only IPv4 can be meant.
            Err(_) => IpAddr::V4(text.split_once(':')?.0.parse().ok()?),
        },
    };
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::WorkerMemory;
    use crate::environment::Timestamp;
    use crate::state::{Change, Key, State, Unavailable};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    struct Peer(&'static str);

    impl Environment for Peer {
        fn now(&mut self) -> Timestamp {
            Timestamp(0)
        }
        fn source_address(&mut self) -> Option<IpAddr> {
            self.0.parse().ok()
        }
        fn has_tls(&mut self) -> Option<bool> {
            None
        }
        fn sni(&mut self) -> Option<Vec<u8>> {
            None
        }
        fn peer(&mut self) -> Option<Vec<u8>> {
            None
        }
        fn random(&mut self) -> u64 {
            0
        }
        fn worker(&mut self) -> &mut WorkerMemory {
            panic!("an address needs no memory")
        }
    }

    impl State for Peer {
        fn update<T>(&mut self, _: Key<'_>, _: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>) -> Result<T, Unavailable> {
            Err(Unavailable)
        }

        fn read<T>(&mut self, _: Key<'_>, _: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
            Err(Unavailable)
        }
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
            let address = client_address(&Request::new(&headers), hops, &mut Peer(peer));
            assert_eq!(address, expected.parse().ok(), "{hops} {forwarded:?}");
        }
    }
}
