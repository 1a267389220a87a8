//! What a decision left to do when the response comes and when the exchange is over. Kept only for streams whose
//! decision did leave something.
//!
//! What fails here fails open: the request has been decided, and taking the response away would help nobody. It is
//! counted and logged.

use std::borrow::Cow;
use std::time::Duration;

use penstock_policy::breaker::{Event, Outcome, Watch};
use penstock_policy::{Decision, Environment, HeaderOp, Policy, Runs, Timestamp};

use crate::failure;
use crate::host::{self, HostEnvironment};

/// Envoy's response flags that mean, once a response has begun, that the upstream did not end it: request timeout,
/// remote reset, connection termination, protocol error.
const CUT_OFF: u64 = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 23;

/// The flags that mean that the client went away: whatever else is set came of that.
const CLIENT_GONE: u64 = 1 << 14 | 1 << 28;

/// A stream's rest.
#[derive(Debug, Default)]
pub(crate) struct Later {
    /// Changes of the response's headers, in order.
    changes: Vec<ResponseChange>,
    watched: Option<Watched>,
}

/// A change of the response's headers, kept until the response comes.
#[derive(Debug)]
enum ResponseChange {
    Set(Box<str>, Box<[u8]>),
    Add(Box<str>, Box<[u8]>),
    Remove(Box<str>),
}

impl ResponseChange {
    fn of(change: &HeaderOp<'_>) -> ResponseChange {
        match change {
            HeaderOp::Set(name, value) => ResponseChange::Set((*name).into(), value.as_ref().into()),
            HeaderOp::Add(name, value) => ResponseChange::Add((*name).into(), value.as_ref().into()),
            HeaderOp::Remove(name) => ResponseChange::Remove((*name).into()),
        }
    }

    fn op(&self) -> HeaderOp<'_> {
        match self {
            ResponseChange::Set(name, value) => HeaderOp::Set(name, Cow::Borrowed(value)),
            ResponseChange::Add(name, value) => HeaderOp::Add(name, Cow::Borrowed(value)),
            ResponseChange::Remove(name) => HeaderOp::Remove(name),
        }
    }
}

/// A request whose end a breaker wants to know.
#[derive(Debug)]
struct Watched {
    watch: Watch,
    /// When it was decided.
    since: Timestamp,
    /// What the response's headers said, once they were there.
    answered: Option<(u16, Duration)>,
}

impl Later {
    /// `None`: nothing is left to do.
    pub(crate) fn of(decision: &Decision<'_>, environment: &mut HostEnvironment<'_>) -> Option<Later> {
        if decision.response_headers.is_empty() && decision.response_changes.is_empty() && decision.watch.is_none() {
            return None;
        }
        let changes = decision.response_changes.iter().map(ResponseChange::of);
        let added = decision.response_headers.iter();
        let added = added.map(|(name, value)| ResponseChange::Add((*name).into(), value.as_ref().into()));
        Some(Later {
            changes: changes.chain(added).collect(),
            watched: decision.watch.map(|watch| Watched { watch, since: environment.now(), answered: None }),
        })
    }

    /// Whether the end of the exchange matters.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// The response's headers are there.
    pub(crate) fn response_headers<M: Runs>(&mut self) {
        for change in self.changes.drain(..) {
            if let Err(status) = host::change_response_header(&change.op()) {
                let what = match &change {
                    ResponseChange::Set(name, _) => format!("set the response header {name}"),
                    ResponseChange::Add(name, _) => format!("add the response header {name}"),
                    ResponseChange::Remove(name) => format!("remove the response header {name}"),
                };
                failure::note("responseHeaders", &format!("cannot {what} ({status})"));
            }
        }
        // Only routes and canaries have breakers.
        let Some(watched) = self.watched.as_mut().filter(|_| M::MODULE.owns_route_header()) else { return };
        match host::response_status() {
            Ok(status) => {
                let Timestamp(now) = HostEnvironment::default().now();
                let latency = Duration::from_nanos(now.saturating_sub(watched.since.0));
                watched.answered = Some((status, latency));
            }
            Err(status) => failure::note("responseStatus", &format!("cannot read the response's status ({status})")),
        }
    }

    /// The exchange is over: tells the breaker. A response that never began was not waited for by the client; when the
    /// upstream is at fault, the proxy itself has answered with 503 or 504. A client that leaves in the middle has seen
    /// the upstream do well so far.
    pub(crate) fn observe<M: Runs>(self, policy: &Policy<M>, environment: &mut HostEnvironment<'_>) -> Option<Event> {
        let watched = self.watched?;
        let (status, latency) = watched.answered?;
        let failed = status >= 500 || {
            let flags = host::response_flags();
            flags & CUT_OFF != 0 && flags & CLIENT_GONE == 0
        };
        let outcome = Outcome { failed, latency: Some(latency) };
        let event = policy.breakers().observe(watched.watch, outcome, environment);
        if let Some(status) = environment.failure() {
            failure::note("observe", &format!("cannot tell the breaker how a request ended ({status})"));
        }
        event
    }
}
