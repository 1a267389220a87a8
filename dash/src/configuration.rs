//! Reads from an Envoy's configuration dump what the page shows: the policies and the destinations of routes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::sample::RunningPolicy;

/// Longer names of nodes, namespaces, plugins and routes are truncated, because they may be hostile.
const LONGEST_NAME: usize = 253;

/// The maximum number of policies and routes that are stored for an Envoy.
const MOST_POLICIES: usize = 100;
const MOST_ROUTES: usize = 5_000;

/// The fields that identify a map as a policy.
const SECTIONS: [&str; 5] = ["settings", "egress", "rateLimits", "routes", "canaries"];

/// The part of an Envoy's configuration that is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvoyConfiguration {
    /// The policies.
    pub policies: Vec<RunningPolicy>,
    /// The Envoy routes that match the route header: from the route's name to its cluster.
    pub routes: BTreeMap<String, String>,
    /// Settings that break a guarantee of one of the policies.
    pub warnings: Vec<String>,
}

/// The context of a place in a configuration.
#[derive(Clone, Copy, Default)]
struct SurroundingNames<'v> {
    /// The nearest enclosing name, and the one around it: a plugin's, and its filter's.
    names: [Option<&'v str>; 2],
    /// The prefix of the connection manager's counters.
    listener: Option<&'v str>,
}

/// A policy with what its name is made of.
struct DumpPolicy {
    policy: RunningPolicy,
    filter: Option<String>,
}

#[derive(Default)]
struct ConfigurationSearch {
    found: Vec<DumpPolicy>,
    routes: BTreeMap<String, String>,
    /// The listeners of each filter whose configuration is discovered.
    discovered: BTreeMap<String, BTreeSet<String>>,
}

/// A name, truncated when it is long.
pub(crate) fn short(name: &str) -> String {
    name.chars().take(LONGEST_NAME).collect()
}

impl EnvoyConfiguration {
    /// Reads a dump.
    pub fn of(dump: &Value, warnings: Vec<String>) -> EnvoyConfiguration {
        let mut search = ConfigurationSearch::default();
        search.value(dump, SurroundingNames::default());
        for found in &mut search.found {
            let listeners = found.filter.as_ref().and_then(|filter| search.discovered.get(filter));
            found.policy.listeners.extend(listeners.into_iter().flatten().cloned());
        }
        let mut policies: Vec<RunningPolicy> = search.found.into_iter().map(|found| found.policy).collect();
        name_apart(&mut policies);
        EnvoyConfiguration { policies, routes: search.routes, warnings }
    }

    /// Names that several plugins share in metrics; an empty name for plugins without one.
    pub fn shared_names(&self) -> BTreeSet<&str> {
        let named = |name: &str| self.policies.iter().filter(|policy| policy.metrics == name).count();
        self.policies.iter().map(|policy| policy.metrics.as_str()).filter(|name| named(name) > 1).collect()
    }
}

/// Makes the names of plugins unique, by their listeners, or else by numbers.
fn name_apart(policies: &mut [RunningPolicy]) {
    let mut taken = BTreeSet::new();
    for place in 0..policies.len() {
        let Some(policy) = policies.get(place) else { break };
        let own = if policy.metrics.is_empty() { "(no name)" } else { &policy.metrics };
        let is_shared = policies.iter().filter(|other| other.metrics == policy.metrics).count() > 1;
        let listeners = policy.listeners.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let base = if is_shared && !listeners.is_empty() { format!("{own} ({listeners})") } else { own.to_owned() };
        let mut numbered = (2..).map(|number| format!("{base} #{number}"));
        let mut name = base.clone();
        while !taken.insert(name.clone()) {
            name = numbered.next().unwrap_or_default();
        }
        if let Some(policy) = policies.get_mut(place) {
            policy.plugin = name;
        }
    }
}

impl ConfigurationSearch {
    fn value<'v>(&mut self, value: &'v Value, around: SurroundingNames<'v>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.value(item, around)),
            Value::Object(fields) => {
                let text = |field: &str| fields.get(field).and_then(Value::as_str);
                // The native body's `filter_name` is `<module>/<plugin>`.
                let own = text("filter_name").map(|own| own.split_once('/').map_or("", |(_, plugin)| plugin));
                let around = SurroundingNames {
                    names: match own.or(text("name")) {
                        Some(name) => {
                            let [nearest, _] = around.names;
                            [Some(name), nearest]
                        }
                        None => around.names,
                    },
                    listener: text("stat_prefix").or(around.listener),
                };
                if let (Some(_), Some(filter), Some(listener)) =
                    (fields.get("config_discovery"), text("name"), around.listener)
                {
                    self.discovered.entry(short(filter)).or_default().insert(short(listener));
                }
                // The plugin's configuration: JSON in a StringValue, or a Struct.
                let wasm = fields.get("configuration").filter(|_| fields.contains_key("vm_config"));
                let native = fields.get("filter_config").filter(|_| fields.contains_key("dynamic_module_config"));
                if let Some(configuration) = wasm.or(native) {
                    let text_or_map = configuration.get("value").unwrap_or(configuration);
                    let document = match text_or_map {
                        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
                        other => other.clone(),
                    };
                    if SECTIONS.iter().any(|section| document.get(section).is_some()) {
                        self.policy(document, own.or(text("name")), around);
                    }
                }
                self.route(value);
                for (key, below) in fields {
                    if !["configuration", "vm_config", "filter_config"].contains(&key.as_str()) {
                        self.value(below, around);
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds a policy. A policy that occurs in several places of the configuration is one policy with several listeners.
    fn policy(&mut self, document: Value, name: Option<&str>, around: SurroundingNames<'_>) {
        let metrics = short(name.unwrap_or_default());
        let listener = around.listener.map(short);
        let known = |found: &&mut DumpPolicy| found.policy.metrics == metrics && found.policy.document == document;
        if let Some(found) = self.found.iter_mut().find(known) {
            found.policy.listeners.extend(listener);
            return;
        }
        if self.found.len() >= MOST_POLICIES {
            return;
        }
        let listeners = listener.into_iter().collect();
        let [nearest, outer] = around.names;
        let filter = if name.is_some() { outer } else { nearest }.map(short);
        self.found
            .push(DumpPolicy { policy: RunningPolicy { plugin: String::new(), metrics, listeners, document }, filter });
    }

    /// An Envoy route that matches a route header. Every exact header match counts as a route's name, whatever the
    /// header's name is.
    fn route(&mut self, route: &Value) {
        let Some(cluster) = route.pointer("/route/cluster").and_then(Value::as_str) else { return };
        let headers = route.pointer("/match/headers").and_then(Value::as_array);
        for header in headers.into_iter().flatten() {
            let exact = header.pointer("/string_match/exact").or_else(|| header.get("exact_match"));
            if let Some(name) = exact.and_then(Value::as_str).filter(|_| self.routes.len() < MOST_ROUTES) {
                self.routes.insert(short(name), short(cluster));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(name: Option<&str>, policy: &Value) -> Value {
        let mut config =
            json!({"vm_config": {"code": {}}, "configuration": {"@type": "…StringValue", "value": policy.to_string()}});
        if let Some(name) = name {
            config["name"] = json!(name);
        }
        json!({"name": "envoy.filters.http.wasm", "typed_config": {"config": config}})
    }

    fn manager(prefix: &str, filters: Value) -> Value {
        json!({"typed_config": {"stat_prefix": prefix, "http_filters": filters}})
    }

    fn named(dump: &Value) -> Vec<(String, String, Vec<String>)> {
        let policies = EnvoyConfiguration::of(dump, vec![]).policies.into_iter();
        policies.map(|one| (one.plugin, one.metrics, one.listeners.into_iter().collect())).collect()
    }

    #[test]
    fn a_policy_is_found_as_text_and_as_a_struct_with_the_plugins_name() {
        let of = |name: &str, configuration: Value| {
            json!({"name": "envoy.filters.http.wasm", "typed_config":
                {"config": {"name": name, "vm_config": {"code": {}}, "configuration": configuration}}})
        };
        let dump = json!({"configs": [
            {"dynamic_listeners": [of("a", json!({"@type": "…StringValue", "value": r#"{"canaries": []}"#}))]},
            {"ecds_filters": [of("b", json!({"egress": {}})), of("not-ours", json!({"value": "debug"}))]},
        ]});
        let native = json!({"name": "x", "typed_config": {"dynamic_module_config": {"name": "penstock"},
            "filter_name": "suite/c", "filter_config": {"@type": "…StringValue", "value": r#"{"routes": {}}"#}}});
        let names: Vec<String> = named(&json!([dump, native])).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn two_plugins_of_one_name_or_none_are_two_and_a_policy_in_two_places_is_one() {
        let [a, b, c] = ["a", "b", "c"].map(|route| json!({"routes": {"default": route}}));
        let penstock = |policy| plugin(Some("penstock"), policy);
        let dump = json!({"bootstrap": [manager("in", json!([penstock(&a)]))], "listeners": [
            manager("in", json!([penstock(&a), plugin(None, &c)])),
            manager("out", json!([penstock(&b), plugin(None, &a), penstock(&c)])),
            manager("other", json!([plugin(Some("alone"), &a)])),
            manager("another", json!([plugin(Some("alone"), &a)])),
        ]});
        let name = |plugin: &str, metrics: &str, listeners: &[&str]| {
            (plugin.to_owned(), metrics.to_owned(), listeners.iter().map(|&one| one.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            named(&dump),
            [
                name("penstock (in)", "penstock", &["in"]),
                name("(no name) (in)", "", &["in"]),
                name("penstock (out)", "penstock", &["out"]),
                name("(no name) (out)", "", &["out"]),
                name("penstock (out) #2", "penstock", &["out"]),
                name("alone", "alone", &["another", "other"]),
            ]
        );
        assert_eq!(
            EnvoyConfiguration::of(&dump, vec![]).shared_names().into_iter().collect::<Vec<_>>(),
            ["", "penstock"]
        );
    }

    #[test]
    fn a_discovered_filter_stands_in_the_listeners_that_name_it() {
        let discovered = json!({"name": "edge", "config_discovery": {"config_source": {}}});
        let filter = json!({"name": "edge", "typed_config": {"config":
            {"name": "penstock", "vm_config": {}, "configuration": {"value": r#"{"routes": {}}"#}}}});
        let dump =
            json!({"listeners": [manager("in", json!([discovered]))], "ecds_filters": [{"ecds_filter": filter}]});
        assert_eq!(named(&dump), [("penstock".to_owned(), "penstock".to_owned(), vec!["in".to_owned()])]);
    }

    #[test]
    fn a_route_by_header_leads_to_its_cluster() {
        let dump = json!({"routes": [
            {"match": {"prefix": "/", "headers": [{"name": "x-penstock-route", "string_match": {"exact": "v2"}}]}, "route": {"cluster": "reviews-v2"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "other"}}]});
        let found = EnvoyConfiguration::of(&dump, vec![]);
        assert_eq!(found.routes.into_iter().collect::<Vec<_>>(), [("v2".to_owned(), "reviews-v2".to_owned())]);
    }

    #[test]
    fn policies_routes_and_names_are_bounded() {
        let plugins: Vec<Value> = (0..2 * MOST_POLICIES)
            .map(|number| plugin(Some(&"x".repeat(1_000)), &json!({"routes": {"default": number.to_string()}})))
            .collect();
        let routes: Vec<Value> = (0..MOST_ROUTES + 9)
            .map(|number| json!({"match": {"headers": [{"exact_match": number.to_string()}]}, "route": {"cluster": "c"}}))
            .collect();
        let found = EnvoyConfiguration::of(&json!([plugins, routes]), vec![]);
        assert_eq!((found.policies.len(), found.routes.len()), (MOST_POLICIES, MOST_ROUTES));
        assert_eq!(found.policies[0].metrics.len(), LONGEST_NAME);
    }
}
