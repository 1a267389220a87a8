//! A request that waits for a rate-limit service.
//!
//! The host makes the call in the plugin's context, not in the request's: the callback names the plugin, so the request
//! is found by the call's number, and nobody but this module gives up a call whose request has ended. A call may end
//! within the very call that begins it, when the cluster is unknown or has no host: the callback then comes before the
//! number is known.

use std::time::Duration;

use penstock_policy::rate_limits::{Failure, Pending, Question, Reply};
use penstock_policy::{Environment, Timestamp};

use crate::host::{self, HostEnvironment};
use crate::memory::HostBuffer;

const SERVICE: &str = "envoy.service.ratelimit.v3.RateLimitService";
const METHOD: &str = "ShouldRateLimit";

/// What is kept of a request while it waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Its header map, serialised, as it was decided by.
    pub(crate) headers: HostBuffer,
    pub(crate) pending: Box<Pending>,
    call: Call,
    /// Whether the call has ended.
    pub(crate) is_answered: bool,
}

/// A call under way.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// The host's number; `None` until the host has told it.
    number: Option<u32>,
    since: Timestamp,
    timeout: Duration,
}

impl Waiting {
    /// A request whose `question` is about to be asked.
    pub(crate) fn new(headers: HostBuffer, pending: Box<Pending>, question: &Question<'_>) -> Waiting {
        let call = Call { number: None, since: HostEnvironment::default().now(), timeout: question.timeout };
        Waiting { headers, pending, call, is_answered: false }
    }

    /// The host has taken the call.
    pub(crate) fn began(&mut self, number: u32) {
        self.call.number = Some(number);
    }

    /// The host's number of the call; `None` while the host is still taking it.
    pub(crate) fn number(&self) -> Option<u32> {
        self.call.number
    }

    /// Notes how the call ended: with a message, or without one. Hosts tell a timeout as one error of many, so it is
    /// told by the clock; a quarter of the timeout is for theirs, which counts from the last turn of its event loop.
    pub(crate) fn hear(&mut self, message: Option<&[u8]>) {
        let is_late = || {
            let Timestamp(now) = HostEnvironment::default().now();
            Duration::from_nanos(now.saturating_sub(self.call.since.0)) >= self.call.timeout / 4 * 3
        };
        self.is_answered = true;
        self.pending.hear(match message {
            Some(message) => Reply::read(message),
            None if is_late() => Reply::failed(Failure::Timeout),
            None => Reply::failed(Failure::Error),
        });
    }
}

/// Begins the call; the number is the host's. An error is one that no callback tells of, or has told of already.
pub(crate) fn ask(question: &Question<'_>) -> Result<u32, crate::abi::Status> {
    // Rounded up; a timeout of 0 would be none at all.
    let timeout = question.timeout.as_nanos().div_ceil(1_000_000).max(1);
    host::grpc_call(
        &question.grpc_service(),
        SERVICE,
        METHOD,
        &question.message,
        u32::try_from(timeout).unwrap_or(u32::MAX),
    )
}
