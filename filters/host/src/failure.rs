//! A request that cannot be decided or changed is always refused with 503, counted, and reported in the log.
//!
//! None of these failures happens on a proxy that works. Forwarding the request instead would make each a way around
//! the policy.

use std::fmt::Display;

use crate::environment::Unusable;
use crate::host::{Flow, Host, Malformed, MetricKind, ProxyRequest};
use crate::plugin_log::PluginLog;

/// Why a request could not be processed. `E` is the platform's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The proxy sends a request to a plugin that has no policy.
    NoPolicy,
    /// The proxy does not hand over the header map.
    Unreadable(E),
    /// What the proxy returns is not a header map, or an empty one, which no request has.
    Malformed,
    /// The clock, the random source or the shared state is missing.
    Environment(Unusable<E>),
    /// A header cannot be changed.
    Unwritable(E),
    /// The policy's own response cannot be sent.
    Unanswerable(E),
    /// A request that waited cannot continue.
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

    /// The body of the response.
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

    /// Refuses the request; if that fails too, resets it.
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

/// Adds to the counter `name`, which is created when first used: for failures that should never happen.
pub(crate) fn count_rare<H: Host>(host: &H, name: &str, times: u32) {
    // If the metric fails there is nobody to tell.
    let _ = host.define_metric(MetricKind::Counter, name).and_then(|id| host.increment(id, times));
}
