//! The load generator: keep-alive connections, on each of which the next request follows the response.
//!
//! All requests of a round are answered when it ends. Envoy is idle then, so that the kernel has accounted for all of its
//! CPU time, however short the round was.

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::cpu;
use super::scenario::Load;
use crate::http::HttpRequest;
use crate::http::h1::{Http1Connection, encode};

/// Connections that are kept open: enough for Envoy always to have work.
pub(super) const CONNECTIONS: usize = 16;

/// Clients that each send one request again and again.
#[derive(Debug)]
pub(super) struct LoadClients(Vec<LoadClient>);

#[derive(Debug)]
struct LoadClient {
    connection: Http1Connection,
    request: Vec<u8>,
}

impl LoadClients {
    /// Opens the connections, which all send the same request.
    pub(super) fn open(address: SocketAddr, load: Load) -> Result<LoadClients> {
        LoadClients::connect(address, |_| load.request())
    }

    /// Opens the connections. Each sends requests with a limit's key of its own.
    pub(super) fn open_with_own_keys(address: SocketAddr) -> Result<LoadClients> {
        LoadClients::connect(address, Load::request_with_key)
    }

    fn connect(address: SocketAddr, request: impl Fn(usize) -> HttpRequest) -> Result<LoadClients> {
        let client =
            |number| Ok(LoadClient { connection: Http1Connection::open(address)?, request: encode(&request(number)) });
        Ok(LoadClients((0..CONNECTIONS).map(client).collect::<Result<_>>()?))
    }

    /// Sends `requests` requests, a multiple of [`CONNECTIONS`], as fast as they are answered, from a thread on the core of
    /// the load generator. Returns how long it took.
    pub(super) fn send(&mut self, requests: usize) -> Result<Duration> {
        // A thread of its own, because processes that are started later inherit the core of the thread that starts them.
        thread::scope(|scope| scope.spawn(|| self.send_from_here(requests)).join())
            .map_err(|_| anyhow!("the load generator panicked"))?
    }

    fn send_from_here(&mut self, requests: usize) -> Result<Duration> {
        let thread = fs::read_link("/proc/thread-self")?;
        let thread = thread.file_name().and_then(|id| id.to_str()).context("/proc/thread-self")?;
        cpu::pin_thread(thread, cpu::CLIENT)?;
        let started = Instant::now();
        for LoadClient { connection, request } in &mut self.0 {
            connection.send(request)?;
        }
        for _ in 1..requests / self.0.len() {
            for LoadClient { connection, request } in &mut self.0 {
                receive(connection)?;
                connection.send(request)?;
            }
        }
        for LoadClient { connection, .. } in &mut self.0 {
            receive(connection)?;
        }
        Ok(started.elapsed())
    }
}

fn receive(connection: &mut Http1Connection) -> Result<()> {
    let response = connection.receive(false)?;
    ensure!(response.status == 200 && !connection.is_ending(), "{response:?}");
    Ok(())
}
