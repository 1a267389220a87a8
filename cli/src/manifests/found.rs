//! A policy in a file, and how its places become places of the file.

use std::ops::Range;

use penstock_policy::Module;
use penstock_policy::document::Node;

use crate::diagnostics::Finding;
use crate::yaml::Located;

/// One policy of a file.
#[derive(Debug)]
pub struct FoundPolicy {
    /// The object that it stands in, such as `WasmPlugin istio-system/penstock`; `None`: the document is the policy.
    pub resource: Option<String>,
    /// The policy.
    pub node: Node,
    /// The module that the object loads, when it says so.
    pub module: Option<Module>,
    /// What is doubtful about how the platform runs it.
    pub doubts: Vec<Finding>,
    pub(super) place: PlaceMapping,
}

/// How places in the policy become places in the file.
#[derive(Debug)]
pub(super) enum PlaceMapping {
    /// It is part of this document of the file.
    Inside { document: usize, prefix: String },
    /// It is JSON in a string: its own places, and for each byte of that text one of the file.
    Text { located: Box<Located>, bytes: Vec<usize> },
    /// It is encoded at this place of the file.
    Encoded(Range<usize>),
}
