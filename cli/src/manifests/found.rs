//! A policy in a file, and the mapping of its positions to the file.

use std::ops::Range;

use penstock_policy::Module;
use penstock_policy::document::Node;

use super::patched_metadata::UncopiedMetadata;
use super::same_name::PluginIdentity;
use crate::diagnostics::Finding;
use crate::yaml::Located;

/// One policy of a file.
#[derive(Debug)]
pub struct FoundPolicy {
    /// The object that contains it, such as `WasmPlugin istio-system/penstock`; `None` when the document is the policy.
    pub resource: Option<String>,
    /// The policy.
    pub node: Node,
    /// The module that the object loads, if known.
    pub module: Option<Module>,
    /// Warnings about how the platform runs it.
    pub doubts: Vec<Finding>,
    /// What the platform refuses about how it runs it.
    pub faults: Vec<Finding>,
    /// What the native body needs and no object copies.
    pub uncopied: Option<UncopiedMetadata>,
    /// What its plugin is known by, if other plugins may have the same.
    pub(super) identity: Option<PluginIdentity>,
    pub(super) place: PlaceMapping,
}

impl FoundPolicy {
    /// A document that is a policy, with nothing known of the platform that runs it.
    pub(super) fn document(resource: Option<String>, document: usize, node: &Node) -> FoundPolicy {
        FoundPolicy {
            resource,
            node: node.clone(),
            module: None,
            doubts: Vec::new(),
            faults: Vec::new(),
            uncopied: None,
            identity: None,
            place: PlaceMapping::Inside { document, prefix: String::new() },
        }
    }
}

/// How positions in the policy map to the file.
#[derive(Debug)]
pub(super) enum PlaceMapping {
    /// The policy is part of this document of the file.
    Inside { document: usize, prefix: String },
    /// The policy is JSON in a string: its own positions, and for each byte of its text the byte of the file.
    Text { located: Box<Located>, bytes: Vec<usize> },
    /// The policy is encoded, at this place of the file.
    Encoded(Range<usize>),
}
