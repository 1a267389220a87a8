//! What an Envoy configuration runs a filter for: whether one is meant to run our module though it does not say so
//! completely, and whether it stands where it can do what its policy says.

use penstock_policy::Module;
use penstock_policy::document::Node;

use super::envoy_fields::{NATIVE_TYPE, NETWORK_TYPE, WASM_TYPE, typed_config};
use super::plugin::{self, PluginOwner};

/// Whether a filter whose policy was not found runs our module, or names no code and is called like ours.
pub fn is_meant_as_ours(filter: &Node) -> bool {
    let Some((_, config)) = typed_config(filter) else { return false };
    let kind = type_of(config);
    let is_native = kind == NATIVE_TYPE;
    if !is_native && kind != WASM_TYPE {
        return false;
    }
    let plugin = if is_native { Some(config) } else { config.get("config") };
    if plugin.is_some_and(|plugin| matches!(plugin::claim(plugin), PluginOwner::Ours(_))) {
        return true;
    }
    let names_code = plugin.is_some_and(|plugin| !plugin::code(plugin).is_empty());
    let named = |field: &str| match config.get(field) {
        Some(Node::String(name)) => name.split('/').next(),
        _ => None,
    };
    let module = ["filter_name", "filterName"].into_iter().find_map(named);
    let is_module = is_native && module.is_some_and(|name| Module::ALL.iter().any(|module| module.name() == name));
    let is_called_ours = matches!(filter.get("name"), Some(Node::String(name)) if plugin::is_ours(name));
    !names_code && (is_module || is_called_ours)
}

/// A use of our module that is not the one of an HTTP filter: what happens, and what would be right.
pub fn other_use(extension: &Node) -> Option<(&'static str, &'static str)> {
    const RIGHT: &str = "name the module in `http_filters` of the connection manager, before the router";
    let (_, config) = typed_config(extension)?;
    let what = match type_of(config) {
        "envoy.extensions.wasm.v3.WasmService" => {
            "a WasmService sees no requests: the policy is loaded and decides nothing"
        }
        NETWORK_TYPE => "a network filter sees no HTTP requests: the policy decides nothing",
        "envoy.extensions.access_loggers.wasm.v3.WasmAccessLog" => {
            "an access log sees requests after they have ended: the policy decides nothing"
        }
        "envoy.extensions.stat_sinks.wasm.v3.Wasm" => "a stats sink sees no requests: the policy decides nothing",
        _ => return None,
    };
    Some((what, RIGHT))
}

/// A policy that chooses routes, in a chain that runs when the route is chosen already.
pub fn too_late(path: &str, policy: &Node) -> Option<(&'static str, &'static str)> {
    let is_upstream = ["typed_extension_protocol_options", "typedExtensionProtocolOptions", "upstream_http_filters"]
        .iter()
        .any(|field| path.contains(field));
    let routes = ["routes", "canaries"].iter().any(|section| policy.get(section).is_some());
    (is_upstream && routes).then_some((
        "is an upstream filter: Envoy has chosen the route before it runs, so `routes` and `canaries` choose nothing",
        "name it in `http_filters` of the connection manager, before the router",
    ))
}

fn type_of(config: &Node) -> &str {
    match config.get("@type") {
        Some(Node::String(type_url)) => type_url.rsplit('/').next().unwrap_or_default(),
        _ => "",
    }
}
