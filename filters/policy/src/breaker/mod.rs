//! Breakers: what `canaries[].rollback` and `routes.rules[].failover` have in common.
//!
//! A breaker watches the responses of a variant or route in all workers of one proxy, and decides whether a request may
//! go there. Its state is one value of the shared [`State`](crate::state::State). A worker reads it at most every 50
//! ms; it writes failures at once, and successes every 50 ms. So all workers know of a change after at most 50 ms. Each
//! worker's own data is in its [`WorkerMemory`](crate::WorkerMemory).

mod document;
pub(crate) mod state;

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip::SipHasher24;

pub use crate::decision::Watch;
use crate::environment::{Environment, Timestamp};
use crate::metrics::{Metric, Metrics, metric_name};
use crate::section::Section;
use crate::state::{Change, Key, Table, Tables, Unavailable};
pub use document::{LatencyLimit, Percentile, Thresholds};
use state::{BreakerState, phase};
pub use state::{BreakerThresholds, PROBE_PERCENT, Phase, Tally, Transition};

/// The outcomes that a canary's breaker counts, and those of a rule's.
const ROLLBACK: [&str; 3] = ["rolledBack", "halfOpen", "restored"];
const FAILOVER: [&str; 3] = ["failedOver", "halfOpen", "restored"];

/// How long a worker uses the value that it has read, and how long it collects successes before it writes them.
const PATIENCE: u64 = 50_000_000;

/// How a request ended. A request that its client cancelled before the response is not observed at all. One that was
/// cancelled during the response counts by the response's headers: many streams end like that, and without them only
/// the failures would count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A status of 500 or more, a reset by the upstream, a timeout; for gRPC see [`is_grpc_failure`].
    pub failed: bool,
    /// The time from the end of the request to the response's headers, so that a slow upload is not the upstream's.
    /// `None`: not measured, or the response came before the request had ended.
    pub latency: Option<Duration>,
}

/// Whether this `grpc-status` is a failure of the upstream: those that Envoy's own mapping makes a 5xx, which are UNKNOWN,
/// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
pub fn is_grpc_failure(status: u32) -> bool {
    matches!(status, 2 | 4 | 12..=15)
}

/// A change of phase, to count and to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The counter.
    pub metric: Metric,
    /// One line for the log.
    pub line: String,
}

/// Every breaker of a policy.
#[derive(Debug, Default)]
pub struct Breakers(Vec<Breaker>);

/// One breaker.
#[derive(Debug)]
struct Breaker {
    /// Where its state is.
    table: Table,
    /// Its name in the log, such as `canary reviews: variant v2`.
    subject: Box<str>,
    /// Where requests go while it is open.
    instead: Box<str>,
    limits: BreakerThresholds,
    /// Slower responses count as slow; in nanoseconds.
    slow_above: u64,
    metric: Metric,
    /// The name of the gauge of its state.
    gauge: Box<str>,
}

/// The definition of a breaker.
pub(crate) struct Guard<'a> {
    pub(crate) section: Section,
    /// The rule or canary.
    pub(crate) rule: &'a str,
    /// What is watched: a variant or a route.
    pub(crate) guarded: &'a str,
    /// Where requests go instead.
    pub(crate) instead: &'a str,
}

impl Breakers {
    /// Adds a breaker.
    pub(crate) fn add(&mut self, guard: &Guard<'_>, thresholds: &Thresholds, metrics: &mut Metrics) -> Watch {
        let watch = Watch(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        let limits = thresholds.limits();
        let slow_above = thresholds.latency.as_ref().map_or(u64::MAX, |latency| nanos(latency.above.0));
        let (what, outcomes) = match guard.section {
            Section::Canaries => (format!("canary {}: variant {}", guard.rule, guard.guarded), &ROLLBACK),
            _ => (format!("rule {}: route {}", guard.rule, guard.guarded), &FAILOVER),
        };
        // A breaker whose thresholds change starts with a new table, so without a history.
        let mut identity = SipHasher24::new();
        for part in [guard.section.field(), guard.rule, guard.guarded] {
            identity.write(&(part.len() as u64).to_le_bytes());
            identity.write(part.as_bytes());
        }
        let or_none = |share: Option<u32>| share.map_or(u64::MAX, u64::from);
        for number in [
            limits.window,
            limits.min_requests.into(),
            or_none(limits.error_percent),
            or_none(limits.slow_share),
            limits.cooldown,
            slow_above,
        ] {
            identity.write(&number.to_le_bytes());
        }
        self.0.push(Breaker {
            table: Table { identity: identity.finish(), number: 0, slots: 1 },
            subject: what.into(),
            instead: guard.instead.into(),
            limits,
            slow_above,
            metric: metrics.add_breaker(guard.section, guard.rule, guard.guarded, outcomes),
            gauge: metric_name(
                "breaker_state",
                &[("section", guard.section.field()), ("rule", guard.rule), ("variant", guard.guarded)],
            ),
        });
        watch
    }

    /// Gives each its place among the policy's tables.
    pub(crate) fn place(&mut self, tables: &mut Tables) {
        for breaker in &mut self.0 {
            breaker.table = tables.add(&("breaker", breaker.table.identity), 1);
        }
    }

    /// Whether any request is watched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the gauges of [`Breakers::states`].
    pub(crate) fn gauges(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|breaker| &*breaker.gauge)
    }

    /// The phase of each now: 0 closed, 1 half-open, 2 open.
    pub(crate) fn states(&self, environment: &mut impl Environment) -> impl Iterator<Item = u64> {
        (0..).zip(&self.0).map(|(watch, _)| match self.phase(Watch(watch), environment) {
            Phase::Closed => 0,
            Phase::HalfOpen => 1,
            Phase::Open => 2,
        })
    }

    /// The breaker's phase now.
    pub(crate) fn phase(&self, watch: Watch, environment: &mut impl Environment) -> Phase {
        let Some(breaker) = self.0.get(watch.0 as usize) else { return Phase::Closed };
        let Timestamp(now) = environment.now();
        let known = environment.worker().breaker(watch, &breaker.table);
        let is_fresh = known.read.is_some_and(|read| now.checked_sub(read).is_some_and(|age| age < PATIENCE));
        let mut open_since = known.open_since;
        if !is_fresh {
            // Without the shared state the breaker cannot act, so requests pass.
            let read = environment.read(breaker.key(), |value| BreakerState::decode(value).open_since());
            open_since = read.unwrap_or(0);
            let known = environment.worker().breaker(watch, &breaker.table);
            (known.read, known.open_since) = (Some(now), open_since);
        }
        phase(open_since, now, &breaker.limits)
    }

    /// Whether a request may go to the watched variant or route; in the half-open phase, a random share may.
    pub(crate) fn passes_by_chance(&self, watch: Watch, environment: &mut impl Environment) -> bool {
        match self.phase(watch, environment) {
            Phase::Closed => true,
            Phase::Open => false,
            Phase::HalfOpen => probes(environment.chance()),
        }
    }

    /// Whether the breaker needs the latency of the upstream.
    pub fn wants_latency(&self, watch: Watch) -> bool {
        self.0.get(watch.0 as usize).is_some_and(|breaker| breaker.limits.slow_share.is_some())
    }

    /// Records how a watched request ended.
    ///
    /// ```
    /// use penstock_policy::breaker::Outcome;
    /// use penstock_policy::{FixedEnvironment, Policy, Request, Timestamp};
    ///
    /// let policy = <Policy>::from_json(
    ///     br#"{"routes": {"rules": [{"name": "pay", "route": "eu", "failover": {"route": "us", "errorPercent": 50,
    ///         "window": "10s", "minRequests": 2, "cooldown": "30s"}}]}}"#,
    /// )?;
    /// let mut environment = FixedEnvironment { now: Timestamp(1), ..FixedEnvironment::default() };
    /// let headers: [(&[u8], &[u8]); 2] = [(b":method", b"GET"), (b":path", b"/")];
    /// let request = Request::new(&headers);
    /// let mut routes = Vec::new();
    /// for _ in 0..3 {
    ///     let decision = policy.decide(&request, &mut environment).expect("no service to ask");
    ///     routes.push(decision.route.unwrap_or_default());
    ///     if let Some(watch) = decision.watch {
    ///         let failed = Outcome { failed: true, latency: None };
    ///         policy.breakers().observe(watch, failed, &mut environment);
    ///     }
    /// }
    /// assert_eq!(routes, ["eu", "eu", "us"]);
    /// # Ok::<(), penstock_policy::Problems>(())
    /// ```
    pub fn observe(&self, watch: Watch, outcome: Outcome, environment: &mut impl Environment) -> Option<Event> {
        let breaker = self.0.get(watch.0 as usize)?;
        let Timestamp(now) = environment.now();
        let known = environment.worker().breaker(watch, &breaker.table);
        if known.pending.requests == 0 {
            known.pending_since = now;
        }
        let slow = outcome.latency.is_some_and(|latency| nanos(latency) > breaker.slow_above);
        known.pending.add(Tally { requests: 1, failures: outcome.failed.into(), slow: slow.into() });
        let waited = now.checked_sub(known.pending_since).is_none_or(|waited| waited >= PATIENCE);
        if outcome.failed || slow || waited || known.open_since != 0 {
            return breaker.flush(watch, now, environment);
        }
        None
    }

    /// Writes the counts that were collected, and makes the next decision read again: for callers for whom 50 ms would
    /// be too long.
    pub fn settle(&self, environment: &mut impl Environment) -> Vec<Event> {
        let Timestamp(now) = environment.now();
        let mut events = Vec::new();
        for (watch, breaker) in (0..).map(Watch).zip(&self.0) {
            if environment.worker().breaker(watch, &breaker.table).pending.requests > 0 {
                events.extend(breaker.flush(watch, now, environment));
            }
            environment.worker().breaker(watch, &breaker.table).read = None;
        }
        events
    }
}

/// Whole nanoseconds, at most 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a request with these random bits is one of the probes of a half-open breaker.
pub(crate) fn probes(bits: u64) -> bool {
    bits < u64::MAX / 100 * PROBE_PERCENT
}

impl Breaker {
    fn key(&self) -> Key<'static> {
        Key::Slot(self.table, 0)
    }

    /// Writes what this worker has counted. If the state cannot be written, the counts are kept for the next time.
    fn flush(&self, watch: Watch, now: u64, environment: &mut impl Environment) -> Option<Event> {
        let pending = environment.worker().breaker(watch, &self.table).pending;
        let updated: Result<_, Unavailable> = environment.update(self.key(), |old, new| {
            let mut state = BreakerState::decode(old);
            let transition = state.record(pending, now, &self.limits);
            state.encode(new);
            Change::Replace((transition, state.open_since()))
        });
        let (transition, open_since) = updated.ok()?;
        let known = environment.worker().breaker(watch, &self.table);
        (known.pending, known.read, known.open_since) = (Tally::default(), Some(now), open_since);
        transition.map(|transition| self.event(transition))
    }

    fn event(&self, transition: Transition) -> Event {
        let (subject, instead) = (&self.subject, &self.instead);
        let counts = |Tally { requests, failures, slow }| {
            let slow = match self.limits.slow_share {
                Some(_) => format!(", {slow} slower than {} ms", self.slow_above / 1_000_000),
                None => String::new(),
            };
            format!("{failures} of {requests} requests failed{slow}")
        };
        let (offset, line) = match transition {
            Transition::Opened(tally) => {
                let seconds = self.limits.cooldown / 1_000_000_000;
                (0, format!("{subject}: {}: all go to {instead}, a probe follows in {seconds} s", counts(tally)))
            }
            Transition::HalfOpened => (1, format!("{subject}: {PROBE_PERCENT} % of its requests probe it")),
            Transition::Closed(tally) => (2, format!("{subject}: {}: restored", counts(tally))),
        };
        Event { metric: self.metric.plus(offset), line }
    }
}

#[cfg(test)]
mod tests;
