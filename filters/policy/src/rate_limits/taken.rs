//! What a request took from a bucket, to give it back.

use super::key::Fingerprint;
use super::limit::Limit;
use super::rate::Debt;
use super::set;
use crate::environment::{Environment, Timestamp};
use crate::state::{Change, Unavailable};

/// What a request has taken from one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) key: Fingerprint,
    pub(super) cost: u32,
    /// Whether out of the overflow bucket.
    pub(super) shared: bool,
    /// What the bucket owed before.
    pub(super) before: Debt,
    pub(super) at: Timestamp,
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
