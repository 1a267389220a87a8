//! The outcome of the section.

use smallvec::SmallVec;

use super::document::LimitMode;
use super::limit::Limit;
use super::settlement::Reservation;
use crate::decision::{HeldBack, Response};
use crate::reason::Reason;
use crate::section::Section;

/// The section's decision about a request.
#[derive(Debug, Default)]
pub(crate) struct LimitsOutcome<'a> {
    /// The limit that refuses the request, why, and the response.
    pub(crate) refusal: Option<(&'a str, Reason, Response<'a>)>,
    /// The tightest refusal of a limit in Shadow.
    pub(crate) held_back: SmallVec<[HeldBack<'a>; 1]>,
    /// What must be settled when the response arrives.
    pub(crate) reservations: Vec<Reservation>,
}

impl<'a> LimitsOutcome<'a> {
    /// Records a refusal, which is not enforced if the limit is in Shadow; `wait` is in nanoseconds.
    pub(super) fn refused_by(&mut self, limit: &'a Limit, reason: Reason, wait: Option<u64>) {
        let rule = &*limit.name;
        match limit.mode {
            LimitMode::Enforce => self.refusal = Some((rule, reason, limit.refusal.response(wait))),
            LimitMode::Shadow => {
                let status = limit.refusal.status;
                self.held_back.push(HeldBack { section: Section::RateLimits, rule: Some(rule), reason, status });
            }
        }
    }
}
