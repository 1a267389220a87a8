//! Settings of our filter for single routes and virtual hosts: Envoy's `typed_per_filter_config`. It can turn a filter
//! off, and give it another configuration, which neither body of ours takes.

use std::collections::HashMap;
use std::ops::Range;

use penstock_policy::document::Node;

use super::envoy_fields::{self, NATIVE_PER_ROUTE_TYPE, WASM_TYPE};
use super::matchers;
use super::path::join;
use super::plugin::{self, PluginOwner};

/// What a document's routes say about its filters.
#[derive(Default)]
pub struct RouteSettings {
    /// With the object that says it.
    all: Vec<(String, RouteSetting)>,
    /// The policies whose filter is `disabled`, and the path of that field.
    disabled: HashMap<usize, String>,
}

/// A report on a setting.
pub struct RouteRemark {
    pub resource: String,
    /// The policy that it is about, if the document has it.
    pub policy: Option<usize>,
    pub path: String,
    pub is_error: bool,
    pub message: String,
    pub help: String,
}

/// What a route says about a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RouteSetting {
    filter: String,
    path: String,
    kind: RouteSettingKind,
    /// Whether the setting itself names code of ours.
    is_ours: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RouteSettingKind {
    /// The filter does not run.
    Off,
    /// The filter does not run for some requests.
    Skipping,
    /// The filter runs though it is `disabled` where it stands.
    On,
    /// The filter has another configuration.
    Configured,
    /// It says nothing.
    Empty,
}

impl RouteSettings {
    /// Notes the settings of a route.
    pub fn add(&mut self, resource: &str, entries: &[(String, Node)], path: &str) {
        self.all.extend(settings(entries, path).into_iter().map(|setting| (resource.to_owned(), setting)));
    }

    /// Notes whether a filter with these policies is disabled where it stands.
    pub fn filter(&mut self, filter: &Node, path: &str, policies: Range<usize>) {
        if filter.get("disabled").is_some_and(envoy_fields::is_true) {
            self.disabled.extend(policies.map(|number| (number, join(path, "disabled"))));
        }
    }

    /// Reports on the settings that are about our filters: those with a policy, by number and name, and others that are
    /// called like ours.
    pub fn remarks(self, filters: &[(usize, &str)]) -> Vec<RouteRemark> {
        let mut remarks = Vec::new();
        for (number, filter) in filters {
            let is_on = |(_, setting): &(String, RouteSetting)| {
                setting.filter == *filter && setting.kind != RouteSettingKind::Off
            };
            if let Some(path) = self.disabled.get(number)
                && !self.all.iter().any(is_on)
            {
                remarks.push(RouteRemark {
                    resource: String::new(),
                    policy: Some(*number),
                    path: path.clone(),
                    is_error: false,
                    message: "the filter is off, and no route here turns it on: every request passes without it"
                        .to_owned(),
                    help: "leave `disabled` out".to_owned(),
                });
            }
        }
        for (resource, setting) in self.all {
            let policy = filters.iter().find(|(_, filter)| *filter == setting.filter).map(|(number, _)| *number);
            if policy.is_none() && !setting.is_ours && !is_called_ours(&setting.filter) {
                continue;
            }
            let (is_error, message, help) = match setting.kind {
                RouteSettingKind::On => continue,
                RouteSettingKind::Off => (
                    false,
                    "requests of this route pass without the filter: no limit, no allowlist, and no header is removed",
                    "leave it out, and restrict the policy to the requests that it is for",
                ),
                RouteSettingKind::Skipping => (
                    false,
                    "requests of this route for which its matcher says `SkipFilter` pass without the filter",
                    "leave it out, and restrict the policy to the requests that it is for",
                ),
                RouteSettingKind::Empty => (
                    true,
                    "it has neither `config` nor `disabled: true`, so Envoy refuses it and does not start",
                    "leave it out, or turn a filter on that is `disabled` where it stands: `config: {}`",
                ),
                RouteSettingKind::Configured => (
                    true,
                    "the filter takes no configuration of a route, so Envoy refuses it and does not start",
                    "put the difference into the filter's own policy: `matches` has hosts and paths",
                ),
            };
            let (message, help) = (message.to_owned(), help.to_owned());
            remarks.push(RouteRemark { resource, policy, path: setting.path, is_error, message, help });
        }
        remarks
    }
}

/// The settings of one route.
fn settings(entries: &[(String, Node)], path: &str) -> Vec<RouteSetting> {
    entries
        .iter()
        .map(|(filter, config)| {
            let is_wrapped = kind_of(config) == WRAPPER;
            let inner = if is_wrapped { config.get("config").unwrap_or(&Node::Null) } else { config };
            let kind = match kind_of(inner) {
                _ if is_wrapped && config.get("disabled").is_some_and(envoy_fields::is_true) => RouteSettingKind::Off,
                _ if is_wrapped && matches!(config.get("config"), None | Some(Node::Null)) => RouteSettingKind::Empty,
                // Envoy ignores an optional configuration that a filter does not take.
                WASM_TYPE | NATIVE_PER_ROUTE_TYPE if !(is_wrapped && is_optional(config)) => {
                    RouteSettingKind::Configured
                }
                _ if matchers::skips(inner) => RouteSettingKind::Skipping,
                _ => RouteSettingKind::On,
            };
            let plugin = inner.get("config").unwrap_or(inner);
            let is_ours = kind == RouteSettingKind::Configured && matches!(plugin::claim(plugin), PluginOwner::Ours(_));
            RouteSetting { filter: filter.clone(), path: join(path, filter), kind, is_ours }
        })
        .collect()
}

fn is_optional(config: &Node) -> bool {
    ["is_optional", "isOptional"].iter().any(|field| config.get(field).is_some_and(envoy_fields::is_true))
}

const WRAPPER: &str = "envoy.config.route.v3.FilterConfig";

/// Whether a filter has our name, alone or as the object of which Istio or Envoy Gateway has made it.
fn is_called_ours(filter: &str) -> bool {
    filter.split(['/', '.']).any(plugin::is_ours)
}

fn kind_of(config: &Node) -> &str {
    match config.get("@type") {
        Some(Node::String(type_url)) => type_url.rsplit('/').next().unwrap_or_default(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    #[test]
    fn a_route_turns_a_filter_off_or_on_or_configures_it() {
        let plugin = "config: {vm_config: {code: {local: {filename: /x/penstock/suite.wasm}}}}";
        for (config, kind, is_ours) in [
            (format!("{{\"@type\": t/{WRAPPER}, disabled: true}}"), RouteSettingKind::Off, false),
            (format!("{{\"@type\": t/{WRAPPER}, config: {{}}}}"), RouteSettingKind::On, false),
            (
                "{\"@type\": t/a.ExtensionWithMatcherPerRoute, xds_matcher: {on_no_match: {action: {typed_config: {\"@type\": t/a.SkipFilter}}}}}"
                    .to_owned(),
                RouteSettingKind::Skipping,
                false,
            ),
            (format!("{{\"@type\": t/{WRAPPER}}}"), RouteSettingKind::Empty, false),
            (format!("{{\"@type\": t/{WRAPPER}, disabled: false}}"), RouteSettingKind::Empty, false),
            (
                format!("{{\"@type\": t/{WRAPPER}, isOptional: true, config: {{\"@type\": t/{WASM_TYPE}, {plugin}}}}}"),
                RouteSettingKind::On,
                false,
            ),
            (format!("{{\"@type\": t/{WASM_TYPE}, {plugin}}}"), RouteSettingKind::Configured, true),
            (
                format!("{{\"@type\": t/{WRAPPER}, config: {{\"@type\": t/{WASM_TYPE}, {plugin}}}}}"),
                RouteSettingKind::Configured,
                true,
            ),
            (
                format!("{{\"@type\": t/{NATIVE_PER_ROUTE_TYPE}, dynamic_module_config: {{name: waf}}}}"),
                RouteSettingKind::Configured,
                false,
            ),
        ] {
            let Node::Map(entries) = Located::read(&format!("{{penstock: {config}}}")).unwrap().node else { panic!() };
            let expected = RouteSetting { filter: "penstock".into(), path: "r.penstock".into(), kind, is_ours };
            assert_eq!(settings(&entries, "r"), [expected], "{config}");
        }
    }
}
