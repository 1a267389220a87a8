//! Where to look for what shows a loosening.

use penstock_policy::egress::{Destination, EgressRuleDocument};

/// In which requests a loosening shows.
#[derive(Clone, Debug)]
pub enum Sought {
    /// Any that the rule of this name allows; those of this part of it first.
    Rule(Box<EgressRuleDocument>),
    /// To a destination that was denied.
    Denied(Destination),
    /// To a host that no rule has.
    Unlisted,
    /// On a connection that was opened for another server name.
    OtherServerName,
    /// With an ambiguous path, where the rule of this name had made them be refused.
    AmbiguousPath(Box<EgressRuleDocument>),
    /// With an authority that names no port.
    WithoutPort,
    /// Those for which this limit of the policy before held.
    Limit(String),
    /// Those for which any limit of the policy before held.
    AnyLimit,
    /// In none that can be written down, for this reason.
    Nothing(&'static str),
}

impl Sought {
    /// Of what loosens nothing.
    pub const NOT: Sought = Sought::Nothing("nothing is loosened");

    /// Requests that a rule allows.
    pub fn rule(rule: &EgressRuleDocument) -> Sought {
        Sought::Rule(Box::new(rule.clone()))
    }
}
