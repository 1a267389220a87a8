//! CPU time as the kernel accounts for it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The core reserved for Envoy.
pub(super) const ENVOY: &str = "0";
/// The core of the load generator.
pub(super) const CLIENT: &str = "1";

/// Pins all threads of a process to a core.
pub(super) fn pin(pid: u32, core: &str) -> Result<()> {
    taskset(&["-a", "-p", "-c", core, &pid.to_string()])
}

/// Pins one thread to a core.
pub(super) fn pin_thread(id: &str, core: &str) -> Result<()> {
    taskset(&["-p", "-c", core, id])
}

fn taskset(arguments: &[&str]) -> Result<()> {
    let output = Command::new("taskset").args(arguments).output();
    let output = output.context("taskset (of util-linux) is needed")?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The CPU time that all threads of a process have used in user and kernel mode, in nanoseconds.
pub(super) fn spent(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while its numbers are read.
        let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += line.split(' ').next().unwrap_or_default().parse::<u64>().context("schedstat")?;
    }
    Ok(Duration::from_nanos(total))
}
