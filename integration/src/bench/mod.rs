//! `make bench`: measures what each filter costs, side by side in one run on a real Envoy.
//!
//! One Envoy with one worker on one core has a listener for each scenario. On the other core, a client loads one listener
//! after the other, round by round, so that a noisy minute affects all scenarios alike. The cost of a round is the CPU
//! time that the kernel accounts to the Envoy process, divided by the requests. Of many short rounds the cheapest counts,
//! because it contains the least of the machine's other work: a round is short enough to fall between two disturbances.
//! Some modules are measured twice: the difference shows how far the numbers can be trusted.

mod clients;
mod costs;
mod cpu;
mod goals;
mod latency;
mod load;
mod options;
mod reload;
mod report;
mod scale;
mod scenario;

use std::time::Duration;

use anyhow::{Result, ensure};

use costs::{Costs, Figures};
pub use options::{BenchOptions, PARTS};

/// How long the latency of a scenario is measured.
const LATENCY: Duration = Duration::from_secs(5);

/// Runs the benchmark and returns the page for `docs/performance.md`.
pub fn run(options: &BenchOptions) -> Result<String> {
    ensure!(options.rounds > 0, "ROUNDS: at least one");
    ensure!(
        options.requests > 0 && options.requests.is_multiple_of(clients::CONNECTIONS),
        "REQUESTS_EACH: a multiple of {}, the number of connections",
        clients::CONNECTIONS
    );
    let scenarios = options.scenarios()?;
    eprintln!("{} scenarios, {} rounds of {} requests to each", scenarios.len(), options.rounds, options.requests);
    let mut all = Vec::new();
    let (mut rate, mut version) = (0, None);
    if !scenarios.is_empty() {
        let envoy = load::start(&scenarios, 1)?;
        cpu::pin(envoy.pid(), cpu::ENVOY)?;
        for scenario in &scenarios {
            scenario.check(&envoy)?;
        }
        all = load::rounds(&envoy, scenarios, options)?;
        rate = quarter_of_capacity(&all);
        if options.wants("latency") {
            for figures in all.iter_mut().filter(|figures| figures.scenario.timed) {
                eprintln!("latency of {} at {rate} requests a second", figures.scenario.title);
                let address = envoy.address(&figures.scenario.name)?;
                figures.latency = Some(latency::measure(address, rate, LATENCY)?);
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

/// Sends this many requests to each scenario of the native body, then ends Envoy.
pub fn train(requests: usize) -> Result<()> {
    let scenarios = scenario::native()?;
    let envoy = load::start(&scenarios, 1)?;
    for scenario in &scenarios {
        scenario.check(&envoy)?;
    }
    for clients in &mut load::clients(&envoy, scenarios.iter())? {
        clients.send(requests)?;
    }
    envoy.end()
}

/// A quarter of the rate that the suite sustains, in requests a second. At half of it, other work on a noisy machine would
/// make the latency that of an overloaded proxy.
fn quarter_of_capacity(all: &[Figures]) -> u64 {
    let suite = all.iter().find(|figures| figures.scenario.name == scenario::SUITE);
    let rate = suite.map_or(2000.0, |figures| costs::median(&figures.rate)) / 4.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and small")]
    let rate = rate as u64;
    rate.max(1)
}
