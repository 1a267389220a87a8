//! `make bench`: measures what each filter costs, side by side in one run on a real Envoy.
//!
//! One Envoy with one worker on one core has a listener for each scenario. On the other core, wrk loads one listener
//! after the other, round by round, so that a noisy minute affects all scenarios alike. The cost of a round is the CPU
//! time that the kernel accounts to the Envoy process, divided by the requests that Envoy has counted. Of many short
//! rounds the cheapest counts, because it contains the least of the machine's other work. Some modules are measured
//! twice: the difference shows how far the numbers can be trusted.

mod costs;
mod cpu;
mod goals;
mod latency;
mod reload;
mod report;
mod scale;
mod scenario;
mod wrk;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Bootstrap, Envoy};
use costs::Costs;
use latency::Latency;
use scenario::BenchScenario;

/// How long the benchmark runs and what it measures.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Rounds over all scenarios, after one to warm up.
    pub rounds: usize,
    /// Seconds for each scenario in each round.
    pub seconds: u64,
    /// Measures only the scenarios and [`PARTS`] with these names, and their baselines; all when empty.
    pub only: Vec<String>,
    /// A `suite.wasm` of another version, as a comparison.
    pub old: Option<PathBuf>,
}

/// The parts of the benchmark that are not scenarios.
pub const PARTS: [&str; 4] = ["latency", "workers", "reload", "large"];

impl Default for BenchOptions {
    fn default() -> Self {
        BenchOptions { rounds: 25, seconds: 1, only: Vec::new(), old: None }
    }
}

impl BenchOptions {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The selected scenarios, with their baselines.
    fn scenarios(&self) -> Result<Vec<BenchScenario>> {
        let mut all = scenario::all(self.old.as_deref())?;
        let known = |only: &&String| PARTS.contains(&only.as_str()) || all.iter().any(|s| s.name == **only);
        if let Some(unknown) = self.only.iter().find(|only| !known(only)) {
            let names: Vec<&str> = all.iter().map(|s| &*s.name).chain(PARTS).collect();
            anyhow::bail!("ONLY: there is no {unknown:?}; there are {}", names.join(", "));
        }
        let loads: Vec<_> = all.iter().filter(|s| self.wants(&s.name)).map(|s| s.load).collect();
        all.retain(|s| self.wants(&s.name) || (s.is_base() && loads.contains(&s.load)));
        Ok(all)
    }
}

/// The figures of one scenario.
#[derive(Debug)]
struct Figures {
    scenario: BenchScenario,
    /// µs of CPU a request, for each round.
    cpu: Vec<f64>,
    /// Requests a second as wrk measured them, for each round.
    rate: Vec<f64>,
    latency: Option<Latency>,
}

/// Runs the benchmark and returns the page for `docs/performance.md`.
pub fn run(options: &BenchOptions) -> Result<String> {
    ensure!(options.rounds > 0 && options.seconds > 0, "at least one round of one second");
    let scenarios = options.scenarios()?;
    let seconds = scenarios.len() as u64 * (options.rounds as u64 + 1) * options.seconds;
    eprintln!("{} scenarios: {} minutes, and then what is beside them", scenarios.len(), seconds.div_ceil(55));
    let mut all = Vec::new();
    let (mut rate, mut version) = (0, None);
    if !scenarios.is_empty() {
        let envoy = start(&scenarios, 1)?;
        cpu::pin(envoy.pid(), cpu::ENVOY)?;
        for scenario in &scenarios {
            scenario.check(&envoy)?;
        }
        all = rounds(&envoy, scenarios, options)?;
        rate = half_of_capacity(&all);
        if options.wants("latency") {
            for figures in all.iter_mut().filter(|figures| figures.scenario.timed) {
                eprintln!("latency of {} at {rate} requests a second", figures.scenario.title);
                let address = envoy.address(&figures.scenario.name)?;
                figures.latency = Some(latency::measure(address, rate, Duration::from_secs(options.seconds * 5))?);
            }
        }
        let server = envoy.admin().json("/server_info")?;
        version = server.get("version").and_then(|version| version.as_str()).map(str::to_owned);
    }
    let costs = Costs::new(all);
    let workers = if options.wants("workers") { Some(scale::workers(options)?) } else { None };
    let reload = if options.wants("reload") { Some(reload::measure()?) } else { None };
    let large = if options.wants("large") { Some(scale::policies()?) } else { None };
    let mut page = report::head(&costs, options, version.as_deref());
    page.push_str(&goals::table(&goals::all(&costs, workers.as_ref())));
    page.push_str(&report::tables(&costs, rate));
    page.push_str(&workers.as_ref().map(scale::WorkerScale::page).unwrap_or_default());
    page.push_str(&reload.map(|reload| reload.page()).unwrap_or_default());
    page.push_str(&large.map(|large| large.page()).unwrap_or_default());
    page.push_str(&report::raw(&costs, workers.as_ref()));
    Ok(page)
}

fn rounds(envoy: &Envoy, scenarios: Vec<BenchScenario>, options: &BenchOptions) -> Result<Vec<Figures>> {
    let mut all: Vec<Figures> = scenarios
        .into_iter()
        .map(|scenario| Figures { scenario, cpu: Vec::new(), rate: Vec::new(), latency: None })
        .collect();
    for round in 0..=options.rounds {
        eprintln!("round {round} of {}{}", options.rounds, if round == 0 { " (to warm up)" } else { "" });
        for figures in &mut all {
            let measured = measure(envoy, &figures.scenario, options.seconds);
            let (cpu, rate) = measured.with_context(|| figures.scenario.title.clone())?;
            if round > 0 {
                figures.cpu.push(cpu);
                figures.rate.push(rate);
            }
        }
    }
    Ok(all)
}

fn start(scenarios: &[BenchScenario], workers: usize) -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?.concurrency(workers).log_level("error,wasm:error,dynamic_modules:error");
    for scenario in scenarios {
        bootstrap = bootstrap.listener(scenario.listener()?);
    }
    bootstrap.start()
}

/// Runs wrk against one scenario; returns µs of CPU a request, and requests a second.
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

/// Half of the rate that the suite sustains, in requests a second.
fn half_of_capacity(all: &[Figures]) -> u64 {
    let suite = all.iter().find(|figures| figures.scenario.name == scenario::SUITE);
    let rate = suite.map_or(2000.0, |figures| costs::median(&figures.rate)) / 2.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and small")]
    let rate = rate as u64;
    rate.max(1)
}
