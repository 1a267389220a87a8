//! Claims and other metadata of a policy in the native body under Envoy Gateway, which has no API for the filter that copies
//! them into filter state: an EnvoyPatchPolicy inserts it into the listener, directly before the native body.

use std::collections::BTreeSet;

use penstock_policy::document::Node;

use super::copied_metadata;
use crate::diagnostics::Finding;

/// The metadata that a dynamic module of an EnvoyExtensionPolicy reads, until an EnvoyPatchPolicy is found that copies it.
#[derive(Debug)]
pub struct UncopiedMetadata {
    /// How the name of the module's filter ends in the listener.
    filter: String,
    namespaces: BTreeSet<String>,
    /// The error if there is none.
    pub finding: Finding,
}

impl UncopiedMetadata {
    /// `resource` is the kind and name of the EnvoyExtensionPolicy, and `path` ends with the module's number in it.
    pub fn new(resource: &str, path: &str, namespaces: BTreeSet<String>, finding: Finding) -> UncopiedMetadata {
        let name = resource.split(' ').nth(1).unwrap_or_default();
        // Without a namespace in the file, only `kubectl` knows it.
        let kind = if name.contains('/') { "envoyextensionpolicy" } else { "" };
        let number = path.rsplit_once('[').map_or("", |(_, number)| number.trim_end_matches(']'));
        UncopiedMetadata { filter: format!("{kind}/{name}/dynamic-module/{number}"), namespaces, finding }
    }

    /// Whether nothing is left that must be copied.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Removes the namespaces that an EnvoyPatchPolicy copies before this filter.
    pub fn remove_copies_of(&mut self, object: &Node) {
        if let Some(Node::List(items)) = object.get("items") {
            items.iter().for_each(|item| self.remove_copies_of(item));
        }
        if object.get("kind") != Some(&Node::String("EnvoyPatchPolicy".to_owned())) {
            return;
        }
        let Some(Node::List(patches)) = object.get("spec").and_then(|spec| spec.get("jsonPatches")) else { return };
        for operation in patches.iter().filter_map(|patch| patch.get("operation")) {
            let config = operation.get("value").and_then(|value| value.get("typed_config"));
            if let (true, Some(config)) = (self.is_inserted_before(operation), config) {
                self.namespaces.retain(|namespace| !copied_metadata::copies(config, namespace));
            }
        }
    }

    /// Whether a patch adds its value directly before this filter.
    fn is_inserted_before(&self, operation: &Node) -> bool {
        let text = |field: &str| match operation.get(field) {
            Some(Node::String(text)) => text.as_str(),
            _ => "",
        };
        let selector = text("jsonPath");
        let names_the_filter = selector.split(['\'', '"']).any(|word| word.ends_with(&self.filter));
        text("op") == "add" && text("path").is_empty() && names_the_filter && selector.trim_end().ends_with(")]")
    }
}
