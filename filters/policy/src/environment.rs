//! What a decision may ask of the outside world.

use std::net::IpAddr;

use crate::identity::IdentitySource;
pub use crate::timestamp::Timestamp;

/// Which write a stored value comes from; opaque, of the host's choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub u32);

/// Somebody else wrote since the version that a write was based on: load again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored value has changed")]
pub struct StoreConflict;

/// The clock, the connection and randomness, as arguments.
///
/// In a proxy each call costs a crossing between module and host, so a decision calls a method only when a rule
/// needs the answer; implementations need not cache.
pub trait Environment {
    /// The wall clock.
    fn now(&mut self) -> Timestamp;
    /// The address of the directly connected peer (`source.address`), never a header.
    fn source_address(&mut self) -> Option<IpAddr>;
    /// The port that the client connected to (`destination.port`).
    fn destination_port(&mut self) -> Option<u16>;
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
    /// What an earlier filter's `header-routing` module left for this request: `rule` or `default`, a space, and the
    /// route that it wrote into the route header. Only another module can leave it, never a client.
    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        None
    }
    /// Where to note what happens, when somebody wants to know.
    #[cfg(feature = "explain")]
    fn trace(&mut self) -> Option<&mut crate::explain::Trace> {
        None
    }
    /// 64 random bits of the host.
    fn random(&mut self) -> u64;
    /// Reads the value under `key` into `value`, which is cleared first. `None`: there is none, or the host failed.
    /// Values are shared by all workers of one proxy.
    fn load(&mut self, key: &[u8], value: &mut Vec<u8>) -> Option<Version>;
    /// Reads what is under `key` into `value`, which is cleared first, as one would [`Environment::load`] it, but only to
    /// look at it: an environment that remembers values for the next write forgets nothing for this one.
    fn peek(&mut self, key: &[u8], value: &mut Vec<u8>) -> bool {
        self.load(key, value).is_some()
    }
    /// Writes `value` under `key` when its version is still `expected`; `None` writes whatever is there. The version
    /// returned is the store's best guess: the host does not tell, and a wrong guess costs one conflict later.
    ///
    /// # Errors
    /// When the version has changed; nothing was written.
    fn store(&mut self, key: &[u8], value: &[u8], expected: Option<Version>) -> Result<Version, StoreConflict>;
    /// Shows `read` what this worker last saw or wrote under `key`, without asking anybody, and gives its answer with the
    /// version to base a write on. The value may be out of date: then a write based on it is a conflict. `None`: not
    /// remembered, or not worth trying.
    fn recall<T>(&mut self, _key: &[u8], _read: impl FnOnce(&[u8]) -> T) -> Option<(T, Version)> {
        None
    }
    /// Writes `value` under `key` when there is none yet.
    ///
    /// # Errors
    /// When there is one; nothing was written.
    fn create(&mut self, key: &[u8], value: &[u8]) -> Result<Version, StoreConflict> {
        match self.load(key, &mut Vec::new()) {
            Some(_) => Err(StoreConflict),
            None => self.store(key, value, None),
        }
    }
}
