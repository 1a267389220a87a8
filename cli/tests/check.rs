//! `penstock check` as users and their tools see it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod common;

use common::{invalid_documents, penstock, penstock_in};
use serde_json::Value;

/// Read these as a person: can you put the document right with what is said?
#[test]
fn every_invalid_document_says_where_it_is_wrong_and_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let mut reports = String::new();
    for (name, text) in invalid_documents() {
        std::fs::write(folder.path().join("policy.yaml"), text).unwrap();
        let run = penstock_in(folder.path(), &["check", "policy.yaml"], "");
        assert_eq!(run.status, 1, "{name}: {}", run.out);
        assert!(run.out.contains("--> policy.yaml:") || name == "an empty document", "{name}: {}", run.out);
        reports += &format!("# {name}\n{}\n", run.out.trim_end());
    }
    for line in include_str!("../../filters/policy/tests/contract/load-cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        if case["expect"]["valid"] == false {
            let run = penstock(&["check", "-"], &case["policy"].to_string());
            assert_eq!(run.status, 1, "{line}");
            reports += &format!("# contract: {}: {}\n{}\n", case["name"], case["why"], run.out.trim_end());
        }
    }
    insta::assert_snapshot!(reports);
}

#[test]
fn manifests_are_checked_with_the_hosts_routes() {
    let run = penstock(&["check", "manifests.yaml"], "");
    assert_eq!(run.status, 1);
    insta::assert_snapshot!(run.out);
}

#[test]
fn ci_servers_get_annotations() {
    let run = penstock(&["check", "--format", "github", "manifests.yaml"], "");
    assert_eq!(run.status, 1);
    insta::assert_snapshot!(run.out);
}

#[test]
fn code_scanning_gets_sarif() {
    let run = penstock(&["check", "--format", "sarif", "manifests.yaml", "shop.yaml"], "");
    assert_eq!(run.status, 1);
    let log: serde_sarif::sarif::Sarif = serde_json::from_str(&run.out).unwrap();
    let results = log.runs[0].results.as_ref().unwrap();
    let region = results[0].locations.as_ref().unwrap()[0].physical_location.as_ref().unwrap().region.as_ref().unwrap();
    assert!(region.start_line.unwrap() > 1 && region.end_column > region.start_column);
    // Nothing was passed over: what the types of the standard write is what was read.
    let again: Value = serde_json::to_value(&log).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(&run.out).unwrap());
}

#[test]
fn what_ships_with_this_repository_is_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let run = penstock_in(
        &root,
        &[
            "check",
            "envoy-configs/static.yaml",
            "envoy-configs/ecds/penstock.yaml",
            "envoy-configs/egress-gateway.yaml",
            "envoy-configs/rate-limit.yaml",
        ],
        "",
    );
    assert_eq!(
        run.out,
        "envoy-configs/static.yaml (Envoy bootstrap): valid\n\
         envoy-configs/ecds/penstock.yaml (Envoy discovery file): valid\n\
         envoy-configs/egress-gateway.yaml (Envoy bootstrap): valid\n\
         envoy-configs/rate-limit.yaml (Envoy bootstrap): valid\n"
    );
}

#[test]
fn a_file_without_a_policy_is_a_mistake_in_the_command() {
    let run = penstock(&["check", "-"], "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n");
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert!(run.err.contains("no policy in standard input"), "{}", run.err);
}
