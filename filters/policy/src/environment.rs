//! What a decision may ask of the outside world.

use std::net::IpAddr;

use crate::explain::Note;
use crate::facts::{Fact, FactPlace};
use crate::identity::IdentitySource;
use crate::state::State;
pub use crate::timestamp::Timestamp;
use crate::worker_memory::WorkerMemory;

/// Takes the notes that a decision leaves for whoever explains it. As it stands it takes none, and costs nothing.
pub trait Trace {
    /// Whether notes are wanted: nobody makes one that is not.
    fn is_tracing(&self) -> bool {
        false
    }

    /// Takes a note.
    fn note(&mut self, _note: Note) {}
}

/// The clock, the connection, randomness, and the [`State`] that decisions share, as arguments.
///
/// In a proxy each call costs a crossing between module and host, so a decision calls a method only when a rule
/// needs the answer; implementations need not cache.
pub trait Environment: State + Trace {
    /// The wall clock.
    fn now(&mut self) -> Timestamp;
    /// The address of the directly connected peer (`source.address`), never a header.
    fn source_address(&mut self) -> Option<IpAddr>;
    /// Whether the client's connection has TLS: that, and not the `:scheme` that a client writes, says which port a
    /// request is for whose authority says none. `None`: nobody knows.
    fn has_tls(&mut self) -> Option<bool>;
    /// The server name that the client's TLS handshake asked for.
    fn sni(&mut self) -> Option<Vec<u8>>;
    /// The caller's verified identity, a SPIFFE ID in a mesh; never a header.
    fn peer(&mut self) -> Option<Vec<u8>>;
    /// The caller's verified identity from a source of the policy's choosing; never a header. As it stands only the
    /// peer's certificate is known.
    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        match source {
            IdentitySource::PeerCertificate => self.peer(),
            IdentitySource::Workload { .. } | IdentitySource::FilterState(_) => None,
        }
    }
    /// What earlier filters have left at these places, in their order; what is missing at the end is not there. Never a
    /// header. Called at most once for each decision.
    fn facts(&mut self, _places: &[FactPlace]) -> Vec<Fact> {
        Vec::new()
    }
    /// What an earlier filter's `header-routing` module left for this request: `rule` or `default`, a space, and the
    /// route that it wrote into the route header. Only another module can leave it, never a client.
    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        None
    }
    /// 64 random bits of the host.
    fn random(&mut self) -> u64;
    /// What this worker remembers of the policy. In a proxy each worker keeps one beside the policy, or one for each policy.
    fn worker(&mut self) -> &mut WorkerMemory;
}
