//! Gives back what a request took from a bucket, or settles it when its cost is known.

use super::limit::Limit;
use super::set;
use super::taken::Taken;
use crate::environment::{Environment, Timestamp};
use crate::state::{Change, Unavailable};

impl Taken {
    /// The request has cost so much instead: gives back what was too much, or takes the rest, even where the bucket has
    /// less. Whoever comes next waits for that.
    pub(super) fn settle(&self, limit: &Limit, cost: u32, now: Timestamp, environment: &mut impl Environment) {
        let rate = &limit.rate;
        if cost <= self.cost {
            let before = self.before + rate.price(cost);
            return Taken { cost: self.cost - cost, before, ..*self }.give_back(limit, now, environment);
        }
        // Where the state is lost nothing is owed.
        let _: Result<(), Unavailable> = environment.update(limit.set_of(self.key), |old, new| {
            let set = set::advance(old, rate, now, self.key.print, new);
            let bucket = set.bucket();
            bucket.owe(rate.overdrawn(bucket.debt, cost - self.cost), new);
            Change::Replace(())
        });
    }

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
