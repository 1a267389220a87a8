//! What the benchmark measures, and how long.

use std::path::PathBuf;

use anyhow::Result;

use super::scenario::{self, BenchScenario};

/// How long the benchmark runs and what it measures.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Rounds over all scenarios, after one to warm up.
    pub rounds: usize,
    /// Requests to each scenario in each round: a multiple of the 16 connections.
    pub requests: usize,
    /// Measures only the scenarios and [`PARTS`] with these names, and their baselines; all when empty.
    pub only: Vec<String>,
    /// A `suite.wasm` of another version, as a comparison.
    pub old: Option<PathBuf>,
}

/// The parts of the benchmark that are not scenarios.
pub const PARTS: [&str; 4] = ["latency", "workers", "reload", "large"];

impl Default for BenchOptions {
    fn default() -> Self {
        BenchOptions { rounds: 200, requests: 1600, only: Vec::new(), old: None }
    }
}

impl BenchOptions {
    /// Whether the scenario or part with this name is selected.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The selected scenarios, with their baselines.
    pub(super) fn scenarios(&self) -> Result<Vec<BenchScenario>> {
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
