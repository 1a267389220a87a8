//! What a request took from a bucket.

use super::rate::Debt;
use crate::timestamp::Timestamp;

/// Where a key's bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Tells the keys of one set apart; never 0.
    pub(super) print: u64,
    /// Which set: 32 further bits of the hash.
    pub(super) spread: u32,
}

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
