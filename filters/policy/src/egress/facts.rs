//! What a decision reads about the connection, and the outcome that is made of it.

use crate::environment::Environment;
use crate::identity::IdentitySource;
use crate::timestamp::Timestamp;

/// Facts about this request from outside of it, each read at most once and only when a rule needs it.
pub(super) struct Facts<'e, E> {
    pub environment: &'e mut E,
    identity: &'e IdentitySource,
    /// The port in the authority.
    pub(super) given_port: Option<u16>,
    /// The port when the authority has none.
    pub(super) default_port: DestinationPort,
    now: Option<Timestamp>,
    pub(super) caller: Option<Option<Vec<u8>>>,
}

impl<'e, E: Environment> Facts<'e, E> {
    /// For a request whose authority has the port `given_port`; without one the port is `default_port`.
    pub fn new(
        environment: &'e mut E,
        identity: &'e IdentitySource,
        given_port: Option<u16>,
        default_port: DestinationPort,
    ) -> Self {
        Facts { environment, identity, given_port, default_port, now: None, caller: None }
    }

    /// The port of the destination.
    pub fn port(&mut self) -> Option<u16> {
        self.given_port.or_else(|| self.default_port())
    }

    /// The port when the authority has none.
    pub fn default_port(&mut self) -> Option<u16> {
        let port = self.default_port.get(self.environment);
        self.default_port = DestinationPort::Known(port);
        port
    }

    pub(super) fn now(&mut self) -> Timestamp {
        let environment = &mut *self.environment;
        *self.now.get_or_insert_with(|| environment.now())
    }

    /// The verified identity of the caller.
    pub fn caller(&mut self) -> Option<&[u8]> {
        let (environment, identity) = (&mut *self.environment, self.identity);
        self.caller.get_or_insert_with(|| environment.identity(identity).filter(|caller| !caller.is_empty())).as_deref()
    }
}

/// The port of a destination. Reading about the connection costs a call, and most rules have no ports.
#[derive(Clone, Copy, Debug)]
pub(super) enum DestinationPort {
    /// The port of the authority or of `defaultPort`; `None`: unknown.
    Known(Option<u16>),
    /// The default of the client's connection: 443 with TLS, 80 without.
    OfConnection,
}

impl DestinationPort {
    /// Reads it from the connection if it is not known yet.
    pub(super) fn get(self, environment: &mut impl Environment) -> Option<u16> {
        match self {
            DestinationPort::Known(port) => port,
            DestinationPort::OfConnection => environment.has_tls().map(|has_tls| if has_tls { 443 } else { 80 }),
        }
    }
}
