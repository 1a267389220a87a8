//! What a team's policy allows beyond the platform's.

use penstock_policy::Problem;
use penstock_policy::document::Node;

use super::witness::Witness;

/// Something that the team's policy allows and the platform's does not.
#[derive(Clone, Debug)]
pub struct Excess {
    /// The place in the team's policy.
    pub path: String,
    /// The description.
    pub message: String,
    /// The suggested correction.
    pub help: Option<String>,
    /// The example that shows it.
    pub witness: Option<Witness>,
}

impl Excess {
    /// The excess as a problem of the team's policy.
    pub fn into_problem(self) -> (Problem, Option<Witness>) {
        let mut help = self.help.unwrap_or_default();
        if let Some(Witness::Sequence(requests)) = &self.witness {
            help = format!("{help}; {} requests show it: --output json prints them", requests.len());
        }
        let help = Some(help).filter(|help| !help.is_empty());
        (Problem { path: self.path, value: None, message: self.message, help }, self.witness)
    }
}

/// The source of the callers' identity in a policy; `null` for the default.
pub fn identity(policy: &Node) -> Node {
    let of = |section: &str| policy.get(section).and_then(|section| section.get("identity")).cloned();
    let default = Node::Map(vec![("peerCertificate".to_owned(), Node::Map(Vec::new()))]);
    of("settings").or_else(|| of("egress")).unwrap_or(default)
}

/// A field of `settings`; `null` when it is absent.
pub(crate) fn setting<'n>(policy: &'n Node, name: &str) -> &'n Node {
    policy.get("settings").and_then(|settings| settings.get(name)).unwrap_or(&Node::Null)
}
