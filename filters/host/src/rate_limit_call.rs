//! A request that waits for a rate-limit service.

use std::time::Duration;

use penstock_policy::rate_limits::{Pending, RlsReply, RlsRequest, ServiceFailure};
use penstock_policy::{Runs, Timestamp};

use crate::host::{CallStart, GrpcCall, Host, ProxyRequest};
use crate::plugin::Plugin;

const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";
const METHOD: &str = "ShouldRateLimit";

/// The shortest timeout that can be given to a proxy, for which 0 means no timeout.
const SHORTEST: Duration = Duration::from_millis(1);

/// A request that waits for the service's reply.
#[derive(Debug)]
pub struct PendingRequest<Headers> {
    /// The headers that the decision is based on.
    pub(crate) headers: Headers,
    pub(crate) pending: Box<Pending>,
    since: Timestamp,
    timeout: Duration,
    /// The proxy's id of the call.
    call: u32,
    /// Whether the whole request has been received.
    pub(crate) has_ended: bool,
}

impl<Headers> PendingRequest<Headers> {
    /// The proxy's id of the current call.
    pub fn call(&self) -> u32 {
        self.call
    }

    /// Must be called when the call has ended: with the reply, or with `None` if it failed.
    pub(crate) fn on_reply<H: Host>(&mut self, message: Option<&[u8]>, host: &H) {
        on_reply(&mut self.pending, message, self.since, self.timeout, host);
    }
}

/// Records how a call ended. Proxies do not report a timeout differently from other errors, so it is recognised by the
/// elapsed time. Three quarters of the timeout are enough, because the proxy measures from the start of the current
/// iteration of its event loop, which is earlier.
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

/// Reports the cost of a request to a service. The reply is ignored, because the request has been decided.
pub(crate) fn tell<M: Runs, H: Host>(rls_request: &RlsRequest<'_>, plugin: &Plugin<M, H>, request: &mut H::Request) {
    if let Err(error) = request.tell(&call(rls_request)) {
        plugin.note("settle", &format!("cannot report the cost of a request to {} ({error})", rls_request.cluster));
    }
}

/// Calls a service. Returns `Err` with the headers and the pending decision if the call has already ended, so that the
/// next service can be called.
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
