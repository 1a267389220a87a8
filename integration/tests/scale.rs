//! A hundred thousand egress rules in the module that ships, on the V8 of Node: time, memory, cost of a decision.
//!
//! Memory is the same on every machine; the bounds on time are those of a loaded one, where a linear search would still cost a
//! thousand times as much. The numbers of a quiet one are in docs/decisions.md.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use penstock_integration::workspace;
use serde_json::{Value, json};

const RULES: usize = 100_000;

/// What `scale.mjs` measures of a policy with these rules.
fn measure(rules: Vec<Value>, host: &str, peer: &str) -> Result<Value> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), json!({"egress": {"rules": rules}}).to_string())?;
    let output = Command::new("node")
        .arg(workspace::root().join("integration/scale.mjs"))
        .args([workspace::module("egress-allowlist")?.as_path(), file.path()])
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
