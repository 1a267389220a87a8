//! Hosts and paths against readers that other people wrote: whatever they read differently is 400 here, and what is
//! forwarded they read as it stands.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod readers;
mod reference;

use proptest::prelude::*;
use proptest::sample::select;
use readers::{check_authority, check_path, ours};

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
