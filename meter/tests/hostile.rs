//! The cost of a request depends on its size and on nothing else that a client controls.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use penstock_meter::{Guest, hostile};

fn suite() -> PathBuf {
    let dist = std::env::var_os("PENSTOCK_DIST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist"), PathBuf::from);
    dist.join("suite.wasm")
}

/// Pseudo-random bytes, the same in each run (SplitMix64).
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let length = 8 + next() % 80;
    (0..length).map(|_| next().to_le_bytes()[3]).collect()
}

#[test]
fn no_request_costs_more_than_its_bytes_allow() {
    let policies = hostile::policies();
    let mut guests: Vec<Guest> = policies.iter().map(|policy| hostile::configured(&suite(), policy).unwrap()).collect();
    let count = std::env::var("PENSTOCK_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(400);
    let (mut worst, mut large) = ((0.0, 0), 0);
    for seed in 0..count {
        let (policy, headers) = hostile::request(&bytes(seed), guests.len());
        let spent = hostile::cost(&mut guests[policy], &headers).unwrap();
        let size = hostile::size(&headers);
        if let Err(error) = hostile::check(&spent, &headers) {
            panic!("seed {seed}, policy {policy}: {error}");
        }
        let per_byte = spent.instructions as f64 / size as f64;
        if size > 8_000 {
            large += 1;
            if per_byte > worst.0 {
                worst = (per_byte, seed);
            }
        }
    }
    println!(
        "{count} requests, {large} above 8,000 bytes; there at most {:.1} instructions a byte (seed {})",
        worst.0, worst.1
    );
    assert!(large > count / 10);
}
