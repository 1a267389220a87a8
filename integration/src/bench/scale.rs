//! How cost scales: with the number of rules (in Node's V8) and with the number of workers (in Envoy).

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::clients::LoadClients;
use super::options::BenchOptions;
use super::scenario::{self, BenchScenario};
use super::{costs, load};
use crate::workspace;

/// The numbers of rules that are compared.
const RULES: [usize; 3] = [10, 10_000, 100_000];
/// The numbers of workers that are compared.
const WORKERS: [usize; 3] = [1, 2, 4];

/// Results for each number of rules.
#[derive(Debug)]
pub(super) struct PolicyScale(Vec<(&'static str, usize, Value)>);

/// Results for each number of workers.
#[derive(Debug)]
pub(super) struct WorkerScale(Vec<(usize, ByScenario)>);

/// For each scenario, µs of CPU a request in each round.
type ByScenario = Vec<(String, Vec<f64>)>;

/// A kind of rule: its title, its module, a function that makes a section with so many rules, and a function that
/// returns a host that one of them matches.
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

/// Measures the policies with different numbers of rules.
pub(super) fn policies() -> Result<PolicyScale> {
    let mut policies = Vec::new();
    for (title, module, policy, host) in KINDS {
        for rules in RULES {
            eprintln!("{rules} {title}");
            policies.push((title, rules, on_node(module, &policy(rules), &host(rules))?));
        }
    }
    Ok(PolicyScale(policies))
}

/// Measures Envoys with different numbers of workers.
pub(super) fn workers(options: &BenchOptions) -> Result<WorkerScale> {
    let mut workers = Vec::new();
    for count in WORKERS {
        eprintln!("{count} workers");
        workers.push((count, on_workers(count, options)?));
    }
    Ok(WorkerScale(workers))
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

/// The name of the scenario in which each connection has a key of its own.
fn own_keys(scenario: &str) -> String {
    format!("{scenario}, own keys")
}

fn on_workers(count: usize, options: &BenchOptions) -> Result<ByScenario> {
    let compared = [scenario::NONE, scenario::SUITE, scenario::OLD, scenario::NATIVE_SUITE];
    let mut scenarios: Vec<BenchScenario> = scenario::all(options.old.as_deref())?;
    scenarios.retain(|scenario| compared.contains(&&*scenario.name));
    let envoy = load::start(&scenarios, count)?;
    // Leaves the placement of the workers to the kernel: they run on every core, including the client's.
    let mut costs: Vec<_> = scenarios.iter().map(|scenario| (scenario.name.clone(), Vec::new())).collect();
    let mut clients = load::clients(&envoy, scenarios.iter())?;
    for scenario in [scenario::SUITE, scenario::NATIVE_SUITE] {
        costs.push((own_keys(scenario), Vec::new()));
        clients.push(LoadClients::open_with_own_keys(envoy.address(scenario)?)?);
    }
    for round in 0..=options.rounds {
        for ((_, costs), clients) in costs.iter_mut().zip(&mut clients) {
            let (cpu, _) = load::measure(&envoy, clients, options.requests)?;
            if round > 0 {
                costs.push(cpu);
            }
        }
    }
    Ok(costs)
}

impl WorkerScale {
    fn least(&self, workers: usize, name: &str) -> Option<f64> {
        let (_, costs) = self.0.iter().find(|(count, _)| *count == workers)?;
        costs.iter().find(|(of, _)| of == name).map(|(_, costs)| costs::least(costs))
    }

    /// The cost of a scenario minus that of the scenario without a filter.
    fn added(&self, workers: usize, name: &str) -> Option<f64> {
        Some(self.least(workers, name)? - self.least(workers, scenario::NONE)?)
    }

    /// The cost with this many workers divided by the cost with one.
    pub(super) fn ratio(&self, workers: usize, name: &str) -> Option<f64> {
        Some(self.added(workers, name)? / self.added(1, name)?)
    }

    /// With this many workers, the cost when all requests have one key, divided by that when each connection has its
    /// own: what it costs that workers share a bucket.
    pub(super) fn shared_ratio(&self, workers: usize, name: &str) -> Option<f64> {
        Some(self.added(workers, name)? / self.added(workers, &own_keys(name))?)
    }

    /// Formats the results as a section of `docs/performance.md`.
    pub(super) fn page(&self) -> String {
        let mut page = String::from(
            "\n## Workers\n\nµs of CPU a request, the least of the rounds, all requests on one bucket of one limit: if workers \
             waited for each other by spinning, or had to try again often, a request would cost more with more of them. \
             With *own keys*, each of the 16 connections has a bucket of its own: what more workers cost there, they do not \
             cost because of the shared bucket.\n\n",
        );
        let own = [scenario::SUITE, scenario::NATIVE_SUITE].map(own_keys);
        let columns = [
            ("`suite.wasm`", scenario::SUITE),
            ("own keys", &own[0]),
            ("`libpenstock.so`", scenario::NATIVE_SUITE),
            ("own keys", &own[1]),
            ("`OLD`", scenario::OLD),
        ];
        let columns: Vec<_> = columns.into_iter().filter(|(_, name)| self.least(1, name).is_some()).collect();
        page.push_str("| workers | no filter |");
        for (title, _) in &columns {
            let _ = write!(page, " {title} | over no filter |");
        }
        let _ = writeln!(page, "\n|---|---|{}", "---|---|".repeat(columns.len()));
        for (count, _) in &self.0 {
            let _ = write!(page, "| {count} | {:.1} |", self.least(*count, scenario::NONE).unwrap_or_default());
            for (_, name) in &columns {
                let number = |value: Option<f64>| value.unwrap_or_default();
                let _ = write!(
                    page,
                    " {:.1} | {:.1} |",
                    number(self.least(*count, name)),
                    number(self.added(*count, name))
                );
            }
            page.push('\n');
        }
        page
    }

    /// The costs, round by round.
    pub(super) fn raw(&self) -> impl Iterator<Item = (String, &[f64])> {
        self.0.iter().flat_map(|(count, costs)| {
            costs.iter().map(move |(name, costs)| (format!("{name}, {count} w"), costs.as_slice()))
        })
    }
}

impl PolicyScale {
    /// Formats the results as a section of `docs/performance.md`.
    pub(super) fn page(&self) -> String {
        let mut page = String::from(
            "\n## Large policies\n\nA module on Node's V8: its first configuration, the memory of the VM then, loading the \
             same again beside it (a reload), and a decision.\n\n\
             | rules | kind | configure ms | memory MiB | reload ms | then MiB | decide µs |\n|---|---|---|---|---|---|---|\n",
        );
        for (kind, rules, measured) in &self.0 {
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
        page
    }
}
