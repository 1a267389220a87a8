//! The table, and the page that is made of it.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use super::latency::Latency;
use super::scenario::{self, Load};
use super::{BenchOptions, Figures};

/// The middle one; of an even number the upper of the two.
pub(super) fn median(values: &[f64]) -> f64 {
    at(values, 50)
}

fn at(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// A row: CPU over no filter by round, and what the others are divided by.
struct Costs<'a> {
    all: &'a [Figures],
}

impl Costs<'_> {
    fn figures(&self, name: &str) -> Option<&Figures> {
        self.all.iter().find(|figures| figures.scenario.name == name)
    }

    /// What each round cost over the same round without a filter.
    fn added(&self, figures: &Figures) -> Vec<f64> {
        let none = match figures.scenario.load {
            Load::Plain => scenario::NONE,
            Load::Browser => scenario::BROWSER_NONE,
        };
        let none = self.figures(none).map(|none| none.cpu.as_slice()).unwrap_or_default();
        figures.cpu.iter().zip(none).map(|(cpu, none)| cpu - none).collect()
    }

    /// The least that it cost over no filter: of many short rounds that with the least noise.
    fn least_added(&self, name: &str) -> f64 {
        let least = |name| self.figures(name).map_or(0.0, |figures| at(&figures.cpu, 0));
        let load = self.figures(name).map(|figures| figures.scenario.load);
        least(name) - least(if load == Some(Load::Browser) { scenario::BROWSER_NONE } else { scenario::NONE })
    }

    fn median_added(&self, name: &str) -> f64 {
        self.figures(name).map_or(0.0, |figures| median(&self.added(figures)))
    }
}

/// `docs/performance.md` up to what depends on the size of policies and on the workers.
pub(super) fn page(all: &[Figures], options: &BenchOptions, rate: u64, envoy: Option<&str>) -> String {
    let costs = Costs { all };
    let mut page = String::from(HEAD);
    let _ = writeln!(
        page,
        "\n{}, {}; {} rounds of {} s each, interleaved.\n",
        machine(),
        version(envoy),
        options.rounds,
        options.seconds
    );
    table(&mut page, &costs);
    goals(&mut page, &costs);
    latencies(&mut page, all, rate);
    page
}

fn table(page: &mut String, costs: &Costs) {
    let suite = costs.median_added(scenario::SUITE);
    page.push_str(
        "| | CPU µs a request | over no filter | the least | spread (25 % to 75 %) | of the suite |\n|---|---|---|---|---|---|\n",
    );
    for figures in costs.all {
        let added = costs.added(figures);
        let _ = writeln!(
            page,
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} to {:.1} | {:.2} |",
            figures.scenario.title,
            median(&figures.cpu),
            median(&added),
            costs.least_added(&figures.scenario.name),
            at(&added, 25),
            at(&added, 75),
            median(&added) / suite,
        );
    }
}

fn goals(page: &mut String, costs: &Costs) {
    let suite = costs.median_added(scenario::SUITE);
    let ratio = |name| suite / costs.median_added(name);
    let empty = suite - costs.median_added("empty");
    let whole = |name| costs.figures(name).map_or(0.0, |figures| median(&figures.cpu));
    let rows = [
        ("suite to Lua with three of the jobs", ratio("lua"), "1.0"),
        ("suite to three SDK filters chained", ratio("peers"), "0.3"),
        ("suite to the native chain", ratio("native"), "1.5"),
        ("suite less an empty wasm filter, µs", empty, "8"),
        ("suite less its host calls, µs", suite - costs.median_added(scenario::FLOOR), "–"),
        (
            "suite with 10,000 rules to 10, over no filter",
            costs.median_added("suite-10000") / costs.median_added("suite-10"),
            "1.2",
        ),
        ("suite with 10,000 rules to 10, whole request", whole("suite-10000") / whole("suite-10"), "1.2"),
    ];
    let so = |name: &str| costs.least_added(scenario::NATIVE_SUITE) / costs.least_added(name);
    let native = [
        ("`libpenstock.so` to Lua with three of the jobs", so("lua"), "0.75"),
        ("`libpenstock.so` to the native chain", so("native"), "1.2"),
        ("`libpenstock.so` to `suite.wasm`", so(scenario::SUITE), "0.35"),
        ("`libpenstock.so` measured twice, one to the other", so(scenario::NATIVE_AGAIN), "–"),
        (
            "`libpenstock.so` with 10,000 rules to 10",
            costs.least_added("so-suite-10000") / costs.least_added("so-suite-10"),
            "1.05",
        ),
        (
            "`libpenstock.so` to `suite.wasm`, 3 KB of cookies",
            costs.least_added("browser-so-suite") / costs.least_added("browser-suite"),
            "–",
        ),
        (
            "`libpenstock.so` to Lua, 3 KB of cookies",
            costs.least_added("browser-so-suite") / costs.least_added("browser-lua"),
            "–",
        ),
    ];
    page.push_str("\nOver no filter, the least of all rounds:\n\n| goal | measured | at most |\n|---|---|---|\n");
    for (goal, measured, most) in native {
        let _ = writeln!(page, "| {goal} | {measured:.2} | {most} |");
    }
    page.push_str("\n| goal | measured | at most |\n|---|---|---|\n");
    for (goal, measured, most) in rows {
        let _ = writeln!(page, "| {goal} | {measured:.2} | {most} |");
    }
    let share = |name: &str| costs.median_added(scenario::FLOOR) / costs.median_added(name);
    let _ = writeln!(
        page,
        "\n{FLOOR} In this run those calls alone cost {:.0} % of the suite, {:.1} times what Lua costs and {:.1} times the native \
         chain: an aim below that cannot be reached by a wasm filter on this host, whatever it does between the calls.",
        share(scenario::SUITE) * 100.0,
        share("lua"),
        share("native"),
    );
}

fn latencies(page: &mut String, all: &[Figures], rate: u64) {
    let _ = writeln!(
        page,
        "\n## Latency\n\nAt {rate} requests a second, half of what the suite can take on one core, µs:\n"
    );
    page.push_str("| | p50 | p99 | p99.9 |\n|---|---|---|---|\n");
    for figures in all {
        if let Some(Latency { p50, p99, p999 }) = figures.latency {
            let [p50, p99, p999] = [p50, p99, p999].map(|latency: Duration| latency.as_micros());
            let _ = writeln!(page, "| {} | {p50} | {p99} | {p999} |", figures.scenario.title);
        }
    }
}

/// The end of the page.
pub(super) fn raw(all: &[Figures]) -> String {
    let mut page = String::from("\n## Raw numbers\n\nµs of CPU a request, round by round:\n\n```text\n");
    for figures in all {
        let rounds: Vec<String> = figures.cpu.iter().map(|cpu| format!("{cpu:.2}")).collect();
        let _ = writeln!(page, "{:<18} {}", figures.scenario.name, rounds.join(" "));
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

/// `COMMIT/1.40.0/Clean/RELEASE/BoringSSL`: the second part.
fn version(envoy: Option<&str>) -> String {
    let version = envoy.and_then(|envoy| envoy.split('/').nth(1)).unwrap_or("unknown");
    format!("Envoy {version}, Penstock {}", env!("CARGO_PKG_VERSION"))
}

/// Behind the goals.
const FLOOR: &str = "\
*The suite's host calls, no work* is a module that is called as the suite is and calls back as it does for an allowed
request (the header map once, the egress rule for access logs, the time, one write of shared data, the route header), but
looks at nothing and decides nothing.";

const HEAD: &str = "\
# Performance

Written by `make bench`, which anybody can run: a stock Envoy with one worker on one core, wrk on another with 16
connections, requests with twelve headers, answered by Envoy itself so that nothing but the filters differs. What counts
is the CPU time that the kernel books on the Envoy process for each request, over that of no filter in the same round,
and of the rounds the median. Machines differ and are noisy: the ratios count.

- The suite does all four jobs on each request: egress (allowed), a rate limit by key, a route rule that does not hold,
  a sticky canary.
- *Native* is RBAC on host and method, the local rate limit (one bucket: it has none by key) and a route table with a
  header match and a random split.
- *Lua* does three of the jobs: an allowlist, a header route, a split by a hash of the user. It has no memory that
  workers share, so no limit.
- *`libpenstock.so`* is the native body of the same engine ([native.md](native.md)), *3 KB of cookies* a second request, with a policy of ten rules in each section, ports and a limit by address.
- *SDK filters* are written on the `proxy-wasm` SDK from what public Rust filters document (`integration/peers/`): a
  limit by key in shared data with quota headers, an A/B split, a denylist of hosts and addresses.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((at(&[4.0, 1.0, 2.0, 3.0], 75) - 4.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
