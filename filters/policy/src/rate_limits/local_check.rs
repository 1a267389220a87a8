//! One limit's part in the decision of a request: check, take, give back.

use smallvec::SmallVec;

use super::document::{LimitMode, QuotaHeaders};
use super::lease::{self, BucketLease, Standing};
use super::limit::{Limit, LimitCount};
use super::pending::Reserved;
use super::rate::Debt;
use super::set;
use super::settlement::{Reservation, ReservedFrom};
use super::taken::{Fingerprint, Taken};
use super::verdict::{Left, LimitVerdict, Verdict};
use crate::decision::Effects;
use crate::environment::{Environment, Timestamp};
use crate::state::{Change, Unavailable};

/// One limit's part in a decision.
pub(super) struct LocalCheck<'a> {
    pub(super) limit: &'a Limit,
    key: Fingerprint,
    pub(super) cost: u32,
    /// Whether the key found no slot and uses the overflow bucket.
    pub(super) shared: bool,
    /// The bucket before the request.
    pub(super) before: Debt,
    /// The bucket after the request, once its cost was taken.
    pub(super) debt: Debt,
    pub(super) verdict: Verdict,
    /// Whether a lease has paid for the request.
    is_leased: bool,
}

/// Whether a request that passes pays its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pay {
    Now,
    Later,
}

impl<'a> LocalCheck<'a> {
    /// A check before anything was read.
    pub(super) fn new(limit: &'a Limit, key: Fingerprint, cost: u32) -> LocalCheck<'a> {
        LocalCheck { limit, key, cost, shared: false, before: 0, debt: 0, verdict: Verdict::Passes, is_leased: false }
    }

    pub(super) fn passes(&self) -> bool {
        self.verdict == Verdict::Passes
    }

    /// Whether it refuses the request.
    pub(super) fn stops(&self) -> bool {
        !self.passes() && self.limit.mode == LimitMode::Enforce
    }

    /// Decides without taking anything. If the request passes, the value that was read may be out of date, which
    /// [`LocalCheck::take`] finds out.
    fn check(&mut self, now: Timestamp, environment: &mut impl Environment) {
        self.decide(Pay::Later, now, environment);
    }

    /// Takes the request's cost, if it passes; counts the writes that were repeated because another worker wrote first.
    fn take(&mut self, now: Timestamp, environment: &mut impl Environment, effects: &mut Effects<'_, '_>) {
        let writes = self.decide(Pay::Now, now, environment);
        let lost = if self.passes() { writes.saturating_sub(1) } else { writes };
        for _ in 0..lost {
            effects.count(self.limit.counter(LimitCount::Retried));
        }
    }

    /// Whether a lease decides: then the request passes, and the shared state need not be asked.
    fn is_covered(&mut self, pay: Pay, now: Timestamp, environment: &mut impl Environment) -> bool {
        let (number, key, cost) = (self.limit.number, self.key, self.cost);
        let leases = &mut environment.worker().leases;
        let is_covered = match pay {
            Pay::Now => leases.spend(number, key, cost, now),
            Pay::Later => leases.covers(number, key, cost, now),
        };
        self.is_leased = is_covered && pay == Pay::Now;
        is_covered
    }

    /// Decides, and returns how often the bucket was about to be written.
    fn decide(&mut self, pay: Pay, now: Timestamp, environment: &mut impl Environment) -> usize {
        let (limit, cost, key) = (self.limit, self.cost, self.key);
        let mut standing = Standing::default();
        if limit.may_lease {
            if self.is_covered(pay, now, environment) {
                self.verdict = Verdict::Passes;
                return 0;
            }
            standing = environment.worker().leases.standing(limit.number, key, now);
        }
        let rate = &limit.rate;
        let price = rate.price(cost);
        let mut writes = 0;
        let decided = environment.update(limit.set_of(key), |old, new| {
            let set = set::advance(old, rate, now, key.print, new);
            let (bucket, has_reported) = set.bucket().with_reported(standing.lease, &set, rate);
            let owed = bucket.owed(rate);
            if rate.allows(owed, cost) {
                if pay == Pay::Later {
                    return Change::Keep((bucket, Verdict::Passes, None));
                }
                writes += 1;
                let in_advance = standing.wants && !bucket.is_shared();
                let leased = if in_advance { lease::size(rate.remaining(owed + price)) } else { 0 };
                bucket.with_leased(leased).owe(bucket.debt + price, new);
                if leased == 0 {
                    return Change::Replace((bucket, Verdict::Passes, None));
                }
                set.note_lease(new);
                return Change::Replace((bucket, Verdict::Passes, Some(BucketLease::new(set.epoch, now, leased))));
            }
            let verdict = if cost > rate.burst { Verdict::TooLarge } else { Verdict::Wait(rate.wait(owed, cost)) };
            if has_reported && pay == Pay::Now {
                bucket.owe(bucket.debt, new);
            } else if !set.must_write {
                return Change::Refuse((bucket, verdict, None));
            }
            Change::Replace((bucket, verdict, None))
        });
        if limit.may_lease && pay == Pay::Now {
            // If the state fails, it is unknown whether a lease was reported: it then expires by itself.
            let lease = decided.ok().and_then(|(.., lease)| lease);
            environment.worker().leases.decided(limit.number, key, now, lease);
        }
        match decided {
            Ok((bucket, verdict, _)) => {
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
        if self.is_leased {
            return environment.worker().leases.unspend(self.limit.number, self.key, self.cost);
        }
        self.debt = self.before;
        self.taken(now).give_back(self.limit, now, environment);
    }

    fn taken(&self, at: Timestamp) -> Taken {
        Taken { key: self.key, cost: self.cost, shared: self.shared, before: self.before, at }
    }

    /// The values for the quota headers.
    fn left(&self) -> Left {
        let Limit { rate, quota, .. } = self.limit;
        (quota.kind != QuotaHeaders::Off).then(|| (rate.remaining(self.debt), rate.until_full(self.debt)))
    }

    pub(super) fn verdict(&self) -> LimitVerdict<'a> {
        LimitVerdict { limit: self.limit, verdict: self.verdict, shared: self.shared, left: self.left() }
    }

    /// What must be settled when the response says the request's cost.
    pub(super) fn reservation(&self, now: Timestamp) -> Option<Reservation> {
        let is_open = self.passes() && self.limit.cost.response_header().is_some();
        is_open.then(|| Reservation { limit: self.limit.number, from: ReservedFrom::Bucket(self.taken(now)) })
    }

    pub(super) fn reserved(&self, now: Timestamp) -> Reserved {
        Reserved { limit: self.limit.number, taken: self.taken(now), verdict: self.verdict, left: self.left() }
    }
}

/// Evaluates all checks, and takes from every limit or from none. A limit in Shadow takes part when it passes, and
/// never prevents others.
pub(super) fn take_all(
    checks: &mut [LocalCheck<'_>],
    now: Timestamp,
    environment: &mut impl Environment,
    effects: &mut Effects<'_, '_>,
) {
    if let [only] = checks {
        return only.take(now, environment, effects);
    }
    for check in &mut *checks {
        check.check(now, environment);
    }
    if checks.iter().any(LocalCheck::stops) {
        return;
    }
    let mut rest = checks;
    let mut taken: SmallVec<[&mut LocalCheck<'_>; 2]> = SmallVec::new();
    while let Some((check, others)) = rest.split_first_mut() {
        rest = others;
        if !check.passes() {
            continue;
        }
        check.take(now, environment, effects);
        if check.stops() {
            taken.into_iter().for_each(|check| check.give_back(now, environment));
            return;
        }
        if check.passes() {
            taken.push(check);
        }
    }
}
