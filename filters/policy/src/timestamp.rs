//! An instant of the wall clock.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since the Unix epoch; up to the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Reads an RFC 3339 time with any offset; `None` when it is not one, or not between 1970 and 2554.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp_nanos()).ok().map(Timestamp)
    }

    /// The same for a time in a policy: a time after 2554 becomes the last instant, which no clock reaches.
    pub fn parse_from_1970(text: &str) -> Option<Timestamp> {
        let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
        (nanos >= 0).then(|| Timestamp(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}
