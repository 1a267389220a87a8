//! What a decision may ask of the outside world.

use std::net::IpAddr;

/// Nanoseconds since the Unix epoch. Good until the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

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
    /// 64 random bits of the host.
    fn random(&mut self) -> u64;
}
