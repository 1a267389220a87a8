//! Costs that are only known when the response arrives: the reservation that is settled then.

use super::taken::Taken;

/// What a request has reserved from a limit whose cost is in the response. Without a response nothing is settled: the
/// reserved cost stays.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The limit's number.
    pub(super) limit: u32,
    pub(super) from: ReservedFrom,
}

/// The bucket that it was taken from.
#[derive(Clone, Debug)]
pub(super) enum ReservedFrom {
    Bucket(Taken),
    /// A service has counted it.
    Service {
        /// The serialised entries of the descriptor.
        entries: Box<[u8]>,
        /// The cost that was reserved.
        asked: u32,
    },
}
