//! The IPv4 addresses that an IPv6 address contains. `deny` checks all of them, because a router or a socket on the way
//! may use them.

use std::net::{Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

/// Every IPv4 address that some translation, tunnel or socket extracts from `address`, in the forms of
///
/// - RFC 4291 §2.5.5: IPv4-mapped `::ffff:0:0/96` and IPv4-compatible `::/96`; SIIT's translated `::ffff:0:0:0/96`
///   (RFC 2765 §2.1);
/// - NAT64: the well-known prefix `64:ff9b::/96` (RFC 6052 §2.1), and the local `64:ff9b:1::/48` (RFC 8215) with each
///   length that RFC 6052 §2.2 knows, because only its operator knows which one is in use;
/// - 6to4 `2002::/16` (RFC 3056 §2), Teredo `2001::/32` with its server and its client (RFC 4380 §4);
/// - ISATAP interface identifiers, `0:5efe` and `200:5efe` (RFC 5214 §6.1).
pub fn embedded_ipv4(address: Ipv6Addr) -> SmallVec<[Ipv4Addr; 4]> {
    let bits = address.to_bits();
    // The 32 bits that end `from_end` bits before the last.
    let at = |from_end: u32| u32::try_from((bits >> from_end) & u128::from(u32::MAX)).unwrap_or_default();
    let last = at(0);
    let mut found = SmallVec::new();
    let mut carries = |address: u32| found.push(Ipv4Addr::from_bits(address));
    match address.segments() {
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => carries(last),
        [0x64, 0xff9b, 1, b, c, d, ..] => {
            // RFC 6052 §2.2: bits 64 to 71 are none of the address.
            let (b, c, d) = (u32::from(b), u32::from(c), u32::from(d));
            let (e, f) = (at(24) & 0xffff, at(16) & 0xffff);
            carries(b << 16 | (c & 0xff) << 8 | d >> 8); // /48
            carries((b & 0xff) << 24 | (c & 0xff) << 16 | (d & 0xff00) | (e >> 8) & 0xff); // /56
            carries((c & 0xff) << 24 | d << 8 | (f >> 8) & 0xff); // /64
            carries(last); // /96
        }
        [0x2002, ..] => carries(at(80)),
        [0x2001, 0, ..] => {
            carries(at(64));
            carries(!last);
        }
        _ => {}
    }
    if matches!(at(32), 0x0000_5efe | 0x0200_5efe) {
        carries(last);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// RFC 6052 §2.2, byte for byte: the address follows a prefix of `length` bits and steps over byte 8.
    fn rfc_6052(prefix: &str, length: usize, address: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = prefix.parse::<Ipv6Addr>().unwrap().octets();
        let places = (length / 8..16).filter(|&place| place != 8 || length == 96);
        for (place, byte) in places.zip(address.octets()) {
            bytes[place] = byte;
        }
        bytes.into()
    }

    #[test]
    fn every_form_gives_the_address_that_it_carries() {
        let address = Ipv4Addr::new(169, 254, 17, 3);
        let forms = [
            "::ffff:169.254.17.3",
            "::169.254.17.3",
            "::ffff:0:169.254.17.3",
            "64:ff9b::169.254.17.3",
            "64:ff9b::a9fe:1103",
            "64:ff9b:1::169.254.17.3",
            "64:ff9b:1:ffff:ffff:ffff:169.254.17.3",
            "2002:a9fe:1103::",
            "2002:a9fe:1103:1:2:3:4:5",
            "fe80::5efe:169.254.17.3",
            "2001:db8::200:5efe:169.254.17.3",
            "2001:0:a9fe:1103:8000:1:2:3",
            "2001::8000:1:5601:eefc",
        ];
        for form in forms {
            assert!(embedded_ipv4(form.parse().unwrap()).contains(&address), "{form}");
        }
        for length in [48, 56, 64, 96] {
            let form = rfc_6052("64:ff9b:1::", length, address);
            assert!(embedded_ipv4(form).contains(&address), "{form} with a prefix of {length}");
        }
    }

    #[test]
    fn an_address_of_no_such_form_carries_none() {
        for plain in ["2001:db8::a9fe:a9fe", "fe80::1", "fd00::5eff:a9fe:a9fe", "64:ff9b:2::a9fe:a9fe", "2003::1"] {
            assert!(embedded_ipv4(plain.parse().unwrap()).is_empty(), "{plain}");
        }
        assert_eq!(*embedded_ipv4("64:ff9b::c000:201".parse().unwrap()), [Ipv4Addr::new(192, 0, 2, 1)]);
    }
}
