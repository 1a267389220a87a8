//! A limit's verdict on a request.

use super::document::LimitMode;
use super::limit::Limit;
use crate::reason::Reason;

/// One limit's verdict on the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    /// Refused; a repetition would pass after this many nanoseconds.
    Wait(u64),
    /// Refused: it costs more than the bucket ever holds.
    TooLarge,
    /// The service did not answer; the limit's `onFailure` decides.
    Failed(ServiceFailure),
}

/// Why a service did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceFailure {
    /// It did not answer in time.
    Timeout,
    /// It could not be reached, answered with an error, or gave a malformed answer.
    Error,
}

/// The remaining requests, and the nanoseconds until the bucket is full; `None`: not known.
pub(super) type Left = Option<(u32, u64)>;

/// One limit's final verdict.
pub(super) struct LimitVerdict<'a> {
    pub(super) limit: &'a Limit,
    pub(super) verdict: Verdict,
    /// Whether it used an overflow bucket.
    pub(super) shared: bool,
    pub(super) left: Left,
}

impl LimitVerdict<'_> {
    /// Whether it refuses the request, or would refuse it in Shadow.
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

    /// How tight the refusal is: the tightest is one that no waiting helps against; a service that does not answer
    /// gives no time.
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
