//! Background traffic that runs while a test changes something.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::http::{ClientConnection, HttpRequest, HttpResponse, Protocol};
use crate::wait::PATIENCE;

/// The results of the traffic.
#[derive(Clone, Debug, Default)]
pub struct TrafficTally {
    /// The number of requests with a correct response.
    pub good: usize,
    /// A description of each failure.
    pub failures: Vec<String>,
}

/// Clients that send one request after the other on keep-alive connections, half of them over HTTP/2.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<TrafficTally>>,
}

impl Traffic {
    /// Starts the clients. `check` describes what is wrong with a response. A broken connection is a failure, too.
    pub fn start(
        clients: usize,
        address: SocketAddr,
        request: &HttpRequest,
        check: impl Fn(&HttpResponse) -> Result<()> + Clone + Send + 'static,
    ) -> Self {
        let request = request.clone();
        Self::of(clients, address, move |_, _| (request.clone(), check.clone()))
    }

    /// The same with different requests: before each request, `next` is called with the client's number and the
    /// request's number, and returns the request and what is wrong with a response to it.
    pub fn of<Check: FnOnce(&HttpResponse) -> Result<()>>(
        clients: usize,
        address: SocketAddr,
        next: impl Fn(usize, usize) -> (HttpRequest, Check) + Clone + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let protocols = Protocol::ALL.into_iter().cycle().zip(0..clients);
        let clients = protocols
            .map(|(protocol, number)| {
                let (stop, answered, next) = (Arc::clone(&stop), Arc::clone(&answered), next.clone());
                thread::spawn(move || client(protocol, address, |request| next(number, request), &stop, &answered))
            })
            .collect();
        Traffic { stop, answered, clients }
    }

    /// Waits until this many more requests have been sent, successful or not. Waiting for a count is more reliable than
    /// for a duration, because the speed depends on the load of the machine.
    pub fn wait_for(&self, answers: usize) -> Result<()> {
        let enough = self.answered.load(Ordering::SeqCst) + answers;
        let started = Instant::now();
        while self.answered.load(Ordering::SeqCst) < enough {
            ensure!(started.elapsed() < PATIENCE, "{answers} answers did not come in {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The number of requests that are done, successful or not.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Stops the clients and returns the results.
    pub fn stop(self) -> Result<TrafficTally> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = TrafficTally::default();
        for client in self.clients {
            let tally = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.good += tally.good;
            all.failures.extend(tally.failures);
        }
        Ok(all)
    }
}

fn client<Check: FnOnce(&HttpResponse) -> Result<()>>(
    protocol: Protocol,
    address: SocketAddr,
    next: impl Fn(usize) -> (HttpRequest, Check),
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> TrafficTally {
    let mut tally = TrafficTally::default();
    let mut connection = None;
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let answer = match connection.take() {
            Some(open) => Ok(open),
            None => ClientConnection::open(protocol, address),
        }
        .and_then(|mut open| {
            let (request, check) = next(number);
            number += 1;
            let response = open.request(&request)?;
            if !open.is_ending() {
                connection = Some(open);
            }
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
