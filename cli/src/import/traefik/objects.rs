//! Traefik's objects, by kind and name.

use penstock_policy::document::Node;

use crate::import::objects::Objects;

/// The groups of its kinds, old and new.
pub(super) const GROUPS: [&str; 2] = ["traefik.io", "traefik.containo.us"];

pub(super) fn of<'d>(objects: &Objects<'d>, kind: &str) -> Vec<&'d (String, Node)> {
    GROUPS.iter().flat_map(|group| objects.of(kind, group)).collect()
}

/// The spec of an object by its name, such as `shop/limits` or `limits@kubernetescrd`.
pub(super) fn named<'d>(objects: &Objects<'d>, kind: &str, name: &str, namespace: &str) -> Option<&'d Node> {
    // Another provider's has nothing to do with the cluster's object of its name.
    let (name, provider) = name.split_once('@').unwrap_or((name, "kubernetescrd"));
    if provider != "kubernetescrd" {
        return None;
    }
    let text = |node: &Node, field: &str| match node.get("metadata").and_then(|metadata| metadata.get(field)) {
        Some(Node::String(text)) => Some(text.clone()),
        _ => None,
    };
    of(objects, kind).into_iter().map(|(_, node)| node).find(|node| {
        let own = text(node, "namespace").unwrap_or_else(|| "default".to_owned());
        let own_name = text(node, "name").unwrap_or_default();
        (own_name == name && own == namespace) || format!("{own}-{own_name}") == name
    })
}
