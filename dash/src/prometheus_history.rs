//! Rates and changes over a longer time, from a Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::history::{HistoryMark, HistoryRates, MarkKind};

/// The maximum number of points in a chart.
pub const MOST_POINTS: usize = 300;

/// The minimum step in seconds, which is Prometheus' usual scrape interval.
const SHORTEST_STEP: f64 = 15.0;

/// The largest response in bytes.
const MOST_BYTES: u64 = 8 << 20;

/// The maximum number of changes that are shown.
const MOST_MARKS: usize = 500;

/// A range in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct HistoryRange {
    /// The start.
    pub from: f64,
    /// The end.
    pub to: f64,
}

/// The history in Prometheus.
#[derive(Debug)]
pub struct PrometheusHistory {
    /// Seconds between two points.
    pub step: f64,
    /// The rates.
    pub points: Vec<(f64, HistoryRates)>,
    /// The changes.
    pub marks: Vec<HistoryMark>,
}

/// A Prometheus that is queried for past values.
#[derive(Clone, Debug)]
pub struct PrometheusPast {
    url: String,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct RangeAnswer {
    status: String,
    data: RangeData,
}

#[derive(Deserialize)]
struct RangeData {
    result: Vec<RangeSeries>,
}

#[derive(Deserialize)]
struct RangeSeries {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl PrometheusPast {
    /// The Prometheus at `url`.
    pub fn new(url: &str, agent: ureq::Agent) -> PrometheusPast {
        PrometheusPast { url: url.trim_end_matches('/').to_owned(), agent }
    }

    /// Queries a range.
    ///
    /// # Errors
    /// Returns an error when it does not respond, or when the response is not Prometheus'.
    pub fn history(&self, range: HistoryRange) -> Result<PrometheusHistory> {
        let step = ((range.to - range.from) / MOST_POINTS as f64).max(SHORTEST_STEP).round();
        // The rate window contains at least two scrapes, and covers the whole step.
        let window = format!("{}s", (step.max(60.0)) as u64);
        let queries = [
            format!(
                r#"sum(rate(envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix!="admin"}}[{window}]))"#
            ),
            format!(
                r#"(sum(rate(penstock_egress_reasons_total{{outcome="denied"}}[{window}])) or vector(0)) + (sum(rate(penstock_requests_total{{section="rateLimits",outcome="limited"}}[{window}])) or vector(0))"#
            ),
            format!(r#"sum(rate(envoy_cluster_upstream_rq_xx{{envoy_response_code_class="5"}}[{window}]))"#),
        ];
        let mut points = BTreeMap::<u64, HistoryRates>::new();
        for (which, query) in queries.iter().enumerate() {
            for series in self.ask(query, range, step)? {
                for (at, value) in series.values {
                    let Some(value) = value.parse::<f32>().ok().filter(|value| value.is_finite()) else { continue };
                    let rates = points.entry(at.to_bits()).or_default();
                    match which {
                        0 => rates.requests = value,
                        1 => rates.refused = value,
                        _ => rates.errors = value,
                    }
                }
            }
        }
        let marks = self.marks(range, step)?;
        Ok(PrometheusHistory {
            step,
            points: points.into_iter().map(|(at, rates)| (f64::from_bits(at), rates)).collect(),
            marks,
        })
    }

    fn marks(&self, range: HistoryRange, step: f64) -> Result<Vec<HistoryMark>> {
        let mut marks = Vec::new();
        // Each value is a time at which the policy was loaded.
        for series in self.ask("max by (plugin) (penstock_policy_loaded_timestamp_seconds)", range, step)? {
            let name = series.metric.get("plugin").cloned().unwrap_or_default();
            let loaded: BTreeSet<u64> =
                series.values.iter().filter_map(|(_, value)| Some(value.parse::<f64>().ok()? as u64)).collect();
            let within = loaded.into_iter().map(|at| at as f64).filter(|at| (range.from..=range.to).contains(at));
            marks.extend(within.map(|at| HistoryMark::new(at, MarkKind::Reload, name.clone())));
        }
        let opened = r#"sum by (rule, variant) (penstock_breaker_transitions_total{outcome=~"rolledBack|failedOver"})"#;
        for series in self.ask(opened, range, step)? {
            let label = |name: &str| series.metric.get(name).map_or("", String::as_str);
            let name = format!("{}: {}", label("rule"), label("variant"));
            let mut before = None;
            for (at, value) in &series.values {
                let now = value.parse::<f64>().unwrap_or_default();
                // The series is absent until the breaker first opens, and is lower after a restart.
                if before.map_or(*at > range.from + 2.0 * step && now > 0.0, |before| now > before) {
                    marks.push(HistoryMark::new(*at, MarkKind::Rollback, name.clone()));
                }
                before = Some(now);
            }
        }
        marks.sort_by(|a, b| b.at.total_cmp(&a.at));
        marks.truncate(MOST_MARKS);
        Ok(marks)
    }

    fn ask(&self, query: &str, range: HistoryRange, step: f64) -> Result<Vec<RangeSeries>> {
        let request = self.agent.get(format!("{}/api/v1/query_range", self.url)).query("query", query);
        let request = request.query("start", format!("{:.3}", range.from)).query("end", format!("{:.3}", range.to));
        let body = request
            .query("step", format!("{step}"))
            .call()?
            .body_mut()
            .with_config()
            .limit(MOST_BYTES)
            .read_to_vec()?;
        let answer: RangeAnswer =
            serde_json::from_slice(&body).context("/api/v1/query_range is not in Prometheus' format")?;
        ensure!(answer.status == "success", "Prometheus answered {}", answer.status);
        Ok(answer.data.result)
    }
}
