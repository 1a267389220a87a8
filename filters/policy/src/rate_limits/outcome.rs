//! What the section decided.

use smallvec::SmallVec;

use super::document::LimitMode;
use super::limit::Limit;
use super::settlement::Reservation;
use crate::decision::{HeldBack, Response};
use crate::reason::Reason;
use crate::section::Section;

/// What the section decided about a request.
#[derive(Debug, Default)]
pub(crate) struct LimitsOutcome<'a> {
    /// The limit that refuses the request, why, and the response.
    pub(crate) refusal: Option<(&'a str, Reason, Response<'a>)>,
    /// What limits in Shadow would have refused, the tightest of them.
    pub(crate) held_back: SmallVec<[HeldBack<'a>; 1]>,
    /// What is to be settled when the response is there.
    pub(crate) reservations: Vec<Reservation>,
}

impl<'a> LimitsOutcome<'a> {
    /// Takes in a refusal, which a limit in Shadow only would have given; `wait` in nanoseconds.
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
