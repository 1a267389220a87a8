//! Readers of hosts and paths that other people wrote, and what the engine has in common with all of them. Shared by the
//! differential tests and the fuzzers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "test code; each test uses its own part of it"
)]

use penstock_policy::egress::{Authority, UriHost, canonical};
use url::Url;

/// Host and port as the engine reads them.
pub fn ours(text: &[u8]) -> Option<(String, Option<u16>)> {
    let authority = Authority::parse(text).ok()?;
    let host = match authority.host {
        UriHost::Name(name) => String::from_utf8(name.to_ascii_lowercase()).unwrap(),
        UriHost::Address(address) if address.is_ipv6() => format!("[{address}]"),
        UriHost::Address(address) => address.to_string(),
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

/// Whoever reads `text` as an authority at all reads what the engine reads.
pub fn check_authority(text: &str) {
    let engine = ours(text.as_bytes());
    assert_eq!(engine.is_some(), crate::reference::authority(text).is_some(), "{text:?}: {engine:?}");
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

/// Whoever reads the path that is forwarded for `path` reads what the engine matched.
pub fn check_path(path: &str) {
    let engine = canonical(path.as_bytes()).ok().map(|path| String::from_utf8(path.into_owned()).unwrap());
    assert_eq!(engine, crate::reference::canonical(path), "{path:?}");
    let Some(forwarded) = engine else { return };
    assert_eq!(whatwg_path(&forwarded), Some(escaped(&forwarded)), "{path:?}: forwarded, but read differently");
    assert_eq!(canonical(forwarded.as_bytes()).unwrap(), forwarded.as_bytes(), "{path:?}: canonical twice");
    // Without params, empty segments and escapes of ordinary letters there is only one way to resolve dots. But for the
    // URL crate, which keeps a slash before what looks like a drive of Windows (`/c:`), in any scheme.
    let has_drive =
        path.as_bytes().windows(3).any(|w| w[0] == b'/' && w[1].is_ascii_alphabetic() && b":|".contains(&w[2]));
    if !path.contains("//") && !path.contains(';') && !path.contains('%') && !has_drive {
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
