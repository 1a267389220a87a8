//! The annotations and the label with which objects configure the webhook.

use penstock_policy::Module;
use penstock_policy::document::Node;

use crate::manifests::{ANNOTATION, LABEL, label};

/// The kinds whose plugins are checked.
pub const PLUGINS: [&str; 3] = ["WasmPlugin", "TrafficExtension", "EnvoyExtensionPolicy"];

/// The annotation that approves a loosening; its value is the hash in the refusal.
pub const APPROVAL: &str = "penstock.io/approved-loosening";

/// Warnings about misspelled annotations and labels of ours, which have no effect.
pub fn doubts(kind: &str, object: &Node) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(value) = label(object).filter(|value| kind == "ConfigMap" && !["true", "false"].contains(value)) {
        warnings.push(format!("the label {LABEL} is `{value}`: the policies are not checked; write \"true\""));
    }
    let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let Some(Node::Map(annotations)) = annotations.filter(|_| PLUGINS.contains(&kind)) else { return warnings };
    for (name, value) in annotations.iter().filter(|(name, _)| name.starts_with("penstock.io/")) {
        let modules: Vec<&str> = Module::ALL.iter().map(|module| module.name()).collect();
        match (name.as_str(), value) {
            (APPROVAL, _) => {}
            (ANNOTATION, Node::String(module)) if module == "none" || modules.contains(&module.as_str()) => {}
            (ANNOTATION, value) => {
                warnings.push(format!(
                    "the annotation {ANNOTATION} is {value}; expected one of: {}, none",
                    modules.join(", ")
                ));
            }
            _ => warnings.push(format!("unknown annotation {name}; expected one of: {ANNOTATION}, {APPROVAL}")),
        }
    }
    warnings
}
