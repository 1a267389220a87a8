//! `penstock diff` compares policies of any size in linear time, apart from a logarithm.
//!
//! Each pair of policies is made in two sizes, one four times the other: linear work takes four times as long,
//! quadratic work sixteen times.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

const SMALL: usize = 2_000;
const LARGE: usize = 4 * SMALL;

/// The output of `penstock diff` for two policies as JSON, and its CPU time.
fn diff(old: &Value, new: &Value) -> (Value, Duration) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("old.json"), old.to_string()).unwrap();
    std::fs::write(folder.path().join("new.json"), new.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    let command = command.args(["diff", "old.json", "new.json", "--output", "json"]);
    let (output, took) = common::timed(command.current_dir(folder.path()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), took)
}

/// Compares policies of both sizes; `expected` are the numbers of loosened, tightened and other changes of the larger
/// pair, in units of [`LARGE`].
#[track_caller]
fn is_linear(policies: impl Fn(usize) -> (Value, Value), expected: [usize; 3]) {
    let run = |n: usize| {
        let (old, new) = policies(n);
        diff(&old, &new)
    };
    let ((_, small), (report, large)) = (run(SMALL), run(LARGE));
    let counts = ["loosened", "tightened", "changed"].map(|class| report[class].as_u64().unwrap() as usize);
    assert_eq!(counts, expected.map(|times| times * LARGE));
    common::assert_linear("diff", [small, large], || [run(SMALL).1, run(LARGE).1]);
}

fn list(n: usize, entry: impl Fn(usize) -> Value) -> Value {
    (0..n).map(entry).collect()
}

fn egress(rules: Value, deny: Value) -> Value {
    json!({"egress": {"rules": rules, "deny": deny}})
}

fn limit(name: String, requests: usize) -> Value {
    json!({"name": name, "key": [{"header": "x-user"}], "limit": {"requests": requests, "per": "1m"}, "capacity": 8,
        "matches": [{"hostnames": [format!("{requests}.example.com")]}]})
}

#[test]
fn rules_that_each_allow_one_more_method() {
    let rules = |methods: Value| move |i: usize| json!({"name": format!("r{i}"), "to": [{"host": format!("h{i}.example.com")}], "methods": methods});
    is_linear(
        |n| {
            (
                egress(list(n, rules(json!(["GET"]))), json!([])),
                egress(list(n, rules(json!(["GET", "PUT"]))), json!([])),
            )
        },
        [1, 0, 0],
    );
}

#[test]
fn rules_for_addresses_that_get_other_names() {
    let rule = |name: &'static str| {
        move |i: usize| {
            let to = format!("10.{}.{}.0/24", i / 250, i % 250);
            json!({"name": format!("{name}{i}"), "to": [{"cidr": to}], "paths": [{"value": "/a"}]})
        }
    };
    is_linear(
        |n| (egress(list(n, rule("a")), json!([])), egress(list(n, rule("b")), json!([]))),
        // Added rules for what was allowed before; removed rules for what is still allowed.
        [0, 0, 2],
    );
}

#[test]
fn rules_whose_paths_go() {
    let rule = |fields: Value| {
        move |i: usize| {
            let mut rule = json!({"name": format!("r{i}"), "to": [{"host": format!("h{i}.example.com")}]});
            rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            rule
        }
    };
    let with_paths = json!({"paths": [{"value": "/a"}]});
    is_linear(
        |n| (egress(list(n, rule(with_paths.clone())), json!([])), egress(list(n, rule(json!({}))), json!([]))),
        // More paths, and no longer path-scoped.
        [2, 0, 0],
    );
}

#[test]
fn one_rule_with_very_many_destinations() {
    let rule = |port: usize| move |i: usize| json!({"host": format!("h{i}.example.com"), "ports": [port + i % 2]});
    let policy = |n: usize, port: usize| egress(json!([{"name": "all", "to": list(n, rule(port))}]), json!([]));
    let (report, took) = diff(&policy(SMALL, 80), &policy(SMALL, 81));
    assert_eq!((&report["loosened"], &report["tightened"]), (&json!(1), &json!(1)), "{report}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn denials_that_go_and_come() {
    let rules = list(10, |i| json!({"name": format!("r{i}"), "to": [{"host": format!("*.r{i}.example.com")}]}));
    let deny = |port: usize| {
        move |i: usize| match i % 2 {
            0 => json!({"host": format!("h{i}.r{}.example.com", i % 10), "ports": [port]}),
            _ => json!({"cidr": format!("10.{}.{}.0/24", i / 250, i % 250), "ports": [port]}),
        }
    };
    let policy = |n: usize, port: usize| egress(rules.clone(), list(n, deny(port)));
    let run = |n: usize| diff(&policy(n, 80), &policy(n, 81));
    let (_, small) = run(SMALL);
    let (report, large) = run(LARGE);
    // Half of them deny something that a rule allows.
    let half = json!(LARGE / 2);
    assert_eq!([&report["loosened"], &report["tightened"], &report["changed"]], [&half, &half, &json!(LARGE)]);
    common::assert_linear("diff", [small, large], || [run(SMALL).1, run(LARGE).1]);
}

#[test]
fn limits_that_change_and_limits_that_are_renamed() {
    let limits = |n: usize, name: &str, more: usize| json!({"rateLimits": list(n, |i| limit(format!("{name}{i}"), 2 * i + 10 + more))});
    // The rate, burst and matches of each.
    is_linear(|n| (limits(n, "l", 0), limits(n, "l", 1)), [3, 0, 0]);
    is_linear(|n| (limits(n, "a", 0), limits(n, "b", 0)), [0, 0, 1]);
}

#[test]
fn routes_and_canaries_that_change() {
    let routes = |n: usize, route: &str| {
        let rule = |i: usize| json!({"name": format!("r{i}"), "route": format!("{route}{i}"), "matches": [{"path": {"value": format!("/{i}")}}]});
        json!({"routes": {"rules": list(n, rule)}})
    };
    is_linear(|n| (routes(n, "a"), routes(n, "b")), [0, 0, 1]);
    let canaries = |n: usize, weight: usize| {
        let canary = |i: usize| {
            json!({"name": format!("c{i}"), "matches": [{"path": {"value": format!("/{i}")}}],
                "variants": [{"name": "v1", "weight": 10}, {"name": "v2", "weight": weight}]})
        };
        json!({"canaries": list(n, canary)})
    };
    is_linear(|n| (canaries(n, 10), canaries(n, 20)), [0, 0, 1]);
}
