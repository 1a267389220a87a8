//! What becomes of a request that cannot be decided or changed: refused with 503, counted, one line in the log. Always.
//!
//! None of these can happen on a proxy that works. Forwarding instead would make each a way round the policy.

use std::fmt::Display;

use crate::environment::Unusable;
use crate::host::{Flow, Host, Malformed, MetricKind, ProxyRequest};
use crate::plugin_log::PluginLog;

/// Why a request could not be carried through. `E` is the platform's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The proxy sends a request to a plugin that has no policy.
    NoPolicy,
    /// The proxy does not hand over the header map.
    Unreadable(E),
    /// What the proxy hands over is not a header map, or an empty one, which no request has.
    Malformed,
    /// The clock, the random source or the shared state is missing.
    Environment(Unusable<E>),
    /// A header cannot be changed.
    Unwritable(E),
    /// The policy's own response cannot be given.
    Unanswerable(E),
    /// A request that waited cannot go on.
    Stuck(E),
}

impl<E> From<Malformed> for Failure<E> {
    fn from(Malformed: Malformed) -> Self {
        Failure::Malformed
    }
}

impl<E: Copy + Display> Failure<E> {
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
    pub fn refuse<H: Host<Error = E>>(self, log: &PluginLog, host: &H, request: &mut H::Request) -> Flow {
        let (name, message) = (self.name(), self.message());
        count_rare(host, &format!("penstock.host.{name}.failed"), 1);
        let cause = match self {
            Failure::NoPolicy => String::new(),
            Failure::Malformed => format!(" ({Malformed})"),
            Failure::Environment(error) => format!(" ({error})"),
            Failure::Unreadable(error)
            | Failure::Unwritable(error)
            | Failure::Unanswerable(error)
            | Failure::Stuck(error) => format!(" ({error})"),
        };
        log.error(host, &format!("{message}{cause}: request refused with 503"));
        let body = format!("penstock: {message}\n");
        if let Err(error) = request.respond(503, &format!("penstock_host_{name}"), &[], body.as_bytes(), None) {
            log.error(host, &format!("cannot answer ({error}): request reset"));
            request.reset();
        }
        Flow::Pause
    }
}

/// The counters of [`count_rare`], for proxies that must know them before the first request.
pub(crate) const COUNTERS: &[&str] = &[
    "penstock.host.configuration.refused",
    "penstock.host.continue.failed",
    "penstock.host.context.failed",
    "penstock.host.environment.failed",
    "penstock.host.noPolicy.failed",
    "penstock.host.observe.failed",
    "penstock.host.panic.failed",
    "penstock.host.readHeaders.failed",
    "penstock.host.respond.failed",
    "penstock.host.responseHeaders.failed",
    "penstock.host.responseStatus.failed",
    "penstock.host.state.foreign",
    "penstock.host.writeHeaders.failed",
];

/// Adds to the counter `name`, which comes into being with its first use: for what should never happen.
pub(crate) fn count_rare<H: Host>(host: &H, name: &str, times: u32) {
    // There is nobody to tell when that fails.
    let _ = host.define_metric(MetricKind::Counter, name).and_then(|id| host.increment(id, times));
}
