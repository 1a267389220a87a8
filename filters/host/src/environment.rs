//! The environment of a decision: facts from the proxy, and what the worker keeps beside the policy.
//!
//! A fact that the proxy does not know is `None`. A proxy without clock, randomness or shared state is broken: the
//! decision still finishes, but `failure` says that it must not be used.

use std::fmt;
use std::net::IpAddr;

use penstock_policy::facts::{Fact, FactPlace};
use penstock_policy::state::{Change, Key, State, Unavailable};
use penstock_policy::{Environment, IdentitySource, Policy, Runs, Timestamp, Trace, WorkerMemory};

use crate::host::{Host, PluginState, ProxyRequest};

/// What one worker keeps beside a plugin and passes in.
#[derive(Debug)]
pub struct Worker<H: Host> {
    pub(crate) state: H::State,
    memory: WorkerMemory,
    /// The workload's own identity, once it is known: it is the same for all requests.
    workload: Option<(IdentitySource, Vec<u8>)>,
}

impl<H: Host> Worker<H> {
    /// `configuration` is the hash of the plugin's configuration.
    pub(crate) fn new<M: Runs>(host: &H, configuration: u64, policy: &Policy<M>) -> Self {
        // Nothing else distinguishes a plugin without a name from others.
        let namespace = if host.unnamed_hint().is_some() { configuration } else { 0 };
        // Room for leases is only made where there can be any.
        let memory = WorkerMemory::new(H::State::LEASES && policy.may_lease());
        Worker { state: host.state(namespace, policy.tables()), memory, workload: None }
    }
}

/// The reason why a decision must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable<E> {
    /// The proxy failed.
    Proxy(E),
    /// Each time that this worker tried to write, another worker had just written the same value.
    Contended,
}

impl<E: fmt::Display> fmt::Display for Unusable<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Proxy(error) => error.fmt(f),
            Unusable::Contended => f.write_str("other workers never stop writing the same value"),
        }
    }
}

/// An environment without a request or connection.
pub(crate) struct PluginEnvironment<'h, H: Host> {
    host: &'h H,
    worker: &'h mut Worker<H>,
    /// The clock is read only once.
    now: Option<Timestamp>,
    failure: Option<Unusable<H::Error>>,
}

impl<'h, H: Host> PluginEnvironment<'h, H> {
    pub(crate) fn new(host: &'h H, worker: &'h mut Worker<H>) -> Self {
        PluginEnvironment { host, worker, now: None, failure: None }
    }

    /// Why decisions with this environment must not be used.
    pub(crate) fn failure(&self) -> Option<Unusable<H::Error>> {
        self.failure
    }

    fn or_failure<T: Default>(&mut self, answer: Result<T, H::Error>) -> T {
        answer.unwrap_or_else(|error| {
            self.failure = Some(Unusable::Proxy(error));
            T::default()
        })
    }

    fn or_unavailable<T>(&mut self, answer: Result<T, Option<H::Error>>) -> Result<T, Unavailable> {
        answer.map_err(|error| {
            self.failure = Some(error.map_or(Unusable::Contended, Unusable::Proxy));
            Unavailable
        })
    }
}

impl<H: Host> State for PluginEnvironment<'_, H> {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        let answer = self.worker.state.update(key, change);
        self.or_unavailable(answer)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        let answer = self.worker.state.read(key, read);
        self.or_unavailable(answer)
    }
}

impl<H: Host> Trace for PluginEnvironment<'_, H> {}

impl<H: Host> Environment for PluginEnvironment<'_, H> {
    fn now(&mut self) -> Timestamp {
        if let Some(now) = self.now {
            return now;
        }
        let answer = self.host.now();
        let now = self.or_failure(answer);
        *self.now.insert(now)
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        None
    }

    fn has_tls(&mut self) -> Option<bool> {
        None
    }

    fn sni(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn peer(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn random(&mut self) -> u64 {
        let answer = self.host.random();
        self.or_failure(answer)
    }

    fn worker(&mut self) -> &mut WorkerMemory {
        &mut self.worker.memory
    }
}

/// The environment for the decision of one request or connection.
pub(crate) struct HostEnvironment<'h, H: Host> {
    plugin: PluginEnvironment<'h, H>,
    request: &'h mut H::Request,
}

impl<'h, H: Host> HostEnvironment<'h, H> {
    pub(crate) fn new(host: &'h H, worker: &'h mut Worker<H>, request: &'h mut H::Request) -> Self {
        HostEnvironment { plugin: PluginEnvironment::new(host, worker), request }
    }

    /// Why the decision with this environment must not be used.
    pub(crate) fn failure(&self) -> Option<Unusable<H::Error>> {
        self.plugin.failure()
    }

    pub(crate) fn host(&self) -> &'h H {
        self.plugin.host
    }

    pub(crate) fn request(&mut self) -> &mut H::Request {
        self.request
    }
}

impl<H: Host> State for HostEnvironment<'_, H> {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        self.plugin.update(key, change)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        self.plugin.read(key, read)
    }
}

impl<H: Host> Trace for HostEnvironment<'_, H> {}

impl<H: Host> Environment for HostEnvironment<'_, H> {
    fn now(&mut self) -> Timestamp {
        self.plugin.now()
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        self.request.source_address()
    }

    fn has_tls(&mut self) -> Option<bool> {
        self.request.has_tls()
    }

    fn sni(&mut self) -> Option<Vec<u8>> {
        self.request.sni()
    }

    fn peer(&mut self) -> Option<Vec<u8>> {
        self.request.identity(&IdentitySource::PeerCertificate)
    }

    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        let IdentitySource::Workload { .. } = source else { return self.request.identity(source) };
        let known = &mut self.plugin.worker.workload;
        if let Some((_, identity)) = known.as_ref().filter(|(known, _)| known == source) {
            return Some(identity.clone());
        }
        // A missing identity is looked up again.
        let identity = self.request.identity(source)?;
        *known = Some((source.clone(), identity.clone()));
        Some(identity)
    }

    fn facts(&mut self, places: &[FactPlace]) -> Vec<Fact> {
        let facts = self.request.facts(places);
        self.plugin.or_failure(facts)
    }

    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        self.request.earlier_route()
    }

    fn random(&mut self) -> u64 {
        self.plugin.random()
    }

    fn chance(&mut self) -> u64 {
        if let Some(bits) = self.worker().chance() {
            return bits;
        }
        let random = self.random();
        if self.failure().is_none() {
            self.worker().seed(random);
        }
        random
    }

    fn worker(&mut self) -> &mut WorkerMemory {
        self.plugin.worker()
    }
}
