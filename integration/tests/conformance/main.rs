//! The Gateway API's conformance suite against a real Envoy Gateway, without the suite module and with it on every
//! route: Penstock must not change what a Gateway guarantees.
//!
//! Deployments run in a network of Pods that the test makes. `make conformance` runs this test; it takes a quarter of
//! an hour.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{
    Access, Cluster, EnvoyGateway, Kubelet, PodNetwork, Process, Registry, hosts, tool, with_hosts,
};
use penstock_integration::workspace;
use serde_json::{Value, json};

/// The polling interval for Deployments and Services.
const TICK: Duration = Duration::from_millis(250);
/// The namespace of all Gateways of the suite.
const NAMESPACE: &str = "gateway-conformance-infra";
const PAGE: &str = "docs/conformance.md";
/// The part of the documentation page that the test writes.
const MARKS: [&str; 2] = ["<!-- results -->\n", "<!-- end of results -->\n"];

/// A run counts some 110 requests: Envoys that end take what they counted in their last second with them.
const ENOUGH: u64 = 50;
/// The suite's command-line arguments.
const OPTIONS: &str = "integration/tests/conformance/options.yaml";

/// The results of one run of the suite.
struct ConformanceRun {
    /// The outcome of each test and of each of its steps (`Test/step`).
    outcomes: BTreeMap<String, ConformanceOutcome>,
    /// The number of requests that the module has counted.
    counted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConformanceOutcome {
    Passed,
    Failed,
    Skipped,
}

impl ConformanceRun {
    fn start(network: &mut Option<PodNetwork>, attached: bool) -> Result<(Self, PodNetwork)> {
        let cluster = Cluster::knowing(&["gateway-api-conformance", "envoy-gateway"])?;
        let registry = Registry::start(&Access::Open)?;
        let gateway = EnvoyGateway::with_pods(&cluster, &registry.docker_config()?)?;
        cluster.namespace(NAMESPACE, &[("gateway-conformance", "infra")])?;
        if attached {
            push(&registry)?;
            cluster.apply(&extension(&registry).to_string())?;
        }
        let mut kubelet = Kubelet::new(&cluster, network.take().context("no network")?)?;
        let mut suite = suite(&cluster)?;
        let begin = Instant::now();
        let mut failed = 0;
        while suite.ended()?.is_none() {
            // Like a real kubelet, retries what failed because an object changed or did not exist yet.
            failed = match kubelet.tick(&cluster) {
                Ok(()) => 0,
                Err(error) if failed == 40 => return Err(error.context(suite.log())),
                Err(_) => failed + 1,
            };
            ensure!(begin.elapsed() < Duration::from_secs(3600), "the suite does not end:\n{}", suite.log());
            thread::sleep(TICK);
        }
        if attached {
            let status = cluster.get("envoyextensionpolicy", NAMESPACE, "penstock")?.pointer("/status").cloned();
            let status = status.unwrap_or_default().to_string();
            ensure!(
                status.contains("Accepted") && !status.contains("\"False\""),
                "the policy is not accepted: {status}"
            );
        }
        let log = suite.log();
        let keep = workspace::root().join("target/conformance");
        fs::create_dir_all(&keep)?;
        let kind = if attached { "with" } else { "without" };
        fs::write(keep.join(format!("{kind}.log")), &log)?;
        fs::write(keep.join(format!("{kind}-envoy-gateway.log")), gateway.log())?;
        // The report is missing only when the suite could not start.
        fs::copy(cluster.folder().join("report.yaml"), keep.join(format!("{kind}.yaml"))).context(log.clone())?;
        // The module exports its counters once a second; on a busy machine this takes longer.
        let mut counted = 0;
        for _ in 0..30 {
            counted = kubelet.counters().iter().flat_map(|page| page.lines()).filter_map(requests).sum();
            if !attached || counted > ENOUGH {
                break;
            }
            thread::sleep(Duration::from_secs(1));
        }
        eprintln!("- {kind} the module: {:?}, {counted} requests counted", begin.elapsed());
        Ok((ConformanceRun { outcomes: outcomes(&log), counted }, kubelet.into_network()))
    }
}

/// A policy with every section that applies to requests to a Gateway. It refuses nothing.
fn extension(registry: &Registry) -> Value {
    let any = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway",
        "matchExpressions": [{"key": "without-penstock", "operator": "DoesNotExist"}]});
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyExtensionPolicy",
        "metadata": {"name": "penstock", "namespace": NAMESPACE},
        "spec": {
            "targetSelectors": [any],
            "wasm": [{
                "name": "penstock", "failOpen": false,
                "config": {
                    "rateLimits": [{"name": "conformance", "key": [{"sourceAddress": {}}], "limit": {"requests": 1_000_000, "per": "1s"}}],
                    "routes": {"default": "theirs", "rules": [
                        {"name": "nobody", "matches": [{"headers": [{"name": "x-nobody", "value": "sends this"}]}], "route": "other"},
                    ]},
                },
                "code": {"type": "Image", "image": {"url": format!("{}/penstock/suite:0.1.0", registry.address())}},
            }],
        },
    })
}

/// The value of a line of counters, if it is the request counter of the limit that counts all requests. The limit has gauges too, such as its capacity.
fn requests(line: &str) -> Option<u64> {
    let (name, value) = line.rsplit_once(' ')?;
    ["penstock", "requests_total", "conformance"].iter().all(|part| name.contains(part)).then_some(())?;
    value.parse().ok()
}

fn push(registry: &Registry) -> Result<()> {
    let (module, to) = (workspace::module("suite")?, format!("{}/penstock/suite:0.1.0", registry.address()));
    let output = with_hosts(&hosts(registry.folder())?, &workspace::dist().join("penstock"))
        .args(["image", "push", &module.display().to_string(), &to])
        .env("DOCKER_CONFIG", registry.docker_config()?)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The tests to run, as a regular expression: `ONLY=HTTPRouteMatching`. Empty means all; `make` always sets it.
fn selected() -> String {
    std::env::var("ONLY").unwrap_or_default()
}

/// Starts the suite.
fn suite(cluster: &Cluster) -> Result<Process> {
    let only = selected();
    Process::start("gateway-conformance", cluster.folder(), |command: &mut Command| {
        command.env("KUBECONFIG", cluster.kubeconfig());
        command.args(["-test.v", "-test.timeout=55m", &format!("-test.run=^TestConformance$/({only})")]);
        command.arg("--conformance-options-file").arg(workspace::root().join(OPTIONS));
    })
}

/// Parses `--- PASS: TestConformance/Name/step (0.01s)` with any indentation.
fn outcomes(log: &str) -> BTreeMap<String, ConformanceOutcome> {
    log.lines()
        .filter_map(|line| {
            let (outcome, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": TestConformance/")?;
            let outcome = match outcome {
                "PASS" => ConformanceOutcome::Passed,
                "FAIL" => ConformanceOutcome::Failed,
                _ => ConformanceOutcome::Skipped,
            };
            Some((rest.rsplit_once(" (")?.0.to_owned(), outcome))
        })
        .collect()
}

#[test]
#[ignore = "needs `make control-planes` and a quarter of an hour; `make conformance` runs it"]
fn a_gateway_conforms_with_the_suite_on_every_route_as_it_does_without() -> Result<()> {
    tool("gateway-conformance")?;
    let Some(network) = PodNetwork::enter("a_gateway_conforms_with_the_suite_on_every_route_as_it_does_without")?
    else {
        return Ok(());
    };
    let mut network = Some(network);
    let (without, back) = ConformanceRun::start(&mut network, false)?;
    network = Some(back);
    let (with, _network) = ConformanceRun::start(&mut network, true)?;
    let enough = with.counted > ENOUGH || !selected().is_empty();
    ensure!(without.counted == 0 && enough, "{} and {} counted", without.counted, with.counted);
    let differ: Vec<_> = without
        .outcomes
        .iter()
        .filter(|(name, outcome)| with.outcomes.get(*name) != Some(outcome))
        .map(|(name, outcome)| format!("{name}: {outcome:?} without, {:?} with", with.outcomes.get(name)))
        .collect();
    ensure!(differ.is_empty(), "these come out differently with the module:\n{}", differ.join("\n"));
    ensure!(without.outcomes.len() == with.outcomes.len(), "there are more with the module");
    if std::env::var_os("ONLY").is_none() {
        compare_page(&results(&with))?;
    }
    Ok(())
}

/// The part of the page: the suite's report, and its tests by outcome.
fn results(run: &ConformanceRun) -> String {
    let tests = |wanted: ConformanceOutcome| -> Vec<&str> {
        run.outcomes
            .iter()
            .filter(|(name, outcome)| !name.contains('/') && **outcome == wanted)
            .map(|(name, _)| name.as_str())
            .collect()
    };
    let [passed, failed, skipped] =
        [ConformanceOutcome::Passed, ConformanceOutcome::Failed, ConformanceOutcome::Skipped].map(tests);
    let list = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
    };
    format!(
        "{} tests passed{}.\n\n{} failed{}.\n\n{} were skipped by the suite, because they need features that it was not asked about, or read logs{}.\n",
        passed.len(),
        list(&passed),
        failed.len(),
        list(&failed),
        skipped.len(),
        list(&skipped),
    )
}

fn compare_page(results: &str) -> Result<()> {
    let path = workspace::root().join(PAGE);
    let page = fs::read_to_string(&path)?;
    let (head, rest) = page.split_once(MARKS[0]).context("the page has no place for results")?;
    let (old, tail) = rest.split_once(MARKS[1]).context("the results have no end")?;
    if std::env::var_os("PENSTOCK_WRITE").is_some() {
        fs::write(&path, format!("{head}{}{results}{}{tail}", MARKS[0], MARKS[1]))?;
        return Ok(());
    }
    ensure!(old == results, "{PAGE} says something else; PENSTOCK_WRITE=1 writes what came out:\n{results}");
    Ok(())
}
