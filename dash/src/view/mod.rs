//! The answers of the API.

mod drift;
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
use crate::fleet::{ClusterState, Fleet};
use crate::series::WINDOW;
use drift::{Drift, drift, hash};
use problem::{ProblemView, Severity};
use sections::{CanaryView, EgressRuleView, LimitView, RefusalView, RouteView};
use seen::VisiblePart;
use topology::Topology;

/// `/api/v1/me`: who asks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Me<'a> {
    /// The workspace; none when everything may be seen.
    pub workspace: Option<&'a str>,
    /// The clusters that may be seen.
    pub clusters: Vec<&'a str>,
    /// Always: it changes nothing.
    pub read_only: bool,
    /// Of the dash.
    pub version: &'static str,
    /// Between two looks.
    pub interval_seconds: f64,
}

/// `/api/v1/clusters`: one line for each cluster.
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
    /// That the proxies' listeners took.
    requests_per_second: f64,
    /// Of these, refused by egress rules and limits.
    refused_per_second: f64,
    problems: ProblemCounts,
}

/// Problems by severity.
#[derive(Debug, Serialize)]
struct ProblemCounts {
    error: usize,
    warning: usize,
}

/// `/api/v1/clusters/<cluster>`: everything of one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot<'a> {
    cluster: &'a str,
    /// Seconds since 1970.
    at: f64,
    /// Rates are the mean of so many seconds, and counts beside them those of that time.
    window_seconds: f64,
    problems: Vec<ProblemView>,
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
    /// What is wrong with its filter.
    trouble: Option<&'static str>,
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

/// The lines of all clusters that `scope` allows.
pub fn clusters<'a>(fleet: &'a Fleet, scope: Visibility<'a>, at: f64) -> Clusters<'a> {
    let names = fleet.names().filter(|name| scope.cluster(name));
    let line = |name: &'a str| {
        let seen = VisiblePart::new(fleet.cluster(name)?, scope);
        let problems = problems::all(&seen, at);
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        Some(ClusterLine {
            name,
            endpoints: seen.endpoints.len(),
            alive: seen.endpoints.iter().filter(|(_, endpoint)| endpoint.alive()).count(),
            requests_per_second: requests(&seen),
            refused_per_second: refused(&seen),
            problems: ProblemCounts { error: count(Severity::Error), warning: count(Severity::Warning) },
        })
    };
    Clusters { clusters: names.filter_map(line).collect() }
}

/// What the listeners took; where that is not known (a Prometheus scrapes what it wants), what the policies counted.
fn requests(seen: &VisiblePart<'_>) -> f64 {
    let taken = |(name, _): &(&&str, _)| name.starts_with("http.") && !name.starts_with("http.admin.");
    let listeners = seen.traffic.iter().filter(taken).filter(|(name, _)| name.ends_with(".downstream_rq_total"));
    let listeners: Vec<f64> = listeners.map(|(_, count)| count.rate.per_second).collect();
    if !listeners.is_empty() {
        return listeners.into_iter().sum();
    }
    let of = |section, outcome| seen.counted(section).map(move |rule| seen.per_second(section, rule, outcome));
    // Each limit counts a request for itself, and each section does.
    let limits = of("rateLimits", "passed").fold(0.0, f64::max);
    of("egress", "allowed").sum::<f64>().max(of("routes", "matched").sum()).max(limits) + refused(seen)
}

fn refused(seen: &VisiblePart<'_>) -> f64 {
    let egress = seen.counted("egressReasons").map(|reason| seen.per_second("egressReasons", reason, "denied"));
    let limits = seen.counted("rateLimits").map(|limit| seen.per_second("rateLimits", limit, "limited"));
    egress.chain(limits).sum()
}

/// Everything of one cluster that `scope` allows.
pub fn snapshot<'a>(name: &'a str, cluster: &'a ClusterState, scope: Visibility<'a>, at: f64) -> Snapshot<'a> {
    let seen = VisiblePart::new(cluster, scope);
    let problems = problems::all(&seen, at);
    Snapshot {
        cluster: name,
        at,
        window_seconds: WINDOW,
        endpoints: endpoints(&seen, &proxies::troubles(&seen, at)),
        problems,
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

fn endpoints<'a>(seen: &VisiblePart<'a>, troubles: &BTreeMap<String, &'static str>) -> Vec<EndpointView<'a>> {
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
