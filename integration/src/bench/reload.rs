//! The cost of a reload, and the memory of a proxy with a policy, for both bodies, with few rules and with many.

use std::fmt::Write as _;

use anyhow::Result;

use super::cpu;
use super::scenario::together;
use crate::{Body, Bootstrap, Listener, Route, WasmFilter};

/// How many rules the policy has in `egress` and in `routes`.
const RULES: [usize; 2] = [10, 10_000];
const RELOADS: u32 = 5;
const WORKERS: usize = 2;

#[derive(Debug)]
struct ReloadRow {
    body: &'static str,
    rules: usize,
    /// Milliseconds of CPU for one reload, summed over all workers.
    cpu: f64,
    /// Resident memory of the process before the first reload and after the last, in KiB.
    resident: [u64; 2],
}

/// The measured rows of the table.
#[derive(Debug)]
pub(super) struct ReloadCosts(Vec<ReloadRow>);

/// Measures every row.
pub(super) fn measure() -> Result<ReloadCosts> {
    let mut rows = Vec::new();
    for (name, body) in [("`suite.wasm`", Body::Wasm), ("`libpenstock.so`", Body::Native)] {
        for rules in RULES {
            eprintln!("reloads of {rules} rules, {name}");
            let policy = together(rules);
            let mut changed = policy.clone();
            if let Some(default) = changed.pointer_mut("/routes") {
                default["default"] = "v1".into();
            }
            let mut bootstrap = Bootstrap::new()?.concurrency(WORKERS);
            let filter = bootstrap.discovered(WasmFilter::in_body(body, "suite", &policy)?.named("penstock"))?;
            let listener = Listener::new("ingress").discovered(filter).route(Route::any().answers(200, "ok"));
            let mut envoy = bootstrap.listener(listener).start()?;
            let (before, spent) = (envoy.resident()?, cpu::spent(envoy.pid())?);
            for number in 0..RELOADS {
                envoy.must_reload("penstock", if number % 2 == 0 { &changed } else { &policy })?;
            }
            let spent = cpu::spent(envoy.pid())?.saturating_sub(spent);
            let cpu = spent.as_secs_f64() * 1e3 / f64::from(RELOADS);
            rows.push(ReloadRow { body: name, rules, cpu, resident: [before, envoy.resident()?] });
        }
    }
    Ok(ReloadCosts(rows))
}

impl ReloadCosts {
    /// Formats the rows as a section of `docs/performance.md`.
    pub(super) fn page(&self) -> String {
        let mut page = format!(
            "\n## Reloads and memory\n\nAn Envoy with {WORKERS} workers whose policy is replaced {RELOADS} times, so many rules in \
             `egress` and as many in `routes`; the process alone takes some 60 MiB.\n\n\
             | | rules | CPU ms a reload | memory MiB | after {RELOADS} reloads |\n|---|---|---|---|---|\n"
        );
        for ReloadRow { body, rules, cpu, resident: [before, after] } in &self.0 {
            let _ = writeln!(page, "| {body} | {rules} | {cpu:.0} | {} | {} |", before / 1024, after / 1024);
        }
        page
    }
}
