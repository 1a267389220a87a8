//! Envoy's `capability_restriction_config`: the calls between Envoy and a module that it allows. A call that is not in the list does
//! nothing, so a module can run and see no request.

use penstock_policy::Module;
use penstock_policy::document::Node;

use super::path::join;
use super::plugin;

/// Without it the module cannot read any policy.
const TO_START: &str = "proxy_get_buffer_bytes";

/// The calls of all modules, apart from those with which they only write messages.
const OF_ALL: [&str; 24] = [
    "proxy_add_header_map_value",
    "proxy_close_stream",
    "proxy_define_metric",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_pairs",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_grpc_cancel",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_request_headers",
    "proxy_on_tick",
    "proxy_on_vm_start",
    "proxy_record_metric",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_send_local_response",
    "proxy_set_property",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
    "random_get",
];

/// The calls of some modules.
const OF_SOME: [(&str, &[&str]); 11] = [
    ("proxy_continue_stream", &["rate-limit"]),
    ("proxy_get_header_map_value", &["rate-limit", "canary", "header-routing"]),
    ("proxy_grpc_call", &["rate-limit"]),
    ("proxy_set_effective_context", &["rate-limit"]),
    ("proxy_on_grpc_close", &["rate-limit"]),
    ("proxy_on_grpc_receive", &["rate-limit"]),
    ("proxy_on_new_connection", &["egress-allowlist"]),
    ("proxy_on_request_body", &["rate-limit", "canary", "header-routing"]),
    ("proxy_on_request_trailers", &["rate-limit", "canary", "header-routing"]),
    ("proxy_on_response_headers", &["rate-limit", "canary", "header-routing"]),
    ("proxy_on_response_trailers", &["canary", "header-routing"]),
];

/// Something that a list of capabilities does to our module.
pub struct CapabilityRemark {
    /// The path below the plugin.
    pub path: String,
    /// What happens.
    pub message: String,
    /// What would be right.
    pub help: String,
    /// Whether Envoy refuses it.
    pub is_error: bool,
}

/// What the list of a plugin with one of our modules leaves out. An empty list allows everything.
pub fn remark(plugin: &Node) -> Option<CapabilityRemark> {
    let (field, restriction) =
        plugin::either(plugin, ["capability_restriction_config", "capabilityRestrictionConfig"])?;
    let (list, Node::Map(allowed)) = plugin::either(restriction, ["allowed_capabilities", "allowedCapabilities"])?
    else {
        return None;
    };
    if allowed.is_empty() {
        return None;
    }
    let is_allowed = |name: &str| allowed.iter().any(|(known, _)| known == name);
    let module = plugin::claim(plugin).module().unwrap_or(Module::Suite);
    let of_some = OF_SOME.iter().filter(|(_, modules)| module == Module::Suite || modules.contains(&module.name()));
    let needed = [TO_START].into_iter().chain(OF_ALL).chain(of_some.map(|(name, _)| *name));
    let missing: Vec<&str> = needed.filter(|name| !is_allowed(name)).collect();
    missing.first()?;
    let is_read = is_allowed("proxy_on_configure") && is_allowed("proxy_on_context_create");
    let cannot_start = is_read && !is_allowed(TO_START);
    let message = match () {
        () if cannot_start => {
            format!("`{TO_START}` is missing, without which the module cannot read its policy: Envoy does not start")
        }
        () if !is_allowed("proxy_on_request_headers") => {
            "`proxy_on_request_headers` is missing: every request passes without the filter".to_owned()
        }
        () => format!(
            "the module needs calls that are missing here, and cannot do what they are for: {}",
            names(&missing)
        ),
    };
    let help = match missing.len() {
        1 => "add it, or leave the restriction out".to_owned(),
        _ => format!("leave the restriction out, or add {}", names(&missing)),
    };
    Some(CapabilityRemark { path: join(field, list), message, help, is_error: cannot_start })
}

fn names(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    fn said(module: &str, without: &[&str]) -> Option<(String, bool)> {
        let all = std::iter::once(&TO_START).chain(&OF_ALL).chain(OF_SOME.iter().map(|(name, _)| name));
        let all: Vec<String> = all.filter(|name| !without.contains(name)).map(|name| format!("{name}: {{}}")).collect();
        plugin(module, &format!("{{{}}}", all.join(", ")))
    }

    fn plugin(module: &str, allowed: &str) -> Option<(String, bool)> {
        let yaml = format!(
            "{{vm_config: {{code: {{local: {{filename: /penstock/{module}.wasm}}}}}}, capabilityRestrictionConfig: {{allowed_capabilities: {allowed}}}}}"
        );
        let remark = remark(&Located::read(&yaml).unwrap().node)?;
        assert_eq!(remark.path, "capabilityRestrictionConfig.allowed_capabilities");
        Some((remark.message, remark.is_error))
    }

    #[test]
    fn a_list_that_hides_requests_from_the_module_is_reported() {
        assert_eq!(said("suite", &[]), None);
        assert_eq!(plugin("suite", "{}"), None);
        let (message, is_error) = said("suite", &["proxy_on_request_headers"]).unwrap();
        assert!(message.contains("every request passes without the filter") && !is_error, "{message}");
        let (message, is_error) = plugin("suite", "{proxy_log: {}}").unwrap();
        assert!(message.contains("every request passes without the filter") && !is_error, "{message}");
        let (message, is_error) = said("suite", &["proxy_on_grpc_receive"]).unwrap();
        assert!(message.contains("`proxy_on_grpc_receive`") && !is_error, "{message}");
    }

    #[test]
    fn a_module_that_cannot_read_its_policy_does_not_start() {
        let (message, is_error) = said("suite", &[TO_START]).unwrap();
        assert!(message.contains(TO_START) && is_error, "{message}");
        // Envoy does not call it, so it refuses nothing.
        assert!(!said("suite", &[TO_START, "proxy_on_configure"]).unwrap().1);
        // Only some policies need it to start.
        let (message, is_error) = said("suite", &["random_get"]).unwrap();
        assert!(message.contains("random_get") && !is_error, "{message}");
    }

    #[test]
    fn a_module_needs_its_own_calls_only() {
        assert_eq!(said("egress-allowlist", &["proxy_on_response_headers", "proxy_grpc_call"]), None);
        assert_eq!(said("canary", &["proxy_on_new_connection"]), None);
        assert!(said("canary", &["proxy_on_response_trailers"]).is_some());
    }
}
