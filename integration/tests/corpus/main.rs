//! `penstock check` must read manifests and bootstraps as their real readers do: Envoy when it starts, the API server
//! of a real Kubernetes when it stores. The corpus is every manifest of this repository, and many constructed ones with
//! the oddities of YAML and JSON.

#![allow(clippy::indexing_slicing, reason = "a test may panic")]

mod capabilities;
mod cluster;
mod envoy;
mod envoy_fields;
mod envoy_json;
mod kubernetes_yaml;

use penstock::check::{self, CheckContext};
use penstock::inputs::InputFile;
use penstock::text::SourceText;
use penstock_policy::document::Node;
use serde_json::Value;

/// The problems that `penstock check` finds in a file; `None` when it has no policy or is valid.
fn refused(name: &str, text: &str) -> Option<String> {
    let input = InputFile { name: name.to_owned(), text: SourceText::new(text), is_found: false };
    let reports = check::check(&[input], &CheckContext::default()).ok()?;
    let mut findings = reports.iter().flat_map(|report| &report.errors.shown);
    findings.next().map(|finding| format!("{}: {}", finding.path, finding.message))
}

/// A tree as JSON, independent of the order of fields.
fn json(node: &Node) -> Value {
    match node {
        Node::Null | Node::Unread(_) => Value::Null,
        Node::Bool(value) => (*value).into(),
        Node::Integer(value) => (*value).into(),
        Node::Float(value) => (*value).into(),
        Node::String(text) => text.as_str().into(),
        Node::List(items) => items.iter().map(json).collect(),
        Node::Map(entries) => entries.iter().map(|(name, node)| (name.clone(), json(node))).collect(),
    }
}
