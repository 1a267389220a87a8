//! A request that waits for a rate-limit service.

use std::time::Duration;

use penstock_policy::rate_limits::{Pending, RlsReply, RlsRequest, ServiceFailure};
use penstock_policy::{Runs, Timestamp};

use crate::host::{CallStart, GrpcCall, Host, ProxyRequest};
use crate::plugin::Plugin;

const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";
const METHOD: &str = "ShouldRateLimit";

/// The shortest timeout that a proxy can be told: 0 would be none at all.
const SHORTEST: Duration = Duration::from_millis(1);

/// What is kept of a request while it waits.
#[derive(Debug)]
pub struct PendingRequest<Headers> {
    /// Its header map, as it was decided by.
    pub(crate) headers: Headers,
    pub(crate) pending: Box<Pending>,
    since: Timestamp,
    timeout: Duration,
    /// The proxy's number of the call.
    call: u32,
    /// Whether nothing of the request is still to come.
    pub(crate) has_ended: bool,
}

impl<Headers> PendingRequest<Headers> {
    /// The proxy's number of the call under way.
    pub fn call(&self) -> u32 {
        self.call
    }

    /// The call has ended with a message, or without one.
    pub(crate) fn on_reply<H: Host>(&mut self, message: Option<&[u8]>, host: &H) {
        on_reply(&mut self.pending, message, self.since, self.timeout, host);
    }
}

/// Notes how a call ended. Proxies report a timeout as one error of many, so it is told by the clock; a quarter of the
/// timeout is for theirs, which counts from the last turn of its event loop.
fn on_reply<H: Host>(pending: &mut Pending, message: Option<&[u8]>, since: Timestamp, timeout: Duration, host: &H) {
    let is_late = || {
        let Timestamp(now) = host.now().unwrap_or(since);
        Duration::from_nanos(now.saturating_sub(since.0)) >= timeout / 4 * 3
    };
    pending.on_reply(match message {
        Some(message) => RlsReply::read(message),
        None if is_late() => RlsReply::failed(ServiceFailure::Timeout),
        None => RlsReply::failed(ServiceFailure::Error),
    });
}

fn call<'r>(rls_request: &'r RlsRequest<'_>) -> GrpcCall<'r> {
    GrpcCall {
        cluster: rls_request.cluster,
        service: SERVICE,
        method: METHOD,
        message: &rls_request.message,
        timeout: rls_request.timeout.max(SHORTEST),
    }
}

/// Tells a service what a request has cost. Nobody waits for the reply: the request has been decided.
pub(crate) fn tell<M: Runs, H: Host>(rls_request: &RlsRequest<'_>, plugin: &Plugin<M, H>, request: &mut H::Request) {
    if let Err(error) = request.tell(&call(rls_request)) {
        plugin.note("settle", &format!("cannot tell {} what a request has cost ({error})", rls_request.cluster));
    }
}

/// Asks a service. `Err` gives back the headers and what is decided so far: the call is over already, and the next
/// service can be asked.
pub(crate) fn ask<H: Host, Headers>(
    rls_request: &RlsRequest<'_>,
    headers: Headers,
    mut pending: Box<Pending>,
    has_ended: bool,
    host: &H,
    request: &mut H::Request,
) -> Result<PendingRequest<Headers>, (Headers, Box<Pending>)> {
    let since = host.now().unwrap_or_default();
    let call = call(rls_request);
    let timeout = call.timeout;
    match request.call(&call) {
        Ok(CallStart::Begun(call)) => Ok(PendingRequest { headers, pending, since, timeout, call, has_ended }),
        Ok(CallStart::Ended(reply)) => {
            on_reply(&mut pending, reply.as_deref(), since, timeout, host);
            Err((headers, pending))
        }
        Err(_) => {
            on_reply(&mut pending, None, since, timeout, host);
            Err((headers, pending))
        }
    }
}
