//! Hosts and paths against readers that other people wrote: whatever they read differently is 400 here, and what is
//! forwarded they read as it stands.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod reference;

use penstock_policy::egress::{Authority, Host, canonical};
use proptest::prelude::*;
use proptest::sample::select;
use url::Url;

/// Host and port as the engine reads them.
fn ours(text: &[u8]) -> Option<(String, Option<u16>)> {
    let authority = Authority::parse(text).ok()?;
    let host = match authority.host {
        Host::Name(name) => String::from_utf8(name.to_ascii_lowercase()).unwrap(),
        Host::Address(address) if address.is_ipv6() => format!("[{address}]"),
        Host::Address(address) => address.to_string(),
    };
    Some((host, authority.port))
}

/// The same as the WHATWG URL standard reads them, Unicode mapping (UTS 46) included.
fn whatwg(text: &str) -> Option<(String, Option<u16>)> {
    let url = Url::parse(&format!("ws://{text}/")).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.path() == "/" && url.query().is_none();
    let host = url.host()?;
    let host = match host {
        url::Host::Ipv6(address) => format!("[{address}]"),
        url::Host::Ipv4(address) => address.to_string(),
        url::Host::Domain(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
    };
    // `Url` leaves out the scheme's own port.
    let port = url.port().or_else(|| text.ends_with(":80").then_some(80));
    Some((if plain { host } else { format!("{host} and more") }, port))
}

/// What `getaddrinfo` and `inet_aton` make of digits and dots: one to four numbers, decimal, octal or hexadecimal.
fn inet_aton(text: &str) -> Option<u32> {
    let parts: Vec<u64> = text
        .split('.')
        .map(|part| match part.strip_prefix("0x").or(part.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None if part.len() > 1 && part.starts_with('0') => u64::from_str_radix(part, 8).ok(),
            None => part.parse().ok(),
        })
        .collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let rest = 4usize.checked_sub(first.len())?;
    if rest == 0 || first.iter().any(|&part| part > 255) || *last >= 1u64 << (8 * rest) {
        return None;
    }
    let high = first.iter().enumerate().map(|(i, part)| part << (24 - 8 * i)).sum::<u64>();
    u32::try_from(high | last).ok()
}

fn check_authority(text: &str) {
    let engine = ours(text.as_bytes());
    assert_eq!(engine.is_some(), reference::authority(text).is_some(), "{text:?}: {engine:?}");
    let Some((host, port)) = engine else { return };
    match whatwg(text) {
        Some(theirs) => assert_eq!((host.clone(), port), theirs, "{text:?}"),
        // The standard also refuses A-labels that decode to nothing; a name server would still be asked for them.
        None => assert!(host.split('.').any(|label| label.starts_with("xn--")), "{text:?} is no URL host"),
    }
    let bare = host.trim_end_matches('.');
    if let Some(address) = inet_aton(bare) {
        assert_eq!(std::net::Ipv4Addr::from(address).to_string(), host, "{text:?} is another address to a resolver");
    }
    if let Ok(ascii) = idna::domain_to_ascii(bare) {
        assert_eq!(ascii, bare, "{text:?} is another name to a reader of Unicode");
    }
    let uri = http::uri::Authority::try_from(text).unwrap_or_else(|error| panic!("{text:?} is no authority: {error}"));
    assert_eq!(uri.port_u16(), port, "{text:?}");
    assert_eq!(uri.host().trim_end_matches('.').to_ascii_lowercase().contains(':'), host.contains(':'), "{text:?}");
}

/// The path as RFC 3986 resolves it, through the URL crate.
fn whatwg_path(path: &str) -> Option<String> {
    Some(Url::parse("ws://a.test/").ok()?.join(&format!("ws://a.test{path}")).ok()?.path().to_owned())
}

fn check_path(path: &str) {
    let engine = canonical(path.as_bytes()).ok().map(|path| String::from_utf8(path.into_owned()).unwrap());
    assert_eq!(engine, reference::canonical(path), "{path:?}");
    let Some(forwarded) = engine else { return };
    assert_eq!(whatwg_path(&forwarded), Some(escaped(&forwarded)), "{path:?}: forwarded, but read differently");
    assert_eq!(canonical(forwarded.as_bytes()).unwrap(), forwarded.as_bytes(), "{path:?}: canonical twice");
    // Without params, empty segments and escapes of ordinary letters there is only one way to resolve dots.
    if !path.contains("//") && !path.contains(';') && !path.contains('%') {
        assert_eq!(whatwg_path(path), Some(escaped(&forwarded)), "{path:?}");
    }
}

/// The signs that no URI has but many clients send, as the URL standard writes them: the same path in other letters.
fn escaped(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        match c {
            '"' | '<' | '>' | '`' | '{' | '}' => out += &format!("%{:02X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out
}

#[test]
fn every_byte_in_every_place_of_an_authority() {
    for byte in 0..=255u8 {
        for (before, after) in [("", "a.test"), ("a", ".test"), ("a.test", ""), ("a.test:4", "3"), ("a.test", ":443")] {
            let mut text = before.as_bytes().to_vec();
            text.push(byte);
            text.extend_from_slice(after.as_bytes());
            match std::str::from_utf8(&text) {
                Ok(text) => check_authority(text),
                Err(_) => assert!(ours(&text).is_none()),
            }
        }
    }
}

#[test]
fn every_character_that_unicode_maps_to_ascii_is_refused() {
    for c in (0x80..0x11_0000).filter_map(char::from_u32) {
        let name = format!("a{c}b.test");
        assert!(ours(name.as_bytes()).is_none(), "{name}");
    }
}

#[test]
fn every_escape_of_one_octet() {
    for octet in 0..=255u8 {
        for form in [format!("/a%{octet:02x}b"), format!("/a/%{octet:02X}/b"), format!("/%{octet:02x}{octet:02x}")] {
            check_path(&form);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, ..ProptestConfig::default() })]

    #[test]
    fn no_other_reader_sees_another_host(
        parts in prop::collection::vec(select(vec![
            "a", "B", "test", "xn--", "xn--bcher-kva", ".", ".", ":", "1", "0", "8", "255", "256", "0x", "ff", "017", "-", "_",
            "@", "%", "41", "[", "]", "::", "fe80", "/", "\\", "?", "#", ",", ";", " ", "\t", "\u{e9}", "\u{3002}", "\u{ff11}",
            "\u{ad}", "localhost", "443", "80", "65536", "+", "*", "~", "!", "$",
        ]), 1..8),
    ) {
        check_authority(&parts.concat());
    }

    #[test]
    fn no_other_reader_sees_another_address(
        parts in prop::collection::vec("(0x[0-9a-f]{0,4}|0[0-7]{0,3}|[0-9]{1,4}|[1-9][0-9]{6,9})", 1..6),
        dot in select(vec!["", "."]),
    ) {
        check_authority(&format!("{}{dot}", parts.join(".")));
    }

    #[test]
    fn no_other_reader_sees_another_ipv6_address(text in "\\[[0-9a-f:.]{2,20}\\](:[0-9]{0,5})?") {
        check_authority(&text);
    }

    #[test]
    fn what_is_forwarded_every_reader_reads_alike(
        parts in prop::collection::vec(select(vec![
            "/", "/", "/", ".", "..", "a", "b", ";", "x=1", "%2e", "%2E", "%2f", "%5c", "%3b", "%41", "%7e", "%c3%a9", "%c0%ae",
            "%e2%82%ac", "%ff", "%", "%4", "%00", "%25", "%20", "%3f", "%23", "+", "@", ":", "~", "*", "'", "|", "^", "`", "{",
        ]), 0..12),
    ) {
        check_path(&format!("/{}", parts.concat()));
    }
}
