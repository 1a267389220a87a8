//! Loads the scenarios of one Envoy, round by round.

use anyhow::{Context, Result};

use super::clients::LoadClients;
use super::costs::Figures;
use super::cpu;
use super::options::BenchOptions;
use super::scenario::BenchScenario;
use crate::{Bootstrap, Envoy};

/// An Envoy with a listener for each scenario.
pub(super) fn start(scenarios: &[BenchScenario], workers: usize) -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?.concurrency(workers).log_level("error,wasm:error,dynamic_modules:error");
    for scenario in scenarios {
        bootstrap = bootstrap.listener(scenario.listener()?);
    }
    bootstrap.start()
}

/// Sends the requests of one round; returns µs of CPU a request, and requests a second.
pub(super) fn measure(envoy: &Envoy, clients: &mut LoadClients, requests: usize) -> Result<(f64, f64)> {
    let before = cpu::spent(envoy.pid())?;
    let time = clients.send(requests)?;
    let spent = cpu::spent(envoy.pid())? - before;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let requests = requests as f64;
    Ok((spent.as_secs_f64() * 1e6 / requests, requests / time.as_secs_f64()))
}

/// Clients for each of these scenarios.
pub(super) fn clients<'s>(
    envoy: &Envoy,
    scenarios: impl Iterator<Item = &'s BenchScenario>,
) -> Result<Vec<LoadClients>> {
    scenarios.map(|scenario| LoadClients::open(envoy.address(&scenario.name)?, scenario.load)).collect()
}

/// Measures every scenario in each round, and drops the round that warms up.
pub(super) fn rounds(envoy: &Envoy, scenarios: Vec<BenchScenario>, options: &BenchOptions) -> Result<Vec<Figures>> {
    let mut all: Vec<Figures> = scenarios
        .into_iter()
        .map(|scenario| Figures { scenario, cpu: Vec::new(), rate: Vec::new(), latency: None })
        .collect();
    let mut clients = clients(envoy, all.iter().map(|figures| &figures.scenario))?;
    for round in 0..=options.rounds {
        if round % 25 == 0 {
            eprintln!("round {round} of {}{}", options.rounds, if round == 0 { " (to warm up)" } else { "" });
        }
        for (figures, clients) in all.iter_mut().zip(&mut clients) {
            let measured = measure(envoy, clients, options.requests);
            let (cpu, rate) = measured.with_context(|| figures.scenario.title.clone())?;
            if round > 0 {
                figures.cpu.push(cpu);
                figures.rate.push(rate);
            }
        }
    }
    Ok(all)
}
