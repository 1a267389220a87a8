//! What becomes of a request that the adapter cannot carry: refused with 503, counted, one line in the log. Always.
//!
//! None of these can happen on a host that works. Forwarding instead would make each a way round the policy.

use crate::abi::{Flow, LogLevel, Status};
use crate::headers::Malformed;
use crate::host;

/// Why a request could not be carried through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The host sends a request to a plugin that has no policy.
    NoPolicy,
    /// The host does not hand over the header map.
    Unreadable(Status),
    /// What the host hands over is not a header map, or an empty one, which no request has.
    Malformed,
    /// The clock, the random source or the shared data is missing.
    Environment(Status),
    /// A header cannot be changed.
    Unwritable(Status),
    /// The policy's own response cannot be given.
    Unanswerable(Status),
    /// A request that waited cannot go on.
    Stuck(Status),
}

impl From<Malformed> for Failure {
    fn from(Malformed: Malformed) -> Self {
        Failure::Malformed
    }
}

impl Failure {
    /// The part of metric and response details that tells the failures apart.
    fn name(self) -> &'static str {
        match self {
            Failure::NoPolicy => "noPolicy",
            Failure::Unreadable(_) | Failure::Malformed => "readHeaders",
            Failure::Environment(_) => "environment",
            Failure::Unwritable(_) => "writeHeaders",
            Failure::Unanswerable(_) => "respond",
            Failure::Stuck(_) => "continue",
        }
    }

    /// What the client is told.
    fn message(self) -> &'static str {
        match self {
            Failure::NoPolicy => "no policy is loaded",
            Failure::Unreadable(_) | Failure::Malformed => "cannot read the request's headers",
            Failure::Environment(_) => "cannot read the clock, random numbers or shared data",
            Failure::Unwritable(_) => "cannot change the request's headers",
            Failure::Unanswerable(_) => "cannot give the policy's response",
            Failure::Stuck(_) => "cannot let the request go on",
        }
    }

    /// Refuses the request; when not even that works, resets it.
    #[cold]
    pub(crate) fn refuse(self) -> Flow {
        let (name, message) = (self.name(), self.message());
        host::count_rare(&format!("penstock.host.{name}.failed"));
        let cause = match self {
            Failure::NoPolicy => String::new(),
            Failure::Malformed => format!(" ({Malformed})"),
            Failure::Unreadable(status)
            | Failure::Environment(status)
            | Failure::Unwritable(status)
            | Failure::Unanswerable(status)
            | Failure::Stuck(status) => format!(" ({status})"),
        };
        host::log(LogLevel::Error, &format!("penstock: {message}{cause}: request refused with 503"));
        let body = format!("penstock: {message}\n");
        if let Err(status) = host::respond(503, &format!("penstock_host_{name}"), &[], body.as_bytes(), None) {
            host::log(LogLevel::Error, &format!("penstock: cannot answer ({status}): request reset"));
            host::reset_request();
        }
        Flow::Pause
    }
}

/// Notes what failed after the decision: a line in the log, and `penstock.host.<name>.failed` counts it. The response
/// goes on.
#[cold]
pub(crate) fn note(name: &str, message: &str) {
    host::count_rare(&format!("penstock.host.{name}.failed"));
    host::log(LogLevel::Error, &format!("penstock: {message}"));
}
