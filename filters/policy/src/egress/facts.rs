//! What a decision asks of the connection, and the outcome that it leads to.

use crate::environment::Environment;
use crate::identity::IdentitySource;
use crate::timestamp::Timestamp;

/// What the outside says of this request, each asked for at most once and only when a rule needs it.
pub(super) struct Facts<'e, E> {
    pub environment: &'e mut E,
    identity: &'e IdentitySource,
    /// The port that the authority says.
    pub(super) given_port: Option<u16>,
    /// The port of an authority that says none.
    pub(super) default_port: DestinationPort,
    now: Option<Timestamp>,
    pub(super) caller: Option<Option<Vec<u8>>>,
}

impl<'e, E: Environment> Facts<'e, E> {
    /// For a request to an authority that says `given_port`; one that says none would mean `default_port`.
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

    /// The port of an authority that says none.
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

/// The port of a destination. Asking about the connection costs a call, and most rules have no ports.
#[derive(Clone, Copy, Debug)]
pub(super) enum DestinationPort {
    /// What the authority or `defaultPort` says; `None`: nobody knows it.
    Known(Option<u16>),
    /// The default of the client's connection: 443 with TLS, 80 without.
    OfConnection,
}

impl DestinationPort {
    /// Asks for it where it is not known yet.
    pub(super) fn get(self, environment: &mut impl Environment) -> Option<u16> {
        match self {
            DestinationPort::Known(port) => port,
            DestinationPort::OfConnection => environment.has_tls().map(|has_tls| if has_tls { 443 } else { 80 }),
        }
    }
}
