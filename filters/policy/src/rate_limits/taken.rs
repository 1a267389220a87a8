//! What a request took from a bucket.

use super::rate::Debt;
use crate::timestamp::Timestamp;

/// Where a key's bucket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// The fingerprint, which distinguishes the keys of one set; never 0.
    pub(super) print: u64,
    /// The number of the set: 32 further bits of the hash.
    pub(super) spread: u32,
}

/// What a request has taken from one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) key: Fingerprint,
    pub(super) cost: u32,
    /// Whether it was taken from the overflow bucket.
    pub(super) shared: bool,
    /// The bucket's debt before the request.
    pub(super) before: Debt,
    pub(super) at: Timestamp,
}
