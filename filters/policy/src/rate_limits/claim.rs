//! One limit's part in the decision of a request: looked at, taken, given back.

use smallvec::SmallVec;

use super::document::{Mode, QuotaHeaders};
use super::global::{Failure, Held, Left};
use super::key::Fingerprint;
use super::limit::{Limit, MOST_TRIES, Outcome};
use super::rate::Debt;
use super::settle::Voice;
use super::table::Seen;
use crate::decision::Counts;
use crate::environment::{Environment, Timestamp};

/// One limit's part in a decision.
pub(super) struct Claim<'a> {
    pub(super) limit: &'a Limit,
    key: Fingerprint,
    pub(super) cost: u32,
    pub(super) seen: Seen,
    /// Whether the key found no slot and uses the overflow bucket.
    pub(super) shared: bool,
    /// The bucket before the request; after it, once that is taken.
    pub(super) debt: Debt,
    pub(super) verdict: Verdict,
}

/// What one limit says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    /// Refused; would pass in so many nanoseconds.
    Wait(u64),
    /// The service has not said; the limit's `onFailure` counts.
    Failed(Failure),
}

impl<'a> Claim<'a> {
    /// Decides by what was seen.
    pub(super) fn judge(limit: &'a Limit, key: Fingerprint, cost: u32, seen: Seen) -> Claim<'a> {
        let bucket = seen.set.bucket(key.print);
        let verdict = match limit.rate.allows(bucket.debt, cost) {
            true => Verdict::Passes,
            false => Verdict::Wait(limit.rate.wait(bucket.debt, cost)),
        };
        Claim { limit, key, cost, seen, shared: bucket.is_shared(), debt: bucket.debt, verdict }
    }

    pub(super) fn passes(&self) -> bool {
        self.verdict == Verdict::Passes
    }

    /// Looks again at what is there now.
    pub(super) fn look_again(&mut self, now: Timestamp, environment: &mut impl Environment) {
        let seen = self.limit.table.load(self.key, &self.limit.rate, now, environment);
        *self = Claim::judge(self.limit, self.key, self.cost, seen);
    }

    /// Takes what the request costs, if it still passes; `false` if it does not any more.
    fn take(&mut self, now: Timestamp, environment: &mut impl Environment, counts: &mut Counts) -> bool {
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
            counts.push(self.limit.counter(Outcome::Retried));
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

    pub(super) fn voice(&self) -> Voice<'a> {
        Voice { limit: self.limit, verdict: self.verdict, shared: self.shared, left: self.left() }
    }

    pub(super) fn held(&self) -> Held {
        let Claim { limit, key, cost, shared, verdict, .. } = *self;
        Held { limit: limit.number, key, cost, shared, verdict, left: self.left() }
    }
}

/// Takes from every limit, or from none. A limit in Shadow takes part when it passes, and stops nobody.
pub(super) fn take_all(
    claims: &mut [Claim<'_>],
    now: Timestamp,
    environment: &mut impl Environment,
    counts: &mut Counts,
) {
    let mut rest = claims;
    let mut taken: SmallVec<[&mut Claim<'_>; 2]> = SmallVec::new();
    while let Some((claim, others)) = rest.split_first_mut() {
        rest = others;
        if claim.take(now, environment, counts) {
            taken.push(claim);
        } else if claim.limit.mode == Mode::Enforce {
            taken.into_iter().for_each(|claim| claim.give_back(now, environment));
            return;
        }
    }
}
