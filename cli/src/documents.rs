//! The parsed sections of a valid policy, for code that compares or shows them.

use penstock_policy::canaries::CanaryDocument;
use penstock_policy::document::{At, Context, Decode, Named, Node};
use penstock_policy::egress::EgressDocument;
use penstock_policy::rate_limits::LimitDocument;
use penstock_policy::routes::RoutesDocument;
use penstock_policy::{DEFAULT_ROUTE_HEADER, Settings};

/// Every section of one policy.
#[derive(Debug)]
pub struct Documents {
    /// `settings`, with defaults when the policy has none.
    pub settings: Settings,
    /// `egress`.
    pub egress: Option<EgressDocument>,
    /// `rateLimits`.
    pub limits: Vec<LimitDocument>,
    /// `routes`.
    pub routes: Option<RoutesDocument>,
    /// `canaries`.
    pub canaries: Vec<CanaryDocument>,
}

impl Documents {
    /// Reads the sections of a valid policy; for an invalid one, those that can be parsed.
    pub fn of(policy: &Node) -> Documents {
        let settings = section::<Settings>(policy, "settings", DEFAULT_ROUTE_HEADER).unwrap_or_default();
        let header = &*settings.route_header.0;
        Documents {
            egress: section(policy, "egress", header),
            limits: section::<Named<_>>(policy, "rateLimits", header).unwrap_or_default().0,
            routes: section(policy, "routes", header),
            canaries: section::<Named<_>>(policy, "canaries", header).unwrap_or_default().0,
            settings,
        }
    }
}

/// The nodes of a section's named items, in document order.
pub fn named<'n>(document: &'n Node, path: &[&str]) -> Vec<(&'n str, &'n Node)> {
    let list = path.iter().try_fold(document, |node, field| node.get(field));
    let Some(Node::List(items)) = list else { return Vec::new() };
    let name = |node: &'n Node| match node.get("name") {
        Some(Node::String(name)) => Some((name.as_str(), node)),
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

/// The parts of a limit's key, as written.
pub fn key_parts(limit: &Node) -> &[Node] {
    match limit.get("key") {
        Some(Node::List(parts)) => parts,
        _ => &[],
    }
}

fn section<T: Decode>(policy: &Node, name: &str, route_header: &str) -> Option<T> {
    let mut cx = Context::new(route_header.to_owned(), usize::MAX);
    T::decode(policy.get(name)?, &At::Root.field(name), &mut cx)
}
