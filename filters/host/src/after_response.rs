//! What remains of a decision for the response and the end of the exchange. Kept only for requests that need it.
//!
//! A failure here fails open: the request has been decided, and withholding the response would help nobody. It is
//! counted and logged.

use std::borrow::Cow;
use std::time::Duration;

use penstock_policy::breaker::{Event, Outcome, Watch, is_grpc_failure};
use penstock_policy::rate_limits::Reservation;
use penstock_policy::{Decision, Environment, HeaderOp, Policy, Request, Runs, Timestamp};

use crate::environment::{HostEnvironment, Worker};
use crate::host::{GrpcStatusIn, Host, ProxyRequest};
use crate::plugin::Plugin;
use crate::rate_limit_call::tell;

/// Envoy's response flags that mean, once a response has begun, that the upstream did not end it: request timeout,
/// remote reset, connection termination, protocol error.
const CUT_OFF: u64 = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 23;

/// The flags that mean that the client disconnected; then other flags are only consequences.
const CLIENT_GONE: u64 = 1 << 14 | 1 << 28;

/// What remains to be done for one request.
#[derive(Debug, Default)]
pub struct AfterResponse {
    /// Changes of the response's headers, in order.
    changes: Vec<ResponseChange>,
    watched: Option<Watched>,
    /// Costs that are in the response.
    reservations: Vec<Reservation>,
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

/// A request whose end a breaker observes.
#[derive(Debug)]
struct Watched {
    watch: Watch,
    /// Whether the breaker also needs the upstream's latency.
    is_timed: bool,
    /// Whether the response's status is in `grpc-status`.
    is_grpc: bool,
    /// When the request had ended; `None`: not yet, or the breaker does not need it.
    since: Option<Timestamp>,
    answer: Option<ResponseFacts>,
}

/// What is known of the response so far.
#[derive(Clone, Copy, Debug)]
struct ResponseFacts {
    has_failed: bool,
    latency: Option<Duration>,
}

impl AfterResponse {
    /// Returns `None` when nothing remains to be done. `has_ended` says that the request has no body and no trailers.
    pub(crate) fn of<M: Runs>(
        decision: &Decision<'_>,
        request: &Request<'_>,
        has_ended: bool,
        policy: &Policy<M>,
        environment: &mut impl Environment,
    ) -> Option<AfterResponse> {
        if decision.response_headers.is_empty()
            && decision.response_changes.is_empty()
            && decision.watch.is_none()
            && decision.reservations.is_empty()
        {
            return None;
        }
        let changes = decision.response_changes.iter().map(ResponseChange::of);
        let added = decision.response_headers.iter();
        let added = added.map(|(name, value)| ResponseChange::Add((*name).into(), value.as_ref().into()));
        let watched = decision.watch.map(|watch| {
            let is_timed = policy.breakers().wants_latency(watch);
            let is_grpc = request.value(b"content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
            let since = (is_timed && has_ended).then(|| environment.now());
            Watched { watch, is_timed, is_grpc, since, answer: None }
        });
        let reservations = decision.reservations.clone();
        Some(AfterResponse { changes: changes.chain(added).collect(), watched, reservations })
    }

    /// Called when the last byte of the request has arrived: the upstream's latency is measured from here.
    pub(crate) fn request_ended<H: Host>(&mut self, host: &H) {
        if let Some(watched) = self.watched.as_mut().filter(|watched| watched.is_timed && watched.since.is_none()) {
            watched.since = host.now().ok();
        }
    }

    /// Whether the end of the exchange matters.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// The response's headers have arrived: settles the cost that they contain.
    pub(crate) fn settle<M: Runs, H: Host>(
        &mut self,
        plugin: &Plugin<M, H>,
        worker: &mut Worker<H>,
        request: &mut H::Request,
    ) {
        for reservation in std::mem::take(&mut self.reservations) {
            let name = plugin.policy.cost_header(&reservation);
            let Some(value) = name.and_then(|name| request.response_header(name)) else { continue };
            let mut environment = HostEnvironment::new(&plugin.host, worker, request);
            let settled = plugin.policy.settle(&reservation, &value, &mut environment);
            if let Some(error) = environment.failure() {
                plugin.note("settle", &format!("cannot record the cost of a request ({error})"));
            }
            match settled {
                Ok(Some(rls_request)) => tell(&rls_request, plugin, request),
                Ok(None) | Err(None) => {}
                Err(Some(metric)) => plugin.counters.count(&[metric]),
            }
        }
    }

    /// The response's headers have arrived; nothing follows when `has_ended`.
    pub(crate) fn response_headers<M: Runs, H: Host>(
        &mut self,
        has_ended: bool,
        plugin: &Plugin<M, H>,
        request: &mut H::Request,
    ) {
        for change in self.changes.drain(..) {
            if let Err(error) = request.change_response_header(&change.op()) {
                let what = match &change {
                    ResponseChange::Set(name, _) => format!("set the response header {name}"),
                    ResponseChange::Add(name, _) => format!("add the response header {name}"),
                    ResponseChange::Remove(name) => format!("remove the response header {name}"),
                };
                plugin.note("responseHeaders", &format!("cannot {what} ({error})"));
            }
        }
        // Only routes and canaries have breakers.
        let Some(watched) = self.watched.as_mut().filter(|_| M::MODULE.owns_route_header()) else { return };
        match request.response_status() {
            Ok(status) => {
                let now = watched.since.and_then(|_| plugin.host.now().ok());
                let nanos = watched.since.zip(now).map(|(since, now)| now.0.saturating_sub(since.0));
                // A response without a body has its trailers in its headers.
                let status_in_headers = has_ended && watched.is_grpc;
                let has_failed = status >= 500
                    || (status_in_headers && request.grpc_status(GrpcStatusIn::Headers).is_some_and(is_grpc_failure));
                watched.answer = Some(ResponseFacts { has_failed, latency: nanos.map(Duration::from_nanos) });
            }
            Err(error) => plugin.note("responseStatus", &format!("cannot read the response's status ({error})")),
        }
    }

    /// The response's trailers have arrived.
    pub(crate) fn response_trailers(&mut self, request: &mut impl ProxyRequest) {
        if let Some(watched) = self.watched.as_mut().filter(|watched| watched.is_grpc)
            && let Some(answer) = &mut watched.answer
        {
            answer.has_failed |= request.grpc_status(GrpcStatusIn::Trailers).is_some_and(is_grpc_failure);
        }
    }

    /// The exchange has ended: reports it to the breaker. If the response never began, the client gave up waiting; when
    /// the upstream is at fault, the proxy itself answers 503 or 504. If the client disconnects during the response,
    /// the upstream has not failed.
    pub(crate) fn observe<M: Runs, H: Host>(
        self,
        plugin: &Plugin<M, H>,
        mut environment: HostEnvironment<'_, H>,
    ) -> Option<Event> {
        let watched = self.watched?;
        let ResponseFacts { has_failed, latency } = watched.answer?;
        let failed = has_failed || {
            let flags = environment.request().response_flags();
            flags & CUT_OFF != 0 && flags & CLIENT_GONE == 0
        };
        let outcome = Outcome { failed, latency };
        let event = plugin.policy.breakers().observe(watched.watch, outcome, &mut environment);
        if let Some(error) = environment.failure() {
            plugin.note("observe", &format!("cannot tell the breaker how a request ended ({error})"));
        }
        event
    }
}
