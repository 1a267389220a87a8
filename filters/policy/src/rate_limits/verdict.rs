//! What a limit says of a request.

use super::document::LimitMode;
use super::limit::Limit;
use crate::reason::Reason;

/// What one limit says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    /// Refused; would pass in so many nanoseconds.
    Wait(u64),
    /// Refused: it costs more than the bucket ever holds.
    TooLarge,
    /// The service has not said; the limit's `onFailure` counts.
    Failed(ServiceFailure),
}

/// Why a service has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFailure {
    /// Not in time.
    Timeout,
    /// It could not be asked, it answered with an error, or its answer was none.
    Error,
}

/// Requests that are left, and nanoseconds until all are there again; `None`: not known.
pub(super) type Left = Option<(u32, u64)>;

/// What one limit says in the end.
pub(super) struct LimitVerdict<'a> {
    pub(super) limit: &'a Limit,
    pub(super) verdict: Verdict,
    /// Whether it used an overflow bucket.
    pub(super) shared: bool,
    pub(super) left: Left,
}

impl LimitVerdict<'_> {
    /// Whether it refuses the request, or would in Shadow.
    pub(super) fn is_against(&self) -> bool {
        match self.verdict {
            Verdict::Passes => false,
            Verdict::Wait(_) | Verdict::TooLarge => true,
            Verdict::Failed(_) => self.limit.denies_on_failure(),
        }
    }

    pub(super) fn refuses(&self) -> bool {
        self.limit.mode == LimitMode::Enforce && self.is_against()
    }

    /// Nanoseconds until the request would pass; `None` when that is not known, or never.
    pub(super) fn wait(&self) -> Option<u64> {
        match self.verdict {
            Verdict::Wait(nanos) => Some(nanos),
            _ => None,
        }
    }

    /// How tight the refusal is: one that no waiting helps against is the tightest, and a service that does not answer says
    /// no time.
    pub(super) fn tightness(&self) -> (bool, Option<u64>) {
        (self.verdict == Verdict::TooLarge, self.wait())
    }

    pub(super) fn reason(&self) -> Reason {
        match self.verdict {
            Verdict::Failed(_) => Reason::ServiceFailed,
            _ => Reason::Limited,
        }
    }
}
