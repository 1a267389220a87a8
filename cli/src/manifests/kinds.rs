//! Kinds of documents: objects of Kubernetes and parts of Envoy's configuration.

use penstock_policy::document::Node;

/// Whether a document is of a kind that contains plugins, of any vendor. In objects of other kinds, `config` and
/// `configuration` have other meanings.
pub fn may_hold(object: &Node) -> bool {
    const KINDS: [&str; 7] = [
        "WasmPlugin",
        "TrafficExtension",
        "EnvoyExtensionPolicy",
        "EnvoyFilter",
        "EnvoyPatchPolicy",
        "CiliumEnvoyConfig",
        "CiliumClusterwideEnvoyConfig",
    ];
    match (object.get("apiVersion"), object.get("kind")) {
        (Some(_), Some(Node::String(kind))) => KINDS.contains(&kind.as_str()),
        _ => true,
    }
}

/// The description of an object: kind and name of a Kubernetes object, or the part of an Envoy configuration. `None`
/// when it is neither.
pub fn resource(node: &Node) -> Option<String> {
    let string = |node: Option<&Node>| match node {
        Some(Node::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let (Some(_), Some(kind)) = (string(node.get("apiVersion")), string(node.get("kind"))) {
        let metadata = node.get("metadata");
        // An object that is not created yet may have only `generateName`.
        let prefix =
            || string(metadata.and_then(|metadata| metadata.get("generateName"))).map(|name| format!("{name}…"));
        let name = string(metadata.and_then(|metadata| metadata.get("name"))).or_else(prefix).unwrap_or_default();
        return Some(match string(metadata.and_then(|metadata| metadata.get("namespace"))) {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}").trim_end().to_owned(),
        });
    }
    let has = |fields: &[&str]| fields.iter().any(|field| node.get(field).is_some());
    if has(&["static_resources", "staticResources", "dynamic_resources", "dynamicResources"]) {
        return Some("Envoy bootstrap".to_owned());
    }
    // Other pages of Envoy's admin interface, which users confuse with the dump.
    if has(&["listener_statuses", "cluster_statuses"]) {
        return Some("Envoy status page".to_owned());
    }
    if matches!(node.get("configs"), Some(Node::List(_))) {
        return Some("Envoy configuration dump".to_owned());
    }
    if has(&["resources", "@type"]) {
        return Some("Envoy discovery file".to_owned());
    }
    has(&["virtual_hosts", "virtualHosts"]).then(|| "Envoy RouteConfiguration".to_owned())
}
