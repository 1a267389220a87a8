//! A request that cannot be decided or changed is always refused with 503, counted, and reported in the log.
//!
//! None of these failures happens on a proxy that works. Forwarding the request instead would let clients bypass the
//! policy.

use std::fmt::Display;

use penstock_policy::{Timestamp, metric_name};

use crate::environment::Unusable;
use crate::host::{Flow, Host, Malformed, MetricKind, ProxyRequest};
use crate::plugin_log::PluginLog;

/// Why a request could not be processed. `E` is the platform's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The proxy sends a request to a plugin that has no policy.
    NoPolicy,
    /// The proxy did not return the header map.
    Unreadable(E),
    /// What the proxy returned is not a header map, or an empty one, which no request has.
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
    /// The name of the failed operation in metrics and response details.
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
            Failure::Environment(_) => "cannot read the clock, random numbers, shared data or metadata",
            Failure::Unwritable(_) => "cannot change the request's headers",
            Failure::Unanswerable(_) => "cannot send the policy's response",
            Failure::Stuck(_) => "cannot forward the request",
        }
    }

    /// Refuses the request; if that fails too, resets it.
    #[cold]
    pub fn refuse<H: Host<Error = E>>(self, log: &PluginLog, host: &H, request: &mut H::Request) -> Flow {
        let (name, message) = (self.name(), self.message());
        count_failure(host, name);
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
            log.error(host, &format!("cannot respond ({error}): request reset"));
            request.reset();
        }
        Flow::Pause
    }
}

/// Every operation that [`count_failure`] counts, for proxies that must know their metrics before the first request.
pub(crate) const OPERATIONS: [&str; 12] = [
    "continue",
    "context",
    "environment",
    "noPolicy",
    "observe",
    "panic",
    "readHeaders",
    "respond",
    "responseHeaders",
    "responseStatus",
    "settle",
    "writeHeaders",
];

/// The counter of values that another plugin wrote under this plugin's keys.
pub(crate) const FOREIGN_VALUES: &str = "penstock.foreign_values_total";

/// The counter of failures of one operation.
pub(crate) fn failure_name(operation: &str) -> Box<str> {
    metric_name("internal_errors_total", &[("operation", operation)])
}

/// Counts a failure of `operation`.
pub fn count_failure<H: Host>(host: &H, operation: &str) {
    count_rare(host, &failure_name(operation), 1);
}

/// Adds to the counter `name`, which is created when it is first used.
pub(crate) fn count_rare<H: Host>(host: &H, name: &str, times: u32) {
    // If the metric cannot be written either, nothing can be done.
    let _ = host.define_metric(MetricKind::Counter, name).and_then(|id| host.increment(id, times));
}

/// The counter of the policies that a plugin refused, and the gauge of when it refused the last, in seconds since 1970.
pub(crate) fn refusal_names(plugin: &str) -> [Box<str>; 2] {
    ["policy_refusals_total", "policy_refused_timestamp_seconds"].map(|name| metric_name(name, &[("plugin", plugin)]))
}

/// Counts policies that a plugin refused. The gauge also shows the first refusal, for which a rate of the counter shows nothing.
pub(crate) fn count_refusals<H: Host>(host: &H, plugin: &str, times: u32) {
    let [counter, gauge] = refusal_names(plugin);
    count_rare(host, &counter, times);
    let Timestamp(now) = host.now().unwrap_or_default();
    let _ = host.define_metric(MetricKind::Gauge, &gauge).and_then(|id| host.record(id, now / 1_000_000_000));
}
