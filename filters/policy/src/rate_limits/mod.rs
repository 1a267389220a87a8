//! `rateLimits`: exact limits per key, in bounded memory.
//!
//! A request must pass every limit that matches it. All are checked before anything is taken, so a refused request
//! takes nothing. Between workers each limit is one compare-and-swap: a limit that another worker has emptied in the
//! meantime still refuses the request, and what was taken from the limits before it is given back. For the microseconds
//! until then a third request may be refused that would have passed; none can pass that should have been refused.
//!
//! Limits of global scope are counted by a service, which cannot take anything back. So it is asked last, when all
//! local limits have let the request pass and have taken from their buckets. When it refuses, they give back what they
//! took, except for a limit with the same key as the service's: that one counts requests to the service.

mod budget;
mod cost;
mod document;
mod explain;
mod finish;
mod global;
mod key;
pub(crate) mod lease;
mod limit;
mod local_check;
mod outcome;
mod pending;
mod quota;
mod rate;
mod service;
mod set;
mod settle;
pub(crate) mod settlement;
mod taken;
mod verdict;

use smallvec::SmallVec;

use crate::asked::AskedNames;
use crate::client::Clients;
use crate::decision::{Effects, HeaderOp};
use crate::document::{At, Context, Named};
use crate::environment::{Environment, Timestamp};
use crate::matching::{Index, RequestMatch};
use crate::metrics::{Metric, Metrics};
use crate::reason::Reason;
use crate::request::Request;
use crate::section::Section;
use crate::settings::Settings;
use crate::state::{Change, Key, Tables, Unavailable};
pub use document::{LimitDocument, LimitMode, OnMissingKey, QuotaHeaders};
use finish::finish;
use global::{LimitService, RemoteCheck};
pub use key::KeyPart;
use key::{KeyHasher, Salt};
use limit::{Limit, LimitCount};
use local_check::{LocalCheck, take_all};
pub(crate) use outcome::LimitsOutcome;
use pending::Reserved;
pub use pending::{Pending, RlsReply, RlsRequest};
pub use settlement::Reservation;
use settlement::ReservedFrom;
pub use verdict::ServiceFailure;
use verdict::{LimitVerdict, Verdict};

/// The section, ready to decide.
#[derive(Debug)]
pub struct RateLimits {
    limits: Box<[Limit]>,
    /// The entries of all limits.
    entries: Box<[RequestMatch]>,
    /// The limit of each entry.
    limit_of: Box<[u32]>,
    index: Index,
    /// The services of the limits of global scope.
    services: Box<[LimitService]>,
    clients: Clients,
    /// The header that no service may add: the route header.
    route_header: Box<str>,
    /// Whether any limit takes its cost from the response.
    settles: bool,
    /// Counts headers that a service asked for and that were left out; only with limits of global scope.
    dropped_headers: Option<Metric>,
    salt: Salt,
}

/// The slot table of one limit of local scope, for gauges.
pub(crate) struct Slots<'a> {
    /// The number of the limit.
    pub(crate) name: &'a str,
    /// The number of busy keys that have a slot of their own with near certainty; there is room for about twice as
    /// many.
    pub(crate) capacity: u32,
    limit: &'a Limit,
}

impl Slots<'_> {
    /// The number of sets.
    pub(crate) fn sets(&self) -> u32 {
        self.limit.table.slots
    }

    /// The keys in use in one set.
    pub(crate) fn busy_keys(&self, set: u32, now: Timestamp, environment: &mut impl Environment) -> u64 {
        let count = environment.read(Key::Slot(self.limit.table, set), |set| set::busy_keys(set, now));
        count.unwrap_or(0)
    }
}

impl RateLimits {
    /// The tables of the limits of local scope that have keys, in the order of the document.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Slots<'_>> {
        let local = self.limits.iter().filter(|limit| limit.global.is_none() && !limit.key.is_empty());
        local.map(|limit| Slots { name: &limit.name, capacity: limit.capacity, limit })
    }

    /// Whether the limits of a document fit into memory together.
    pub(crate) fn fit(document: &Named<LimitDocument>, cx: &mut Context) -> bool {
        budget::check(&document.0, &At::Root.field(Section::RateLimits.field()), cx)
    }

    /// Compiles the section.
    pub(crate) fn new(
        document: Named<LimitDocument>,
        settings: &Settings,
        metrics: &mut Metrics,
        names: &mut AskedNames,
        tables: &mut Tables,
    ) -> RateLimits {
        let mut limits = Vec::with_capacity(document.0.len());
        let (mut entries, mut limit_of, mut services) = (Vec::new(), Vec::new(), Vec::new());
        for (number, mut document) in (0_u32..).zip(document.0) {
            let matches = document.matches.take().map_or_else(|| vec![RequestMatch::default()], |entries| entries.0);
            limit_of.extend(std::iter::repeat_n(number, matches.len()));
            entries.extend(matches);
            limits.push(Limit::new(number, document, &mut services, metrics, tables));
        }
        entries.iter().for_each(|entry| entry.add_names(names));
        limits.iter().flat_map(|limit| &limit.key).for_each(|part| part.add_name(names));
        limits.iter().filter_map(|limit| limit.cost.header()).for_each(|name| names.headers.add(name.as_bytes()));
        let has_services = !services.is_empty();
        if has_services {
            // What a service refuses is returned to the local limits.
            limits.iter_mut().for_each(|limit| limit.may_lease = false);
        }
        let dropped_headers = has_services.then(|| metrics.add(Section::RateLimits, "_service", &["headersDropped"]));
        RateLimits {
            settles: limits.iter().any(|limit| limit.cost.response_header().is_some()),
            limits: limits.into(),
            index: Index::new(&entries),
            entries: entries.into(),
            limit_of: limit_of.into(),
            services: services.into(),
            clients: settings.clients(),
            route_header: settings.route_header.0.clone(),
            dropped_headers,
            salt: Salt::default(),
        }
    }

    /// Reads the hash's secret key, which all workers share; the first worker draws it.
    ///
    /// # Errors
    /// When the state cannot be read or written.
    pub(crate) fn start(&mut self, environment: &mut impl Environment) -> Result<(), Unavailable> {
        const NAME: Key<'_> = Key::Named("salt");
        self.salt = match environment.read(NAME, Salt::read)? {
            Some(salt) => salt,
            None => {
                let drawn = Salt(environment.random(), environment.random());
                environment.update(NAME, |old, new| match Salt::read(old) {
                    Some(salt) => Change::Refuse(salt),
                    None => {
                        drawn.write(new);
                        Change::Replace(drawn)
                    }
                })?
            }
        };
        Ok(())
    }

    /// Whether workers may take requests from any of the limits in advance.
    pub(crate) fn may_lease(&self) -> bool {
        self.limits.iter().any(|limit| limit.may_lease)
    }

    /// Returns the requests that the worker has taken in advance and not used.
    pub(crate) fn return_leases(&self, environment: &mut impl Environment) {
        let leases = environment.worker().leases.take();
        if leases.is_empty() {
            return;
        }
        let now = environment.now();
        for (number, key, lease) in leases {
            if let Some(limit) = self.limit(number) {
                limit.report(key, lease, now, environment);
            }
        }
    }

    /// Decides by all limits that match.
    ///
    /// # Errors
    /// With the pending decision when a rate-limit service must be asked first.
    pub(crate) fn decide<'a>(
        &'a self,
        request: &Request<'a>,
        environment: &mut impl Environment,
        effects: &mut Effects<'_, 'a>,
    ) -> Result<LimitsOutcome<'a>, Box<Pending>> {
        let mut decided = LimitsOutcome::default();
        let before = effects.counted();
        let mut matching: SmallVec<[u32; 8]> = SmallVec::new();
        let mut find = || {
            self.index.each(&self.entries, request, |entry| {
                // In the document's order, each limit once.
                if let Some(&limit) = self.limit_of.get(entry)
                    && let Err(at) = matching.binary_search(&limit)
                {
                    matching.insert(at, limit);
                }
            });
        };
        find();
        if request.wants_facts() {
            request.load_facts(environment);
            // What matched without facts still matches.
            find();
        }
        if matching.is_empty() {
            return Ok(decided);
        }

        let now = environment.now();
        let mut checks: SmallVec<[LocalCheck<'a>; 2]> = SmallVec::new();
        let (mut remote, mut without_key) = (Vec::new(), None);
        for limit in matching.iter().filter_map(|&limit| self.limits.get(limit as usize)) {
            let key = match limit.fingerprint(request, &self.clients, self.salt, environment) {
                Some(key) => key,
                None => match limit.on_missing_key {
                    OnMissingKey::Share => KeyHasher::missing(self.salt),
                    OnMissingKey::Skip => {
                        self.note_no_key(limit, request, "Skip", environment);
                        continue;
                    }
                    OnMissingKey::Deny => {
                        self.note_no_key(limit, request, "Deny", environment);
                        effects.count(limit.counter(LimitCount::MissingKey));
                        // Waiting does not help, so no time is reported; nothing was taken yet.
                        decided.refused_by(limit, Reason::MissingKey, None);
                        if decided.refusal.is_some() {
                            return Ok(decided);
                        }
                        without_key = without_key.or(Some(limit.number));
                        continue;
                    }
                },
            };
            let (cost, is_bad) = limit.cost.of(request);
            if is_bad {
                effects.count(limit.counter(LimitCount::BadCost));
            }
            if limit.global.is_some() {
                self.note_asked(limit, cost, request, environment);
                remote.extend(limit.ask(request, &self.clients, cost, environment));
                continue;
            }
            checks.push(LocalCheck::new(limit, key, cost));
        }

        take_all(&mut checks, now, environment, effects);
        self.note_checks(&checks, request, environment);
        // A request that the local limits refuse is not sent to a service.
        if remote.is_empty() || checks.iter().any(LocalCheck::stops) {
            finish(&checks.iter().map(LocalCheck::verdict).collect::<SmallVec<[_; 2]>>(), effects, &mut decided);
            if self.settles && decided.refusal.is_none() {
                decided.reservations.extend(checks.iter().filter_map(|check| check.reservation(now)));
            }
            return Ok(decided);
        }
        let reserved = checks.iter().map(|check| check.reserved(now)).collect();
        Err(Box::new(Pending::new(remote, reserved, without_key, effects.counted_since(before))))
    }

    fn limit(&self, number: u32) -> Option<&Limit> {
        self.limits.get(number as usize)
    }

    /// The state of the requests to services.
    fn replied<'a>(&'a self, pending: &'a Pending) -> impl Iterator<Item = LimitVerdict<'a>> {
        pending.verdicts().filter_map(|(limit, verdict, left)| {
            Some(LimitVerdict { limit: self.limit(limit)?, verdict, shared: false, left })
        })
    }

    /// The next request to a service; `None`: there is none.
    #[cold]
    pub fn rls_request(&self, pending: &Pending) -> Option<RlsRequest<'_>> {
        if self.replied(pending).any(|verdict| verdict.refuses()) { None } else { pending.rls_request(&self.services) }
    }

    /// Decides after the services have replied.
    #[cold]
    pub(crate) fn conclude<'a>(
        &'a self,
        pending: &'a Pending,
        environment: &mut impl Environment,
        effects: &mut Effects<'_, 'a>,
    ) -> LimitsOutcome<'a> {
        let mut decided = LimitsOutcome::default();
        let reserved = pending.reserved.iter().filter_map(|reserved| {
            let Reserved { taken, verdict, left, .. } = *reserved;
            Some(LimitVerdict { limit: self.limit(reserved.limit)?, verdict, shared: taken.shared, left })
        });
        let verdicts: SmallVec<[LimitVerdict<'a>; 4]> = reserved.chain(self.replied(pending)).collect();
        if let Some(limit) = pending.without_key.and_then(|number| self.limit(number)) {
            decided.refused_by(limit, Reason::MissingKey, None);
        }
        for answer in pending.replies() {
            answer.response_headers().for_each(|(name, value)| effects.response_header(name, value.into()));
        }
        let dropped = pending.replies().map(|answer| answer.dropped(&self.route_header)).sum();
        std::iter::repeat_n(self.dropped_headers, dropped).flatten().for_each(|metric| effects.count(metric));
        finish(&verdicts, effects, &mut decided);
        if decided.refusal.is_some() {
            self.give_back(pending, environment);
        } else {
            let headers = pending.replies().flat_map(|answer| answer.request_headers(&self.route_header));
            effects.change(headers.map(|(name, value)| HeaderOp::Add(name, value.into())));
            if self.settles {
                decided.reservations = self.reservations(pending);
            }
        }
        decided
    }

    /// What must be settled for a request that services have let pass.
    #[cold]
    fn reservations(&self, pending: &Pending) -> Vec<Reservation> {
        let is_open = |limit: u32| self.limit(limit).is_some_and(|limit| limit.cost.response_header().is_some());
        let buckets = pending.reserved.iter().filter(|reserved| reserved.verdict == Verdict::Passes);
        let buckets = buckets.map(|reserved| (reserved.limit, ReservedFrom::Bucket(reserved.taken)));
        let services = pending.passed().map(|check| {
            let entries = check.descriptor.entries.as_slice().into();
            (check.limit, ReservedFrom::Service { entries, asked: check.descriptor.hits_addend })
        });
        let all = buckets.chain(services).filter(|(limit, _)| is_open(*limit));
        all.map(|(limit, from)| Reservation { limit, from }).collect()
    }

    /// The response header with the cost of a request.
    pub(crate) fn cost_header(&self, reservation: &Reservation) -> Option<&str> {
        self.limit(reservation.limit)?.cost.response_header()
    }

    /// Settles the cost when the response's headers have arrived. `Err`: the value is unusable, which the metric
    /// counts; the reserved cost stays.
    #[cold]
    pub(crate) fn settle(
        &self,
        reservation: &Reservation,
        value: &[u8],
        environment: &mut impl Environment,
    ) -> Result<Option<RlsRequest<'_>>, Option<Metric>> {
        let limit = self.limit(reservation.limit).ok_or(None)?;
        let cost = limit.cost.of_response(value).ok_or(Some(limit.counter(LimitCount::BadCost)))?;
        match &reservation.from {
            ReservedFrom::Bucket(taken) => {
                let now = environment.now();
                taken.settle(limit, cost, now, environment);
                Ok(None)
            }
            ReservedFrom::Service { entries, asked } => {
                let Some(global) = &limit.global else { return Err(None) };
                let settled = RemoteCheck::settled(limit.number, global, entries, *asked, cost);
                let service = self.services.get(global.service as usize);
                Ok(settled.zip(service).map(|(check, service)| RlsRequest::new(service, std::iter::once(&check))))
            }
        }
    }

    /// Gives back what the local limits took from a request that a service has refused; see the top of this file.
    #[cold]
    fn give_back(&self, pending: &Pending, environment: &mut impl Environment) {
        let is_shield = |limit: &Limit| {
            let mut asked = pending.limits().filter_map(|number| self.limit(number));
            asked.any(|asked| asked.key == limit.key)
        };
        let mut reserved = pending.reserved.iter().filter(|reserved| reserved.verdict == Verdict::Passes).peekable();
        if reserved.peek().is_none() {
            return;
        }
        let now = environment.now();
        for reserved in reserved {
            if let Some(limit) = self.limit(reserved.limit).filter(|limit| !is_shield(limit)) {
                reserved.taken.give_back(limit, now, environment);
            }
        }
    }
}

#[cfg(test)]
mod tests;
