//! Formats the results as a page: first one table that answers what a filter costs, then the details.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use super::costs::{self, Costs};
use super::latency::Latency;
use super::options::BenchOptions;
use super::scale::WorkerScale;
use super::scenario::{FLOOR, NATIVE_SUITE, SUITE};
use crate::workspace::dist;

/// The alternatives that a user chooses between: title, scenario with plain requests, scenario with browser requests.
const CHOICES: [(&str, &str, &str); 6] = [
    ("`libpenstock.so`, all four jobs", NATIVE_SUITE, "browser-so-suite"),
    ("`suite.wasm`, all four jobs", SUITE, "browser-suite"),
    ("Envoy's own filters: RBAC, one bucket for all, routes with a random split", "native", "browser-native"),
    ("a Lua script: allowlist, route, split", "lua", "browser-lua"),
    ("three filters on the proxy-wasm SDK: denylist, limit by key, split", "peers", "browser-peers"),
    ("a wasm filter that does nothing", "empty", ""),
];

/// The first part of the page, up to the goals.
pub(super) fn head(costs: &Costs, options: &BenchOptions, envoy: Option<&str>) -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n| CPU µs a request, over no filter | an ordinary request | with more in it |\n|---|---|---|\n");
    for (title, plain, browser) in CHOICES {
        let number = |name| costs.added(name).map_or("–".to_owned(), |cost| format!("{cost:.1}"));
        if costs.of(plain).is_some() {
            let _ = writeln!(page, "| {title} | {} | {} |", number(plain), number(browser));
        }
    }
    let _ = writeln!(
        page,
        "\n{EXPLANATION}{}\n{}, {}; {} rounds of {} requests each, interleaved, of which the least counts.",
        if dist().join("penstock.profdata").is_file() { BY_A_PROFILE } else { WITHOUT_A_PROFILE },
        machine(),
        version(envoy),
        options.rounds,
        options.requests,
    );
    page
}

/// The tables of all scenarios, and the latency.
pub(super) fn tables(costs: &Costs, rate: u64) -> String {
    let mut page = String::new();
    if costs.all().is_empty() {
        return page;
    }
    page.push_str("\n## All scenarios\n\n");
    page.push_str(SCENARIOS);
    page.push_str(
        "\n| CPU µs a request | whole | over no filter | median over no filter | 25 % to 75 % | of `suite.wasm` |\n|---|---|---|---|---|---|\n",
    );
    let suite = costs.added(SUITE);
    for figures in costs.all() {
        let by_round = costs.added_by_round(figures);
        let added = costs.added(&figures.scenario.name).unwrap_or_default();
        let _ = writeln!(
            page,
            "| {} | {:.1} | {added:.1} | {:.1} | {:.1} to {:.1} | {} |",
            figures.scenario.title,
            costs::least(&figures.cpu),
            costs::median(&by_round),
            costs::at(&by_round, 25),
            costs::at(&by_round, 75),
            suite.map_or("–".to_owned(), |suite| format!("{:.2}", added / suite)),
        );
    }
    if let (Some(floor), Some(lua), Some(native)) =
        (costs.ratio(FLOOR, SUITE), costs.ratio(FLOOR, "lua"), costs.ratio(FLOOR, "native"))
    {
        let _ = writeln!(
            page,
            "\n*The suite's host calls, no work* is a module with the same callbacks and host calls as the suite for an \
             allowed request whose limit a lease pays for (the header map once, the time, the route header). It reads \
             nothing and decides nothing. These calls alone cost {:.0} % of the suite, {lua:.1} times what Lua costs and {native:.1} \
             times as much as Envoy's own filters. No wasm filter that does these jobs can cost less.",
            floor * 100.0,
        );
    }
    latencies(&mut page, costs, rate);
    page
}

fn latencies(page: &mut String, costs: &Costs, rate: u64) {
    if costs.all().iter().all(|figures| figures.latency.is_none()) {
        return;
    }
    let _ = writeln!(
        page,
        "\n## Latency\n\nAt {rate} requests a second, a quarter of what the suite can take on one core, µs:\n"
    );
    page.push_str("| | p50 | p99 | p99.9 |\n|---|---|---|---|\n");
    for figures in costs.all() {
        if let Some(Latency { p50, p99, p999 }) = figures.latency {
            let [p50, p99, p999] = [p50, p99, p999].map(|latency: Duration| latency.as_micros());
            let _ = writeln!(page, "| {} | {p50} | {p99} | {p999} |", figures.scenario.title);
        }
    }
}

/// The last part of the page.
pub(super) fn raw(costs: &Costs, workers: Option<&WorkerScale>) -> String {
    let mut page = String::from("\n## Raw numbers\n\nµs of CPU a request, round by round:\n\n```text\n");
    let scenarios = costs.all().iter().map(|figures| (figures.scenario.name.clone(), figures.cpu.as_slice()));
    for (name, rounds) in scenarios.chain(workers.into_iter().flat_map(WorkerScale::raw)) {
        let rounds: Vec<String> = rounds.iter().map(|cpu| format!("{cpu:.1}")).collect();
        let _ = writeln!(page, "{name:<18} {}", rounds.join(" "));
    }
    page.push_str("```\n");
    page
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(": "));
    let model = field("model name").map_or("unknown processor", |(_, model)| model);
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("{cores} cores of {model}")
}

/// Reads Envoy's version from a string such as `COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
fn version(envoy: Option<&str>) -> String {
    let version = envoy.and_then(|envoy| envoy.split('/').nth(1)).unwrap_or("unknown");
    format!("Envoy {version}, Penstock {}", env!("CARGO_PKG_VERSION"))
}

const HEAD: &str = "\
# Performance

What one request costs in the filter, on one core of a stock Envoy:
";

const EXPLANATION: &str = "\
*An ordinary request* is one of a browser, with twelve headers and 45 bytes of cookies. *With more in it* means 3 KB of cookies, and
for the first two rows policies with ten rules, ports and a limit by the client's address. Lua and Envoy's own filters
have no limit by key, so they do three of the four jobs.

`make bench` writes this page on any machine. A client keeps 16 connections busy on one core. Envoy runs on another core and answers by
itself, so that only the filters differ. The cost is the CPU time that the kernel attributes to the Envoy process for each
request. Machines differ and are noisy, so compare ratios. Modules that were measured twice show how large the noise is.
";

const BY_A_PROFILE: &str = "
`libpenstock.so` is built as a release builds it, by a profile (`make pgo`) of the contract's cases and of the requests of these scenarios. Requests that
the profile does not contain gain less. What `make build` makes knows no profile and costs about 1.5 times as much ([decisions](decisions.md#performance)).
";

const WITHOUT_A_PROFILE: &str = "
`libpenstock.so` is built without a profile. Releases use one, and cost about two thirds of it: set `PENSTOCK_PROFILE` ([decisions](decisions.md#performance)).
";

const SCENARIOS: &str = "\
- The suite does all four jobs for each request: egress (allowed), a rate limit by key, a route rule that does not match,
  and a sticky canary. All requests have the same key.
- *Envoy's own* is RBAC on host and method, the local rate limit (one bucket for all, because it has no keys), and a route table
  with a header match and a random split. *Lua* is an allowlist, a header route, and a split by a hash of the user.
- *`libpenstock.so`* is the native body of the same engine ([native.md](native.md)).
- *SDK filters* use the `proxy-wasm` SDK and follow the documentation of public Rust filters (`integration/peers/`): a
  limit by key in shared data with quota headers, an A/B split, and a denylist of hosts and addresses.
- *`OLD`* is a `suite.wasm` of another version, given by its path: `make bench OLD=path/to/suite.wasm`.
";
