//! Large policies in the released modules, in Node's V8: time, memory, and the cost of a decision.
//!
//! Memory is the same on every machine. The bounds on time allow for a loaded machine, where a linear search would
//! still cost a thousand times as much. Numbers of an idle machine are in docs/decisions.md.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use penstock_integration::workspace;
use serde_json::{Value, json};

const RULES: usize = 100_000;

/// Runs `scale.mjs` for an egress policy with these rules.
fn measure(rules: Vec<Value>, host: &str, peer: &str) -> Result<Value> {
    measure_policy("egress-allowlist", &json!({"egress": {"rules": rules}}), host, peer)
}

/// Runs `scale.mjs` for any policy.
fn measure_policy(module: &str, policy: &Value, host: &str, peer: &str) -> Result<Value> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), policy.to_string())?;
    let output = Command::new("node")
        .arg(workspace::root().join("integration/scale.mjs"))
        .args([workspace::module(module)?.as_path(), file.path()])
        .args([host, peer])
        .output()
        .context("cannot run node: `make setup` says how to get it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout)?;
    println!("{measured}");
    assert_eq!((&measured["taken"], &measured["answered"]), (&json!(true), &json!(0)), "all are allowed");
    Ok(measured)
}

fn by_host(count: usize) -> Vec<Value> {
    (0..count)
        .map(|i| json!({"name": format!("r{i}"), "to": [{"host": format!("h{i}.example.com"), "ports": [443]}]}))
        .collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn a_hundred_thousand_hosts_fit_and_cost_what_ten_cost() -> Result<()> {
    let few = measure(by_host(10), "h5.example.com", "")?;
    let many = measure(by_host(RULES), "h50000.example.com", "")?;
    assert!(number(&many["memoryMiB"]) <= 64.0);
    assert!(number(&many["configureMs"]) <= 30_000.0);
    assert!(number(&many["decideNs"]) <= 4.0 * number(&few["decideNs"]));
    Ok(())
}

#[test]
fn a_hundred_thousand_callers_of_one_host_cost_what_ten_cost() -> Result<()> {
    let rules = |count: usize| {
        (0..count)
            .map(|i| {
                json!({"name": format!("r{i}"), "from": [format!("spiffe://cluster.local/ns/a/sa/s{i}")],
                    "to": [{"host": "api.example.com", "ports": [443]}]})
            })
            .collect()
    };
    let few = measure(rules(10), "api.example.com", "spiffe://cluster.local/ns/a/sa/s9")?;
    let many = measure(rules(RULES), "api.example.com", "spiffe://cluster.local/ns/a/sa/s99999")?;
    assert!(number(&many["memoryMiB"]) <= 64.0);
    assert!(number(&many["configureMs"]) <= 30_000.0);
    assert!(number(&many["decideNs"]) <= 4.0 * number(&few["decideNs"]));
    Ok(())
}

/// The minimum of several measurements: the time when nothing else runs.
fn least(field: &str, module: &str, policy: &Value) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        least = least.min(number(&measure_policy(module, policy, "h0.example.com", "")?[field]));
    }
    Ok(least)
}

#[test]
fn twenty_expressions_on_the_user_agent_cost_five_microseconds_at_most() -> Result<()> {
    let rule = |i: usize| {
        json!({"name": format!("r{i}"), "route": "robots", "matches": [{"headers": [{"name": "user-agent",
            "type": "RegularExpression", "value": format!(".*(Bot{i}|crawler{i}|spider{i}).*")}]}]})
    };
    let policy = |count: usize| json!({"routes": {"default": "d", "rules": (0..count).map(rule).collect::<Vec<_>>()}});
    let without = least("decideNs", "header-routing", &policy(0))?;
    let with = least("decideNs", "header-routing", &policy(20))?;
    println!("{:.2} µs more than the {:.2} µs without", (with - without) / 1e3, without / 1e3);
    assert!(with - without <= 5_000.0);
    Ok(())
}

#[test]
fn a_hundred_limits_of_default_capacity_load_in_fifty_milliseconds_and_take_two_mebibytes_while_idle() -> Result<()> {
    let limit = |i: usize| {
        json!({"name": format!("l{i}"), "key": [{"header": "x-user"}], "limit": {"requests": 100, "per": "1m"},
            "matches": [{"hostnames": [format!("tenant{i}.example.com")]}]})
    };
    let policy = json!({"rateLimits": (0..100).map(limit).collect::<Vec<_>>()});
    for module in ["rate-limit", "suite"] {
        // The second measurement: the first includes the time in which V8 compiles the functions.
        let took = least("reloadMs", module, &policy)?;
        assert!(took <= 50.0, "{module}: {took} ms");
        let measured = measure_policy(module, &policy, "h0.example.com", "")?;
        let taken = number(&measured["memoryMiB"]) - number(&measured["emptyMiB"]) + number(&measured["sharedMiB"]);
        assert!(taken <= 2.0, "{module}: {taken} MiB");
        // Shared data that the module always has: the places of its tables, the salt, and which worker writes gauges.
        assert!(number(&measured["sharedValues"]) <= 3.0);
    }
    Ok(())
}
