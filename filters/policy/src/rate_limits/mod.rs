//! `rateLimits`: exact limits per key, in bounded memory.
//!
//! A request must pass every limit that matches it. All are decided first and only then taken from, so a refused request
//! takes nothing. Between workers each limit is one compare-and-swap: a limit that another worker has emptied in the
//! meantime refuses the request after all, and what it took from the limits before is given back. In between, for the
//! microseconds until it is given back, a third request can be refused that would have passed; never can one pass that
//! should have been refused.
//!
//! Limits of global scope are counted by a service, which cannot take anything back. So it is asked last, when all local
//! limits have let the request pass and have taken from their buckets. When it refuses, those give back what they took,
//! but for a limit that stands in front of the service: one with the same key counts what the service is asked.

mod cost;
mod document;
#[cfg(feature = "explain")]
mod explain;
mod global;
mod key;
mod quota;
mod rate;
mod service;
mod set;
mod table;

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::decision::{Action, Decision, HeaderOp, Response, ResponseHeaders, Section};
use crate::document::Named;
use crate::environment::{Environment, Timestamp};
use crate::matching::{Index, RequestMatch};
use crate::metrics::{Metric, Metrics};
use crate::request::Request;
use cost::CostRule;
pub(crate) use document::Scope;
pub use document::{LimitDocument, Mode, OnMissingKey, QuotaHeaders};
use document::{OnFailure, RefusalDocument};
use global::{Ask, Global, Held, Left, Service};
pub use global::{Failure, Pending, Question, Reply};
pub use key::KeyPart;
use key::{Fingerprint, KeyHasher, Salt};
use quota::Quota;
use rate::{Debt, Rate};
use table::{Seen, Table};
#[cfg(feature = "schema")]
pub(crate) use {document::GlobalDocument, key::SourceAddressPart};

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
    /// Whom the limits of global scope ask.
    services: Box<[Service]>,
    trusted_hops: u32,
    salt: Salt,
}

/// One limit, ready to apply.
#[derive(Debug)]
struct Limit {
    /// Its place in the document.
    number: u32,
    name: Box<str>,
    key: Box<[KeyPart]>,
    on_missing_key: OnMissingKey,
    rate: Rate,
    cost: CostRule,
    mode: Mode,
    capacity: u32,
    /// Not used in global scope.
    table: Table,
    /// `None`: local scope.
    global: Option<Global>,
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
    /// The rate-limit service could not be asked, or gave no answer that is one.
    Error,
    /// It did not answer in time.
    Timeout,
}

impl Outcome {
    const NAMES: [&str; 9] =
        ["passed", "limited", "wouldLimit", "missingKey", "badCost", "overfull", "retried", "error", "timeout"];
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
    /// The service has not said; the limit's `onFailure` counts.
    Failed(Failure),
}

/// What came of the section.
#[derive(Debug)]
pub enum Step {
    /// The request passes.
    Passed,
    /// The decision is its refusal.
    Refused,
    /// A service must be asked first.
    Pending(Box<Pending>),
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
        self.debt = self.debt.saturating_sub(self.limit.rate.price(self.cost));
        self.limit.give_back(self.key, self.cost, self.shared, now, environment);
    }

    /// What quota headers say.
    fn left(&self) -> Left {
        let Limit { rate, quota, .. } = self.limit;
        (quota.kind != QuotaHeaders::Off).then(|| (rate.remaining(self.debt), rate.until_full(self.debt)))
    }

    fn voice(&self) -> Voice<'a> {
        Voice { limit: self.limit, verdict: self.verdict, shared: self.shared, left: self.left() }
    }

    fn held(&self) -> Held {
        let Claim { limit, key, cost, shared, verdict, .. } = *self;
        Held { limit: limit.number, key, cost, shared, verdict, left: self.left() }
    }
}

/// What one limit says in the end.
struct Voice<'a> {
    limit: &'a Limit,
    verdict: Verdict,
    /// Whether it used an overflow bucket.
    shared: bool,
    left: Left,
}

impl Voice<'_> {
    /// Whether it refuses the request, or would in Shadow.
    fn is_against(&self) -> bool {
        match self.verdict {
            Verdict::Passes => false,
            Verdict::Wait(_) => true,
            Verdict::Failed(_) => self.limit.denies_on_failure(),
        }
    }

    fn refuses(&self) -> bool {
        self.limit.mode == Mode::Enforce && self.is_against()
    }
}

impl Limit {
    fn new(number: u32, document: LimitDocument, services: &mut Vec<Service>, metrics: &mut Metrics) -> Limit {
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
            global: match document.scope {
                Scope::Local => None,
                Scope::Global(global) => Some(Global::new(global, &document.limit, services)),
            },
            number,
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

    /// Gives back what a request has taken.
    fn give_back(&self, key: Fingerprint, cost: u32, shared: bool, now: Timestamp, environment: &mut impl Environment) {
        for _ in 0..MOST_TRIES {
            let mut seen = self.table.load(key, &self.rate, now, environment);
            seen.set.refund(key.print, shared, self.rate.price(cost));
            if self.table.store(key, &seen, environment).is_ok() {
                return;
            }
        }
    }

    fn denies_on_failure(&self) -> bool {
        self.global.as_ref().is_some_and(|global| global.on_failure == OnFailure::Deny)
    }

    /// Its part in the question to its service; `None`: the limit does not apply, or is local.
    #[cold]
    fn ask(
        &self,
        request: &Request<'_>,
        trusted_hops: u32,
        cost: u32,
        environment: &mut impl Environment,
    ) -> Option<Ask> {
        let mut ask = Ask::new(self.number, &self.name, self.global.as_ref()?, cost);
        let values: Option<SmallVec<[_; 2]>> =
            self.key.iter().map(|part| part.value(request, trusted_hops, environment)).collect();
        match values {
            Some(values) => self.key.iter().zip(&values).for_each(|(part, value)| ask.part(part, value)),
            None => ask.missing(),
        }
        Some(ask)
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

/// The slot table of one limit of local scope, to look at.
pub(crate) struct Slots<'a> {
    /// The limit's.
    pub(crate) name: &'a str,
    /// Busy keys that have a slot of their own with near certainty; there is room for about twice as many.
    pub(crate) capacity: u32,
    limit: &'a Limit,
}

impl Slots<'_> {
    /// How many sets there are.
    pub(crate) fn sets(&self) -> u32 {
        self.limit.table.sets()
    }

    /// The keys in use in one set.
    pub(crate) fn busy_keys(
        &self,
        set: u32,
        now: Timestamp,
        value: &mut Vec<u8>,
        environment: &mut impl Environment,
    ) -> u64 {
        self.limit.table.busy_keys(set, &self.limit.rate, now, value, environment)
    }
}

impl RateLimits {
    /// The tables of the limits of local scope that have keys, in the order of the document.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Slots<'_>> {
        let local = self.limits.iter().filter(|limit| limit.global.is_none() && !limit.key.is_empty());
        local.map(|limit| Slots { name: &limit.name, capacity: limit.capacity, limit })
    }

    /// Compiles the section. `trusted_hops` are those of `settings.sourceAddress`.
    pub fn new(document: Named<LimitDocument>, trusted_hops: u32, metrics: &mut Metrics) -> RateLimits {
        let mut limits = Vec::with_capacity(document.0.len());
        let (mut entries, mut limit_of, mut services) = (Vec::new(), Vec::new(), Vec::new());
        for (number, mut document) in (0_u32..).zip(document.0) {
            let matches = document.matches.take().map_or_else(|| vec![RequestMatch::default()], |entries| entries.0);
            limit_of.extend(std::iter::repeat_n(number, matches.len()));
            entries.extend(matches);
            limits.push(Limit::new(number, document, &mut services, metrics));
        }
        RateLimits {
            limits: limits.into(),
            index: Index::new(&entries),
            entries: entries.into(),
            limit_of: limit_of.into(),
            services: services.into(),
            trusted_hops,
            salt: Salt::default(),
        }
    }

    /// Names the plugin that runs the limits, so that no other shares their buckets by accident, and takes the memory
    /// that they need.
    pub fn start(&mut self, instance: &[u8], environment: &mut impl Environment) {
        self.salt = shared_salt(environment);
        for limit in self.limits.iter_mut().filter(|limit| limit.global.is_none()) {
            limit.table = Table::new(instance, &limit.name, &limit.key, &limit.rate, limit.capacity);
            limit.table.create(environment);
        }
    }

    /// Decides by all limits that match.
    pub fn decide<'a>(
        &'a self,
        request: &Request<'a>,
        environment: &mut impl Environment,
        decision: &mut Decision<'a>,
    ) -> Step {
        let mut matching: SmallVec<[u32; 8]> = SmallVec::new();
        self.index.each(&self.entries, request, |entry| {
            // In the document's order, each once.
            if let Some(&limit) = self.limit_of.get(entry)
                && let Err(at) = matching.binary_search(&limit)
            {
                matching.insert(at, limit);
            }
        });
        if matching.is_empty() {
            return Step::Passed;
        }

        let now = environment.now();
        let mut claims: SmallVec<[Claim<'a>; 2]> = SmallVec::new();
        let (mut asks, mut without_key) = (Vec::new(), None);
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
                            return Step::Refused;
                        }
                        without_key = without_key.or(Some(limit.number));
                        continue;
                    }
                },
            };
            let (cost, is_bad) = limit.cost.of(request);
            if is_bad {
                decision.counts.push(limit.counter(Outcome::BadCost));
            }
            if limit.global.is_some() {
                note!(environment, self.note_asked(limit, cost, request, environment));
                asks.extend(limit.ask(request, self.trusted_hops, cost, environment));
                continue;
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

        let stops = |claim: &Claim<'_>| !claim.passes() && claim.limit.mode == Mode::Enforce;
        #[cfg(feature = "explain")]
        let before: Vec<Debt> = claims.iter().map(|claim| claim.debt).collect();
        if !claims.iter().any(stops) {
            take_all(&mut claims, now, environment, decision);
        }
        #[cfg(feature = "explain")]
        for (claim, before) in claims.iter().zip(before) {
            note!(environment, self.note(claim, before, request, environment));
        }
        // Whom the local limits refuse, nobody else is asked about.
        if asks.is_empty() || claims.iter().any(stops) {
            return settle(&claims.iter().map(Claim::voice).collect::<SmallVec<[_; 2]>>(), decision);
        }
        let held = claims.iter().map(Claim::held).collect();
        Step::Pending(Box::new(Pending::new(asks, held, without_key)))
    }

    fn limit(&self, number: u32) -> Option<&Limit> {
        self.limits.get(number as usize)
    }

    /// What the services have said so far.
    fn replied<'a>(&'a self, pending: &'a Pending) -> impl Iterator<Item = Voice<'a>> {
        pending.verdicts().filter_map(|(limit, verdict, left)| {
            Some(Voice { limit: self.limit(limit)?, verdict, shared: false, left })
        })
    }

    /// What to ask a service next; `None`: nothing more.
    #[cold]
    pub fn question(&self, pending: &Pending) -> Option<Question<'_>> {
        if self.replied(pending).any(|voice| voice.refuses()) { None } else { pending.question(&self.services) }
    }

    /// Decides when the services have replied.
    #[cold]
    pub fn conclude<'a>(
        &'a self,
        pending: &'a Pending,
        environment: &mut impl Environment,
        decision: &mut Decision<'a>,
    ) -> Step {
        let held = pending.held.iter().filter_map(|held| {
            let Held { verdict, shared, left, .. } = *held;
            Some(Voice { limit: self.limit(held.limit)?, verdict, shared, left })
        });
        let voices: SmallVec<[Voice<'a>; 4]> = held.chain(self.replied(pending)).collect();
        if let Some(limit) = pending.without_key.and_then(|number| self.limit(number)) {
            limit.refuses("missingKey", decision);
        }
        for answer in pending.replies() {
            decision.response_headers.extend(answer.response_headers().map(|(name, value)| (name, value.into())));
        }
        let step = settle(&voices, decision);
        match step {
            Step::Refused => self.give_back(pending, environment),
            _ => {
                let headers = pending.replies().flat_map(|answer| answer.request_headers());
                decision.headers.extend(headers.map(|(name, value)| HeaderOp::Add(name, value.into())));
            }
        }
        step
    }

    /// Gives back what the local limits took from a request that a service has refused; see the top of this file.
    #[cold]
    fn give_back(&self, pending: &Pending, environment: &mut impl Environment) {
        let is_shield = |limit: &Limit| {
            let mut asked = pending.limits().filter_map(|number| self.limit(number));
            asked.any(|asked| asked.key == limit.key)
        };
        let mut held = pending.held.iter().filter(|held| held.verdict == Verdict::Passes).peekable();
        if held.peek().is_none() {
            return;
        }
        let now = environment.now();
        for held in held {
            if let Some(limit) = self.limit(held.limit).filter(|limit| !is_shield(limit)) {
                limit.give_back(held.key, held.cost, held.shared, now, environment);
            }
        }
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

/// Says what came of it.
#[inline(never)]
fn settle<'a>(voices: &[Voice<'a>], decision: &mut Decision<'a>) -> Step {
    // The tightest refusal, the first of the document among equals. A service that does not answer says no time.
    let tightest = |mode: Mode| {
        let against = voices.iter().filter(|voice| voice.limit.mode == mode && voice.is_against());
        against.reduce(|tightest, voice| if voice.wait() > tightest.wait() { voice } else { tightest })
    };
    let (enforced, shadow) = (tightest(Mode::Enforce), tightest(Mode::Shadow));

    for voice in voices {
        let outcome = match voice.verdict {
            Verdict::Wait(_) if voice.limit.mode == Mode::Enforce => Some(Outcome::Limited),
            Verdict::Wait(_) => Some(Outcome::WouldLimit),
            Verdict::Failed(Failure::Error) => Some(Outcome::Error),
            Verdict::Failed(Failure::Timeout) => Some(Outcome::Timeout),
            Verdict::Passes => enforced.is_none().then_some(Outcome::Passed),
        };
        let overfull = voice.shared.then_some(Outcome::Overfull);
        decision.counts.extend(outcome.into_iter().chain(overfull).map(|outcome| voice.limit.counter(outcome)));
    }
    if voices.iter().any(|voice| voice.left.is_some()) {
        let left = voices.iter().filter_map(|voice| {
            let (remaining, until_full) = voice.left?;
            Some(quota::Left { quota: &voice.limit.quota, remaining, reset: rate::seconds(until_full) })
        });
        quota::write(&left.collect::<SmallVec<[_; 4]>>(), &mut decision.response_headers);
    }
    if let Some(voice) = shadow {
        voice.limit.refuses(voice.reason(), decision);
    }
    let Some(voice) = enforced else { return Step::Passed };
    voice.limit.refuses(voice.reason(), decision);
    decision.action = Action::Respond(voice.limit.refusal.response(voice.wait()));
    Step::Refused
}

impl Voice<'_> {
    /// Nanoseconds until the request would pass, when that is known.
    fn wait(&self) -> Option<u64> {
        match self.verdict {
            Verdict::Wait(nanos) => Some(nanos),
            _ => None,
        }
    }

    fn reason(&self) -> &'static str {
        if self.wait().is_some() { "limited" } else { "serviceFailed" }
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
