//! The policy document as a whole.

use crate::document::{At, Context, Decode, Fields, Kind, Node};

/// The whole document. Only its field names are checked here; [`crate::Policy`] reads the sections.
pub(crate) struct PolicyDocument;

impl Decode for PolicyDocument {
    const KIND: Kind = Kind::Object(&["settings", "egress", "rateLimits", "routes", "canaries"]);
    const EXPECTED: &'static str = "an object: a policy has at least one of the sections egress, rateLimits, routes, canaries; {} is the policy that does nothing";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        Fields::open::<Self>(node, at, cx).map(|_| PolicyDocument)
    }
}
