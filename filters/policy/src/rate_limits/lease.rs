//! Leases: what a worker has taken from a bucket in advance, to spend without asking the shared state.
//!
//! While a bucket is far from its edge, a worker whose requests keep coming for one key takes several requests' worth at
//! once. The bucket's slot counts them as *leased*: they count against the burst like requests that have passed, and nothing
//! of them drains. When the lease is used up, when it is [`LIFE`] old, or with the worker's next tick, whichever comes
//! first, the worker reports in one update how many it has spent: those become debt, the others are free again.
//!
//! So what a bucket owes and what it has leased are together never less than what has really passed owes, and never more
//! than the burst: no request passes that an exact limit would refuse. An exact limit may let some pass that this one
//! refuses while other workers hold leases: each at most [`MOST`], and at most a [`SHARE`]th of what was left.
//!
//! A worker that dies reports nothing. Leases are void [`VOID`] after the last one of their set, and then count as spent.
//! Each set has a number for the time in between, the *epoch*: whoever reports a lease of another epoch is late.

use super::taken::Fingerprint;
use crate::timestamp::Timestamp;

/// A lease is one part in so many of what the bucket has left.
const SHARE: u32 = 64;

/// The most requests in a lease; more would save next to nothing.
pub(super) const MOST: u32 = 64;

/// A lease of fewer is not worth it: the bucket is near its edge.
const LEAST: u32 = 8;

/// How long a worker spends from a lease.
const LIFE: u64 = 2_000_000_000;

/// After this without another lease all of a set are void. Longer than [`LIFE`], as workers' clocks are read at different times.
pub(super) const VOID: u64 = 2 * LIFE;

/// A key whose requests come no further apart is worth a lease.
const HOT: u64 = 100_000_000;

/// Leases of one worker at one time.
const PLACES: usize = 256;

/// How many requests to lease of a bucket that would let so many more pass.
pub(super) fn size(remaining: u32) -> u32 {
    let size = (remaining / SHARE).min(MOST);
    if size < LEAST { 0 } else { size }
}

/// Requests that were taken in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketLease {
    /// Of the set when they were taken.
    pub(super) epoch: u64,
    at: Timestamp,
    pub(super) taken: u32,
    left: u32,
}

impl BucketLease {
    pub(super) fn new(epoch: u64, at: Timestamp, taken: u32) -> BucketLease {
        BucketLease { epoch, at, taken, left: taken }
    }

    /// How many requests it has let pass.
    pub(super) fn spent(&self) -> u32 {
        self.taken.saturating_sub(self.left)
    }

    fn lives(&self, now: Timestamp) -> bool {
        now.0.checked_sub(self.at.0).is_some_and(|age| age < LIFE)
    }
}

/// What a worker knows of one bucket.
#[derive(Clone, Copy, Debug, Default)]
struct LeasePlace {
    /// The limit's number, counted from 1; 0: nothing is known.
    limit: u32,
    key: Fingerprint,
    /// When it was last decided by the shared state.
    seen: Timestamp,
    lease: Option<BucketLease>,
}

/// How a worker stands to a bucket that it is about to ask the shared state about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// A lease to report.
    pub(super) lease: Option<BucketLease>,
    /// Whether another is worth it.
    pub(super) wants: bool,
}

/// The leases of one worker. Places are given by the key; a key whose place another's lease has is decided by the shared state.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// None where leases are off.
    places: Vec<LeasePlace>,
}

impl Leases {
    /// None, and none to come unless `is_on`.
    pub(crate) fn new(is_on: bool) -> Leases {
        // Made here, not by the first request.
        Leases { places: if is_on { vec![LeasePlace::default(); PLACES] } else { Vec::new() } }
    }

    fn place(&mut self, limit: u32, key: Fingerprint) -> Option<&mut LeasePlace> {
        // The upper bits of the hash tell sets apart, these the places; limits of one key have other places.
        let at = (key.print as usize).wrapping_add(limit as usize) % PLACES;
        self.places.get_mut(at).filter(|place| place.limit == limit + 1 && place.key == key)
    }

    /// The lease that pays for a request of `cost`, when there is one.
    fn paying(&mut self, limit: u32, key: Fingerprint, cost: u32, now: Timestamp) -> Option<&mut BucketLease> {
        let lease = self.place(limit, key)?.lease.as_mut()?;
        (lease.left >= cost && lease.lives(now)).then_some(lease)
    }

    /// Whether a lease pays for a request of `cost`.
    pub(super) fn covers(&mut self, limit: u32, key: Fingerprint, cost: u32, now: Timestamp) -> bool {
        self.paying(limit, key, cost, now).is_some()
    }

    /// Pays for a request of `cost`, if a lease does.
    pub(super) fn spend(&mut self, limit: u32, key: Fingerprint, cost: u32, now: Timestamp) -> bool {
        self.paying(limit, key, cost, now).map(|lease| lease.left -= cost).is_some()
    }

    /// The request that was just paid for is refused after all.
    pub(super) fn unspend(&mut self, limit: u32, key: Fingerprint, cost: u32) {
        if let Some(lease) = self.place(limit, key).and_then(|place| place.lease.as_mut()) {
            lease.left = lease.left.saturating_add(cost).min(lease.taken);
        }
    }

    /// How the worker stands to a bucket.
    pub(super) fn standing(&mut self, limit: u32, key: Fingerprint, now: Timestamp) -> Standing {
        let Some(place) = self.place(limit, key) else { return Standing::default() };
        let is_hot = now.0.checked_sub(place.seen.0).is_some_and(|ago| ago < HOT);
        Standing { lease: place.lease, wants: is_hot || place.lease.is_some_and(|lease| lease.lives(now)) }
    }

    /// The shared state has decided: whatever lease there was has been reported, and this one was taken.
    pub(super) fn decided(&mut self, limit: u32, key: Fingerprint, now: Timestamp, lease: Option<BucketLease>) {
        let at = (key.print as usize).wrapping_add(limit as usize) % PLACES;
        if let Some(place) = self.places.get_mut(at)
            && (place.lease.is_none() || (place.limit == limit + 1 && place.key == key))
        {
            *place = LeasePlace { limit: limit + 1, key, seen: now, lease };
        }
    }

    /// All leases, to report them: none is left.
    pub(super) fn take(&mut self) -> Vec<(u32, Fingerprint, BucketLease)> {
        let places = self.places.iter_mut();
        places.filter_map(|place| Some((place.limit.checked_sub(1)?, place.key, place.lease.take()?))).collect()
    }
}
