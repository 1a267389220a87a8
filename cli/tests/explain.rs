//! `penstock explain`, as a user sees it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{penstock, penstock_in};
use serde_json::Value;

const NOON: &str = "2026-12-01T09:12:00Z";

/// The explanation of a request with the shop's policy, as text; the ids of refusals depend only on the seed.
fn explained(arguments: &[&str]) -> String {
    let mut all = vec!["explain", "shop.yaml", "--seed", "1", "--time", NOON];
    all.extend(arguments);
    let run = penstock(&all, "");
    assert_eq!((run.status, run.err.as_str()), (0, ""), "{arguments:?}");
    run.out
}

#[test]
fn a_route_names_its_rule_and_the_nearest_misses() {
    let arguments =
        ["--url", "https://shop.example.com/cart", "-H", "x-user-group: beta", "--source-address", "10.0.0.1"];
    insta::assert_snapshot!(explained(&arguments));
}

#[test]
fn a_canary_shows_key_shares_scores_and_the_ramp() {
    let url = ["--url", "https://shop.example.com/reviews/7", "-H", "x-api-key: k"];
    insta::assert_snapshot!(explained(&[&url[..], &["-H", "x-user-id: alice"]].concat()));
    insta::assert_snapshot!("override", explained(&[&url[..], &["-H", "x-canary: always"]].concat()));
    insta::assert_snapshot!("chance", explained(&url));
}

#[test]
fn a_refusal_by_egress_says_what_each_rule_wanted() {
    let refusals = [
        ("method", "curl --path-as-is -X DELETE https://api.stripe.com/v1/./charges"),
        ("path", "curl --path-as-is https://api.stripe.com/v1/charges/../refunds"),
        ("host", "curl https://api.stripe.co/"),
        ("port", "curl https://old.example.com:444/"),
        ("expired", "curl https://old.example.com/"),
        ("caller", "curl https://internal.example.com/"),
        ("ambiguous", "curl https://0x7f.1/"),
        ("denied", "curl https://secret.shop.example.com/"),
    ];
    let explained: String = refusals
        .iter()
        .map(|(name, curl)| format!("--- {name}\n{}\n", explained(&["--at", "egress", "--curl", curl])))
        .collect();
    insta::assert_snapshot!(explained);
}

#[test]
fn a_header_without_a_name_is_refused() {
    for header in [": a", ":authority: shop.test", "x group: beta", "x-group"] {
        let run = penstock(&["explain", "shop.yaml", "--url", "https://shop.example.com/", "--header", header], "");
        assert!(run.status == 2 && run.err.contains(&format!("--header {header:?}")), "{header}: {run:?}");
    }
}

#[test]
fn limits_show_the_bucket_that_earlier_requests_left() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = folder.path().join("earlier.jsonl");
    let upload = format!(
        r#"{{"method":"POST","authority":"shop.example.com","scheme":"https","path":"/upload","headers":[["x-api-key","k"]],"sourceAddress":"10.0.0.1","time":"{NOON}"}}"#
    );
    std::fs::write(&earlier, format!("{upload}\r\n\n{upload}\n").repeat(3)).unwrap();
    let arguments = ["--request", &upload, "--after", earlier.to_str().unwrap()];
    insta::assert_snapshot!(explained(&arguments));
}

#[test]
fn what_audit_held_back_is_shown_also_when_a_limit_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "egress: {mode: Audit, deny: [{host: x.a.test}], rules: [{name: r, to: [{host: a.test}], methods: [GET]}]}\n\
        rateLimits: [{name: l, key: [], limit: {requests: 1, per: 1h}, matches: [{path: {value: /limited}}]}]\n";
    std::fs::write(folder.path().join("p.yaml"), policy).unwrap();
    let line = |path: &str| {
        format!(r#"{{"method":"PUT","scheme":"https","authority":"a.test","path":"{path}","time":"{NOON}"}}"#)
    };
    std::fs::write(folder.path().join("one.jsonl"), line("/limited")).unwrap();
    let explain = |url: &str, method: &str| {
        let arguments = ["explain", "p.yaml", "--url", url, "-X", method, "--time", NOON, "--after", "one.jsonl"];
        penstock_in(folder.path(), &arguments, "").out
    };
    for (url, method, expected) in [
        ("https://a.test/limited", "PUT", "egress: not allowed (methodNotAllowed), but the mode is Audit"),
        ("https://a.test/limited", "GET", "egress: allowed"),
        ("https://a.test/", "PUT", "egress: not allowed (methodNotAllowed), but the mode is Audit"),
        ("https://x.a.test/", "GET", "egress: not allowed (hostDenied), but the mode is Audit"),
        ("https://b.test/limited", "GET", "egress: not allowed (hostNotAllowed), but the mode is Audit"),
        ("https://b.test:0/", "GET", "egress: refused (portMalformed)"),
    ] {
        let out = explain(url, method);
        assert!(out.contains(expected), "{url}: {out}");
        assert_eq!(out.contains("✗ refused with 429"), url.ends_with("limited"), "{out}");
        assert!(out.contains("where requests come in:") && out.contains("where requests leave:"), "{out}");
    }
}

#[test]
fn json_has_the_decision_as_replay_prints_it() {
    let request =
        format!(r#"{{"method":"GET","scheme":"https","authority":"api.stripe.com","path":"/x","time":"{NOON}"}}"#);
    let run = penstock(&["explain", "shop.yaml", "--request", "-", "--format", "json", "--seed", "1"], &request);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    let replayed = penstock(&["replay", "shop.yaml"], &request);
    let mut decision: Value = serde_json::from_str(&replayed.out).unwrap();
    // The id is random.
    decision["responseHeaders"][1] = report["decision"]["responseHeaders"][1].clone();
    assert_eq!(report["decision"], decision);
    insta::assert_snapshot!(run.out);
}

#[test]
fn a_har_entry_is_explained_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(common::folder().join("shop.yaml"), folder.path().join("shop.yaml")).unwrap();
    let entry = |url: &str| {
        format!(r#"{{"startedDateTime":"{NOON}","request":{{"method":"GET","url":"{url}","headers":[]}}}}"#)
    };
    let har = format!(
        r#"{{"log":{{"entries":[{},{}]}}}}"#,
        entry("https://a.test/"),
        entry("https://shop.example.com/reviews")
    );
    std::fs::write(folder.path().join("x.har"), har).unwrap();
    let explain =
        |entry: &str| penstock_in(folder.path(), &["explain", "shop.yaml", "--har", "x.har", "--entry", entry], "");
    assert!(explain("1").out.contains("no rule lists the host"));
    assert!(explain("2").out.starts_with(
        "GET https://shop.example.com/reviews at 2026-12-01T09:12:00Z\n\nwhere requests come in:\n✓ routed to"
    ));
    for (entry, error) in [("0", "write a whole number from 1 to 1000000"), ("3", "has the entries 1 to 2")] {
        let run = explain(entry);
        assert_eq!((run.status, run.err.contains(error)), (2, true), "{}", run.err);
    }
}

#[test]
fn the_exit_status_is_2_for_what_cannot_be_explained_and_1_for_an_invalid_policy() {
    for (arguments, status, message) in [
        (&["explain", "shop.yaml"][..], 2, "required"),
        (&["explain", "absent.yaml", "--url", "https://a.test"], 2, "absent.yaml"),
        (&["explain", "shop.yaml", "--url", "a.test"], 2, "has no scheme: write https://a.test"),
        (&["explain", "shop.yaml", "--url", "https://a.test", "--time", "noon"], 2, "RFC 3339"),
        (&["explain", "shop.yaml", "--url", "https://a.test", "-H", "x"], 2, "name: value"),
        (&["explain", "shop.yaml", "--curl", "wget x"], 2, "begins with curl"),
        (&["explain", "shop.yaml", "--request", "{}"], 2, "missing field"),
        (&["explain", "shop.yaml", "--url", "https://a.test", "--curl", "curl a.test"], 2, "cannot be used with"),
        (&["explain", "-", "--request", "-"], 2, "standard input can be only one"),
        (&["explain", "-", "--url", "https://a.test"], 1, "did you mean `routes`?"),
    ] {
        let run = penstock(arguments, "rotes: {}\n");
        assert_eq!((run.status, run.out.as_str()), (status, ""), "{arguments:?}: {}", run.err);
        assert!(run.err.contains(message), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn colours_only_come_when_they_are_forced() {
    assert!(!explained(&["--url", "https://shop.example.com/"]).contains('\u{1b}'));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(["explain", "shop.yaml", "--url", "https://shop.example.com/"]).current_dir(common::folder());
    let forced = command.env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(forced.stdout.contains(&0x1b));
    let refused = command.env("NO_COLOR", "1").env_remove("CLICOLOR_FORCE").output().unwrap();
    assert!(!refused.stdout.contains(&0x1b));
}
