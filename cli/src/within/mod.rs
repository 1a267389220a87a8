//! `penstock check --within PLATFORM TEAM`: decides whether the platform's policy allows everything that the team's
//! policy allows.
//!
//! The answer "yes" is never wrong. "No" comes with an example request, decided by both policies, wherever one could be
//! found.

pub mod egress;
mod excess;
pub mod limits;
mod routing;
pub mod witness;

use penstock_policy::Timestamp;
use penstock_policy::document::Node;

use crate::documents::Documents;

pub use excess::{Excess, identity};
pub use witness::Witness;

/// A platform's policy that others must be within.
#[derive(Debug)]
pub struct Ceiling {
    node: Node,
    documents: Documents,
    /// Whether a section that the team's policy lacks is decided by another plugin.
    for_plugins: bool,
}

impl Ceiling {
    /// The ceiling of a valid policy.
    pub fn new(node: Node) -> Ceiling {
        let documents = Documents::of(&node);
        Ceiling { documents, node, for_plugins: false }
    }

    /// The same for policies of single plugins: a section that a plugin's policy lacks is decided by other plugins.
    #[must_use]
    pub fn for_plugins(self) -> Ceiling {
        Ceiling { for_plugins: true, ..self }
    }

    /// Whether it refuses any request, so that a plugin that cannot run must refuse all of them.
    pub fn restricts(&self) -> bool {
        self.documents.egress.is_some() || !self.documents.limits.is_empty()
    }

    /// Where a valid policy exceeds the ceiling. A section that the platform's policy lacks is not restricted.
    pub fn excesses(&self, team: &Node, now: Timestamp) -> Vec<Excess> {
        let documents = Documents::of(team);
        let mut excesses = Vec::new();
        if let Some(document) = &self.documents.egress
            && (documents.egress.is_some() || !self.for_plugins)
        {
            // Compiled for each use: a policy has state, and threads share a ceiling.
            let part = |node, document, policy| egress::SectionPart { node, document, policy };
            let (platform, alone) = (egress::alone(&self.node), egress::alone(team));
            match (&platform, documents.egress.as_ref().zip(alone.as_ref())) {
                (Some(policy), None) if documents.egress.is_none() => {
                    excesses.extend(egress::excesses(&part(&self.node, document, policy), None, now));
                }
                (Some(policy), Some((own, alone))) => {
                    let (platform, team) = (part(&self.node, document, policy), part(team, own, alone));
                    excesses.extend(egress::excesses(&platform, Some(&team), now));
                }
                _ => excesses.push(Excess {
                    path: "egress".to_owned(),
                    message: "cannot be compared with the platform's: one of them does not compile by itself"
                        .to_owned(),
                    help: None,
                    witness: None,
                }),
            }
        }
        if team.get("rateLimits").is_some() || !self.for_plugins {
            excesses.extend(limits::excesses((&self.documents, &self.node), (&documents, team), now));
        }
        excesses.extend(routing::excesses(&self.node, team));
        excesses
    }
}

#[cfg(test)]
mod tests;
