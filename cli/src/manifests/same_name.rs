//! Plugins of one name in one proxy: what they share, and objects of which a cluster keeps only one.

use std::collections::HashMap;
use std::ops::Range;

use penstock_policy::document::Node;

use super::path::join;
use super::plugin::{code, dynamic_module, vm_config};
use super::proxy_scope::ProxyScope;

/// A plugin as the proxy tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginIdentity {
    /// The name, and what else must be equal for two plugins to share their state.
    key: Vec<String>,
    /// The path of the name.
    pub path: String,
    /// The list of filters that it stands in.
    chain: Option<String>,
    /// Whether plugins of one name share limits; else only metrics.
    shares_state: bool,
    /// The object, by its number in the file, and the proxies that run it.
    pub object: usize,
    pub scope: ProxyScope,
    /// The place of the name in the file.
    pub span: Range<usize>,
}

impl PluginIdentity {
    /// The identity of a plugin at `path`; `None` when its name is another plugin's never.
    pub fn of(plugin: &Node, path: &str) -> Option<PluginIdentity> {
        let text = |node: &Node, fields: [&str; 2]| {
            fields.into_iter().find_map(|field| match node.get(field) {
                Some(Node::String(text)) if !text.is_empty() => Some((field.to_owned(), text.clone())),
                _ => None,
            })
        };
        let chain = path.rfind("http_filters[").or_else(|| path.rfind("httpFilters["));
        let chain = chain.and_then(|at| path.get(..at)).map(str::to_owned);
        let identity = |field: String, key: Vec<String>, shares_state: bool| PluginIdentity {
            key,
            path: join(path, &field),
            chain: chain.clone(),
            shares_state,
            object: 0,
            scope: ProxyScope::default(),
            span: 0..0,
        };
        if dynamic_module(plugin).is_some() || path.contains(".dynamicModule[") {
            let (field, name) = text(plugin, ["filter_name", "filterName"])?;
            return Some(identity(field, vec![name], true));
        }
        if let Some(vm) = vm_config(plugin) {
            let (field, name) = text(plugin, ["name", "name"]).or_else(|| text(plugin, ["root_id", "rootId"]))?;
            let root = text(plugin, ["root_id", "rootId"]).unwrap_or_default().1;
            let vm = text(vm, ["vm_id", "vmId"]).unwrap_or_default().1;
            let mut key = vec![name, root, vm];
            key.extend(code(plugin).into_iter().map(str::to_owned));
            return Some(identity(field, key, true));
        }
        // Envoy Gateway gives each plugin a VM of its own; their metrics are the proxy's.
        let (field, name) = text(plugin, ["name", "name"])?;
        path.contains(".wasm[").then(|| identity(field, vec![name], false))
    }
}

/// A plugin of the input.
#[derive(Clone, Copy)]
pub struct NamedPlugin<'p> {
    pub identity: &'p PluginIdentity,
    pub policy: &'p Node,
    /// The object, and what stands for it in messages.
    pub object: &'p str,
    /// The file, by its number and name.
    pub file: (usize, &'p str),
}

impl NamedPlugin<'_> {
    /// Whether a proxy may run both.
    fn may_meet(&self, other: &NamedPlugin<'_>) -> bool {
        let (one, two) = (self.identity, other.identity);
        match self.file.0 == other.file.0 {
            true => one.object == two.object || one.scope.may_meet(&two.scope),
            // In several files, one object is a version of itself, for example of another environment.
            false => {
                (self.object != other.object || self.object.starts_with("Envoy ")) && one.scope.may_meet(&two.scope)
            }
        }
    }
}

/// Warnings about plugins that have the name of an earlier one: the later one's number, the message and the suggestion.
pub fn shared(plugins: &[NamedPlugin<'_>]) -> Vec<(usize, String, String)> {
    let mut earlier: HashMap<&[String], Vec<&NamedPlugin<'_>>> = HashMap::new();
    let mut doubts = Vec::new();
    for (number, plugin) in plugins.iter().enumerate() {
        let identity = plugin.identity;
        let all = earlier.entry(&identity.key).or_default();
        let is_beside = |other: &&NamedPlugin<'_>| {
            let same = other.identity.chain.is_some() && other.identity.chain == identity.chain;
            same && other.file.0 == plugin.file.0 && other.identity.object == identity.object
        };
        let beside = all.iter().copied().find(is_beside);
        // One plugin of one policy may stand in several listeners, which then share its limits.
        let differs = |other: &&NamedPlugin<'_>| other.policy != plugin.policy && plugin.may_meet(other);
        let other = beside.or_else(|| all.iter().copied().find(differs));
        all.push(plugin);
        let Some(other) = other else { continue };
        let what = match (identity.shares_state, beside) {
            (false, _) if other.policy == plugin.policy => continue,
            (false, _) => "its metrics are added to those of the other",
            (true, Some(_)) => "a request that both see counts twice in limits of one name and key, and in the metrics",
            (true, None) => "they share limits of one name and key, and their metrics: two policies under one name",
        };
        let name = identity.key.first().map_or("", String::as_str);
        let which = match other.file.0 == plugin.file.0 {
            true => "an earlier plugin here".to_owned(),
            false => format!("a plugin of {} ({})", other.file.1, other.object),
        };
        let help = format!("give each plugin a name of its own, such as `{name}-2`");
        doubts.push((number, format!("{which} is called `{name}` too: {what}"), help));
    }
    doubts
}

/// An object of Kubernetes with a policy.
#[derive(Debug)]
pub struct NamedObject {
    /// Its kind, namespace and name.
    pub resource: String,
    /// The number of its first policy in the file.
    pub policy: usize,
    /// The place of its name in the file.
    pub span: Range<usize>,
}

/// What becomes of a second object of one name in one file: `earlier` and `later` are kind, namespace and name.
pub fn second_object(earlier: &str, later: &str) -> Option<(String, &'static str)> {
    if earlier == later {
        let message = format!("{later} is in this file twice: a cluster has one, and `kubectl apply` keeps the last");
        return Some((message, "remove one, or give it another name"));
    }
    let other = other_kind(earlier, later)?;
    let message = format!("a {other} of the same name is in this file: Istio runs both, and each request twice");
    Some((message, REPLACED))
}

/// What to do about an object that Istio runs as two kinds.
pub const REPLACED: &str = "remove the object that the other replaces";

/// The kind of the earlier object, if Istio runs both though one was made to replace the other.
pub fn other_kind<'e>(earlier: &'e str, later: &str) -> Option<&'e str> {
    let (kind, name) = later.split_once(' ')?;
    let (other, same) = earlier.split_once(' ')?;
    let is_istios = |kind: &str| ["WasmPlugin", "TrafficExtension"].contains(&kind);
    (name == same && kind != other && is_istios(kind) && is_istios(other)).then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    const WASM: &str = "{name: NAME, vm_config: {vm_id: VM, code: {local: {filename: /x/suite.wasm}}}}";

    fn doubts(plugins: &[(&str, &str, &str)]) -> Vec<(usize, String)> {
        let read = |text: &str| Located::read(text).unwrap().node;
        let plugins: Vec<(PluginIdentity, Node)> = plugins
            .iter()
            .filter_map(|(plugin, path, policy)| Some((PluginIdentity::of(&read(plugin), path)?, read(policy))))
            .collect();
        let file = (0, "a.yaml");
        let plugins: Vec<_> = plugins
            .iter()
            .map(|(identity, policy)| NamedPlugin { identity, policy, object: "Envoy bootstrap", file })
            .collect();
        shared(&plugins).into_iter().map(|(number, message, _)| (number, message)).collect()
    }

    #[test]
    fn plugins_of_one_name_share_limits_and_metrics() {
        let wasm = |name: &str, vm: &str| WASM.replace("NAME", name).replace("VM", vm);
        let (a, b) = (wasm("a", "v"), wasm("b", "v"));
        let native = "{dynamic_module_config: {name: penstock}, filter_name: suite/a}";
        let [one, two] = ["l[0].http_filters[0].typed_config.config", "l[1].http_filters[0].typed_config.config"];
        let next = "l[0].http_filters[1].typed_config.config";
        for (plugins, part) in [
            // One policy in two listeners.
            ([(a.as_str(), one, "{x: 1}"), (&a, two, "{x: 1}")], ""),
            ([(&a, one, "{x: 1}"), (&b, two, "{x: 2}")], ""),
            ([(&a, one, "{x: 1}"), (&wasm("a", "w"), two, "{x: 2}")], ""),
            ([(&a, one, "{x: 1}"), (&a, two, "{x: 2}")], "two policies under one name"),
            ([(&a, one, "{x: 1}"), (&a, next, "{x: 1}")], "counts twice"),
            ([(native, one, "{x: 1}"), (native, two, "{x: 2}")], "`suite/a`"),
            (
                [("{name: a}", "spec.wasm[0]", "{x: 1}"), ("{name: a}", "spec.wasm[1]", "{x: 2}")],
                "its metrics are added",
            ),
            ([("{code: {}}", "spec.wasm[0]", "{x: 1}"), ("{code: {}}", "spec.wasm[1]", "{x: 2}")], ""),
        ] {
            let doubts = doubts(&plugins);
            assert_eq!(doubts.len(), usize::from(!part.is_empty()), "{plugins:?}: {doubts:?}");
            assert!(doubts.iter().all(|(number, message)| *number == 1 && message.contains(part)), "{doubts:?}");
        }
    }

    #[test]
    fn a_cluster_has_one_object_of_a_kind_and_name() {
        let what = |earlier: &str, later: &str| second_object(earlier, later).map(|(message, _)| message);
        assert!(what("WasmPlugin a/p", "WasmPlugin a/p").unwrap().contains("keeps the last"));
        assert!(what("WasmPlugin a/p", "TrafficExtension a/p").unwrap().contains("runs both"));
        assert_eq!(what("WasmPlugin a/p", "WasmPlugin b/p"), None);
        assert_eq!(what("EnvoyExtensionPolicy p", "WasmPlugin p"), None);
    }
}
