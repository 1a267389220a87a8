//! `scope: {global: …}`: limits that a rate-limit service counts, for all proxies together.
//!
//! A decision that needs the service is [`Pending`]: the proxy asks each [`Question`] in turn, gives the [`Reply`], and
//! then the decision is made as if nothing had been in between. All limits of one service and domain that match a
//! request are one question. A second service is asked when the first has let the request pass, so that a refused
//! request takes nothing there; what one service has counted it cannot take back.

use std::time::Duration;

use smallvec::SmallVec;

use super::claim::{Taken, Verdict};
use super::document::{GlobalDocument, OnFailure, Quota};
use super::key::{KeyPart, Value};
use super::service::{self, Descriptor, OK, OVER_LIMIT, RateLimitResponse};
use crate::decision::Counts;
use crate::metrics::Metric;

/// The service that a limit asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// The proxy's cluster.
    pub(super) cluster: Box<str>,
    domain: Box<str>,
}

/// What a limit of global scope has beside the others.
#[derive(Debug)]
pub(super) struct Global {
    /// Its number among the policy's services.
    pub(super) service: u32,
    timeout: Duration,
    pub(super) on_failure: OnFailure,
    requests_per_unit: u32,
    unit: u8,
}

impl Global {
    pub(super) fn new(document: GlobalDocument, quota: &Quota, services: &mut Vec<Service>) -> Global {
        let service = Service { cluster: document.cluster.0, domain: document.domain.0 };
        let number = services.iter().position(|other| *other == service).unwrap_or_else(|| {
            services.push(service);
            services.len() - 1
        });
        // Other units are not in the document: it has been checked.
        let unit = unit(quota.per.0).unwrap_or_default();
        Global {
            service: u32::try_from(number).unwrap_or(u32::MAX),
            timeout: document.timeout.0,
            on_failure: document.on_failure,
            requests_per_unit: quota.requests.0,
            unit,
        }
    }
}

/// `envoy.type.v3.RateLimitUnit`, as far as it is a fixed time.
pub(super) fn unit(per: Duration) -> Option<u8> {
    match (per.as_secs(), per.subsec_nanos()) {
        (1, 0) => Some(1),
        (60, 0) => Some(2),
        (3600, 0) => Some(3),
        (86_400, 0) => Some(4),
        _ => None,
    }
}

/// One limit's part in a question.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// The limit's number.
    pub(super) limit: u32,
    service: u32,
    timeout: Duration,
    descriptor: Descriptor,
}

impl Ask {
    /// Begins with the limit's name; [`Ask::part`] adds the key.
    pub(super) fn new(limit: u32, name: &str, global: &Global, cost: u32) -> Ask {
        let mut descriptor = Descriptor::new(global.requests_per_unit, global.unit, cost);
        descriptor.entry("generic_key", name);
        Ask { limit, service: global.service, timeout: global.timeout, descriptor }
    }

    /// The key's next part, under the name that users of Envoy's own filter know. What is no UTF-8 shows U+FFFD: the
    /// protocol has no other bytes.
    pub(super) fn part(&mut self, part: &KeyPart, value: &Value<'_>) {
        let key = match part {
            KeyPart::SourceAddress { .. } => "remote_address",
            KeyPart::Header(name) | KeyPart::Cookie(name) | KeyPart::QueryParam(name) => name,
            KeyPart::Path => "path",
            KeyPart::Method => "method",
            KeyPart::Hostname => "hostname",
            KeyPart::Peer => "peer",
            KeyPart::Constant(_) => "generic_key",
        };
        match value {
            Value::Address(address) => self.descriptor.entry(key, &address.to_string()),
            Value::Text(text) => self.descriptor.entry(key, &String::from_utf8_lossy(text)),
        }
    }

    /// The request has no key: all such share the descriptor that has this for a key.
    pub(super) fn missing(&mut self) {
        self.descriptor.entry("missing_key", "true");
    }
}

/// A local limit's part in a decision that is not made yet.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The limit's number.
    pub(super) limit: u32,
    pub(super) taken: Taken,
    pub(super) verdict: Verdict,
    pub(super) left: Left,
}

/// Requests that are left, and nanoseconds until all are there again; `None`: not known.
pub(super) type Left = Option<(u32, u64)>;

/// A decision that waits for a rate-limit service.
#[derive(Clone, Debug)]
pub struct Pending {
    asks: Vec<Ask>,
    /// Whom to ask, in this order.
    services: SmallVec<[u32; 1]>,
    replies: SmallVec<[Reply; 1]>,
    /// What the local limits have said.
    pub(super) held: SmallVec<[Held; 1]>,
    /// The limit in Shadow that would have refused the request because it has no key.
    pub(super) without_key: Option<u32>,
    counts: Counts,
}

impl Pending {
    #[cold]
    pub(super) fn new(asks: Vec<Ask>, held: SmallVec<[Held; 1]>, without_key: Option<u32>, counts: Counts) -> Pending {
        let mut services = SmallVec::new();
        for ask in &asks {
            if !services.contains(&ask.service) {
                services.push(ask.service);
            }
        }
        Pending { asks, services, replies: SmallVec::new(), held, without_key, counts }
    }

    /// What to count before anybody is asked.
    pub fn counts(&self) -> &[Metric] {
        &self.counts
    }

    /// What is asked of one service.
    fn asks_of(&self, service: u32) -> impl Iterator<Item = &Ask> {
        self.asks.iter().filter(move |ask| ask.service == service)
    }

    /// What is to be asked next; `None`: all has been.
    pub(super) fn question<'a>(&self, services: &'a [Service]) -> Option<Question<'a>> {
        let number = *self.services.get(self.replies.len())?;
        let service = services.get(number as usize)?;
        Some(Question {
            cluster: &service.cluster,
            message: service::request(&service.domain, self.asks_of(number).map(|ask| &ask.descriptor)),
            timeout: self.asks_of(number).map(|ask| ask.timeout).min().unwrap_or_default(),
        })
    }

    /// The answer to the question that was asked last.
    pub fn hear(&mut self, reply: Reply) {
        self.replies.push(reply);
    }

    pub(super) fn replies(&self) -> impl Iterator<Item = &RateLimitResponse> {
        self.replies.iter().filter_map(|reply| reply.0.as_ref().ok())
    }

    /// What has been answered so far: limit, verdict, and what is left.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (u32, Verdict, Left)> {
        self.services.iter().zip(&self.replies).flat_map(|(&service, reply)| {
            let count = self.asks_of(service).count();
            self.asks_of(service).enumerate().map(move |(at, ask)| {
                let (verdict, left) = reply.verdict(at, count);
                (ask.limit, verdict, left)
            })
        })
    }

    /// The limits that are asked about.
    pub(super) fn limits(&self) -> impl Iterator<Item = u32> {
        self.asks.iter().map(|ask| ask.limit)
    }
}

/// What a proxy must ask: one unary call of `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The cluster to ask.
    pub cluster: &'a str,
    /// The serialised `RateLimitRequest`.
    pub message: Vec<u8>,
    /// How long the request may wait: from 1 ms.
    pub timeout: Duration,
}

/// Why a service has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not in time.
    Timeout,
    /// It could not be asked, it answered with an error, or its answer was none.
    Error,
}

/// What became of a [`Question`].
#[derive(Clone, Debug)]
pub struct Reply(Result<RateLimitResponse, Failure>);

impl Reply {
    /// Reads a serialised `RateLimitResponse`. What is none, or says neither OK nor OVER_LIMIT, is [`Failure::Error`].
    pub fn read(message: &[u8]) -> Reply {
        Reply(RateLimitResponse::read(message).ok_or(Failure::Error))
    }

    /// There is no answer.
    pub fn failed(failure: Failure) -> Reply {
        Reply(Err(failure))
    }

    /// A service that answers OK, or OVER_LIMIT, and nothing else.
    #[cfg(any(test, feature = "wire"))]
    pub fn plain(is_over: bool) -> Reply {
        Reply(Ok(RateLimitResponse::plain(if is_over { OVER_LIMIT } else { OK })))
    }

    /// The verdict on descriptor `at` of `count`.
    fn verdict(&self, at: usize, count: usize) -> (Verdict, Left) {
        let answer = match &self.0 {
            Ok(answer) => answer,
            Err(failure) => return (Verdict::Failed(*failure), None),
        };
        // An answer that does not say it of each says it of all.
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
