//! One limit of a policy, as read and as written.

use penstock_policy::document::Node;
use penstock_policy::rate_limits::LimitDocument;

use crate::documents::{Documents, key_parts, named};

/// A limit, as text and parsed.
#[derive(Clone, Copy)]
pub struct ReadLimit<'d> {
    /// The parsed limit.
    pub document: &'d LimitDocument,
    /// The text of the limit.
    pub node: &'d Node,
}

impl<'d> ReadLimit<'d> {
    /// All limits of a policy.
    pub fn all(documents: &'d Documents, node: &'d Node) -> Vec<ReadLimit<'d>> {
        let nodes = named(node, &["rateLimits"]);
        let find = |document: &'d LimitDocument| {
            let node = nodes.iter().find(|(name, _)| **name == *document.name.0)?.1;
            Some(ReadLimit { document, node })
        };
        documents.limits.iter().filter_map(find).collect()
    }

    /// The parts of its key, as written.
    pub fn key(&self) -> &'d [Node] {
        key_parts(self.node)
    }

    /// The burst: the number of requests that pass at once.
    pub fn burst(&self) -> u32 {
        self.document.limit.burst.unwrap_or(self.document.limit.requests).0
    }

    pub(super) fn cost(&self) -> LimitCost {
        let cost = self.node.get("cost");
        let number = |field: &str| match cost.and_then(|cost| cost.get(field)) {
            Some(Node::Integer(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let header = |field: &str| match cost.and_then(|cost| cost.get(field)) {
            Some(Node::String(name)) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        LimitCost {
            header: header("header"),
            response_header: header("responseHeader"),
            default: number("default").or_else(|| number("reserve")).unwrap_or(1),
            max: number("max").unwrap_or(u64::MAX),
        }
    }
}

/// The cost of a request.
pub(super) struct LimitCost {
    pub(super) header: Option<String>,
    pub(super) response_header: Option<String>,
    /// Or the reserved cost.
    pub(super) default: u64,
    pub(super) max: u64,
}
