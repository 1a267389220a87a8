//! Where to search for an example of a loosening.

use penstock_policy::egress::{Destination, EgressRuleDocument};

/// The requests in which a loosening shows.
#[derive(Clone, Debug)]
pub enum Sought {
    /// Requests that the rule with this name allows, starting with those of this part of it.
    Rule(Box<EgressRuleDocument>),
    /// Requests to a destination that was denied.
    Denied(Destination),
    /// Requests to a host that no rule has.
    Unlisted,
    /// Requests on a connection with another server name.
    OtherServerName,
    /// Requests with an ambiguous path, which the rule with this name had refused.
    AmbiguousPath(Box<EgressRuleDocument>),
    /// Requests whose authority has no port.
    WithoutPort,
    /// Requests that this limit of the old policy applied to.
    Limit(String),
    /// Requests that any limit of the old policy applied to.
    AnyLimit,
    /// No request can be constructed, for this reason.
    Nothing(&'static str),
}

impl Sought {
    /// For changes that loosen nothing.
    pub const NOT: Sought = Sought::Nothing("nothing is loosened");

    /// For requests that a rule allows.
    pub fn rule(rule: &EgressRuleDocument) -> Sought {
        Sought::Rule(Box::new(rule.clone()))
    }
}
