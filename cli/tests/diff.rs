//! `penstock diff`, as a user sees it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{folder, penstock, penstock_in};
use serde_json::Value;

const AT: [&str; 2] = ["--at", "2026-12-01T09:12:00Z"];

#[test]
fn a_change_of_policy_is_summed_up_loosened_first() {
    let run = penstock(&[&["diff", "shop.yaml", "shop-next.yaml"], &AT[..]].concat(), "");
    assert_eq!((run.status, run.err.as_str()), (0, ""));
    insta::assert_snapshot!(run.out);
}

#[test]
fn traffic_shows_which_requests_and_which_users() {
    let run = penstock(&[&["diff", "shop.yaml", "shop-next.yaml", "traffic.jsonl"], &AT[..]].concat(), "");
    assert_eq!((run.status, run.err.as_str()), (0, ""));
    insta::assert_snapshot!(run.out.split_once("\n\n").unwrap().1);
}

#[test]
fn json_says_the_same() {
    let traffic = std::fs::read_to_string(folder().join("traffic.jsonl")).unwrap();
    let run =
        penstock(&[&["diff", "shop.yaml", "shop-next.yaml", "-", "--format", "json"], &AT[..]].concat(), &traffic);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        report["changes"].as_array().unwrap().len() as u64,
        report["loosened"].as_u64().unwrap()
            + report["tightened"].as_u64().unwrap()
            + report["changed"].as_u64().unwrap()
    );
    assert_eq!(report["traffic"]["requests"], 52);
    let by_kind: u64 =
        report["traffic"]["kinds"].as_array().unwrap().iter().map(|kind| kind["count"].as_u64().unwrap()).sum();
    assert_eq!(by_kind, report["traffic"]["differ"].as_u64().unwrap());
    let moves: u64 =
        report["traffic"]["users"][0]["moves"].as_array().unwrap().iter().map(|to| to["users"].as_u64().unwrap()).sum();
    assert_eq!(moves, report["traffic"]["users"][0]["moved"].as_u64().unwrap());
}

#[test]
fn fail_on_fails_for_the_selected_changes_only() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, policy: &str| std::fs::write(folder.path().join(name), policy).unwrap();
    let rule =
        |methods: &str| format!("egress: {{rules: [{{name: a, to: [{{host: a.test}}], methods: [{methods}]}}]}}\n");
    write("get.yaml", &rule("GET"));
    write("put.yaml", &rule("GET, PUT"));
    write("route.yaml", &format!("{}routes: {{default: x}}\n", rule("GET")));
    write("bad.yaml", "rotes: {}\n");
    write("put.jsonl", "{\"method\":\"PUT\",\"scheme\":\"https\",\"authority\":\"a.test\",\"path\":\"/\"}\r\n\r\n");
    write("not.jsonl", "{\"method\":\"PUT\"}\n");
    for (arguments, status) in [
        (&["get.yaml", "put.yaml"][..], 0),
        (&["get.yaml", "put.yaml", "--fail-on", "loosened"], 1),
        (&["put.yaml", "get.yaml", "--fail-on", "loosened"], 0),
        (&["put.yaml", "get.yaml", "--fail-on", "any"], 1),
        (&["get.yaml", "route.yaml", "--fail-on", "loosened"], 0),
        (&["get.yaml", "route.yaml", "--fail-on", "any"], 1),
        (&["get.yaml", "get.yaml", "put.jsonl", "--fail-on", "any"], 0),
        (&["get.yaml", "put.yaml", "put.jsonl", "--fail-on", "loosened"], 1),
        (&["get.yaml", "bad.yaml"], 1),
        (&["get.yaml", "absent.yaml"], 2),
        (&["get.yaml", "put.yaml", "not.jsonl"], 2),
        (&["get.yaml"], 2),
        (&["-", "-"], 2),
        (&["get.yaml", "put.yaml", "--fail-on", "tightened"], 2),
        (&["-", "put.yaml", "--fail-on", "loosened"], 1),
    ] {
        let run = penstock_in(folder.path(), &[&["diff"], arguments].concat(), &rule("GET"));
        assert_eq!(run.status, status, "{arguments:?} {}{}", run.out, run.err);
    }
}
