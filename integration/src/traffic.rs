//! Requests that keep coming while something else happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};

use crate::http::{Connection, Protocol, Request, Response};

/// What came of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests that were answered as they should be.
    pub good: usize,
    /// What went wrong with the others.
    pub failures: Vec<String>,
}

/// Clients that send one request after the other on keep-alive connections, half of them over HTTP/2.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Traffic {
    /// Starts the clients. `check` says what is wrong with a response; a broken connection is a failure too.
    pub fn start(
        clients: usize,
        address: SocketAddr,
        request: &Request,
        check: impl Fn(&Response) -> Result<()> + Clone + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let protocols = Protocol::ALL.into_iter().cycle().take(clients);
        let clients = protocols
            .map(|protocol| {
                let (stop, request, check) = (Arc::clone(&stop), request.clone(), check.clone());
                thread::spawn(move || client(protocol, address, &request, &check, &stop))
            })
            .collect();
        Traffic { stop, clients }
    }

    /// Ends the traffic.
    pub fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.good += tally.good;
            all.failures.extend(tally.failures);
        }
        Ok(all)
    }
}

fn client(
    protocol: Protocol,
    address: SocketAddr,
    request: &Request,
    check: &impl Fn(&Response) -> Result<()>,
    stop: &AtomicBool,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    while !stop.load(Ordering::SeqCst) {
        let answer = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(protocol, address),
        }
        .and_then(|mut open| {
            let response = open.request(request)?;
            connection = Some(open);
            check(&response)
        });
        match answer {
            Ok(()) => tally.good += 1,
            Err(error) => tally.failures.push(format!("{protocol}: {error:#}")),
        }
    }
    tally
}
