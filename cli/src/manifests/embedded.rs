//! Files in a ConfigMap or Secret: bootstraps of Envoy, and policies where an annotation says so.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_policy::document::Node;

use super::kinds;
use super::path::join;
use super::plugin;
use super::text::{align, outer};
use crate::text::SourceText;
use crate::yaml::{Located, NotYaml};

/// A file in an object.
pub struct EmbeddedFile {
    /// The object and the name of the file.
    pub place: String,
    /// Whether an annotation says that it is a policy.
    pub is_policy: bool,
    /// Its document, with its places in the file around it; or the place and the reason why it cannot be read.
    pub document: Result<Located, (Range<usize>, NotYaml)>,
}

/// The files of a document's objects that may hold a policy.
pub fn files(located: &Located, text: &SourceText) -> Vec<EmbeddedFile> {
    let mut files = Vec::new();
    object(located, &located.node, "", text, &mut files);
    files
}

fn object(located: &Located, node: &Node, path: &str, text: &SourceText, files: &mut Vec<EmbeddedFile>) {
    let Some(Node::String(kind)) = node.get("kind") else { return };
    if let (true, Some(Node::List(items))) = (kind.ends_with("List"), node.get("items")) {
        for (i, item) in items.iter().enumerate() {
            object(located, item, &join(path, &format!("items[{i}]")), text, files);
        }
        return;
    }
    let fields: &[(&str, bool)] = match kind.as_str() {
        "ConfigMap" => &[("data", false), ("binaryData", true)],
        "Secret" => &[("data", true), ("stringData", false)],
        _ => return,
    };
    // The webhook goes by the label.
    let is_policy =
        plugin::annotation(node).is_some_and(|module| module != "none") || plugin::label(node) == Some("true");
    for (field, is_encoded) in fields {
        let Some(Node::Map(entries)) = node.get(field) else { continue };
        for (name, value) in entries {
            let Node::String(value) = value else { continue };
            let span = located.span(&join(&join(path, field), name), false);
            let (content, bytes) = match is_encoded {
                true => match STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                    Some(content) => (content, None),
                    None => continue,
                },
                false => {
                    let bytes = align(value, text.get(span.clone()).unwrap_or_default(), span.start);
                    (value.clone(), Some(bytes))
                }
            };
            if let Some(document) = document(name, &content, is_policy) {
                let moved = |inner: &Range<usize>| bytes.as_ref().map_or(span.clone(), |bytes| outer(inner, bytes));
                let document = match document {
                    Ok(document) => Ok(document.moved(moved)),
                    Err(error) => Err((moved(&(error.at..error.at + 1)), error)),
                };
                let object = kinds::resource(node).unwrap_or_default();
                files.push(EmbeddedFile { place: format!("{object}, {name}"), is_policy, document });
            }
        }
    }
}

/// Reads a file that may hold a policy: Envoy reads the first document.
fn document(name: &str, content: &str, is_policy: bool) -> Option<Result<Located, NotYaml>> {
    let is_yaml = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
    let is_envoys = ["typed_config", "typedConfig"].iter().any(|field| content.contains(field));
    if !(is_envoys || is_policy && is_yaml) {
        return None;
    }
    let first = match name.ends_with(".json") {
        true => Located::read_envoy_json(content),
        false => Located::read_all(content).and_then(|mut documents| match documents.is_empty() {
            true => Located::read(""),
            false => Ok(documents.swap_remove(0)),
        }),
    };
    let is_known = |located: &Located| {
        is_policy || kinds::resource(&located.node).is_some_and(|resource| resource.starts_with("Envoy "))
    };
    Some(first).filter(|first| first.as_ref().map_or(true, is_known))
}
