//! The responses of the API.

mod drift;
mod health;
mod problem;
mod problems;
mod proxies;
mod sections;
mod seen;
mod topology;

use std::collections::BTreeMap;

pub use sections::{instant, seconds};
use serde::Serialize;

use crate::access::Visibility;
use crate::feed::{ClusterFeed, DecisionFeed};
use crate::fleet::{ClusterState, Fleet};
use crate::series::WINDOW;
use drift::{Drift, drift, hash};
use health::{ClusterHealth, HealthState};
use problem::{ProblemView, Severity};
use sections::{CanaryView, EgressRuleView, LimitView, RefusalView, RouteView};
use seen::VisiblePart;
pub(crate) use seen::part as metric_part;
use topology::Topology;

/// The maximum number of problems in the list.
const MOST_PROBLEMS: usize = 100;

/// `/api/v1/me`: the viewer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Me<'a> {
    /// The workspace; absent when the viewer may see everything.
    pub workspace: Option<&'a str>,
    /// The clusters that the viewer may see.
    pub clusters: Vec<&'a str>,
    /// Always true: nothing can be changed.
    pub read_only: bool,
    /// The version of the dash.
    pub version: &'static str,
    /// The polling interval.
    pub interval_seconds: f64,
    /// The number of open connections to this server.
    pub connections: usize,
    /// The number of connections that it closed because they were too slow, or others needed their place.
    pub closed_connections: u64,
}

/// `/api/v1/clusters`: a summary of each cluster.
#[derive(Debug, Serialize)]
pub struct Clusters<'a> {
    clusters: Vec<ClusterLine<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterLine<'a> {
    name: &'a str,
    endpoints: usize,
    alive: usize,
    /// The rate of requests to the proxies' listeners.
    requests_per_second: f64,
    /// The rate of requests that egress rules and limits refused.
    refused_per_second: f64,
    problems: ProblemCounts,
    state: HealthState,
}

/// The number of problems by severity.
#[derive(Debug, Serialize)]
struct ProblemCounts {
    error: usize,
    warning: usize,
}

/// `/api/v1/clusters/<cluster>`: all details of a cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot<'a> {
    cluster: &'a str,
    /// Seconds since 1970.
    at: f64,
    /// Rates are averages over this many seconds; the counts beside them are for the same time.
    window_seconds: f64,
    health: ClusterHealth,
    problems: Vec<ProblemView>,
    /// How many problems are not in the list.
    more_problems: usize,
    endpoints: Vec<EndpointView<'a>>,
    drift: Vec<Drift<'a>>,
    topology: Topology,
    routes: Vec<RouteView<'a>>,
    canaries: Vec<CanaryView<'a>>,
    rate_limits: Vec<LimitView<'a>>,
    egress: Vec<EgressRuleView<'a>>,
    refusals: Vec<RefusalView<'a>>,
    truncated: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView<'a> {
    name: &'a str,
    url: &'a str,
    alive: bool,
    error: Option<&'a str>,
    /// The problem with its filter.
    trouble: Option<&'static str>,
    /// What is not known of it yet.
    unknown: Option<String>,
    namespace: Option<&'a str>,
    node: Option<&'a str>,
    envoy_version: Option<&'a str>,
    uptime_seconds: Option<u64>,
    last_seen: Option<f64>,
    plugins: Vec<PluginView<'a>>,
}

#[derive(Debug, Serialize)]
struct PluginView<'a> {
    name: &'a str,
    hash: String,
    generation: Option<f64>,
    loaded: Option<f64>,
}

/// The summaries of all clusters that `scope` may see.
pub fn clusters<'a>(fleet: &'a Fleet, feed: &DecisionFeed, scope: Visibility<'a>, at: f64) -> Clusters<'a> {
    let names = fleet.names().filter(|name| scope.cluster(name));
    let line = |name: &'a str| {
        let cluster = fleet.cluster(name)?;
        let seen = VisiblePart::new(cluster, scope);
        let problems = problems::all(&seen, at);
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        Some(ClusterLine {
            name,
            endpoints: seen.endpoints.len(),
            alive: seen.endpoints.iter().filter(|(_, endpoint)| endpoint.alive()).count(),
            requests_per_second: requests(&seen),
            refused_per_second: refused(&seen),
            state: health::health(cluster, feed.cluster(name), &seen, &problems, at).state,
            problems: ProblemCounts { error: count(Severity::Error), warning: count(Severity::Warning) },
        })
    };
    Clusters { clusters: names.filter_map(line).collect() }
}

/// Requests to the listeners. If that is unknown (what a Prometheus scrapes varies), requests that the policies
/// counted.
fn requests(seen: &VisiblePart<'_>) -> f64 {
    let taken = |(name, _): &(&&str, _)| name.starts_with("http.") && !name.starts_with("http.admin.");
    let listeners = seen.traffic.iter().filter(taken).filter(|(name, _)| name.ends_with(".downstream_rq_total"));
    let listeners: Vec<f64> = listeners.map(|(_, count)| count.rate.per_second).collect();
    if !listeners.is_empty() {
        return listeners.into_iter().sum();
    }
    let of = |section, outcome| seen.counted(section).map(move |rule| seen.per_second(section, rule, outcome));
    // Each limit and each section counts a request separately, so the largest count is used.
    let limits = of("rateLimits", "passed").fold(0.0, f64::max);
    of("egress", "allowed").sum::<f64>().max(of("routes", "matched").sum()).max(limits) + refused(seen)
}

fn refused(seen: &VisiblePart<'_>) -> f64 {
    let egress = seen.counted("egressReasons").map(|reason| seen.per_second("egressReasons", reason, "denied"));
    let limits = seen.counted("rateLimits").map(|limit| seen.per_second("rateLimits", limit, "limited"));
    egress.chain(limits).sum()
}

/// The details of one cluster that `scope` may see.
pub fn snapshot<'a>(
    name: &'a str,
    cluster: &'a ClusterState,
    feed: Option<&ClusterFeed>,
    scope: Visibility<'a>,
    at: f64,
) -> Snapshot<'a> {
    let seen = VisiblePart::new(cluster, scope);
    let mut problems = problems::all(&seen, at);
    let health = health::health(cluster, feed, &seen, &problems, at);
    let more_problems = problems.len().saturating_sub(MOST_PROBLEMS);
    problems.truncate(MOST_PROBLEMS);
    Snapshot {
        cluster: name,
        at,
        window_seconds: WINDOW,
        endpoints: endpoints(&seen, &proxies::troubles(&seen, at), at),
        health,
        problems,
        more_problems,
        drift: drift(&seen),
        topology: topology::of(&seen),
        routes: sections::routes(&seen),
        canaries: sections::canaries(&seen, at),
        rate_limits: sections::limits(&seen),
        egress: sections::egress(&seen, at),
        refusals: sections::refusals(&seen),
        truncated: seen.truncated,
    }
}

fn endpoints<'a>(seen: &VisiblePart<'a>, troubles: &BTreeMap<String, &'static str>, at: f64) -> Vec<EndpointView<'a>> {
    let one = |&(name, endpoint): &(&'a str, &'a crate::fleet::Endpoint)| {
        let gauge = |plugin: &str, what: &str| endpoint.sample.gauge(&format!("policy.{plugin}.{what}"));
        let plugin = |name: &'a str| PluginView {
            name,
            hash: hash(gauge(name, "hash").unwrap_or_default()),
            generation: gauge(name, "generation"),
            loaded: gauge(name, "loaded"),
        };
        EndpointView {
            name,
            url: &endpoint.url,
            alive: endpoint.alive(),
            error: endpoint.error.as_deref(),
            trouble: troubles.get(name).copied(),
            unknown: health::of_proxy(name, endpoint, at, seen.stale),
            namespace: endpoint.identity.namespace.as_deref(),
            node: endpoint.identity.node.as_deref(),
            envoy_version: endpoint.identity.version.as_deref(),
            uptime_seconds: endpoint.identity.uptime,
            last_seen: endpoint.last_seen,
            plugins: endpoint.sample.plugins().map(plugin).collect(),
        }
    };
    seen.endpoints.iter().map(one).collect()
}
