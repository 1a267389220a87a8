//! One limit with its counters and its refusal.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::cost::CostRule;
use super::document::{LimitDocument, LimitMode, OnFailure, OnMissingKey, QuotaHeaders, RefusalDocument, Scope};
use super::global::{Global, LimitService, RemoteCheck};
use super::key::{KeyHasher, KeyPart, Salt};
use super::quota::Quota;
use super::rate::{self, Rate};
use super::set::WAYS;
use super::taken::Fingerprint;
use crate::client::Clients;
use crate::decision::{Response, ResponseHeaders};
use crate::environment::Environment;
use crate::metrics::{Metric, Metrics};
use crate::request::Request;
use crate::section::Section;
use crate::state::{Key, Table, Tables};

/// Keys for each set: half of its slots, so that a set is rarely full before the table is. With as many busy keys as
/// `capacity` says, 99.9 % of them have a slot of their own; with half as many, all but one in a million.
const KEYS_IN_A_SET: u32 = (WAYS / 2) as u32;

/// One limit, ready to apply.
#[derive(Debug)]
pub(super) struct Limit {
    /// Its position in the document.
    pub(super) number: u32,
    pub(super) name: Box<str>,
    pub(super) key: Box<[KeyPart]>,
    pub(super) on_missing_key: OnMissingKey,
    pub(super) rate: Rate,
    pub(super) cost: CostRule,
    pub(super) mode: LimitMode,
    pub(super) capacity: u32,
    /// Its sets of buckets; none in global scope.
    pub(super) table: Table,
    /// `None`: local scope.
    pub(super) global: Option<Global>,
    pub(super) refusal: LimitRefusal,
    pub(super) quota: Quota,
    /// Whether workers may take requests from it in advance: not if clients get quota headers, and not if costs are
    /// corrected after the response.
    pub(super) may_lease: bool,
    /// The counters, in the order of [`LimitCount`].
    counters: Metric,
}

/// The counters of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitCount {
    /// The request passed this limit, and all others.
    Passed,
    /// Refused because the quota was used up.
    Limited,
    /// Would have been refused, but for `mode: Shadow`.
    WouldLimit,
    /// Refused, or would have been refused, because it has no key.
    MissingKey,
    /// The cost header had a value that is not a cost.
    BadCost,
    /// The set of the key was full of busy keys, so the overflow bucket was used.
    Overfull,
    /// Another worker wrote first, so the write was repeated.
    Retried,
    /// The rate-limit service could not be asked, or gave no valid answer.
    Error,
    /// It did not answer in time.
    Timeout,
}

impl LimitCount {
    const NAMES: [&str; 9] =
        ["passed", "limited", "wouldLimit", "missingKey", "badCost", "overfull", "retried", "error", "timeout"];
}

/// The response to a refused request.
#[derive(Debug)]
pub(super) struct LimitRefusal {
    pub(super) status: u16,
    body: Box<str>,
    headers: Box<[(Box<str>, Box<str>)]>,
}

impl Limit {
    pub(super) fn new(
        number: u32,
        document: LimitDocument,
        services: &mut Vec<LimitService>,
        metrics: &mut Metrics,
        tables: &mut Tables,
    ) -> Limit {
        let burst = document.burst();
        let (requests, per) = (document.limit.requests.0, document.limit.per.0);
        let rate = Rate::new(requests, per, burst);
        let capacity = document.keys();
        let name = document.name.0;
        let key: Box<[KeyPart]> = document.key.into();
        // The number is that of the layout of sets. Neither the rate nor the burst is part of it: tightening a limit
        // during an attack must not give every client a full bucket.
        let sets = if document.scope.is_local() { capacity.div_ceil(KEYS_IN_A_SET).max(1) } else { 0 };
        // Shadow has no effect that a client could notice.
        let kind = if document.mode == LimitMode::Shadow { QuotaHeaders::Off } else { document.quota_headers };
        let is_settled = document.cost.as_ref().is_some_and(|cost| cost.response_header.is_some());
        let may_lease = document.scope.is_local() && !document.exact && kind == QuotaHeaders::Off && !is_settled;
        let per_nanos = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        Limit {
            quota: Quota::new(kind, &name, requests, per_nanos, burst),
            table: tables.add(&("limit 2", &name, &key), sets),
            counters: metrics.add(Section::RateLimits, &name, &LimitCount::NAMES),
            global: match document.scope {
                Scope::Local => None,
                Scope::Global(global) => Some(Global::new(global, &document.limit, services)),
            },
            may_lease,
            number,
            name,
            key,
            on_missing_key: document.on_missing_key,
            rate,
            cost: CostRule::new(document.cost),
            mode: document.mode,
            capacity,
            refusal: LimitRefusal::new(document.response.unwrap_or_default()),
        }
    }

    pub(super) fn counter(&self, outcome: LimitCount) -> Metric {
        self.counters.plus(outcome as u32)
    }

    /// Where the bucket of `key` is: in the set that the upper bits of its hash choose.
    pub(super) fn set_of(&self, key: Fingerprint) -> Key<'static> {
        let set = (u64::from(key.spread) * u64::from(self.table.slots)) >> 32;
        Key::Slot(self.table, u32::try_from(set).unwrap_or(0))
    }

    pub(super) fn denies_on_failure(&self) -> bool {
        self.global.as_ref().is_some_and(|global| global.on_failure == OnFailure::Deny)
    }

    /// Its part of the request to its service; `None`: the limit does not apply, or is local.
    #[cold]
    pub(super) fn ask(
        &self,
        request: &Request<'_>,
        clients: &Clients,
        cost: u32,
        environment: &mut impl Environment,
    ) -> Option<RemoteCheck> {
        let mut ask = RemoteCheck::new(self.number, &self.name, self.global.as_ref()?, cost);
        let values: Option<SmallVec<[_; 2]>> =
            self.key.iter().map(|part| part.value(request, clients, environment)).collect();
        match values {
            Some(values) => self.key.iter().zip(&values).for_each(|(part, value)| ask.part(part, value)),
            None => ask.missing(),
        }
        Some(ask)
    }

    /// The request's key; `None`: a part is missing.
    pub(super) fn fingerprint(
        &self,
        request: &Request<'_>,
        clients: &Clients,
        salt: Salt,
        environment: &mut impl Environment,
    ) -> Option<Fingerprint> {
        let mut hasher = KeyHasher::new(salt);
        for part in &self.key {
            hasher.part(&part.value(request, clients, environment)?);
        }
        Some(hasher.finish())
    }
}

impl LimitRefusal {
    fn new(document: RefusalDocument) -> LimitRefusal {
        let headers = document.headers.into_iter().map(|header| (header.name.0, header.value.0)).collect();
        let status = u16::try_from(document.status.0).unwrap_or(429);
        LimitRefusal { status, body: document.body.into(), headers }
    }

    /// The response; `retry_after` in nanoseconds.
    pub(super) fn response(&self, retry_after: Option<u64>) -> Response<'_> {
        let mut headers = ResponseHeaders::new();
        if let Some(nanos) = retry_after {
            let seconds = rate::seconds(nanos).max(1).to_string();
            headers.push(("retry-after", Cow::Owned(seconds.into_bytes())));
        }
        headers.extend(self.headers.iter().map(|(name, value)| (&**name, Cow::Borrowed(value.as_bytes()))));
        // RESOURCE_EXHAUSTED.
        Response { status: self.status, headers, body: Cow::Borrowed(self.body.as_bytes()), grpc_status: Some(8) }
    }
}
