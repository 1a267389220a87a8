//! Gives back what a request took from a bucket, or settles it when its cost is known; reports leases.

use super::lease::BucketLease;
use super::limit::Limit;
use super::set;
use super::taken::{Fingerprint, Taken};
use crate::environment::{Environment, Timestamp};
use crate::state::{Change, Unavailable};

impl Taken {
    /// Settles the actual cost of the request: returns the excess, or takes the rest, even if the bucket has less.
    /// Later requests then wait longer.
    pub(super) fn settle(&self, limit: &Limit, cost: u32, now: Timestamp, environment: &mut impl Environment) {
        let rate = &limit.rate;
        if cost <= self.cost {
            let before = self.before + rate.price(cost);
            return Taken { cost: self.cost - cost, before, ..*self }.give_back(limit, now, environment);
        }
        // If the state was lost there is nothing to settle.
        let _: Result<(), Unavailable> = environment.update(limit.set_of(self.key), |old, new| {
            let set = set::advance(old, rate, now, self.key.print, new);
            let bucket = set.bucket();
            bucket.owe(rate.overdrawn(bucket.debt, cost - self.cost), new);
            Change::Replace(())
        });
    }

    /// Gives back the part that has not been refilled yet. The bucket refills the debt from before the request first,
    /// and then what the request took; the rest of that is given back, as if the request had never come.
    pub(super) fn give_back(&self, limit: &Limit, now: Timestamp, environment: &mut impl Environment) {
        let rate = &limit.rate;
        let since = now.0.saturating_sub(self.at.0);
        let price = rate.price(self.cost);
        let owed = rate.drained(self.before + price, since).min(price);
        if owed == 0 {
            return;
        }
        // If the state was lost there is nothing to give back.
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

impl Limit {
    /// Reports a lease: its used requests become debt, and the rest is returned.
    pub(super) fn report(
        &self,
        key: Fingerprint,
        lease: BucketLease,
        now: Timestamp,
        environment: &mut impl Environment,
    ) {
        let rate = &self.rate;
        // If the state was lost, the lease is lost too; void leases expire by themselves.
        let _: Result<(), Unavailable> = environment.update(self.set_of(key), |old, new| {
            let set = set::advance(old, rate, now, key.print, new);
            let (bucket, has_reported) = set.bucket().with_reported(Some(lease), &set, rate);
            if has_reported {
                bucket.owe(bucket.debt, new);
                return Change::Replace(());
            }
            Change::Refuse(())
        });
    }
}
