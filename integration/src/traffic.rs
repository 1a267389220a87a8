//! Requests that keep coming while something else happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

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
    answered: Arc<AtomicUsize>,
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
        let answered = Arc::new(AtomicUsize::new(0));
        let protocols = Protocol::ALL.into_iter().cycle().take(clients);
        let clients = protocols
            .map(|protocol| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                let (request, check) = (request.clone(), check.clone());
                thread::spawn(move || client(protocol, address, &request, &check, &stop, &answered))
            })
            .collect();
        Traffic { stop, answered, clients }
    }

    /// Waits until so many more requests have been answered, rightly or wrongly: how long that takes depends on what else the
    /// machine does.
    pub fn wait_for(&self, answers: usize) -> Result<()> {
        let enough = self.answered.load(Ordering::SeqCst) + answers;
        let started = Instant::now();
        while self.answered.load(Ordering::SeqCst) < enough {
            ensure!(started.elapsed() < Duration::from_secs(30), "{answers} answers did not come in half a minute");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
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
    answered: &AtomicUsize,
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
        answered.fetch_add(1, Ordering::SeqCst);
        match answer {
            Ok(()) => tally.good += 1,
            Err(error) => tally.failures.push(format!("{protocol}: {error:#}")),
        }
    }
    tally
}
