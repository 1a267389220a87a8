//! Parses the addresses that Envoy writes.

use std::net::{IpAddr, SocketAddr};

/// An address as Envoy writes it: `192.0.2.1:5000`, `[2001:db8::1]:5000`, or without a port. Unix sockets and internal
/// listeners have neither.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().map(|address: SocketAddr| address.ip()).or_else(|_| text.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_and_without_a_port() {
        for (text, expected) in [
            (&b"192.0.2.1:5000"[..], Some("192.0.2.1")),
            (b"[2001:db8::1]:5000", Some("2001:db8::1")),
            (b"192.0.2.1", Some("192.0.2.1")),
            (b"2001:db8::1", Some("2001:db8::1")),
            (b"/run/client.sock", None),
            (b"\xff\xfe:1", None),
            (b"", None),
        ] {
            assert_eq!(address(text), expected.map(|address| address.parse().unwrap()), "{text:?}");
        }
    }
}
