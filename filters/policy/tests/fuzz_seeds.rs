//! The fuzzers' seeds: made of the contract's cases, and run through the fuzzers' properties on the stable toolchain.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../../../fuzz/properties.rs"]
mod properties;
mod readers;
mod reference;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

type Seeds = BTreeSet<Vec<u8>>;

/// The name of a target, its seeds, and what must hold for each.
type Target = (&'static str, Seeds, fn(&[u8]));

/// Every target.
fn seeds() -> [Target; 4] {
    let cases = |text: &str| text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    let egress = cases(include_str!("contract/egress-cases.jsonl"));
    let field = |name: &str| -> Seeds {
        egress.iter().map(|case| case["request"][name].as_str().unwrap().as_bytes().to_vec()).collect()
    };
    let all = [
        include_str!("contract/load-cases.jsonl"),
        include_str!("contract/routes-cases.jsonl"),
        include_str!("contract/limits-sequences.jsonl"),
    ];
    let others = all.into_iter().flat_map(cases).collect::<Vec<_>>();
    let documents = egress.iter().chain(&others).map(|case| case["policy"].to_string().into_bytes()).collect();
    [
        ("document", documents, properties::document),
        ("authority", field("authority"), properties::authority),
        ("path", field("path"), properties::path),
        ("request", egress.iter().map(properties::seed).collect(), properties::request),
    ]
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target)
}

fn committed(target: &str) -> Seeds {
    fs::read_dir(folder(target)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_seeds_are_made_of_the_contracts_cases_and_hold() {
    for (target, seeds, property) in seeds() {
        let committed = committed(target);
        assert!(
            seeds.is_subset(&committed),
            "{target}: run `cargo test -p penstock-policy --test fuzz_seeds -- --ignored`"
        );
        // Also those that were added by hand: what a fuzzer once found.
        committed.iter().for_each(|seed| property(seed));
    }
}

#[test]
#[ignore = "writes fuzz/seeds, after the contract has changed"]
fn write_the_seeds() {
    for (target, seeds, _) in seeds() {
        fs::create_dir_all(folder(target)).unwrap();
        let new = seeds.difference(&committed(target)).cloned().collect::<Vec<_>>();
        let known = committed(target).len();
        for (i, seed) in new.iter().enumerate() {
            fs::write(folder(target).join(format!("{:03}", known + i)), seed).unwrap();
        }
    }
}
