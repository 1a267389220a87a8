//! The module's timer: one thread that asks Envoy once a second to call each configuration on its main thread. It ends
//! with the last configuration.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use penstock_host::TICK_PERIOD;

use crate::abi::Scheduler;

#[derive(Debug)]
struct Ticker {
    schedulers: Vec<(u64, Scheduler)>,
    /// The id of the next configuration.
    next: u64,
    is_running: bool,
}

static TICKER: Mutex<Ticker> = Mutex::new(Ticker { schedulers: Vec::new(), next: 0, is_running: false });

fn ticker() -> MutexGuard<'static, Ticker> {
    TICKER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A configuration that is called once a second until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticks(u64);

impl Ticks {
    /// Returns `None` when no thread can be started.
    pub(crate) fn begin(scheduler: Scheduler) -> Option<Ticks> {
        let mut ticker = ticker();
        if !ticker.is_running {
            thread::Builder::new().name("penstock".to_owned()).spawn(run).ok()?;
            ticker.is_running = true;
        }
        let number = ticker.next;
        ticker.next += 1;
        ticker.schedulers.push((number, scheduler));
        Some(Ticks(number))
    }
}

impl Drop for Ticks {
    /// After this returns, no call is requested any more, because the thread holds the lock while it requests one.
    fn drop(&mut self) {
        ticker().schedulers.retain(|(number, _)| *number != self.0);
    }
}

fn run() {
    loop {
        thread::sleep(TICK_PERIOD);
        let mut ticker = ticker();
        if ticker.schedulers.is_empty() {
            ticker.is_running = false;
            return;
        }
        for (_, scheduler) in &ticker.schedulers {
            scheduler.commit();
        }
    }
}
