//! What a decision may read from outside of the request.

use std::net::IpAddr;

use crate::explain::Note;
use crate::facts::{Fact, FactPlace};
use crate::identity::IdentitySource;
use crate::state::State;
pub use crate::timestamp::Timestamp;
use crate::worker_memory::WorkerMemory;

/// Takes the notes that a decision makes for `explain`. The default takes none and costs nothing.
pub trait Trace {
    /// Whether notes are wanted; otherwise none are made.
    fn is_tracing(&self) -> bool {
        false
    }

    /// Takes a note.
    fn note(&mut self, _note: Note) {}
}

/// The clock, the connection, randomness, and the [`State`] that decisions share, as arguments.
///
/// In a proxy each call crosses the boundary between module and proxy, so a decision calls a method only when a rule
/// needs the value; implementations need not cache.
///
/// ```
/// use std::net::IpAddr;
/// use std::time::{SystemTime, UNIX_EPOCH};
///
/// use penstock_policy::state::{Change, Key, MapState, State, Unavailable};
/// use penstock_policy::{Environment, Policy, Reason, Request, Timestamp, Trace, WorkerMemory};
///
/// /// A connection of a server with one thread.
/// struct Connection {
///     peer: IpAddr,
///     state: MapState,
///     worker: WorkerMemory,
/// }
///
/// impl Environment for Connection {
///     fn now(&mut self) -> Timestamp {
///         let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
///         Timestamp(since.as_nanos().try_into().unwrap_or(u64::MAX))
///     }
///     fn source_address(&mut self) -> Option<IpAddr> {
///         Some(self.peer)
///     }
///     fn has_tls(&mut self) -> Option<bool> {
///         Some(false)
///     }
///     fn sni(&mut self) -> Option<Vec<u8>> {
///         None
///     }
///     fn peer(&mut self) -> Option<Vec<u8>> {
///         None
///     }
///     fn random(&mut self) -> u64 {
///         4 // A real one asks the operating system.
///     }
///     fn worker(&mut self) -> &mut WorkerMemory {
///         &mut self.worker
///     }
/// }
///
/// impl State for Connection {
///     fn update<T>(
///         &mut self,
///         key: Key<'_>,
///         change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
///     ) -> Result<T, Unavailable> {
///         self.state.update(key, change)
///     }
///     fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
///         self.state.read(key, read)
///     }
/// }
///
/// impl Trace for Connection {}
///
/// let policy = <Policy>::from_json(
///     br#"{"rateLimits": [{"name": "per-client", "key": [{"sourceAddress": {}}], "limit": {"requests": 1, "per": "1h"}}]}"#,
/// )?;
/// let mut connection =
///     Connection { peer: [192, 0, 2, 7].into(), state: MapState::default(), worker: WorkerMemory::default() };
/// let headers: [(&[u8], &[u8]); 2] = [(b":method", b"GET"), (b":path", b"/")];
/// let request = Request::new(&headers);
/// let first = policy.decide(&request, &mut connection).expect("no service to ask");
/// let second = policy.decide(&request, &mut connection).expect("no service to ask");
/// assert_eq!((first.reason, second.reason), (None, Some(Reason::Limited)));
/// # Ok::<(), penstock_policy::Problems>(())
/// ```
pub trait Environment: State + Trace {
    /// The wall clock.
    fn now(&mut self) -> Timestamp;
    /// The address of the directly connected peer (`source.address`), never a header.
    fn source_address(&mut self) -> Option<IpAddr>;
    /// Whether the client's connection has TLS. That decides the port of an authority without one, not the `:scheme`,
    /// which a client can write freely. `None`: unknown.
    fn has_tls(&mut self) -> Option<bool>;
    /// The server name that the client's TLS handshake asked for.
    fn sni(&mut self) -> Option<Vec<u8>>;
    /// The caller's verified identity, a SPIFFE ID in a mesh; never a header.
    fn peer(&mut self) -> Option<Vec<u8>>;
    /// The caller's verified identity from the source that the policy names; never a header. The default knows only the
    /// peer's certificate.
    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        match source {
            IdentitySource::PeerCertificate => self.peer(),
            IdentitySource::Workload { .. } | IdentitySource::FilterState(_) => None,
        }
    }
    /// The values that earlier filters left at these places, in the same order; values missing at the end do not exist.
    /// Never a header. Called at most once for each decision.
    fn facts(&mut self, _places: &[FactPlace]) -> Vec<Fact> {
        Vec::new()
    }
    /// What the `header-routing` module of an earlier filter left for this request: `rule` or `default`, a space, and
    /// the route that it wrote into the route header. Only another module can leave it, never a client.
    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        None
    }
    /// 64 random bits from the proxy.
    fn random(&mut self) -> u64;
    /// 64 bits for chance, which a client may guess: which variant a request without a key gets, which one probes. As it
    /// stands random ones.
    fn chance(&mut self) -> u64 {
        self.random()
    }
    /// What this worker remembers for the policy. In a proxy each worker keeps one beside the policy, or one for each
    /// policy.
    fn worker(&mut self) -> &mut WorkerMemory;
}
