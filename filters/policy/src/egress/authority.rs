//! `host[:port]`, accepted only in its one unambiguous form.
//!
//! Attacks on allowlists use inputs that two parsers read differently: userinfo, percent escapes, `0x7f.1`, a second
//! colon, a name that one resolver takes for an address. Every ambiguous form is refused here (RFC 3986 §3.2, without
//! everything optional; "ends in a number" is that of the WHATWG URL standard, §3.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::matching::is_name;
use crate::reason::Reason;

/// Why an authority is refused as ambiguous or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAuthority {
    /// The authority is missing.
    Missing,
    /// Not `host[:port]` with a valid name or address.
    Malformed,
    /// A name that some parsers take for an IPv4 address.
    NumericHost,
    /// The port is not 1–65535 in plain digits.
    Port,
}

impl BadAuthority {
    /// The reason that a decision gives.
    pub const fn reason(self) -> Reason {
        match self {
            BadAuthority::Missing => Reason::AuthorityMissing,
            BadAuthority::Malformed => Reason::AuthorityMalformed,
            BadAuthority::NumericHost => Reason::HostIsAmbiguousNumber,
            BadAuthority::Port => Reason::PortMalformed,
        }
    }
}

/// A host in its one unambiguous form.
#[derive(Clone, Copy, Debug)]
pub enum UriHost<'a> {
    /// A DNS name without its trailing dot, case as received.
    Name(&'a [u8]),
    /// A strict dotted quad or a bracketed IPv6 address.
    Address(IpAddr),
}

impl PartialEq for UriHost<'_> {
    /// Names compare ASCII-case-insensitively, addresses by value; an IPv4-mapped IPv6 address is an IPv6 address.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (UriHost::Name(a), UriHost::Name(b)) => a.eq_ignore_ascii_case(b),
            (UriHost::Address(a), UriHost::Address(b)) => a == b,
            _ => false,
        }
    }
}

/// An unambiguous authority.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// The host.
    pub host: UriHost<'a>,
    /// The port as given, 1–65535.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host[:port]`.
    ///
    /// # Errors
    /// When any parser could read something else in it.
    pub fn parse(bytes: &'a [u8]) -> Result<Authority<'a>, BadAuthority> {
        if bytes.is_empty() {
            return Err(BadAuthority::Missing);
        }
        if let Some(rest) = bytes.strip_prefix(b"[") {
            let end = rest.iter().position(|&b| b == b']').ok_or(BadAuthority::Malformed)?;
            let (inside, after) = rest.split_at(end);
            let address = ipv6(inside).ok_or(BadAuthority::Malformed)?;
            let port = match after {
                [b']'] => None,
                [b']', b':', port @ ..] => Some(parse_port(port).ok_or(BadAuthority::Port)?),
                _ => return Err(BadAuthority::Malformed),
            };
            return Ok(Authority { host: UriHost::Address(IpAddr::V6(address)), port });
        }
        let (host, port) = match bytes.iter().position(|&b| b == b':') {
            Some(at) => {
                let (host, port) = bytes.split_at(at);
                let host = parse_host(host)?;
                (host, Some(parse_port(port.get(1..).unwrap_or_default()).ok_or(BadAuthority::Port)?))
            }
            None => (parse_host(bytes)?, None),
        };
        Ok(Authority { host, port })
    }
}

/// A name or a dotted quad, without port.
fn parse_host(host: &[u8]) -> Result<UriHost<'_>, BadAuthority> {
    let name = host.strip_suffix(b".").unwrap_or(host);
    if !is_name(name) {
        return Err(BadAuthority::Malformed);
    }
    if !ends_in_number(name) {
        return Ok(UriHost::Name(name));
    }
    // Judged on the whole host: `127.0.0.1.` is an address to some parsers and a name to others.
    ipv4(host).map(|address| UriHost::Address(IpAddr::V4(address))).ok_or(BadAuthority::NumericHost)
}

/// Whether some parser takes the last label for a number: all digits, or `0x` and hexadecimal digits, possibly none.
pub fn ends_in_number(name: &[u8]) -> bool {
    let last = name.rsplit(|&b| b == b'.').next().unwrap_or_default();
    match last {
        [b'0', b'x' | b'X', hex @ ..] => hex.iter().all(u8::is_ascii_hexdigit),
        digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
    }
}

/// Four decimal numbers without leading zeros: exactly the form that `std` parses.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An IPv6 address without zone.
fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// 1–65535 in digits, without sign and leading zero.
fn parse_port(digits: &[u8]) -> Option<u16> {
    if !matches!(digits, [b'1'..=b'9', ..]) || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0u32, |value, &digit| value * 10 + u32::from(digit - b'0'));
    u16::try_from(value).ok()
}
