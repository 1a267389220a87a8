//! `penstock test --coverage` and `penstock replay --coverage`: what nothing decides by.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;

use common::{Run, penstock_in};
use serde_json::Value;

const POLICY: &str = r#"settings: {sourceAddress: {trustedHops: 0}}
egress:
  defaultPort: 443
  deny:
  - {host: ads.example.com}
  - {cidr: 169.254.0.0/16}
  rules:
  - name: stripe
    from: ["spiffe://c/ns/a/sa/a", "spiffe://c/ns/b/sa/b"]
    to: [{host: api.stripe.com, ports: [443]}, {host: "*.stripe.com"}]
    methods: [GET, POST]
    paths: [{value: /v1}, {type: Exact, value: /v2}]
  - name: unused
    to: [{host: example.org}]
rateLimits:
- name: per-client
  key: [{sourceAddress: {}}]
  limit: {requests: 1, per: 1h}
  matches:
  - {method: POST}
routes:
  default: stable
  rules:
  - name: beta
    route: beta
    matches:
    - path: {value: /v1}
      headers: [{name: x-group, value: beta}]
canaries:
- name: split
  matches: [{path: {value: /canary}}]
  variants: [{name: v1, weight: 1}, {name: v2, weight: 0}]
  overrides: [{header: {name: x-v, value: "2"}, variant: v2}]
"#;

/// Runs a command over `tests`, each a request and what it must get.
fn run(tests: &[(&str, &str)], arguments: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let steps = tests.iter().map(|(request, expect)| format!("  - {{request: {request}, expect: {expect}}}\n"));
    let text = format!("policy: policy.yaml\ntests:\n- name: all\n  steps:\n{}", steps.collect::<String>());
    std::fs::write(folder.path().join("policy.test.yaml"), text).unwrap();
    let requests = tests.iter().map(|(request, _)| format!("{request}\n")).collect::<String>();
    std::fs::write(folder.path().join("requests.jsonl"), requests).unwrap();
    penstock_in(folder.path(), arguments, "")
}

/// How often each part decided.
fn hits(report: &Value) -> BTreeMap<String, u64> {
    let items = report["policies"][0]["items"].as_array().unwrap();
    items.iter().map(|item| (item["path"].as_str().unwrap().to_owned(), item["hits"].as_u64().unwrap())).collect()
}

fn decided(tests: &[(&str, &str)]) -> Vec<String> {
    let run = run(tests, &["test", "--coverage", "--format", "json"]);
    assert_eq!(run.status, 0, "{}{}", run.out, run.err);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    hits(&report["coverage"]).into_iter().filter(|(_, hits)| *hits > 0).map(|(path, _)| path).collect()
}

const ALLOWED: &str = r#"{"method":"GET","authority":"api.stripe.com","path":"/v1/x","peer":"spiffe://c/ns/b/sa/b"}"#;

#[test]
fn each_part_counts_when_it_decides() {
    for (request, expect, parts) in [
        (
            ALLOWED,
            "{route: stable}",
            &[
                "egress.rules[0]",
                "egress.rules[0].from[1]",
                "egress.rules[0].methods[0]",
                "egress.rules[0].paths[0]",
                "egress.rules[0].to[0]",
                "egress.rules[0].to[1]",
                // Alone in that they do not hold.
                "canaries[0].matches[0].path",
                "rateLimits[0].matches[0].method",
                "routes.default",
                "routes.rules[0].matches[0].headers[0]",
            ][..],
        ),
        (r#"{"method":"GET","authority":"ads.example.com","path":"/"}"#, "{reason: hostDenied}", &["egress.deny[0]"]),
        (r#"{"method":"GET","authority":"169.254.1.1","path":"/"}"#, "{status: 403}", &["egress.deny[1]"]),
        (r#"{"method":"GET","authority":"other.test","path":"/"}"#, "{status: 403}", &[]),
        (
            r#"{"method":"PUT","authority":"api.stripe.com","path":"/v1","peer":"spiffe://c/ns/b/sa/b"}"#,
            "{status: 403}",
            &[],
        ),
    ] {
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        parts.sort();
        assert_eq!(decided(&[(request, expect)]), parts, "{request}");
    }
}

#[test]
fn routes_canaries_overrides_and_limits_count() {
    let with = |more: &str| format!(r#"{{"method":"GET","authority":"example.org",{more}}}"#);
    let one = |request: &str, expect: &str| decided(&[(request, expect)]);
    let beta = one(&with(r#""path":"/v1","headers":[["x-group","beta"]]"#), "{route: beta}");
    assert!(
        beta.contains(&"routes.rules[0]".to_owned()) && beta.contains(&"routes.rules[0].matches[0]".to_owned()),
        "{beta:?}"
    );
    assert!(!beta.contains(&"canaries[0].matches[0].path".to_owned()), "{beta:?}");
    let canary = one(&with(r#""path":"/canary""#), "{variant: v1}");
    assert!(canary.contains(&"canaries[0].variants[0]".to_owned()), "{canary:?}");
    assert!(!canary.contains(&"canaries[0].variants[1]".to_owned()), "{canary:?}");
    let other = one(&with(r#""path":"/canary","headers":[["x-v","2"]]"#), "{variant: v2}");
    assert!(other.contains(&"canaries[0].overrides[0]".to_owned()), "{other:?}");
    let post = r#"{"method":"POST","authority":"example.org","path":"/","sourceAddress":"10.0.0.1"}"#;
    assert!(!decided(&[(post, "{route: stable}")]).contains(&"rateLimits[0]".to_owned()));
    let both = decided(&[(post, "{route: stable}"), (post, "{status: 429}")]);
    assert!(both.contains(&"rateLimits[0]".to_owned()), "{both:?}");
}

#[test]
fn parts_that_no_test_decides_by_are_reported_with_their_line() {
    let tests = [(ALLOWED, "{route: stable}")];
    let run_with = |more: &[&str]| run(&tests, &[&["test", "--coverage"], more].concat());
    let human = run_with(&[]);
    assert_eq!(human.status, 0, "{}", human.err);
    for line in [
        "line 12: egress rule `stripe`, path is /v2 egress.rules[0].paths[1]",
        "line 13: egress rule `unused` egress.rules[1]",
        "line 5: egress deny ads.example.com egress.deny[0]",
    ] {
        assert!(human.out.contains(line), "{line}: {}", human.out);
    }
    // What is in a rule that nothing uses is not said again.
    assert!(!human.out.contains("egress.rules[1].to[0]"), "{}", human.out);
    assert_eq!((run_with(&["--min", "10"]).status, run_with(&["--min", "90"]).status), (0, 1));
    assert!(run_with(&["--min", "90"]).out.contains("coverage is below 90 %"));
    let lcov = run_with(&["--format", "lcov"]).out;
    assert!(lcov.starts_with("TN:penstock\nSF:policy.yaml\n") && lcov.contains("DA:13,0\n"), "{lcov}");
    assert!(lcov.contains("DA:8,1\n") && lcov.ends_with("end_of_record\n"), "{lcov}");
    let alone = run(&tests, &["test", "--format", "lcov"]);
    assert_eq!((alone.status, alone.err.contains("needs --coverage")), (2, true), "{}", alone.err);
}

#[test]
fn a_replay_reports_unused_rules() {
    let tests = [(ALLOWED, "{}")];
    let human = run(&tests, &["replay", "--coverage", "policy.yaml", "requests.jsonl"]);
    assert_eq!(human.status, 0, "{}", human.err);
    assert!(
        human.out.contains("no request used:\n") && human.out.contains("line 13: egress rule `unused`"),
        "{}",
        human.out
    );
    assert!(!human.out.contains("egress rule `stripe` egress"), "{}", human.out);
    let json = run(&tests, &["replay", "--coverage", "--output", "json", "policy.yaml", "requests.jsonl"]);
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((hits(&report)["egress.rules[0]"], hits(&report)["egress.rules[1]"]), (1, 0));
    let both = run(&tests, &["replay", "--summary", "--coverage", "-o", "json", "policy.yaml", "requests.jsonl"]);
    let both: Value = serde_json::from_str(&both.out).unwrap();
    assert_eq!((&both["coverage"], &both["summary"]["requests"]), (&report, &Value::from(1)));
    let both = run(&tests, &["replay", "--summary", "--coverage", "policy.yaml", "requests.jsonl"]);
    assert!(both.out.contains("1 requests: 1 passed") && both.out.contains("no request used:\n"), "{}", both.out);
    let alone = run(&tests, &["replay", "--output", "json", "policy.yaml", "requests.jsonl"]);
    assert_eq!(alone.status, 2, "{}", alone.err);
}

#[test]
fn a_policy_in_a_test_file_counts_too_with_its_lines_there() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    write("policy.yaml", POLICY);
    let request = "request: {method: GET, authority: b.test, path: /}, expect: {action: continue}";
    // One policy of the file, one of a test of its own, one that is not valid, and a file by two names.
    let file = "policy:\n  egress:\n    rules:\n    - name: b\n      to: [{host: b.test}]\n    - name: c\n      to: [{host: c.test}]\ntests:\n\
        - {name: one, REQUEST}\n- {name: two, REQUEST}\n- name: own\n  policy: {routes: {default: x}}\n\x20 request: {method: GET, authority: b.test, path: /}\n\
        \x20 expect: {route: x}\n- name: bad\n  policy: {rotes: {}}\n  expect: {valid: false}\n";
    write("a.test.yaml", &file.replace("REQUEST", request));
    let by_file = |policy: &str| {
        format!("policy: {policy}\ntests:\n- {{name: f, request: {ALLOWED}, expect: {{route: stable}}}}\n")
    };
    write("tests/b.test.yaml", &by_file("../policy.yaml"));
    write("c.test.yaml", &by_file("./policy.yaml"));
    let run = |more: &[&str]| penstock_in(folder.path(), &[&["test", "--coverage"], more].concat(), "");
    let json = run(&["--format", "json"]);
    assert_eq!(json.status, 0, "{}{}", json.out, json.err);
    let report: Value = serde_json::from_str(&json.out).unwrap();
    let policies = report["coverage"]["policies"].as_array().unwrap();
    let names: Vec<&str> = policies.iter().map(|policy| policy["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["policy.yaml", "a.test.yaml", "a.test.yaml"]);
    let shared = policies.iter().find(|policy| policy["items"][0]["path"] == "egress.rules[0]").unwrap();
    let item = |path: &str| shared["items"].as_array().unwrap().iter().find(|item| item["path"] == path).unwrap();
    let counts = |path: &str| (item(path)["hits"].as_u64(), item(path)["line"].as_u64());
    assert_eq!((counts("egress.rules[0]"), counts("egress.rules[1]")), ((Some(2), Some(4)), (Some(0), Some(6))));
    let human = run(&[]);
    assert!(human.out.contains("line 6: egress rule `c` egress.rules[1]"), "{}", human.out);
    let lcov = run(&["--format", "lcov"]).out;
    assert!(lcov.contains("SF:a.test.yaml\nDA:4,2\n") && lcov.contains("SF:policy.yaml\n"), "{lcov}");
    assert!(!lcov.contains(".."), "{lcov}");
    // If nothing could be covered, no minimum is reached.
    write("bad.test.yaml", "tests:\n- {name: bad, policy: {rotes: {}}, expect: {valid: false}}\n");
    assert_eq!(run(&["--min", "1", "bad.test.yaml"]).status, 1);
}
