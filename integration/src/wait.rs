//! Waiting for what Envoy does in its own time.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// The longest time to wait for anything. It only matters where a test fails, so it is long: a machine may run a hundred
/// VMs and a compiler at once.
pub const PATIENCE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(20);

/// Waits until `holds` is true; otherwise returns an error that names the condition.
pub fn wait_until(what: impl Display, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        ensure!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        thread::sleep(TICK);
    }
    Ok(())
}
