//! The whole document as written.

use crate::document::{At, Context, Decode, Fields, Kind, Node};
#[cfg(feature = "schema")]
use crate::{
    canaries::CanaryDocument, document::Named, egress::EgressDocument, rate_limits::LimitDocument,
    routes::RoutesDocument, settings::Settings,
};

/// The whole document. Only its field names are checked here; [`crate::Policy`] reads the sections.
pub(crate) struct PolicyDocument;

impl Decode for PolicyDocument {
    const KIND: Kind = Kind::Object(&["settings", "egress", "rateLimits", "routes", "canaries"]);
    const EXPECTED: &'static str = "an object: a policy has at least one of the sections egress, rateLimits, routes, canaries; {} is the policy that does nothing";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        Fields::open::<Self>(node, at, cx).map(|_| PolicyDocument)
    }
}

/// The whole document's name in the schema.
#[cfg(feature = "schema")]
pub(crate) const KEY: &str = "policy";

/// The schema of the whole document, a reference.
#[cfg(feature = "schema")]
pub(crate) fn describe(schema: &mut crate::schema::Definitions) -> serde_json::Value {
    let doc = "A Penstock policy. All sections are optional, and run in this order.";
    schema.object::<PolicyDocument>(KEY, doc, |schema| {
        vec![
            schema.field::<Option<Settings>>("settings", "Settings for all sections."),
            schema.field::<Option<EgressDocument>>(
                "egress",
                "An allowlist for outgoing requests. Everything else is denied.",
            ),
            schema.field::<Option<Named<LimitDocument>>>(
                "rateLimits",
                "Rate limits. A request must pass every limit that applies to it.",
            ),
            schema.field::<Option<RoutesDocument>>(
                "routes",
                "Rules that choose the route. The first rule that matches is used.",
            ),
            schema.field::<Option<Named<CanaryDocument>>>(
                "canaries",
                "Canaries. The first one that matches chooses a variant, unless a rule of `routes` has chosen a route.",
            ),
        ]
    })
}
