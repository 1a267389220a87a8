//! The output of `penstock init` is valid, has no warnings, and passes its own tests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::penstock_in;

#[test]
fn every_starter_policy_is_valid_and_passes_its_tests() {
    for purpose in ["routing", "canary", "rate-limit", "egress"] {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let run = penstock_in(here, &["init", purpose], "");
        assert!(run.status == 0 && run.out.contains("wrote ./policy.yaml"), "{purpose}: {}", run.err);
        assert_eq!(penstock_in(here, &["check"], "").out, "policy.yaml: valid\n", "{purpose}");
        let run = penstock_in(here, &["test"], "");
        assert_eq!(run.status, 0, "{purpose}: {}", run.out);
        let run = penstock_in(here, &["init", purpose], "");
        assert!(run.status == 2 && run.err.contains("--force"), "{purpose}: {}", run.err);
        assert_eq!(penstock_in(here, &["init", purpose, "--force"], "").status, 0);
        let printed = penstock_in(here, &["init", purpose, "--print"], "").out;
        assert_eq!(penstock_in(here, &["check", "-"], &printed).status, 0);
    }
}

#[test]
fn the_version_is_a_command_too() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    assert_eq!(penstock_in(here, &["version"], "").out, penstock_in(here, &["--version"], "").out);
    assert!(penstock_in(here, &["version", "-o", "json"], "").out.starts_with("{\"version\":"));
    let run = penstock_in(here, &["chekc"], "");
    assert!(run.status == 2 && run.err.contains("'check'"), "{}", run.err);
}
