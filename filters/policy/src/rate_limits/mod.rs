//! `rateLimits`: exact limits per key, in bounded memory.
//!
//! A request must pass every limit that matches it. All are decided first and only then taken from, so a refused request
//! takes nothing. Between workers each limit is one compare-and-swap: a limit that another worker has emptied in the
//! meantime refuses the request after all, and what it took from the limits before is given back. In between, for the
//! microseconds until it is given back, a third request can be refused that would have passed; never can one pass that
//! should have been refused.

mod cost;
mod document;
#[cfg(feature = "explain")]
mod explain;
mod key;
mod quota;
mod rate;
mod set;
mod table;

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::decision::{Action, Decision, Response, ResponseHeaders, Section};
use crate::document::Named;
use crate::environment::{Environment, Timestamp};
use crate::matching::{Index, RequestMatch};
use crate::metrics::{Metric, Metrics};
use crate::request::Request;
use cost::CostRule;
use document::RefusalDocument;
pub use document::{LimitDocument, Mode, OnMissingKey, QuotaHeaders};
pub use key::KeyPart;
use key::{Fingerprint, KeyHasher, Salt};
use quota::{Left, Quota};
use rate::{Debt, Rate};
use table::{Seen, Table};
#[cfg(feature = "schema")]
pub(crate) use {document::Scope, key::SourceAddressPart};

/// A write is tried again this often when others keep writing the same set. Each conflict is another worker's progress,
/// so this many in a row mean a broken host; the request is refused then.
const MOST_TRIES: u32 = 1000;

/// The section, ready to decide.
#[derive(Debug)]
pub struct RateLimits {
    limits: Box<[Limit]>,
    /// The entries of all limits.
    entries: Box<[RequestMatch]>,
    /// The limit of each entry.
    limit_of: Box<[u32]>,
    index: Index,
    trusted_hops: u32,
    salt: Salt,
}

/// One limit, ready to apply.
#[derive(Debug)]
struct Limit {
    name: Box<str>,
    key: Box<[KeyPart]>,
    on_missing_key: OnMissingKey,
    rate: Rate,
    cost: CostRule,
    mode: Mode,
    capacity: u32,
    table: Table,
    refusal: Refusal,
    quota: Quota,
    /// The counters of [`Outcome`], in its order.
    counters: Metric,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The request passed this limit, and all others.
    Passed,
    /// Refused for want of quota.
    Limited,
    /// Would have been, but for `mode: Shadow`.
    WouldLimit,
    /// Refused, or would have been, because it has no key.
    MissingKey,
    /// The cost header said something that is no cost.
    BadCost,
    /// The key's set was full of busy keys: it used the overflow bucket.
    Overfull,
    /// A write was lost to another worker and made again.
    Retried,
}

impl Outcome {
    const NAMES: [&str; 7] = ["passed", "limited", "wouldLimit", "missingKey", "badCost", "overfull", "retried"];
}

#[derive(Debug)]
struct Refusal {
    status: u16,
    body: Box<str>,
    headers: Box<[(Box<str>, Box<str>)]>,
}

/// One limit's part in a decision.
struct Claim<'a> {
    limit: &'a Limit,
    key: Fingerprint,
    cost: u32,
    seen: Seen,
    /// Whether the key found no slot and uses the overflow bucket.
    shared: bool,
    /// The bucket before the request; after it, once that is taken.
    debt: Debt,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passes,
    /// Refused; would pass in so many nanoseconds.
    Wait(u64),
}

impl<'a> Claim<'a> {
    /// Decides by what was seen.
    fn judge(limit: &'a Limit, key: Fingerprint, cost: u32, seen: Seen) -> Claim<'a> {
        let bucket = seen.set.bucket(key.print);
        let verdict = match limit.rate.allows(bucket.debt, cost) {
            true => Verdict::Passes,
            false => Verdict::Wait(limit.rate.wait(bucket.debt, cost)),
        };
        Claim { limit, key, cost, seen, shared: bucket.is_shared(), debt: bucket.debt, verdict }
    }

    fn passes(&self) -> bool {
        self.verdict == Verdict::Passes
    }

    /// Looks again at what is there now.
    fn look_again(&mut self, now: Timestamp, environment: &mut impl Environment) {
        let seen = self.limit.table.load(self.key, &self.limit.rate, now, environment);
        *self = Claim::judge(self.limit, self.key, self.cost, seen);
    }

    /// Takes what the request costs, if it still passes; `false` if it does not any more.
    fn take(&mut self, now: Timestamp, environment: &mut impl Environment, decision: &mut Decision<'_>) -> bool {
        for _ in 0..MOST_TRIES {
            if !self.passes() {
                return false;
            }
            let bucket = self.seen.set.bucket(self.key.print);
            let debt = bucket.debt + self.limit.rate.price(self.cost);
            self.seen.set.set(bucket, debt);
            if self.limit.table.store(self.key, &self.seen, environment).is_ok() {
                self.debt = debt;
                return true;
            }
            decision.counts.push(self.limit.counter(Outcome::Retried));
            self.look_again(now, environment);
        }
        self.verdict = Verdict::Wait(0);
        false
    }

    /// Gives back what was taken.
    fn give_back(&mut self, now: Timestamp, environment: &mut impl Environment) {
        let price = self.limit.rate.price(self.cost);
        self.debt = self.debt.saturating_sub(price);
        for _ in 0..MOST_TRIES {
            self.seen = self.limit.table.load(self.key, &self.limit.rate, now, environment);
            self.seen.set.refund(self.key.print, self.shared, price);
            if self.limit.table.store(self.key, &self.seen, environment).is_ok() {
                return;
            }
        }
    }
}

impl Limit {
    fn new(document: LimitDocument, metrics: &mut Metrics) -> Limit {
        let burst = document.burst();
        let (requests, per) = (document.limit.requests.0, document.limit.per.0);
        let rate = Rate::new(requests, per, burst);
        let name = document.name.0;
        let key: Box<[KeyPart]> = document.key.into();
        // A limit without key parts has one bucket; two sets are as good as many.
        let capacity = if key.is_empty() { 1 } else { document.capacity.map_or(table::DEFAULT_CAPACITY, |c| c.0) };
        // Shadow has no effect that a client could see.
        let kind = if document.mode == Mode::Shadow { QuotaHeaders::Off } else { document.quota_headers };
        let per_nanos = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        Limit {
            quota: Quota::new(kind, &name, requests, per_nanos, burst),
            table: Table::new(b"", &name, &key, &rate, capacity),
            counters: metrics.add(Section::RateLimits, &name, &Outcome::NAMES),
            name,
            key,
            on_missing_key: document.on_missing_key,
            rate,
            cost: CostRule::new(document.cost),
            mode: document.mode,
            capacity,
            refusal: Refusal::new(document.response.unwrap_or_default()),
        }
    }

    fn counter(&self, outcome: Outcome) -> Metric {
        self.counters.plus(outcome as u32)
    }

    /// The request's key; `None`: some part is missing.
    fn fingerprint(
        &self,
        request: &Request<'_>,
        trusted_hops: u32,
        salt: Salt,
        environment: &mut impl Environment,
    ) -> Option<Fingerprint> {
        let mut hasher = KeyHasher::new(salt);
        for part in &self.key {
            hasher.part(&part.value(request, trusted_hops, environment)?);
        }
        Some(hasher.finish())
    }
}

impl Refusal {
    fn new(document: RefusalDocument) -> Refusal {
        let headers = document.headers.into_iter().map(|header| (header.name.0, header.value.0)).collect();
        let status = u16::try_from(document.status.0).unwrap_or(429);
        Refusal { status, body: document.body.into(), headers }
    }

    /// The response; `retry_after` in nanoseconds.
    fn response(&self, retry_after: Option<u64>) -> Response<'_> {
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

impl RateLimits {
    /// Compiles the section. `trusted_hops` are those of `settings.sourceAddress`.
    pub fn new(document: Named<LimitDocument>, trusted_hops: u32, metrics: &mut Metrics) -> RateLimits {
        let mut limits = Vec::with_capacity(document.0.len());
        let (mut entries, mut limit_of) = (Vec::new(), Vec::new());
        for (number, mut document) in (0_u32..).zip(document.0) {
            let matches = document.matches.take().map_or_else(|| vec![RequestMatch::default()], |entries| entries.0);
            limit_of.extend(std::iter::repeat_n(number, matches.len()));
            entries.extend(matches);
            limits.push(Limit::new(document, metrics));
        }
        RateLimits {
            limits: limits.into(),
            index: Index::new(&entries),
            entries: entries.into(),
            limit_of: limit_of.into(),
            trusted_hops,
            salt: Salt::default(),
        }
    }

    /// Names the plugin that runs the limits, so that no other shares their buckets by accident, and takes the memory
    /// that they need.
    pub fn start(&mut self, instance: &[u8], environment: &mut impl Environment) {
        self.salt = shared_salt(environment);
        for limit in &mut self.limits {
            limit.table = Table::new(instance, &limit.name, &limit.key, &limit.rate, limit.capacity);
            limit.table.create(environment);
        }
    }

    /// Decides by all limits that match. `true`: the request is refused.
    pub fn decide<'a>(
        &'a self,
        request: &Request<'a>,
        environment: &mut impl Environment,
        decision: &mut Decision<'a>,
    ) -> bool {
        let mut matching: SmallVec<[u32; 8]> = SmallVec::new();
        self.index.each(&self.entries, request, |entry| matching.extend(self.limit_of.get(entry).copied()));
        if matching.is_empty() {
            return false;
        }
        matching.sort_unstable();
        matching.dedup();

        let now = environment.now();
        let mut claims: SmallVec<[Claim<'a>; 2]> = SmallVec::new();
        for limit in matching.iter().filter_map(|&limit| self.limits.get(limit as usize)) {
            let key = match limit.fingerprint(request, self.trusted_hops, self.salt, environment) {
                Some(key) => key,
                None => match limit.on_missing_key {
                    OnMissingKey::Share => KeyHasher::missing(self.salt),
                    OnMissingKey::Skip => {
                        note!(environment, self.note_no_key(limit, request, "Skip", environment));
                        continue;
                    }
                    OnMissingKey::Deny => {
                        note!(environment, self.note_no_key(limit, request, "Deny", environment));
                        decision.counts.push(limit.counter(Outcome::MissingKey));
                        // Waiting does not help, so nothing says how long; nothing was taken yet.
                        if limit.refuses("missingKey", decision) {
                            let response = limit.refusal.response(None);
                            decision.action = Action::Respond(response);
                            return true;
                        }
                        continue;
                    }
                },
            };
            let (cost, is_bad) = limit.cost.of(request);
            if is_bad {
                decision.counts.push(limit.counter(Outcome::BadCost));
            }
            let seen = limit.table.recall(key, &limit.rate, now, environment);
            let mut claim = Claim::judge(limit, key, cost, seen);
            // What is remembered may let a request pass, for the write would fail; to refuse one it must be true.
            if !claim.passes() && !claim.seen.fresh {
                claim.look_again(now, environment);
            }
            if !claim.passes() && claim.seen.stepped_back {
                // A conflict is somebody else who has done it.
                let _ = limit.table.store(key, &claim.seen, environment);
            }
            claims.push(claim);
        }

        #[cfg(feature = "explain")]
        let before: Vec<Debt> = claims.iter().map(|claim| claim.debt).collect();
        if claims.iter().all(|claim| claim.passes() || claim.limit.mode == Mode::Shadow) {
            take_all(&mut claims, now, environment, decision);
        }
        #[cfg(feature = "explain")]
        for (claim, before) in claims.iter().zip(before) {
            note!(environment, self.note(claim, before, request, environment));
        }
        settle(&claims, decision)
    }
}

/// Takes from every limit, or from none. A limit in Shadow takes part when it passes, and stops nobody.
fn take_all(claims: &mut [Claim<'_>], now: Timestamp, environment: &mut impl Environment, decision: &mut Decision<'_>) {
    let mut rest = claims;
    let mut taken: SmallVec<[&mut Claim<'_>; 2]> = SmallVec::new();
    while let Some((claim, others)) = rest.split_first_mut() {
        rest = others;
        if claim.take(now, environment, decision) {
            taken.push(claim);
        } else if claim.limit.mode == Mode::Enforce {
            taken.into_iter().for_each(|claim| claim.give_back(now, environment));
            return;
        }
    }
}

/// Says what came of it. `true`: the request is refused.
fn settle<'a>(claims: &[Claim<'a>], decision: &mut Decision<'a>) -> bool {
    // The tightest refusal, the first of the document among equals.
    let mut tightest: [Option<(u64, &'a Limit)>; 2] = [None, None];
    for claim in claims {
        let Verdict::Wait(wait) = claim.verdict else { continue };
        let [enforced, shadow] = &mut tightest;
        let tightest = if claim.limit.mode == Mode::Enforce { enforced } else { shadow };
        if tightest.is_none_or(|(longest, _)| wait > longest) {
            *tightest = Some((wait, claim.limit));
        }
    }
    let [enforced, shadow] = tightest;

    for claim in claims {
        let limit = claim.limit;
        match claim.verdict {
            Verdict::Wait(_) if limit.mode == Mode::Enforce => decision.counts.push(limit.counter(Outcome::Limited)),
            Verdict::Wait(_) => decision.counts.push(limit.counter(Outcome::WouldLimit)),
            Verdict::Passes if enforced.is_none() => decision.counts.push(limit.counter(Outcome::Passed)),
            Verdict::Passes => {}
        }
        if claim.shared {
            decision.counts.push(limit.counter(Outcome::Overfull));
        }
    }
    if claims.iter().any(|claim| claim.limit.quota.kind != QuotaHeaders::Off) {
        let left =
            claims.iter().map(|claim| Left { quota: &claim.limit.quota, rate: claim.limit.rate, debt: claim.debt });
        quota::write(&left.collect::<SmallVec<[_; 4]>>(), &mut decision.response_headers);
    }
    if let Some((_, limit)) = shadow {
        limit.refuses("limited", decision);
    }
    match enforced {
        Some((wait, limit)) => {
            limit.refuses("limited", decision);
            decision.action = Action::Respond(limit.refusal.response(Some(wait)));
            true
        }
        None => false,
    }
}

impl Limit {
    /// Notes a refusal by this limit; whether it is one, or only would have been.
    fn refuses<'a>(&'a self, reason: &'static str, decision: &mut Decision<'a>) -> bool {
        decision.section = Some(Section::RateLimits);
        decision.rule = Some(&self.name);
        decision.reason = Some(reason);
        let enforces = self.mode == Mode::Enforce;
        if !enforces {
            decision.would_respond = Some(self.refusal.status);
        }
        enforces
    }
}

/// The hash's key, drawn once and shared by all workers.
fn shared_salt(environment: &mut impl Environment) -> Salt {
    const NAME: &[u8] = b"rl-salt";
    let drawn: Vec<u8> =
        [environment.random(), environment.random()].iter().flat_map(|half| half.to_le_bytes()).collect();
    let _ = environment.create(NAME, &drawn);
    let mut value = Vec::new();
    environment.load(NAME, &mut value);
    let half =
        |at: usize| value.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|bytes| u64::from_le_bytes(*bytes));
    Salt(half(0).unwrap_or(0), half(8).unwrap_or(0))
}

#[cfg(test)]
mod tests;
