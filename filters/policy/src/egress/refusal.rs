//! A request that is not allowed.

use super::rule::EgressRule;
use crate::reason::Reason;

/// Whether a refusal names the rule that came nearest: only to callers that the rule is for.
pub(super) fn names_its_rule(reason: Reason) -> bool {
    reason > Reason::CallerNotAllowed
}

/// A request that is not allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct EgressRefusal<'a> {
    pub(super) status: u16,
    pub(super) reason: Reason,
    /// The rule that came nearest to allowing the request.
    pub(super) rule: Option<&'a EgressRule>,
    /// Its number.
    pub(super) number: Option<u32>,
}

impl<'a> EgressRefusal<'a> {
    pub(super) fn new(status: u16, reason: Reason) -> EgressRefusal<'a> {
        EgressRefusal { status, reason, rule: None, number: None }
    }
}
