//! What grows and what does not: by the number of rules, on Node's V8; by the number of workers, on Envoy.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::scenario::{self, BenchScenario};
use super::{BenchOptions, report, start};
use crate::workspace;

/// Rules of each kind.
const RULES: [usize; 3] = [10, 10_000, 100_000];
/// Workers of one Envoy.
const WORKERS: [usize; 3] = [1, 2, 4];

/// Both tables.
#[derive(Debug)]
pub(super) struct Scale {
    policies: Vec<(&'static str, usize, Value)>,
    /// µs of CPU for a request without a filter, with `suite.wasm` and with `libpenstock.so`, a round each.
    workers: Vec<(usize, [Vec<f64>; 3])>,
}

/// A kind of rule: its title, its module, its section with so many of them, and a host that one of them is for.
type Kind = (&'static str, &'static str, fn(usize) -> Value, fn(usize) -> String);

const KINDS: [Kind; 5] = [
    ("routes by host", "header-routing", |n| routes(n, |i| json!({"hostnames": [host(i)]})), |n| host(n / 2)),
    (
        "routes by path",
        "header-routing",
        |n| routes(n, |i| json!({"path": {"value": format!("/v{i}/things")}})),
        |n| host(n / 2),
    ),
    (
        "routes by header",
        "header-routing",
        |n| routes(n, |i| json!({"headers": [{"name": "x-tenant", "value": format!("tenant-{i}")}]})),
        |n| host(n / 2),
    ),
    (
        "egress by host",
        "egress-allowlist",
        |n| egress(n, |i| json!({"host": host(i), "ports": [443]})),
        |n| host(n / 2),
    ),
    (
        "egress by CIDR",
        "egress-allowlist",
        |n| egress(n, |i| json!({"cidr": format!("{}/32", address(i)), "ports": [443]})),
        |n| address(n / 2),
    ),
];

fn host(i: usize) -> String {
    format!("shop-{i}.example.com")
}

fn address(i: usize) -> String {
    format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255)
}

fn routes(count: usize, condition: impl Fn(usize) -> Value) -> Value {
    let rule = |i| json!({"name": format!("rule-{i}"), "matches": [condition(i)], "route": "beta"});
    json!({"routes": {"rules": (0..count).map(rule).collect::<Vec<_>>()}})
}

fn egress(count: usize, to: impl Fn(usize) -> Value) -> Value {
    let rule = |i| json!({"name": format!("rule-{i}"), "to": [to(i)]});
    json!({"egress": {"rules": (0..count).map(rule).collect::<Vec<_>>()}})
}

/// Measures all of it.
pub(super) fn measure(options: &BenchOptions) -> Result<Scale> {
    let mut policies = Vec::new();
    for (title, module, policy, host) in KINDS {
        for rules in RULES {
            eprintln!("{rules} {title}");
            policies.push((title, rules, on_node(module, &policy(rules), &host(rules))?));
        }
    }
    let mut workers = Vec::new();
    for count in WORKERS {
        eprintln!("{count} workers");
        workers.push(on_workers(count, options)?);
    }
    Ok(Scale { policies, workers })
}

fn on_node(module: &str, policy: &Value, host: &str) -> Result<Value> {
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), policy.to_string())?;
    let mut node = Command::new("node");
    node.arg(workspace::root().join("integration/scale.mjs"));
    let output = node.args([&workspace::module(module)?, file.path()]).arg(host).output();
    let output = output.context("cannot run node: `make setup` says how to get it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(measured.get("taken") == Some(&json!(true)), "the policy was refused: {measured}");
    Ok(measured)
}

fn on_workers(count: usize, options: &BenchOptions) -> Result<(usize, [Vec<f64>; 3])> {
    let scenarios: Vec<BenchScenario> = scenario::all()?
        .into_iter()
        .filter(|s| [scenario::NONE, scenario::SUITE, scenario::NATIVE_SUITE].contains(&&*s.name))
        .collect();
    let envoy = start(&scenarios, count)?;
    // All workers where the kernel puts them: on every core, the client's as well.
    let mut costs = [const { Vec::new() }; 3];
    for round in 0..=options.rounds {
        for (costs, scenario) in costs.iter_mut().zip(&scenarios) {
            let (cpu, _) = super::measure(&envoy, scenario, options.seconds)?;
            if round > 0 {
                costs.push(cpu);
            }
        }
    }
    Ok((count, costs))
}

impl Scale {
    /// Two sections of `docs/performance.md`.
    pub(super) fn page(&self) -> String {
        let mut page = String::from(
            "\n## Large policies\n\nA module on Node's V8: its first configuration, the memory of the VM then, loading the \
             same again beside it (a reload), and a decision.\n\n\
             | rules | kind | configure ms | memory MiB | reload ms | then MiB | decide µs |\n|---|---|---|---|---|---|---|\n",
        );
        for (kind, rules, measured) in &self.policies {
            let number = |name: &str| measured.get(name).and_then(Value::as_f64).unwrap_or_default();
            let _ = writeln!(
                page,
                "| {rules} | {kind} | {:.0} | {:.1} | {:.0} | {:.1} | {:.2} |",
                number("configureMs"),
                number("memoryMiB"),
                number("reloadMs"),
                number("reloadMiB"),
                number("decideNs") / 1000.0,
            );
        }
        page.push_str(
            "\n## Workers\n\nµs of CPU a request, all requests on one bucket of one limit: if workers waited for each other \
             by spinning, or had to try again often, a request would cost more with more of them.\n\n\
             | workers | no filter | `suite.wasm` | over no filter | `libpenstock.so` | over no filter |\n|---|---|---|---|---|---|\n",
        );
        for (count, costs) in &self.workers {
            let [none, suite, native] = costs.each_ref().map(|costs| report::median(costs));
            let added = [suite, native].map(|cost| cost - none);
            let [suite_added, native_added] = added;
            let _ = writeln!(
                page,
                "| {count} | {none:.1} | {suite:.1} | {suite_added:.1} | {native:.1} | {native_added:.1} |"
            );
        }
        page
    }
}
