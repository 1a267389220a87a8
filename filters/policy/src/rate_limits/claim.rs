//! One limit's part in the decision of a request: looked at, taken, given back.

use smallvec::SmallVec;

use super::document::{Mode, QuotaHeaders};
use super::global::{Failure, Held, Left};
use super::key::Fingerprint;
use super::limit::{Limit, Outcome};
use super::rate::Debt;
use super::set;
use super::settle::Voice;
use crate::decision::Effects;
use crate::environment::{Environment, Timestamp};
use crate::state::{Change, Unavailable};

/// One limit's part in a decision.
pub(super) struct Claim<'a> {
    pub(super) limit: &'a Limit,
    key: Fingerprint,
    pub(super) cost: u32,
    /// Whether the key found no slot and uses the overflow bucket.
    pub(super) shared: bool,
    /// The bucket before the request.
    pub(super) before: Debt,
    /// After it, once that is taken.
    pub(super) debt: Debt,
    pub(super) verdict: Verdict,
}

/// What one limit says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    /// Refused; would pass in so many nanoseconds.
    Wait(u64),
    /// Refused: it costs more than the bucket ever holds.
    TooLarge,
    /// The service has not said; the limit's `onFailure` counts.
    Failed(Failure),
}

/// Whether a request that passes is to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pay {
    Now,
    Later,
}

impl<'a> Claim<'a> {
    /// A claim that nothing is known of yet.
    pub(super) fn new(limit: &'a Limit, key: Fingerprint, cost: u32) -> Claim<'a> {
        Claim { limit, key, cost, shared: false, before: 0, debt: 0, verdict: Verdict::Passes }
    }

    pub(super) fn passes(&self) -> bool {
        self.verdict == Verdict::Passes
    }

    /// Whether it refuses the request.
    pub(super) fn stops(&self) -> bool {
        !self.passes() && self.limit.mode == Mode::Enforce
    }

    /// Decides without taking anything. What lets a request pass may be out of date: [`Claim::take`] finds out.
    fn look(&mut self, now: Timestamp, environment: &mut impl Environment) {
        self.decide(Pay::Later, now, environment);
    }

    /// Takes what the request costs, if it passes; counts the writes that others were faster with.
    fn take(&mut self, now: Timestamp, environment: &mut impl Environment, effects: &mut Effects<'_, '_>) {
        let writes = self.decide(Pay::Now, now, environment);
        let lost = if self.passes() { writes.saturating_sub(1) } else { writes };
        for _ in 0..lost {
            effects.count(self.limit.counter(Outcome::Retried));
        }
    }

    /// Decides, and says how often the bucket with the request's cost was to be written.
    fn decide(&mut self, pay: Pay, now: Timestamp, environment: &mut impl Environment) -> usize {
        let (rate, cost, key) = (&self.limit.rate, self.cost, self.key);
        let price = rate.price(cost);
        let mut writes = 0;
        let decided = environment.update(self.limit.set_of(key), |old, new| {
            let set = set::advance(old, rate, now, key.print, new);
            let bucket = set.bucket();
            if rate.allows(bucket.debt, cost) {
                if pay == Pay::Later {
                    return Change::Keep((bucket, Verdict::Passes));
                }
                writes += 1;
                bucket.owe(bucket.debt + price, new);
                return Change::Replace((bucket, Verdict::Passes));
            }
            let verdict =
                if cost > rate.burst { Verdict::TooLarge } else { Verdict::Wait(rate.wait(bucket.debt, cost)) };
            if set.must_write { Change::Replace((bucket, verdict)) } else { Change::Refuse((bucket, verdict)) }
        });
        match decided {
            Ok((bucket, verdict)) => {
                (self.shared, self.before, self.verdict) = (bucket.is_shared(), bucket.debt, verdict);
                let pays = pay == Pay::Now && verdict == Verdict::Passes;
                self.debt = if pays { bucket.debt + price } else { bucket.debt };
            }
            Err(Unavailable) => self.verdict = Verdict::Wait(0),
        }
        writes
    }

    /// Gives back what was taken.
    fn give_back(&mut self, now: Timestamp, environment: &mut impl Environment) {
        self.debt = self.before;
        self.taken(now).give_back(self.limit, now, environment);
    }

    fn taken(&self, at: Timestamp) -> Taken {
        Taken { key: self.key, cost: self.cost, shared: self.shared, before: self.before, at }
    }

    /// What quota headers say.
    fn left(&self) -> Left {
        let Limit { rate, quota, .. } = self.limit;
        (quota.kind != QuotaHeaders::Off).then(|| (rate.remaining(self.debt), rate.until_full(self.debt)))
    }

    pub(super) fn voice(&self) -> Voice<'a> {
        Voice { limit: self.limit, verdict: self.verdict, shared: self.shared, left: self.left() }
    }

    pub(super) fn held(&self, now: Timestamp) -> Held {
        Held { limit: self.limit.number, taken: self.taken(now), verdict: self.verdict, left: self.left() }
    }
}

/// What a request has taken from one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    key: Fingerprint,
    cost: u32,
    /// Whether out of the overflow bucket.
    pub(super) shared: bool,
    /// What the bucket owed before.
    before: Debt,
    at: Timestamp,
}

impl Taken {
    /// Gives back what is still owed. What was taken stands behind what the bucket owed before, and has been paid off by as
    /// much as the time since then exceeds that: as if the request had never come, and never more than that.
    pub(super) fn give_back(&self, limit: &Limit, now: Timestamp, environment: &mut impl Environment) {
        let rate = &limit.rate;
        let since = now.0.saturating_sub(self.at.0);
        let price = rate.price(self.cost);
        let owed = rate.drained(self.before + price, since).min(price);
        if owed == 0 {
            return;
        }
        // Where the state is lost there is nothing to give back.
        let _: Result<(), Unavailable> = environment.update(limit.set_of(self.key), |old, new| {
            let set = set::advance(old, rate, now, self.key.print, new);
            match set.debtor(self.shared) {
                Some(bucket) => {
                    bucket.owe(bucket.debt.saturating_sub(owed), new);
                    Change::Replace(())
                }
                None => Change::Refuse(()),
            }
        });
    }
}

/// Decides all claims, and takes from every limit or from none. A limit in Shadow takes part when it passes, and stops nobody.
pub(super) fn take_all(
    claims: &mut [Claim<'_>],
    now: Timestamp,
    environment: &mut impl Environment,
    effects: &mut Effects<'_, '_>,
) {
    if let [only] = claims {
        return only.take(now, environment, effects);
    }
    for claim in &mut *claims {
        claim.look(now, environment);
    }
    if claims.iter().any(Claim::stops) {
        return;
    }
    let mut rest = claims;
    let mut taken: SmallVec<[&mut Claim<'_>; 2]> = SmallVec::new();
    while let Some((claim, others)) = rest.split_first_mut() {
        rest = others;
        if !claim.passes() {
            continue;
        }
        claim.take(now, environment, effects);
        if claim.stops() {
            taken.into_iter().for_each(|claim| claim.give_back(now, environment));
            return;
        }
        if claim.passes() {
            taken.push(claim);
        }
    }
}
