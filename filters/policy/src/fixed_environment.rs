//! An environment with fixed values: for tests, and for programs that decide outside of a proxy.

use std::net::IpAddr;

use crate::environment::{Environment, Timestamp, Trace};
use crate::explain::{Note, Notes};
use crate::split_mix::split_mix;
use crate::state::{Change, Key, MapState, State, Unavailable};
use crate::worker_memory::WorkerMemory;

/// An environment with fixed values; its state is in memory and lasts as long as it does.
///
/// ```
/// use penstock_policy::{Environment, FixedEnvironment};
///
/// let mut environment = FixedEnvironment { source_address: "192.0.2.7".parse().ok(), ..FixedEnvironment::default() };
/// assert_eq!(environment.source_address().unwrap().to_string(), "192.0.2.7");
/// assert_eq!(environment.peer(), None);
/// ```
#[derive(Debug, Default)]
pub struct FixedEnvironment {
    /// The wall clock; it stands still until you set it.
    pub now: Timestamp,
    /// The address of the directly connected peer.
    pub source_address: Option<IpAddr>,
    /// Whether the client's connection has TLS.
    pub has_tls: Option<bool>,
    /// The server name of the client's TLS handshake.
    pub sni: Option<Vec<u8>>,
    /// The caller's verified identity.
    pub peer: Option<Vec<u8>>,
    /// What an earlier filter's `header-routing` module left.
    pub earlier_route: Option<Vec<u8>>,
    /// The state of the random number generator: the same number gives the same sequence.
    pub random: u64,
    /// The notes of decisions, when they are wanted.
    pub notes: Option<Notes>,
    /// The state that decisions share.
    pub state: MapState,
    /// What the only worker remembers.
    pub worker: WorkerMemory,
    /// How many calls there were, including those to the state.
    pub asked: u32,
}

impl Environment for FixedEnvironment {
    fn now(&mut self) -> Timestamp {
        self.asked += 1;
        self.now
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        self.asked += 1;
        self.source_address
    }

    fn has_tls(&mut self) -> Option<bool> {
        self.asked += 1;
        self.has_tls
    }

    fn sni(&mut self) -> Option<Vec<u8>> {
        self.asked += 1;
        self.sni.clone()
    }

    fn peer(&mut self) -> Option<Vec<u8>> {
        self.asked += 1;
        self.peer.clone()
    }

    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        self.asked += 1;
        self.earlier_route.clone()
    }

    fn random(&mut self) -> u64 {
        self.asked += 1;
        split_mix(&mut self.random)
    }

    fn worker(&mut self) -> &mut WorkerMemory {
        &mut self.worker
    }
}

impl Trace for FixedEnvironment {
    fn is_tracing(&self) -> bool {
        self.notes.is_some()
    }

    fn note(&mut self, note: Note) {
        if let Some(notes) = &mut self.notes {
            notes.0.push(note);
        }
    }
}

impl State for FixedEnvironment {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        self.asked += 1;
        self.state.update(key, change)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        self.asked += 1;
        self.state.read(key, read)
    }
}
