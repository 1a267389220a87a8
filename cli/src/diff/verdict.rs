//! How strictly a policy decides a request.

use penstock_policy::wire::WireDecision;

/// How strictly a request was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strictness {
    /// It goes on.
    Passes,
    /// It goes on, but would be refused outside of `Audit` and `Shadow`.
    Reported,
    /// It is answered in place of the upstream.
    Refused,
}

impl Strictness {
    /// Of a decision.
    pub fn of(decision: &WireDecision) -> Strictness {
        match (decision.action, decision.would_respond) {
            (Some("respond"), _) => Strictness::Refused,
            (_, Some(_)) => Strictness::Reported,
            _ => Strictness::Passes,
        }
    }
}
