//! Faults, each produced in a real Envoy during traffic: no request is lost, and nothing is forwarded that should not
//! be. Each result is a row of `docs/faults.md`; `cargo test … --test soak -- --nocapture` prints the numbers for it.
//!
//! `make soak` runs the long form: [`mixed`] for `SOAK_MINUTES`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

// The clock is preloaded into Envoy and stepped, which only Linux supports.
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

use penstock_integration::{PATIENCE, TrafficTally, wait_until};

static MACHINE: RwLock<()> = RwLock::new(());

/// For tests that measure or cause load: waits until no other test of this file runs.
fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// For tests that mostly wait: may run together with other such tests.
fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Checks that every response was correct, and that there were at least this many.
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
