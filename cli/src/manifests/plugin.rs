//! Determines which plugins of a manifest or an Envoy configuration run one of our modules.

use penstock_policy::Module;
use penstock_policy::document::Node;

/// The annotation with which an object names our module that its plugin runs, whatever its image is called.
pub const ANNOTATION: &str = "penstock.io/module";

/// ConfigMaps with this label, and the value `true`, contain policies.
pub const LABEL: &str = "penstock.io/policy";

/// The value of that label.
pub fn label(object: &Node) -> Option<&str> {
    string(object.get("metadata")?.get("labels")?.get(LABEL))
}

/// The fields that identify a map as a policy.
const SECTIONS: [&str; 5] = ["settings", "egress", "rateLimits", "routes", "canaries"];

/// What is known about a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginOwner {
    /// It is ours, by an annotation, an image or file of ours, or its name.
    Ours(Option<Module>),
    /// Its file has the name of one of our modules, which other vendors may use, too.
    Named(Module),
    /// Nothing is known about it.
    Unknown,
    /// It loads this, which is not ours.
    Other(String),
    /// It is in an object of a kind that contains no plugins.
    Foreign,
}

impl PluginOwner {
    /// The module, if known.
    pub fn module(&self) -> Option<Module> {
        match self {
            PluginOwner::Ours(module) => *module,
            PluginOwner::Named(module) => Some(*module),
            PluginOwner::Unknown | PluginOwner::Other(_) | PluginOwner::Foreign => None,
        }
    }

    /// Whether a configuration with these fields is a policy.
    pub fn takes(&self, configuration: &Node) -> bool {
        match self {
            PluginOwner::Ours(_) => true,
            PluginOwner::Named(_) | PluginOwner::Unknown => has_section(configuration),
            PluginOwner::Other(_) | PluginOwner::Foreign => false,
        }
    }

    /// Whether a configuration that cannot be parsed is intended as a policy.
    pub fn takes_text(&self, text: &str) -> bool {
        match self {
            PluginOwner::Ours(_) | PluginOwner::Named(_) => true,
            PluginOwner::Unknown => SECTIONS.iter().skip(1).any(|section| text.contains(section)),
            PluginOwner::Other(_) | PluginOwner::Foreign => false,
        }
    }
}

/// Whether a map has a field of a policy.
pub fn has_section(node: &Node) -> bool {
    SECTIONS.iter().any(|section| node.get(section).is_some())
}

/// The module that the annotations of a Kubernetes object name.
pub fn annotation(object: &Node) -> Option<&str> {
    string(object.get("metadata")?.get("annotations")?.get(ANNOTATION))
}

/// What the annotations of a Kubernetes object say.
pub fn annotated(object: &Node) -> Option<PluginOwner> {
    let name = annotation(object)?;
    Some(match named(name) {
        Some(module) => PluginOwner::Ours(Some(module)),
        None if name == "none" => PluginOwner::Other(format!("an annotation `{ANNOTATION}: none`")),
        None => PluginOwner::Ours(None),
    })
}

/// Identifies a plugin by the name of its file or image, or else by its own name.
pub fn claim(plugin: &Node) -> PluginOwner {
    // A library contains all our filters: the filter name selects one, as `<module>` or `<module>/<plugin>`.
    let filter = ["filter_name", "filterName"].iter().find_map(|field| string(plugin.get(field)));
    let filter = filter.and_then(|name| named(name.split('/').next().unwrap_or_default()));
    let name = ["name", "root_id", "rootId"].iter().find_map(|field| string(plugin.get(field)));
    let name = name.or_else(|| string(vm_config(plugin)?.get("vm_id").or_else(|| vm_config(plugin)?.get("vmId"))));
    let is_called_ours = name.is_some_and(is_ours);
    let mut other = None;
    for place in code(plugin) {
        match claim_of(place) {
            PluginOwner::Other(place) => other = other.or(Some(place)),
            PluginOwner::Ours(None) => return PluginOwner::Ours(filter),
            PluginOwner::Named(module) if is_called_ours => return PluginOwner::Ours(Some(module)),
            claim => return claim,
        }
    }
    match (is_called_ours, other) {
        (true, _) => PluginOwner::Ours(filter),
        (false, Some(place)) => PluginOwner::Other(place),
        (false, None) => PluginOwner::Unknown,
    }
}

/// Whether a map is the configuration of a plugin, on any platform.
pub fn is_plugin(node: &Node) -> bool {
    is_envoy_plugin(node)
        || ["pluginConfig", "configuration", "filter_config", "filterConfig", "defaultConfig", "matchRules"]
            .iter()
            .any(|field| node.get(field).is_some())
        || (node.get("code").is_some() && node.get("name").is_some())
        || (node.get("config").is_some() && node.get("code").is_some())
}

/// Whether a map is Envoy's `PluginConfig`, which is in a field `config`, too.
pub fn is_envoy_plugin(node: &Node) -> bool {
    vm_config(node).is_some() || node.get("configuration").is_some()
}

/// How to declare that a plugin is ours.
pub fn how_to_claim() -> String {
    format!("annotate its object with `{ANNOTATION}: suite` (or the module that it is) to have it checked")
}

/// Reads `vm_config` of Envoy's `PluginConfig`.
pub fn vm_config(plugin: &Node) -> Option<&Node> {
    plugin.get("vm_config").or_else(|| plugin.get("vmConfig"))
}

/// Reads `dynamic_module_config` of Envoy's `DynamicModuleFilter`.
pub fn dynamic_module(plugin: &Node) -> Option<&Node> {
    plugin.get("dynamic_module_config").or_else(|| plugin.get("dynamicModuleConfig"))
}

/// The file or image that a plugin loads, if it names one.
pub fn code(plugin: &Node) -> Vec<&str> {
    let mut places = vec![plugin.get("url")];
    places.extend(["image", "http"].map(|source| plugin.get("code")?.get(source)?.get("url")));
    let code = vm_config(plugin).and_then(|vm| vm.get("code"));
    places.extend(["filename", "inline_string", "inlineString"].map(|source| code?.get("local")?.get(source)));
    places.extend(["http_uri", "httpUri"].map(|field| code?.get("remote")?.get(field)?.get("uri")));
    let dynamic = dynamic_module(plugin);
    places.push(dynamic.and_then(|dynamic| dynamic.get("name")));
    let module = dynamic.and_then(|dynamic| dynamic.get("module"));
    places.push(module.and_then(|module| module.get("local")?.get("filename")));
    places.extend(["http_uri", "httpUri"].map(|field| module?.get("remote")?.get(field)?.get("uri")));
    // Envoy Gateway's list of modules.
    places.extend(
        [("local", "path"), ("remote", "url")].map(|(kind, field)| plugin.get("source")?.get(kind)?.get(field)),
    );
    places.into_iter().filter_map(string).collect()
}

/// Our module with this image name; `None` when unknown.
pub fn module_of(image: &str) -> Option<Module> {
    claim_of(image).module()
}

/// Whether a file or URL has the name of our dynamic module.
pub fn is_our_library(place: &str) -> bool {
    matches!(claim_of(place), PluginOwner::Ours(_))
}

/// Identifies an image, URL or file by its name.
fn claim_of(place: &str) -> PluginOwner {
    let without_digest = place.split('@').next().unwrap_or_default();
    let path = without_digest.split_once("://").map_or(without_digest, |(_, rest)| rest);
    let mut parts: Vec<&str> = path.split(['/', '\\']).collect();
    let last = parts.pop().unwrap_or_default();
    let file = last.split([':', '?', '#']).next().unwrap_or_default();
    let module = named(file.split('.').next().unwrap_or_default());
    let ours = is_ours(file) || parts.iter().skip(1).chain(parts.first()).any(|part| is_ours(part));
    match module {
        _ if ours => PluginOwner::Ours(module),
        Some(module) if file.ends_with(".wasm") => PluginOwner::Named(module),
        _ => PluginOwner::Other(place.to_owned()),
    }
}

/// Whether a part of a name is ours: `penstock`, `penstock-suite`, `libpenstock.so`.
pub fn is_ours(part: &str) -> bool {
    let part = part.strip_prefix("lib").unwrap_or(part);
    part.strip_prefix("penstock").is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.', '/', ':']))
}

/// The module with this name.
fn named(name: &str) -> Option<Module> {
    let name = name.strip_prefix("penstock-").unwrap_or(name);
    Module::ALL.into_iter().find(|module| module.name() == name || module.name().replace('-', "_") == name)
}

fn string(node: Option<&Node>) -> Option<&str> {
    match node {
        Some(Node::String(text)) => Some(text),
        _ => None,
    }
}

/// The field that a node has of two spellings, and its value.
pub fn either<'n>(node: &'n Node, names: [&'static str; 2]) -> Option<(&'static str, &'n Node)> {
    names.into_iter().find_map(|name| Some((name, node.get(name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    #[test]
    fn the_native_body_is_known_by_its_library_and_runs_the_module_of_its_filter_name() {
        for (plugin, expected) in [
            (
                "{dynamic_module_config: {module: {local: {filename: /etc/penstock/libpenstock.so}}}, filter_name: rate-limit/a}",
                PluginOwner::Ours(Some(Module::RateLimit)),
            ),
            ("{dynamic_module_config: {name: penstock}, filter_name: suite}", PluginOwner::Ours(Some(Module::Suite))),
            ("{name: penstock, filterName: canary/shop, config: {}}", PluginOwner::Ours(Some(Module::Canary))),
            ("{dynamic_module_config: {name: waf}, filter_name: suite}", PluginOwner::Other("waf".into())),
        ] {
            assert_eq!(claim(&Located::read(plugin).unwrap().node), expected, "{plugin}");
        }
    }

    #[test]
    fn our_modules_are_known_by_image_file_or_name_and_others_are_not_ours() {
        for (place, expected) in [
            ("oci://registry.example.com/penstock/suite:0.1.0", PluginOwner::Ours(Some(Module::Suite))),
            ("ghcr.io/acme/penstock-rate-limit@sha256:aa", PluginOwner::Ours(Some(Module::RateLimit))),
            ("ghcr.io/penstock/everything:1", PluginOwner::Ours(None)),
            ("https://files.test/penstock/canary.wasm?x=1", PluginOwner::Ours(Some(Module::Canary))),
            ("/etc/envoy/egress_allowlist.wasm", PluginOwner::Named(Module::EgressAllowlist)),
            ("/usr/lib/libpenstock.so", PluginOwner::Ours(None)),
            ("ghcr.io/acme/suite:1", PluginOwner::Other("ghcr.io/acme/suite:1".into())),
            ("oci://r.test/waf", PluginOwner::Other("oci://r.test/waf".into())),
            ("oci://r.test/penstockish:1", PluginOwner::Other("oci://r.test/penstockish:1".into())),
        ] {
            assert_eq!(claim_of(place), expected, "{place}");
        }
    }
}
