//! Leases: requests that a worker has taken from a bucket in advance, and then lets pass without an update of the shared state.
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

/// The divisor: a lease is this fraction of the requests that the bucket has left.
const SHARE: u32 = 64;

/// The maximum number of requests in a lease; more would save very little.
pub(super) const MOST: u32 = 64;

/// A lease of fewer requests is not made, because the bucket is nearly empty.
const LEAST: u32 = 8;

/// How long a worker may use a lease.
const LIFE: u64 = 2_000_000_000;

/// When a set has had no new lease for this time, all its leases are void. It is longer than [`LIFE`], because workers read their clocks at different times.
pub(super) const VOID: u64 = 2 * LIFE;

/// The maximum time between the requests of a key for which a lease is made.
const HOT: u64 = 100_000_000;

/// The maximum number of leases of one worker at one time.
const PLACES: usize = 256;

/// How many requests to lease from a bucket that would let `left` more requests pass.
pub(super) fn size(remaining: u32) -> u32 {
    let size = (remaining / SHARE).min(MOST);
    if size < LEAST { 0 } else { size }
}

/// The requests that were taken in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BucketLease {
    /// The epoch of the set when they were taken.
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

/// What a worker knows about one bucket.
#[derive(Clone, Copy, Debug, Default)]
struct LeasePlace {
    /// The limit's number, counted from 1; 0 when nothing is known.
    limit: u32,
    key: Fingerprint,
    /// When the shared state last decided a request of this key.
    seen: Timestamp,
    lease: Option<BucketLease>,
}

/// What a worker should do about leases in its next update of a bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// The lease to report.
    pub(super) lease: Option<BucketLease>,
    /// Whether to take another lease.
    pub(super) wants: bool,
}

/// The leases of one worker, in slots that are chosen by the key. If the slot has the lease of another key, the shared state decides.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Empty when leases are off.
    places: Vec<LeasePlace>,
}

impl Leases {
    /// No leases; later ones are only taken if `is_on`.
    pub(crate) fn new(is_on: bool) -> Leases {
        // Allocated here, and not by the first request.
        Leases { places: if is_on { vec![LeasePlace::default(); PLACES] } else { Vec::new() } }
    }

    fn place(&mut self, limit: u32, key: Fingerprint) -> Option<&mut LeasePlace> {
        // The upper bits of the hash choose the set, these bits the slot; limits with the same key use different slots.
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

    /// Takes back the last payment, because the request is refused after all.
    pub(super) fn unspend(&mut self, limit: u32, key: Fingerprint, cost: u32) {
        if let Some(lease) = self.place(limit, key).and_then(|place| place.lease.as_mut()) {
            lease.left = lease.left.saturating_add(cost).min(lease.taken);
        }
    }

    /// What the worker should do about leases in its next update of a bucket.
    pub(super) fn standing(&mut self, limit: u32, key: Fingerprint, now: Timestamp) -> Standing {
        let Some(place) = self.place(limit, key) else { return Standing::default() };
        let is_hot = now.0.checked_sub(place.seen.0).is_some_and(|ago| ago < HOT);
        Standing { lease: place.lease, wants: is_hot || place.lease.is_some_and(|lease| lease.lives(now)) }
    }

    /// Called after the shared state has decided: the old lease was reported, and this one was taken.
    pub(super) fn decided(&mut self, limit: u32, key: Fingerprint, now: Timestamp, lease: Option<BucketLease>) {
        let at = (key.print as usize).wrapping_add(limit as usize) % PLACES;
        if let Some(place) = self.places.get_mut(at)
            && (place.lease.is_none() || (place.limit == limit + 1 && place.key == key))
        {
            *place = LeasePlace { limit: limit + 1, key, seen: now, lease };
        }
    }

    /// Removes and returns all leases, so that they can be reported.
    pub(super) fn take(&mut self) -> Vec<(u32, Fingerprint, BucketLease)> {
        let places = self.places.iter_mut();
        places.filter_map(|place| Some((place.limit.checked_sub(1)?, place.key, place.lease.take()?))).collect()
    }
}
