//! `make bench`: what each filter costs, side by side in one run on a real Envoy.
//!
//! One Envoy with one worker on one core has a listener for each scenario; wrk on the other core asks one after the
//! other, round by round, so that a noisy minute hits all alike. What counts is the CPU time that the kernel has booked
//! on the Envoy process, divided by the requests that Envoy has counted; of the rounds, the median.

mod cpu;
mod latency;
mod report;
mod scale;
mod scenario;
mod wrk;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Bootstrap, Envoy};
use latency::Latency;
use scenario::BenchScenario;

/// How long and how often.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Rounds over all scenarios, after one to warm up.
    pub rounds: usize,
    /// Seconds for each scenario and round.
    pub seconds: u64,
    /// Only the scenarios of these names, and the one without a filter; empty: all.
    pub only: Vec<String>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        BenchOptions { rounds: 9, seconds: 2, only: Vec::new() }
    }
}

/// One scenario's figures.
#[derive(Debug)]
struct Figures {
    scenario: BenchScenario,
    /// µs of CPU a request, one for each round.
    cpu: Vec<f64>,
    /// Requests a second that wrk saw, one for each round.
    rate: Vec<f64>,
    latency: Option<Latency>,
}

/// Runs it, prints the table and returns the page for `docs/performance.md`.
pub fn run(options: &BenchOptions) -> Result<String> {
    ensure!(options.rounds > 0 && options.seconds > 0, "at least one round of one second");
    let mut scenarios = scenario::all()?;
    let wanted = |name: &str| {
        let is_base = [scenario::NONE, scenario::BROWSER_NONE].contains(&name);
        options.only.is_empty() || is_base || options.only.iter().any(|only| only == name)
    };
    scenarios.retain(|scenario| wanted(&scenario.name));
    let envoy = start(&scenarios, 1)?;
    cpu::pin(envoy.pid(), cpu::ENVOY)?;
    for scenario in &scenarios {
        scenario.check(&envoy)?;
    }
    let mut all: Vec<Figures> = scenarios
        .into_iter()
        .map(|scenario| Figures { scenario, cpu: Vec::new(), rate: Vec::new(), latency: None })
        .collect();
    for round in 0..=options.rounds {
        eprintln!("round {round} of {}{}", options.rounds, if round == 0 { " (to warm up)" } else { "" });
        for figures in &mut all {
            let measured = measure(&envoy, &figures.scenario, options.seconds);
            let (cpu, rate) = measured.with_context(|| figures.scenario.title)?;
            if round > 0 {
                figures.cpu.push(cpu);
                figures.rate.push(rate);
            }
        }
    }
    let scale = if options.only.is_empty() { Some(scale::measure(options)?) } else { None };
    let rate = half_of_capacity(&all);
    for figures in all.iter_mut().filter(|figures| figures.scenario.timed) {
        eprintln!("latency of {} at {rate} requests a second", figures.scenario.title);
        let address = envoy.address(&figures.scenario.name)?;
        figures.latency = Some(latency::measure(address, rate, Duration::from_secs(options.seconds * 3))?);
    }
    let envoy_version = envoy.admin().json("/server_info")?;
    let mut page = report::page(&all, options, rate, envoy_version.get("version").and_then(|version| version.as_str()));
    page.push_str(&scale.map(|scale| scale.page()).unwrap_or_default());
    page.push_str(&report::raw(&all));
    Ok(page)
}

fn start(scenarios: &[BenchScenario], workers: usize) -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?.concurrency(workers).log_level("error,wasm:error,dynamic_modules:error");
    for scenario in scenarios {
        bootstrap = bootstrap.listener(scenario.listener()?);
    }
    bootstrap.start()
}

/// µs of CPU for each request, and requests a second.
fn measure(envoy: &Envoy, scenario: &BenchScenario, seconds: u64) -> Result<(f64, f64)> {
    let address = envoy.address(&scenario.name)?;
    let counter = format!("http.{}.downstream_rq_total", scenario.name);
    let requests = envoy.admin().stat(&counter)?;
    let before = cpu::spent(envoy.pid())?;
    let rate = wrk::run(address, scenario.load, seconds)?;
    let spent = cpu::spent(envoy.pid())? - before;
    let requests = envoy.admin().stat(&counter)? - requests;
    ensure!(requests > 0, "{} answered no request", scenario.title);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok((spent.as_secs_f64() * 1e6 / requests as f64, rate))
}

/// Half of what the suite can take, in requests a second.
fn half_of_capacity(all: &[Figures]) -> u64 {
    let suite = all.iter().find(|figures| figures.scenario.name == scenario::SUITE);
    let rate = suite.map_or(2000.0, |figures| report::median(&figures.rate)) / 2.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and small")]
    let rate = rate as u64;
    rate.max(1)
}
