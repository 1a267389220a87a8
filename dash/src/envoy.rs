//! Looks at one Envoy through its admin interface. Only GET, and of the statistics only those that are shown.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::labels::plain_name;
use crate::sample::{Identity, RunningPolicy, Sample};

/// Statistics that are shown: Envoy filters them, so that it does not write thousands of others each second.
const FILTER: &str = r"^(wasmcustom\.penstock\.|cluster\..*\.upstream_rq_(total|5xx|timeout)$|cluster\..*\.upstream_cx_connect_fail$|http\..*\.downstream_rq_(total|5xx)$)";

/// No admin page that is read here is larger, not even a configuration with 100,000 rules.
const MOST_BYTES: u64 = 256 << 20;

/// What is doubtful in a configuration dump, a sentence each.
pub type FindWarnings = fn(&str) -> Vec<String>;

/// One Envoy.
#[derive(Debug)]
pub struct EnvoyAdmin {
    url: String,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Stats {
    stats: Vec<Stat>,
}

/// Histograms have no name.
#[derive(Deserialize)]
struct Stat {
    name: Option<Box<str>>,
    value: Option<Value>,
}

/// An agent for sources, none of whose answers may take longer than `timeout`.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("penstock-dash/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

impl EnvoyAdmin {
    /// An Envoy whose admin interface is at `url`.
    pub fn new(url: &str, timeout: Duration) -> EnvoyAdmin {
        EnvoyAdmin { url: url.trim_end_matches('/').to_owned(), agent: agent(timeout) }
    }

    /// The numbers now.
    ///
    /// # Errors
    /// When it does not answer, or not as Envoy does.
    pub fn sample(&self) -> Result<Sample> {
        let page = self.get(&format!("/stats?format=json&usedonly&filter={}", encode(FILTER)))?;
        let stats: Stats = serde_json::from_slice(&page).context("/stats is not what Envoy writes")?;
        let mut sample = Sample::default();
        for stat in stats.stats {
            let (Some(name), Some(value)) = (stat.name, stat.value.as_ref().and_then(Value::as_f64)) else { continue };
            match plain_name(&name).strip_prefix("wasmcustom.penstock.") {
                Some(name) => sample.add(name, value),
                None => {
                    sample.traffic.insert(name, value as u64);
                }
            }
        }
        Ok(sample)
    }

    /// Who it is.
    ///
    /// # Errors
    /// When it does not answer, or not as Envoy does.
    pub fn identity(&self) -> Result<Identity> {
        let page: Value = serde_json::from_slice(&self.get("/server_info")?)?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let uptime = text(page.get("uptime_current_epoch"));
        Ok(Identity {
            // commit/version/…
            version: text(page.get("version")).and_then(|text| text.split('/').nth(1).map(str::to_owned)),
            node: text(page.pointer("/node/id")),
            namespace: text(page.pointer("/node/metadata/NAMESPACE")),
            uptime: uptime.and_then(|text| text.trim_end_matches('s').split('.').next()?.parse().ok()),
        })
    }

    /// The policies in its configuration, and where its routes go: from a route's name to a cluster.
    ///
    /// # Errors
    /// When it does not answer, or not as Envoy does.
    pub fn configuration(&self, find_warnings: FindWarnings) -> Result<EnvoyConfiguration> {
        let page = self.get("/config_dump")?;
        let dump: Value = serde_json::from_slice(&page)?;
        let warnings = std::str::from_utf8(&page).map_or_else(|_| Vec::new(), find_warnings);
        let mut found = EnvoyConfiguration { warnings, ..EnvoyConfiguration::default() };
        found.search(&dump, None);
        Ok(found)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut response = self.agent.get(format!("{}{path}", self.url)).call()?;
        Ok(response.body_mut().with_config().limit(MOST_BYTES).read_to_vec()?)
    }
}

/// A query's value. Only what [`FILTER`] has needs it.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
        out
    })
}

/// What of an Envoy's configuration is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvoyConfiguration {
    /// The policies.
    pub policies: Vec<RunningPolicy>,
    /// Where Envoy's routes go that ask for the policy's route: name, then cluster.
    pub routes: BTreeMap<String, String>,
    /// Settings that break a promise of one of the policies.
    pub warnings: Vec<String>,
}

/// The fields by which a map is known as a policy.
const SECTIONS: [&str; 5] = ["settings", "egress", "rateLimits", "routes", "canaries"];

impl EnvoyConfiguration {
    fn search(&mut self, value: &Value, filter: Option<&str>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.search(item, filter)),
            Value::Object(fields) => {
                let name = fields.get("name").and_then(Value::as_str).or(filter);
                // The native body's: `filter_name` is `<module>/<plugin>`.
                let native = || fields.get("filter_config").filter(|_| fields.contains_key("dynamic_module_config"));
                let own_name = fields.get("filter_name").and_then(Value::as_str);
                let name = own_name.map(|own| own.split_once('/').map_or(own, |(_, plugin)| plugin)).or(name);
                // The plugin's configuration: JSON in a StringValue, or a Struct.
                let configuration = fields.get("configuration").filter(|_| fields.contains_key("vm_config"));
                if let Some(configuration) = configuration.or_else(native) {
                    let text = configuration.get("value").unwrap_or(configuration);
                    let document = match text {
                        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
                        other => other.clone(),
                    };
                    if SECTIONS.iter().any(|section| document.get(section).is_some()) {
                        let plugin = name.unwrap_or_default().to_owned();
                        self.policies.push(RunningPolicy { plugin, document });
                    }
                }
                self.route(value);
                for (key, below) in fields {
                    if !["configuration", "vm_config", "filter_config"].contains(&key.as_str()) {
                        self.search(below, name);
                    }
                }
            }
            _ => {}
        }
    }

    /// A route of Envoy's that wants a route header: what every such header match compares with is taken for a route's
    /// name, whatever the header is called.
    fn route(&mut self, route: &Value) {
        let Some(cluster) = route.pointer("/route/cluster").and_then(Value::as_str) else { return };
        let headers = route.pointer("/match/headers").and_then(Value::as_array);
        for header in headers.into_iter().flatten() {
            let exact = header.pointer("/string_match/exact").or_else(|| header.get("exact_match"));
            if let Some(name) = exact.and_then(Value::as_str) {
                self.routes.insert(name.to_owned(), cluster.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_found_as_text_and_as_a_struct_with_the_plugins_name() {
        let plugin = |name: &str, configuration: Value| {
            json!({"name": "envoy.filters.http.wasm", "typed_config":
                {"config": {"name": name, "vm_config": {"code": {}}, "configuration": configuration}}})
        };
        let dump = json!({"configs": [
            {"dynamic_listeners": [plugin("a", json!({"@type": "…StringValue", "value": r#"{"canaries": []}"#}))]},
            {"ecds_filters": [plugin("b", json!({"egress": {}})), plugin("not-ours", json!({"value": "debug"}))]},
        ]});
        let native = json!({"name": "x", "typed_config": {"dynamic_module_config": {"name": "penstock"},
            "filter_name": "suite/c", "filter_config": {"@type": "…StringValue", "value": r#"{"routes": {}}"#}}});
        let dump = json!([dump, native]);
        let mut found = EnvoyConfiguration::default();
        found.search(&dump, None);
        let plugins: Vec<_> = found.policies.iter().map(|policy| policy.plugin.as_str()).collect();
        assert_eq!(plugins, ["a", "b", "c"]);
    }

    #[test]
    fn a_route_by_header_leads_to_its_cluster() {
        let dump = json!({"routes": [
            {"match": {"prefix": "/", "headers": [{"name": "x-penstock-route", "string_match": {"exact": "v2"}}]}, "route": {"cluster": "reviews-v2"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "other"}}]});
        let mut found = EnvoyConfiguration::default();
        found.search(&dump, None);
        assert_eq!(found.routes.into_iter().collect::<Vec<_>>(), [("v2".to_owned(), "reviews-v2".to_owned())]);
    }

    #[test]
    fn the_filter_is_a_query_that_needs_no_further_encoding() {
        assert!(encode(FILTER).bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%-._~".contains(&byte)));
        assert_eq!(encode("a+b&c"), "a%2Bb%26c");
    }
}
