//! Claims and other metadata of a policy in the native body. Envoy does not show nested metadata to dynamic modules, so its
//! own filter `set_filter_state` copies each namespace into filter state before the native body runs.

use std::collections::BTreeSet;

use penstock_policy::Policy;
use penstock_policy::document::Node;
use penstock_policy::module::Suite;

/// The namespaces of metadata that a policy reads. A policy that is invalid everywhere is not reported here.
pub fn namespaces(policy: &Node) -> BTreeSet<String> {
    let policy = Policy::<Suite>::from_node(policy).ok();
    let places = policy.iter().flat_map(Policy::fact_places);
    places.map(|place| place.namespace.to_string()).collect()
}

/// The name of the filter state that contains a namespace's copy.
pub fn state_key(namespace: &str) -> String {
    format!("penstock.metadata.{namespace}")
}

/// Envoy's format string for a whole namespace, as JSON.
pub fn format_string(namespace: &str) -> String {
    format!("%DYNAMIC_METADATA({namespace})%")
}

/// Whether Envoy can format this namespace: it reads the characters `:`, `)` and `%` as parts of the format string.
pub fn is_copyable(namespace: &str) -> bool {
    !namespace.contains([':', ')', '%'])
}

/// Whether a filter with this configuration is a `set_filter_state` that copies the namespace.
pub fn copies(config: &Node, namespace: &str) -> bool {
    let Some(Node::List(values)) = field(config, ["on_request_headers", "onRequestHeaders"]) else { return false };
    values.iter().any(|value| {
        let format = field(value, ["format_string", "formatString"]).and_then(|format| {
            let source = field(format, ["text_format_source", "textFormatSource"]);
            let inline = source.and_then(|source| field(source, ["inline_string", "inlineString"]));
            inline.or_else(|| field(format, ["text_format", "textFormat"]))
        });
        is_text(field(value, ["object_key", "objectKey"]), &state_key(namespace))
            && is_text(format, &format_string(namespace))
    })
}

fn field<'n>(node: &'n Node, names: [&str; 2]) -> Option<&'n Node> {
    names.into_iter().find_map(|name| node.get(name))
}

fn is_text(node: Option<&Node>, expected: &str) -> bool {
    matches!(node, Some(Node::String(text)) if text == expected)
}
