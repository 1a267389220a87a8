//! `penstock check --within` as users and their tools see it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::penstock_in;
use serde_json::Value;

const PLATFORM: &str = "\
egress:
  rules:
  - name: partners
    to: [{host: '*.partner.example.com', ports: [443]}]
    methods: [GET, POST]
rateLimits:
- {name: per-client, key: [{sourceAddress: {}}], limit: {requests: 100, per: 1m, burst: 20}}
";

/// Runs the command in a folder with a platform's policy and `team`'s.
fn check(team: &str, arguments: &[&str]) -> common::Run {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("platform.yaml"), PLATFORM).unwrap();
    std::fs::write(folder.path().join("team.yaml"), team).unwrap();
    let mut all = vec!["check", "--within", "platform.yaml", "team.yaml"];
    all.extend(arguments);
    penstock_in(folder.path(), &all, "")
}

#[test]
fn a_policy_within_the_platforms_is_valid() {
    let run = check(&PLATFORM.replace("*.partner", "api.partner").replace("burst: 20", "burst: 10"), &[]);
    assert_eq!(run.status, 0, "{}", run.out);
    assert!(run.out.ends_with("team.yaml: valid\n"), "{}", run.out);
}

#[test]
fn what_exceeds_is_shown_in_its_line_with_a_request() {
    let team = PLATFORM.replace("*.partner.example.com", "*.example.com").replace("burst: 20", "burst: 30");
    let run = check(&team, &[]);
    assert_eq!(run.status, 1);
    insta::assert_snapshot!(run.out);
}

#[test]
fn the_witness_passes_the_teams_policy_and_not_the_platforms() {
    let team = PLATFORM.replace("*.partner.example.com", "*.example.com").replace("burst: 20", "burst: 30");
    let run = check(&team, &["--format", "json"]);
    assert_eq!(run.status, 1);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&report["within"], &report["valid"]), (&Value::Bool(false), &Value::Bool(false)));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("platform.yaml"), PLATFORM).unwrap();
    std::fs::write(folder.path().join("team.yaml"), &team).unwrap();
    for (error, section) in report["errors"].as_array().unwrap().iter().zip(["egress", "rateLimits"]) {
        let requests = match &error["witness"] {
            Value::Array(requests) => requests.clone(),
            request => vec![request.clone()],
        };
        // The other section decides, too, in whole policies: each is shown by its own.
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        let decisions = |policy: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(folder.path().join(policy)).unwrap();
            let (egress, limits) = text.split_at(text.find("rateLimits:").unwrap());
            let alone = if section == "egress" { egress } else { limits };
            std::fs::write(folder.path().join("alone.yaml"), alone).unwrap();
            let run = penstock_in(folder.path(), &["replay", "alone.yaml"], &lines);
            run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert!(decisions("team.yaml").iter().all(|decision| decision["action"] == "continue"), "{error}");
        assert_eq!(decisions("platform.yaml").last().unwrap()["action"], "respond", "{error}");
    }
}

#[test]
fn a_platforms_policy_that_is_invalid_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("platform.yaml"), "egress: {rule: []}\n").unwrap();
    std::fs::write(folder.path().join("team.yaml"), PLATFORM).unwrap();
    let run = penstock_in(folder.path(), &["check", "--within", "platform.yaml", "team.yaml"], "");
    assert_eq!(run.status, 1);
    assert!(run.err.contains("platform.yaml:1:10"), "{}", run.err);
}
