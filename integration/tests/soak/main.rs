//! Faults, each produced in a real Envoy under real requests: nothing is lost, and nothing is forwarded that should not be.
//! What each of them shows is a row of `docs/faults.md`; `cargo test … --test soak -- --nocapture` prints the numbers there.
//!
//! `make soak` runs the long form: [`mixed`] for `SOAK_MINUTES`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

// Its clock is preloaded into Envoy, and stepped, as only Linux lets it be.
#[cfg(target_os = "linux")]
mod clock;
mod code_outage;
mod hot_restart;
mod large_requests;
mod many_clients;
mod mixed;
mod reload_storm;
mod slow_clients;
mod traps;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_integration::TrafficTally;

/// What may take long on a machine with other work to do.
const PATIENCE: Duration = Duration::from_secs(30);

static MACHINE: RwLock<()> = RwLock::new(());

/// This fault wants the machine for itself, as far as that is up to these tests: it measures, or makes load.
fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// This one mostly waits, and may do so while others wait.
fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` holds.
fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let started = Instant::now();
    while !condition()? {
        ensure!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(started.elapsed())
}

/// Every answer was the right one, and there were at least so many.
fn assert_flawless(tally: &TrafficTally, at_least: usize) {
    let TrafficTally { good, failures } = tally;
    assert!(
        failures.is_empty(),
        "{} went wrong and {good} well: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    assert!(*good >= at_least, "only {good} requests were sent");
}
