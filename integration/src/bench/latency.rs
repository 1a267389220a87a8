//! Latency at a fixed request rate. Each request is due at a fixed time, whether or not earlier responses have arrived,
//! and a late start counts as waiting, so that the result has no coordinated omission.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::scenario;
use crate::http::{ClientConnection, Protocol};

/// The number of clients that share the rate.
const CLIENTS: u32 = 8;

/// Latency over all requests of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
}

/// Sends `rate` requests a second for the duration `time`.
pub(super) fn measure(address: SocketAddr, rate: u64, time: Duration) -> Result<Latency> {
    let gap = Duration::from_secs(u64::from(CLIENTS)) / u32::try_from(rate)?;
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| thread::spawn(move || run(address, gap, gap * client / CLIENTS, time))).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
    }
    all.sort_unstable();
    let at = |share: usize| all.get(all.len() * share / 1000).copied().unwrap_or_default();
    ensure!(!all.is_empty(), "no request was sent");
    Ok(Latency { p50: at(500), p99: at(990), p999: at(999) })
}

fn run(address: SocketAddr, gap: Duration, offset: Duration, time: Duration) -> Result<Vec<Duration>> {
    let mut connection = ClientConnection::open(Protocol::Http1, address)?;
    let request = scenario::Load::Plain.request();
    let start = Instant::now() + offset;
    let mut latencies = Vec::new();
    for number in 0.. {
        let due = start + gap * number;
        if due.duration_since(start) >= time {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let response = connection.request(&request)?;
        ensure!(response.status == 200, "{response:?}");
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}
