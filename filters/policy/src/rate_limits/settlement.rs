//! Costs that are known only when the response is there: what was reserved, to be settled then.

use super::taken::Taken;

/// What a request has taken beforehand from a limit whose cost the response says. Without a response nothing is settled:
/// what was reserved stays taken.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The limit's number.
    pub(super) limit: u32,
    pub(super) from: ReservedFrom,
}

/// From where it was taken.
#[derive(Clone, Debug)]
pub(super) enum ReservedFrom {
    Bucket(Taken),
    /// A service has counted it.
    Service {
        /// The serialised entries of the descriptor.
        entries: Box<[u8]>,
        /// How much.
        asked: u32,
    },
}
