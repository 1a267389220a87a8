//! A decision that waits for rate-limit services: the requests to them and their replies.

use std::time::Duration;

use smallvec::SmallVec;

use super::global::{LimitService, RemoteCheck};
use super::service::{self, OK, OVER_LIMIT, RateLimitResponse};
use super::taken::Taken;
use super::verdict::{Left, ServiceFailure, Verdict};
use crate::decision::Counts;
use crate::metrics::Metric;

/// A local limit's part in a decision that is not complete.
#[derive(Clone, Debug)]
pub(super) struct Reserved {
    /// The limit's number.
    pub(super) limit: u32,
    pub(super) taken: Taken,
    pub(super) verdict: Verdict,
    pub(super) left: Left,
}

/// A decision that waits for a rate-limit service.
#[derive(Clone, Debug)]
pub struct Pending {
    remote: Vec<RemoteCheck>,
    /// The services to call, in this order.
    services: SmallVec<[u32; 1]>,
    replies: SmallVec<[RlsReply; 1]>,
    /// The local limits' checks.
    pub(super) reserved: SmallVec<[Reserved; 1]>,
    /// The limit in Shadow that would have refused the request because it has no key.
    pub(super) without_key: Option<u32>,
    counts: Counts,
}

impl Pending {
    #[cold]
    pub(super) fn new(
        remote: Vec<RemoteCheck>,
        reserved: SmallVec<[Reserved; 1]>,
        without_key: Option<u32>,
        counts: Counts,
    ) -> Pending {
        let mut services = SmallVec::new();
        for ask in &remote {
            if !services.contains(&ask.service) {
                services.push(ask.service);
            }
        }
        Pending { remote, services, replies: SmallVec::new(), reserved, without_key, counts }
    }

    /// The counters of what happened before a service is asked.
    pub fn counts(&self) -> &[Metric] {
        &self.counts
    }

    /// The request to one service.
    fn asks_of(&self, service: u32) -> impl Iterator<Item = &RemoteCheck> + Clone {
        self.remote.iter().filter(move |ask| ask.service == service)
    }

    /// The next request; `None`: all have been sent.
    pub(super) fn rls_request<'a>(&self, services: &'a [LimitService]) -> Option<RlsRequest<'a>> {
        let number = *self.services.get(self.replies.len())?;
        let service = services.get(number as usize)?;
        Some(RlsRequest::new(service, self.asks_of(number)))
    }

    /// The limits that a service was asked about and that let the request pass.
    pub(super) fn passed(&self) -> impl Iterator<Item = &RemoteCheck> {
        self.services.iter().zip(&self.replies).flat_map(|(&service, reply)| {
            let count = self.asks_of(service).count();
            let passed = move |at: usize| reply.verdict(at, count).0 == Verdict::Passes;
            self.asks_of(service).enumerate().filter(move |(at, _)| passed(*at)).map(|(_, ask)| ask)
        })
    }

    /// Records the reply to the last request.
    pub fn on_reply(&mut self, reply: RlsReply) {
        self.replies.push(reply);
    }

    pub(super) fn replies(&self) -> impl Iterator<Item = &RateLimitResponse> {
        self.replies.iter().filter_map(|reply| reply.0.as_ref().ok())
    }

    /// The replies so far: limit, verdict, and remaining quota.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (u32, Verdict, Left)> {
        self.services.iter().zip(&self.replies).flat_map(|(&service, reply)| {
            let count = self.asks_of(service).count();
            self.asks_of(service).enumerate().map(move |(at, ask)| {
                let (verdict, left) = reply.verdict(at, count);
                (ask.limit, verdict, left)
            })
        })
    }

    /// The limits that the services decide.
    pub(super) fn limits(&self) -> impl Iterator<Item = u32> {
        self.remote.iter().map(|ask| ask.limit)
    }
}

/// A call that the proxy must make: one unary call of `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RlsRequest<'a> {
    /// The cluster to ask.
    pub cluster: &'a str,
    /// The serialised `RateLimitRequest`.
    pub message: Vec<u8>,
    /// How long the request may wait: from 1 ms.
    pub timeout: Duration,
}

impl<'a> RlsRequest<'a> {
    #[cold]
    pub(super) fn new<'c>(
        service: &'a LimitService,
        checks: impl Iterator<Item = &'c RemoteCheck> + Clone,
    ) -> RlsRequest<'a> {
        RlsRequest {
            cluster: &service.cluster,
            message: service::request(&service.domain, checks.clone().map(|check| &check.descriptor)),
            timeout: checks.map(|check| check.timeout).min().unwrap_or_default(),
        }
    }
}

/// The reply to an [`RlsRequest`].
#[derive(Clone, Debug)]
pub struct RlsReply(Result<RateLimitResponse, ServiceFailure>);

impl RlsReply {
    /// Reads a serialised `RateLimitResponse`. A malformed one, or one that is neither OK nor OVER_LIMIT, is
    /// [`ServiceFailure::Error`].
    pub fn read(message: &[u8]) -> RlsReply {
        RlsReply(RateLimitResponse::read(message).ok_or(ServiceFailure::Error))
    }

    /// The call failed.
    pub fn failed(failure: ServiceFailure) -> RlsReply {
        RlsReply(Err(failure))
    }

    /// A reply of OK or OVER_LIMIT without anything else.
    #[cfg(any(test, feature = "wire"))]
    pub fn plain(is_over: bool) -> RlsReply {
        RlsReply(Ok(RateLimitResponse::plain(if is_over { OVER_LIMIT } else { OK })))
    }

    /// The verdict on descriptor `at` of `count`.
    fn verdict(&self, at: usize, count: usize) -> (Verdict, Left) {
        let answer = match &self.0 {
            Ok(answer) => answer,
            Err(failure) => return (Verdict::Failed(*failure), None),
        };
        // A reply without a status for each descriptor applies to all of them.
        let statuses = Some(&answer.statuses).filter(|statuses| {
            let names_one = statuses.iter().any(|status| status.code == OVER_LIMIT);
            statuses.len() == count && (names_one || answer.overall_code == OK)
        });
        let status = statuses.and_then(|statuses| statuses.get(at));
        let until_reset = status.map_or(0, |status| status.until_reset);
        let is_over = answer.overall_code == OVER_LIMIT && status.is_none_or(|status| status.code == OVER_LIMIT);
        let verdict = if is_over { Verdict::Wait(until_reset) } else { Verdict::Passes };
        (verdict, status.map(|status| (status.limit_remaining, until_reset)))
    }
}
