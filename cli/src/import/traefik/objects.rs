//! Traefik's objects, by kind and name.

use std::collections::HashMap;

use penstock_policy::document::Node;

use crate::import::objects::Objects;

/// The API groups of its kinds, old and new.
const GROUPS: [&str; 2] = ["traefik.io", "traefik.containo.us"];

/// Traefik's objects in the input.
pub(super) struct TraefikObjects<'d> {
    all: &'d Objects<'d>,
    /// Objects by kind and name: `shop/limits`, or in the notation of providers `shop-limits`.
    by_name: HashMap<(&'static str, String), &'d Node>,
}

impl<'d> TraefikObjects<'d> {
    /// Finds the objects.
    pub(super) fn of(all: &'d Objects<'d>) -> TraefikObjects<'d> {
        let text = |node: &Node, field: &str| match node.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(Node::String(text)) => Some(text.clone()),
            _ => None,
        };
        let mut by_name = HashMap::new();
        for kind in ["Middleware", "TraefikService"] {
            for (_, node) in GROUPS.iter().flat_map(|group| all.of(kind, group)) {
                let namespace = text(node, "namespace").unwrap_or_else(|| "default".to_owned());
                let name = text(node, "name").unwrap_or_default();
                for key in [format!("{namespace}/{name}"), format!("{namespace}-{name}")] {
                    by_name.entry((kind, key)).or_insert(node);
                }
            }
        }
        TraefikObjects { all, by_name }
    }

    /// The routes, each with its file.
    pub(super) fn routes(&self) -> impl Iterator<Item = &'d (String, Node)> {
        GROUPS.iter().flat_map(|group| self.all.of("IngressRoute", group))
    }

    /// Finds an object by name, such as `limits`, or `shop-limits@kubernetescrd`.
    pub(super) fn named(&self, kind: &'static str, name: &str, namespace: &str) -> Option<&'d Node> {
        // The name refers to another provider, not to an object of the cluster.
        let (name, provider) = name.split_once('@').unwrap_or((name, "kubernetescrd"));
        if provider != "kubernetescrd" {
            return None;
        }
        let find = |key: String| self.by_name.get(&(kind, key)).copied();
        find(format!("{namespace}/{name}")).or_else(|| find(name.to_owned()))
    }
}
