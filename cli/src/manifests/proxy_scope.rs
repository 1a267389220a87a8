//! Which proxies run an object's plugins, as far as the object says it.

use penstock_policy::document::Node;

/// Istio's namespace whose objects are for all namespaces.
const ROOT: &str = "istio-system";

/// The proxies that run the plugins of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyScope {
    /// Unknown.
    #[default]
    Unknown,
    /// One process, which has no other bootstrap.
    Bootstrap,
    /// Workloads of Istio.
    Workloads {
        namespace: Option<String>,
        /// The labels that they have.
        labels: Vec<(String, String)>,
        /// Gateways (`true`) or sidecars, when it is only one of them.
        are_gateways: Option<bool>,
    },
    /// Gateways of the Gateway API, by namespace and name; `None` for targets of other kinds.
    Gateways(Option<Vec<(Option<String>, String)>>),
}

fn text(node: Option<&Node>) -> Option<String> {
    match node {
        Some(Node::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn list(node: Option<&Node>) -> &[Node] {
    match node {
        Some(Node::List(items)) => items,
        _ => &[],
    }
}

impl ProxyScope {
    /// The proxies of an object of Kubernetes, or of a document of Envoy.
    pub fn of(object: &Node) -> ProxyScope {
        let spec = object.get("spec").unwrap_or(&Node::Null);
        let namespace = text(object.get("metadata").and_then(|metadata| metadata.get("namespace")));
        match text(object.get("kind")).as_deref() {
            Some("EnvoyFilter") => {
                let labels = match spec.get("workloadSelector").and_then(|selector| selector.get("labels")) {
                    Some(Node::Map(labels)) => {
                        labels.iter().filter_map(|(key, value)| Some((key.clone(), text(Some(value))?))).collect()
                    }
                    _ => Vec::new(),
                };
                let context = |patch: &Node| match text(patch.get("match").and_then(|of| of.get("context"))).as_deref()
                {
                    Some("GATEWAY") => Some(true),
                    Some("SIDECAR_INBOUND" | "SIDECAR_OUTBOUND") => Some(false),
                    _ => None,
                };
                let contexts: Vec<Option<bool>> = list(spec.get("configPatches")).iter().map(context).collect();
                let first = contexts.first().copied().flatten();
                let are_gateways = first.filter(|first| contexts.iter().all(|context| context == &Some(*first)));
                ProxyScope::Workloads { namespace, labels, are_gateways }
            }
            Some("EnvoyExtensionPolicy" | "EnvoyPatchPolicy") => {
                let targets = spec.get("targetRef").into_iter().chain(list(spec.get("targetRefs")));
                let gateway = |target: &Node| match text(target.get("kind")).as_deref() {
                    Some("Gateway") => Some((namespace.clone(), text(target.get("name"))?)),
                    _ => None,
                };
                let named: Option<Vec<_>> = targets.map(gateway).collect();
                ProxyScope::Gateways(named.filter(|named| !named.is_empty() && spec.get("targetSelectors").is_none()))
            }
            Some(_) => ProxyScope::Unknown,
            None if ["static_resources", "staticResources"].iter().any(|field| object.get(field).is_some()) => {
                ProxyScope::Bootstrap
            }
            None => ProxyScope::Unknown,
        }
    }

    /// Whether one proxy may run the plugins of both objects. `false` only if none does for certain.
    pub fn may_meet(&self, other: &ProxyScope) -> bool {
        let are_same = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        match (self, other) {
            (ProxyScope::Unknown, _) | (_, ProxyScope::Unknown) => true,
            (
                ProxyScope::Workloads { namespace: a, labels: one, are_gateways: first },
                ProxyScope::Workloads { namespace: b, labels: two, are_gateways: second },
            ) => {
                let is_root = |namespace: &Option<String>| namespace.as_deref() == Some(ROOT);
                let differ = one.iter().any(|(key, value)| two.iter().any(|(k, v)| k == key && v != value));
                let is_other_kind = first.is_some() && second.is_some() && first != second;
                !differ && !is_other_kind && (is_root(a) || is_root(b) || are_same(a, b))
            }
            (ProxyScope::Gateways(one), ProxyScope::Gateways(two)) => match (one, two) {
                (Some(one), Some(two)) => {
                    one.iter().any(|(ns, name)| two.iter().any(|(other, of)| name == of && are_same(ns, other)))
                }
                _ => true,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    fn scope(kind: &str, namespace: &str, spec: &str) -> ProxyScope {
        let text = format!("{{apiVersion: v1, kind: {kind}, metadata: {{name: a{namespace}}}, spec: {{{spec}}}}}");
        ProxyScope::of(&Located::read(&text).unwrap().node)
    }

    #[test]
    fn objects_meet_unless_their_proxies_are_different_for_certain() {
        let filter = |namespace: &str, spec: &str| scope("EnvoyFilter", namespace, spec);
        let (a, b, root) = (", namespace: a", ", namespace: b", ", namespace: istio-system");
        let labels = |app: &str| format!("workloadSelector: {{labels: {{app: {app}}}}}");
        let context = |word: &str| format!("configPatches: [{{match: {{context: {word}}}}}]");
        let policy = |namespace: &str, spec: &str| scope("EnvoyExtensionPolicy", namespace, spec);
        let to = |kind: &str, name: &str| format!("targetRefs: [{{kind: {kind}, name: {name}}}]");
        let bootstrap = ProxyScope::of(&Located::read("{static_resources: {}}").unwrap().node);
        let discovery = ProxyScope::of(&Located::read("{resources: []}").unwrap().node);
        for (one, two, expected) in [
            (filter(a, ""), filter(a, ""), true),
            (filter(a, ""), filter(b, ""), false),
            (filter(a, ""), filter("", ""), true),
            (filter(a, ""), filter(root, ""), true),
            (filter(a, &labels("x")), filter(a, &labels("z")), false),
            (filter(a, &labels("x")), filter(root, &labels("z")), false),
            (filter(a, &labels("x")), filter(a, ""), true),
            (filter(root, &context("GATEWAY")), filter(root, &context("SIDECAR_INBOUND")), false),
            (filter(root, &context("SIDECAR_OUTBOUND")), filter(root, &context("SIDECAR_INBOUND")), true),
            (filter(root, &context("GATEWAY")), filter(root, &context("ANY")), true),
            (policy(a, &to("Gateway", "g")), policy(a, &to("Gateway", "g")), true),
            (policy(a, &to("Gateway", "g")), policy(a, &to("Gateway", "h")), false),
            (policy(a, &to("Gateway", "g")), policy(b, &to("Gateway", "g")), false),
            (policy(a, &to("Gateway", "g")), policy(b, &to("HTTPRoute", "r")), true),
            (policy(a, &to("Gateway", "g")), policy(a, "targetSelectors: [{kind: Gateway}]"), true),
            (policy(a, &to("Gateway", "g")), filter(a, ""), false),
            (bootstrap.clone(), bootstrap.clone(), false),
            (bootstrap, discovery.clone(), true),
            (discovery.clone(), discovery, true),
        ] {
            assert_eq!((one.may_meet(&two), two.may_meet(&one)), (expected, expected), "{one:?} {two:?}");
        }
    }
}
