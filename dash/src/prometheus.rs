//! Polls proxies through a Prometheus that scrapes them: each of its instances is a proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::names;
use crate::sample::Sample;

/// The query for every series that is shown.
const QUERY: &str = r#"{__name__=~"penstock_.+|envoy_cluster_upstream_rq_total|envoy_cluster_upstream_rq_xx|envoy_http_downstream_rq_total"}"#;

/// The query for the age of each instance's last scrape: Prometheus repeats old values for five minutes, with the present
/// time. Every Envoy has one of these series.
const AGES: &str = r#"time() - max by (instance) (timestamp({__name__=~"penstock_policy_hash|envoy_http_downstream_rq_total|envoy_server_live"}))"#;

/// The largest response in bytes: a hundred proxies with a thousand rules each make 60 MB.
const MOST_BYTES: u64 = 128 << 20;

/// One Prometheus.
#[derive(Debug)]
pub struct PrometheusClient {
    url: String,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct QueryAnswer {
    status: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<PrometheusSeries>,
}

#[derive(Deserialize)]
struct PrometheusSeries {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

impl PrometheusClient {
    /// A Prometheus at `url`.
    pub fn new(url: &str, timeout: Duration) -> PrometheusClient {
        PrometheusClient { url: url.trim_end_matches('/').to_owned(), agent: crate::envoy::agent(timeout) }
    }

    /// Fetches the current metrics of each instance.
    ///
    /// # Errors
    /// Returns an error when it does not respond, or when the response is not Prometheus'.
    pub fn samples(&self) -> Result<BTreeMap<String, Sample>> {
        let mut samples = samples(self.query(QUERY)?);
        for series in self.query(AGES)? {
            let instance = series.metric.get("instance").map_or("", String::as_str);
            if let (Some(sample), Ok(age)) = (samples.get_mut(instance), series.value.1.parse::<f64>()) {
                sample.age = age.max(0.0);
            }
        }
        Ok(samples)
    }

    fn query(&self, query: &str) -> Result<Vec<PrometheusSeries>> {
        let request = self.agent.get(format!("{}/api/v1/query", self.url)).query("query", query);
        let body = request.call()?.body_mut().with_config().limit(MOST_BYTES).read_to_vec()?;
        let answer: QueryAnswer =
            serde_json::from_slice(&body).context("/api/v1/query is not in Prometheus' format")?;
        ensure!(answer.status == "success", "Prometheus answered {}", answer.status);
        Ok(answer.data.result)
    }
}

fn samples(series: Vec<PrometheusSeries>) -> BTreeMap<String, Sample> {
    let mut samples = BTreeMap::<String, Sample>::new();
    for PrometheusSeries { metric, value } in series {
        let label = |name: &str| metric.get(name).map_or("", String::as_str);
        let Ok(value) = value.1.parse::<f64>() else { continue };
        let instance = label("instance");
        let sample = match samples.get_mut(instance) {
            Some(sample) => sample,
            None => samples.entry(instance.to_owned()).or_default(),
        };
        let cluster = label("envoy_cluster_name");
        match label("__name__") {
            "envoy_cluster_upstream_rq_total" => {
                sample.add_traffic(format!("cluster.{cluster}.upstream_rq_total").into(), value as u64);
            }
            "envoy_http_downstream_rq_total" => {
                let prefix = label("envoy_http_conn_manager_prefix");
                sample.add_traffic(format!("http.{prefix}.downstream_rq_total").into(), value as u64);
            }
            "envoy_cluster_upstream_rq_xx" if label("envoy_response_code_class") == "5" => {
                sample.add_traffic(format!("cluster.{cluster}.upstream_rq_5xx").into(), value as u64);
            }
            name => {
                let metric = name.strip_prefix("penstock_").unwrap_or(name);
                // A module of another version may have other labels.
                let has_labels = metric != "policy_hash" || !label("plugin").is_empty();
                match names::key(metric, label).filter(|_| has_labels) {
                    Some(key) => sample.add(&key, value),
                    None => sample.is_of_another_version |= !has_labels || !names::is_known(histogram(metric)),
                }
            }
        }
    }
    for sample in samples.values_mut() {
        // Recording rules of the user may have such names, too.
        let reports = sample.plugins().next().is_some();
        sample.is_of_another_version &= !reports;
    }
    samples
}

/// The name of the histogram that a series belongs to, or the series' own name.
fn histogram(metric: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_become_the_names_that_envoy_has() -> Result<()> {
        let series = |labels: serde_json::Value, value: &str| json!({"metric": labels, "value": [0.5, value]});
        let result = serde_json::from_value(json!([
            series(
                json!({"__name__": "penstock_requests_total", "instance": "a", "section": "egress", "rule": "stripe", "outcome": "denied"}),
                "3"
            ),
            series(json!({"__name__": "penstock_policy_hash", "instance": "a", "plugin": "suite"}), "281474976710655"),
            series(
                json!({"__name__": "penstock_breaker_state", "instance": "a", "section": "canaries", "rule": "r", "variant": "v2"}),
                "2"
            ),
            series(
                json!({"__name__": "penstock_variant_weight", "instance": "b", "rule": "r", "variant": "v2"}),
                "100"
            ),
            series(
                json!({"__name__": "envoy_cluster_upstream_rq_xx", "instance": "b", "envoy_cluster_name": "c", "envoy_response_code_class": "5"}),
                "9"
            ),
        ]))?;
        let samples = samples(result);
        let (a, b) = (samples.get("a").context("a")?, samples.get("b").context("b")?);
        assert_eq!(a.counters.get("egress.stripe.denied"), Some(&3));
        assert_eq!(a.gauge("policy.suite.hash"), Some(281_474_976_710_655.0));
        assert_eq!(a.gauge("breakers.canaries/r.v2"), Some(2.0));
        assert_eq!(b.gauge("weights.r.v2"), Some(100.0));
        assert_eq!(b.traffic.get("cluster.c.upstream_rq_5xx"), Some(&9));
        Ok(())
    }

    #[test]
    fn a_proxy_whose_metrics_have_other_names_runs_a_module_of_another_version() -> Result<()> {
        let series = |name: &str, instance: &str, label: &str| json!({"metric": {"__name__": name, "instance": instance, label: "edge"}, "value": [0.5, "1"]});
        let result = serde_json::from_value(json!([
            series("penstock_policy_hash", "old", "penstock_rule"),
            series("penstock_rateLimits", "older", "penstock_rule"),
            // Names of an earlier version, recorded by a rule, beside the present ones.
            series("penstock_policy_hash", "new", "plugin"),
            series("penstock_rateLimits", "new", "penstock_rule"),
            series("penstock_decision_duration_nanos_bucket", "none", "plugin"),
        ]))?;
        let samples = samples(result);
        let other: Vec<_> =
            samples.iter().map(|(name, sample)| (name.as_str(), sample.is_of_another_version)).collect();
        assert_eq!(other, [("new", false), ("none", false), ("old", true), ("older", true)]);
        Ok(())
    }
}
