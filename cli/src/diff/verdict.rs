//! How strictly a policy decides a request.

use penstock_policy::wire::WireDecision;

/// How strictly a request was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strictness {
    /// The request is forwarded.
    Passes,
    /// The request is forwarded, but would be refused outside of `Audit` and `Shadow`.
    Reported,
    /// The request is refused, or answered instead of being forwarded.
    Refused,
}

impl Strictness {
    /// The strictness of a decision.
    pub fn of(decision: &WireDecision) -> Strictness {
        match (decision.action, decision.would_respond) {
            (Some("respond"), _) => Strictness::Refused,
            (_, Some(_)) => Strictness::Reported,
            _ => Strictness::Passes,
        }
    }
}
