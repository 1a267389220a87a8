//! The two places where a policy runs: at ingress and at egress.

use penstock_policy::document::Node;

/// Where a part of a policy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// Where requests come in: `rateLimits`, `routes`, `canaries`.
    Ingress,
    /// Where requests leave: `egress`.
    Egress,
}

impl Place {
    /// The sections that run here.
    pub fn sections(self) -> &'static [&'static str] {
        match self {
            Place::Ingress => &["rateLimits", "routes", "canaries"],
            Place::Egress => &["egress"],
        }
    }

    /// The name in messages.
    pub fn words(self) -> &'static str {
        match self {
            Place::Ingress => "where requests come in",
            Place::Egress => "where requests leave",
        }
    }

    /// The part of a policy that runs here; `None` when there is none.
    pub fn part(self, policy: &Node) -> Option<Node> {
        let Node::Map(entries) = policy else { return None };
        let runs = |name: &str| self.sections().contains(&name);
        let has = entries.iter().any(|(name, _)| runs(name));
        has.then(|| Node::Map(entries.iter().filter(|(name, _)| name == "settings" || runs(name)).cloned().collect()))
    }
}
