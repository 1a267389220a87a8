//! Checks what `penstock learn` promises with logs whose truth is known.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod generator;
mod limits;
mod merge;
mod properties;
mod vendors;

use std::path::Path;

use clap::Parser;
use generator::{Kind, Log};
use penstock::command::Cli;
use penstock::output::Output;
use penstock::yaml::Located;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::Value;

/// The learned policy.
struct Learned {
    text: String,
    report: Value,
    policy: Policy,
}

/// Learns from lines with additional options. The rules expire at a fixed time, so that runs can be compared.
fn learn(lines: &str, options: &[&str]) -> Learned {
    let folder = tempfile::tempdir().unwrap();
    let (log, report) = (folder.path().join("log.jsonl"), folder.path().join("report.json"));
    std::fs::write(&log, lines).unwrap();
    let fixed = ["penstock", "learn", "--expires", "2030-01-01", "--report"];
    let paths = [report.as_path(), log.as_path()].map(|path: &Path| path.to_str().unwrap().to_owned());
    let arguments =
        fixed.iter().copied().chain([paths[0].as_str()]).chain(options.iter().copied()).chain([paths[1].as_str()]);
    let mut text = Vec::new();
    let ran = Cli::parse_from(arguments).run(&mut Output::plain(&mut text));
    // If nothing is learned, no policy is written, because it would refuse everything.
    let text = match ran.unwrap() {
        true => String::from_utf8(text).unwrap(),
        false => "egress:\n  mode: Enforce\n  rules: []\n".to_owned(),
    };
    let node = Located::read(&text).unwrap().node;
    let policy = Policy::from_node(&node).unwrap();
    let report = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    Learned { text, report, policy }
}

impl Learned {
    /// Whether a request passes in a replay.
    fn allows(&self, request: &Value) -> bool {
        let request: WireRequest = serde_json::from_value(request.clone()).unwrap();
        let decision = request.decide(&self.policy, &mut World::new(Timestamp(0), 0));
        decision.action == Some("continue")
    }

    fn count(&self) -> usize {
        self.report["rules"].as_array().unwrap().len()
    }
}

/// Compares what was learned from a log with its truth, and returns the result.
fn check(log: &Log) -> Learned {
    let learned = learn(&log.lines(), &[]);
    let (mut honest, mut covered, mut allowed) = (0, 0, 0);
    for (request, kind) in &log.requests {
        let passes = learned.allows(request);
        allowed += u64::from(passes);
        match kind {
            Kind::Honest => {
                honest += 1;
                covered += u64::from(passes);
            }
            kind => assert!(!passes, "{kind:?} {request}\n{}", learned.text),
        }
    }
    assert!(covered * 1000 >= honest * 999, "{covered} of {honest} honest requests are covered\n{}", learned.text);
    assert!(learned.count() * 2 <= log.rules * 3, "{} rules for {}\n{}", learned.count(), log.rules, learned.text);
    // The report's numbers are those of a replay.
    assert_eq!(learned.report["covered"], allowed);
    assert_eq!(learned.report["requests"], log.requests.len());
    learned
}

/// Learning again from what the rules allow gives the same rules.
fn check_fixed_point(log: &Log, learned: &Learned) {
    let rules = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    let allowed = log.requests.iter().filter(|(request, _)| learned.allows(request));
    let lines: String = allowed.map(|(request, _)| format!("{request}\n")).collect();
    assert_eq!(rules(&learn(&lines, &[]).text), rules(&learned.text));
}

#[test]
fn forty_services_are_learned_and_nothing_that_was_hidden_among_them() {
    let log = generator::services(1, 95_000);
    let learned = check(&log);
    check_fixed_point(&log, &learned);
    let report = learned.report.to_string();
    for hidden in
        ["drop.evil.test:443", "*.t.evil-dns.test", "203.0.113.66:443", "[2001:db8::66]:443", "c2.evil.test:4444"]
    {
        assert!(report.contains(hidden), "{hidden}");
    }
    let first = &learned.report["refused"][0];
    assert_eq!((&first["why"], &first["suspicious"]), (&Value::from("address"), &Value::from(true)));
}

#[test]
fn other_services_are_learned_as_well() {
    for seed in [2, 3] {
        let log = generator::services(seed, 40_000);
        let learned = check(&log);
        check_fixed_point(&log, &learned);
    }
}

#[test]
fn few_hosts_with_many_paths_are_learned() {
    for seed in [1, 2] {
        let log = generator::few_hosts(seed, 15_000);
        let learned = check(&log);
        check_fixed_point(&log, &learned);
    }
}

#[test]
fn spellings_are_one_name_and_shared_parents_get_no_star() {
    let log = generator::spellings(1, 20_000);
    let learned = check(&log);
    check_fixed_point(&log, &learned);
    assert!(learned.text.contains("host: \"*.desk.example.com\""), "{}", learned.text);
    assert!(!learned.text.contains("*.s3.amazonaws.com"), "{}", learned.text);
    let anybody = learned.report["width"]["anyCaller"].as_array().unwrap();
    assert_eq!(anybody, &["time.example.net"]);
}

#[test]
fn ids_of_any_form_and_names_that_anyone_can_register_are_recognized() {
    for seed in [1, 2] {
        let log = vendors::vendors(seed, 12_000);
        let learned = check(&log);
        check_fixed_point(&log, &learned);
        assert!(!learned.text.contains("*.github.io") && !learned.text.contains("*.s3."), "{}", learned.text);
    }
}

#[test]
fn connections_of_a_tls_listener_become_rules_without_methods() {
    let line = |hour: u64, host: &str, method: &str| {
        let at = generator::at(hour * 3600).replace('T', " ").replace('Z', ".000");
        format!(
            "[{at}][12][info][wasm] wasm log: {{\"egress\":\"audit\",\"why\":\"hostNotAllowed\",\"caller\":\"spiffe://c/ns/shop/sa/cart\",\
             \"host\":\"{host}\",\"method\":{method},\"path\":null,\"port\":443}}\n"
        )
    };
    let lines: String = (0..60)
        .flat_map(|hour| {
            [line(hour, "Pay.example.com", "null"), line(hour, "192.0.2.7", "null"), line(hour, "a_b@c", "null")]
        })
        .collect();
    let learned = learn(&lines, &[]);
    let rule = "  # TLS connections that are not decrypted: every method and path of these hosts.\n  - name: cart-pay.example.com\n    owner: shop\n    \
        reason: \"learned from 60 requests, 2026-11-01 to 2026-11-03\"\n    from: [\"spiffe://c/ns/shop/sa/cart\"]\n    to:\n    \
        - host: pay.example.com\n      ports: [443]\n    expires: \"2030-01-01T00:00:00Z\"\n";
    assert!(learned.text.ends_with(rule), "{}", learned.text);
    assert_eq!(learned.report["covered"], 60);
    assert_eq!(learned.report["width"]["connections"], serde_json::json!(["cart-pay.example.com"]));
    let why = |number: usize| learned.report["refused"][number]["why"].as_str().unwrap().to_owned();
    assert_eq!([why(0), why(1)], ["address", "ambiguous"]);
    // The policy allows such a connection, and the same log adds nothing to it.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), &learned.text).unwrap();
    let again = common::penstock_in(folder.path(), &["learn", "--merge", "policy.yaml"], &lines);
    assert_eq!((again.status, &again.out), (0, &learned.text), "{}", again.err);
}

#[test]
fn more_traffic_never_removes_a_rule() {
    let log = generator::services(7, 15_000);
    let part = |of: usize| Log { rules: 0, requests: log.requests[..log.requests.len() * of / 4].to_vec() };
    let mut before: Option<Learned> = None;
    for parts in 1..=4 {
        let now = learn(&part(parts).lines(), &[]);
        if let Some(before) = &before {
            for (request, _) in log.requests.iter().filter(|(request, _)| before.allows(request)) {
                assert!(now.allows(request), "{request}");
            }
        }
        before = Some(now);
    }
}

#[test]
fn the_order_of_the_lines_does_not_matter() {
    let log = generator::spellings(5, 5_000);
    let mut shuffled = Log { rules: 0, requests: log.requests.clone() };
    let mut random = generator::Random(9);
    for n in (1..shuffled.requests.len()).rev() {
        shuffled.requests.swap(n, random.below(n + 1));
    }
    let (first, second) = (learn(&log.lines(), &[]), learn(&shuffled.lines(), &[]));
    assert_eq!(first.text, second.text);
    assert_eq!(first.report, second.report);
}
