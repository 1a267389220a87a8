//! Why operations of Envoy fail.

use std::fmt;

/// Why an operation of Envoy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// This version of Envoy lacks the callback.
    Missing(&'static str),
    /// The callback returned failure.
    Refused(&'static str),
    /// The request or connection has ended.
    Over,
    /// The system clock is before 1970.
    Clock,
    /// No filter has copied the dynamic metadata.
    MetadataNotCopied,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing(callback) => write!(f, "this version of Envoy lacks {callback}"),
            Error::Refused(what) => write!(f, "Envoy refuses the {what}"),
            Error::Over => f.write_str("it is over"),
            Error::Clock => f.write_str("the clock is before 1970"),
            Error::MetadataNotCopied => f.write_str(
                "no filter before this one has copied the metadata into the filter state `penstock.metadata.<namespace>`; see docs/native.md",
            ),
        }
    }
}
