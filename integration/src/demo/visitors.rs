//! Light background traffic, so that metrics, logs and the dash show something while the demo keeps running.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::section::DemoSection;
use crate::Envoy;
use crate::http::{ClientConnection, HttpRequest, Protocol};

/// The pause between two requests to a section.
const PAUSE: Duration = Duration::from_millis(60);

/// Threads that send requests to each section until this is dropped.
#[derive(Debug)]
pub(super) struct Visitors {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Visitors {
    pub(super) fn start(envoy: &Envoy, sections: &[DemoSection]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for section in sections {
            let (address, visit, stop) = (envoy.address(section.name)?, section.visit, Arc::clone(&stop));
            threads.push(thread::spawn(move || visits(address, visit, &stop)));
        }
        Ok(Visitors { stop, threads })
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // The thread returns no result.
            let _ = thread.join();
        }
    }
}

/// Sends the request that `visit` returns for each number. Ignores the responses, and reopens a connection that breaks.
fn visits(address: SocketAddr, visit: fn(usize) -> HttpRequest, stop: &AtomicBool) {
    let mut connection = None;
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let open = connection.take().map_or_else(|| ClientConnection::open(Protocol::Http1, address), Ok);
        connection = open.and_then(|mut open| open.request(&visit(number)).map(|_| open)).ok();
        thread::sleep(PAUSE);
    }
}
