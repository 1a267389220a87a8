//! The load generator: wrk, which sends requests as fast as Envoy answers them.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpu;
use super::scenario::{Load, PATH};

/// Connections that are kept open: enough for Envoy always to have work.
const CONNECTIONS: &str = "16";

/// Loads an address for `seconds` and returns the requests a second. A response other than 2xx and a broken connection
/// are errors.
pub(super) fn run(address: SocketAddr, load: Load, seconds: u64) -> Result<f64> {
    let mut command = Command::new("taskset");
    command.args(["-c", cpu::CLIENT, "wrk", "-t1", "-c", CONNECTIONS, "-d", &format!("{seconds}s")]);
    for (name, value) in load.headers() {
        command.arg("-H").arg(format!("{name}: {value}"));
    }
    let output = command.arg(format!("http://{address}{PATH}")).output();
    let output = output.context("wrk is needed: make setup-bench")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "wrk: {said}");
    let line = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.and_then(|rate| rate.trim().parse().ok()).with_context(|| format!("wrk: {said}"))
}
