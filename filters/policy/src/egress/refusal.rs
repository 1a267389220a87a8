//! A request that is not allowed.

use super::rule::EgressRule;
use crate::reason::Reason;

/// Whether a refusal names the rule that came nearest: only to callers that the rule is for.
fn names_its_rule(reason: Reason) -> bool {
    reason > Reason::CallerNotAllowed
}

/// How near the rules came to allowing a request or a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct NearestRule {
    /// Why the rule that came nearest does not allow it.
    pub(super) reason: Reason,
    /// Its number: of several that came equally near, the first in the document.
    pub(super) rule: Option<u32>,
}

impl NearestRule {
    /// Before any rule was evaluated.
    pub(super) const NONE: NearestRule = NearestRule { reason: Reason::HostNotAllowed, rule: None };

    /// The rule `rule` does not allow it. The rules need not come in the document's order.
    pub(super) fn add(&mut self, reason: Reason, rule: u32) {
        if reason > self.reason || (reason == self.reason && self.rule.is_none_or(|first| rule < first)) {
            *self = NearestRule { reason, rule: Some(rule) };
        }
    }

    /// Rules that were not evaluated one by one do not allow it.
    pub(super) fn add_others(&mut self, reason: Option<Reason>) {
        if let Some(reason) = reason.filter(|reason| *reason > self.reason) {
            *self = NearestRule { reason, rule: None };
        }
    }

    /// The rule that the refusal names.
    pub(super) fn named(self) -> Option<u32> {
        self.rule.filter(|_| names_its_rule(self.reason))
    }
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
