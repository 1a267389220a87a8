//! The call graph with rates: from plugins through rules to routes, clusters and hosts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::sections::{cluster_errors, text};
use super::seen::{VisiblePart, part};
use crate::series::RecentRate;

/// An edge without traffic.
const NONE: RecentRate = RecentRate { per_second: 0.0, recent: 0 };

/// The maximum number of edges, those with the most traffic: a larger picture is not readable.
const EDGES: usize = 60;

/// A graph without cycles.
#[derive(Debug, Default, Serialize)]
pub(super) struct Topology {
    nodes: Vec<TopologyNode>,
    edges: Vec<TopologyEdge>,
    /// The number of edges that are not shown.
    hidden: usize,
}

#[derive(Debug, Serialize)]
struct TopologyNode {
    id: String,
    kind: &'static str,
    label: String,
    /// For a plugin, the requests to its listeners by Envoy's counters, if known. Its edges may add up to more, because
    /// a request passes several sections.
    #[serde(rename = "requestsPerSecond", skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<f64>,
    /// The number of requests within the averaging time, where Envoy has counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TopologyEdge {
    from: String,
    to: String,
    requests_per_second: f64,
    errors_per_second: f64,
    refused_per_second: f64,
    /// The numbers of requests and errors within the averaging time.
    requests: u64,
    errors: u64,
}

#[derive(Default)]
struct Graph {
    nodes: BTreeMap<String, (&'static str, String)>,
    edges: BTreeMap<(String, String), (RecentRate, RecentRate, bool)>,
}

impl Graph {
    fn node(&mut self, kind: &'static str, label: &str) -> String {
        let id = format!("{kind}/{label}");
        self.nodes.entry(id.clone()).or_insert_with(|| (kind, label.to_owned()));
        id
    }

    fn edge(&mut self, from: &str, to: &str, requests: RecentRate, errors: RecentRate, refused: bool) {
        let edge = self.edges.entry((from.to_owned(), to.to_owned())).or_default();
        edge.0 = edge.0 + requests;
        edge.1 = edge.1 + errors;
        edge.2 |= refused;
    }

    /// From a rule to its route, and on to Envoy's cluster.
    fn route(&mut self, seen: &VisiblePart<'_>, from: &str, route: &str, requests: RecentRate, failing: bool) {
        let errors = cluster_errors(seen, route).unwrap_or(if failing { requests } else { NONE });
        // Other traffic may go to that cluster, too.
        let errors = RecentRate {
            per_second: errors.per_second.min(requests.per_second),
            recent: errors.recent.min(requests.recent),
        };
        let to = self.node("route", route);
        self.edge(from, &to, requests, errors, false);
        if let Some(cluster) = seen.routes.get(route) {
            let cluster = self.node("cluster", cluster);
            self.edge(&to, &cluster, requests, errors, false);
        }
    }
}

/// The destination of a rule.
#[derive(Debug, PartialEq, Eq)]
enum Leads<'r> {
    Route(&'r str),
    Canary(&'r str),
    /// The destination, as far as the rule names it.
    Redirect(String),
}

impl Leads<'_> {
    fn of(rule: &Value) -> Leads<'_> {
        if let Some(canary) = text(Some(rule), "/canary") {
            return Leads::Canary(canary);
        }
        let Some(redirect) = rule.get("redirect") else {
            return Leads::Route(text(Some(rule), "/route").unwrap_or_default());
        };
        let part = |pointer: &str| text(Some(redirect), pointer).unwrap_or_default();
        let scheme = if part("/scheme").is_empty() { String::new() } else { format!("{}://", part("/scheme")) };
        let port = redirect.get("port").map_or(String::new(), |port| format!(":{port}"));
        let target = format!("{scheme}{}{port}{}", part("/hostname"), part("/path/value"));
        let status = redirect.get("statusCode").and_then(Value::as_u64).unwrap_or(302);
        Leads::Redirect(format!("{status} {target}"))
    }
}

pub(super) fn of(seen: &VisiblePart<'_>) -> Topology {
    let mut graph = Graph::default();
    let name = |entry: &Value| text(Some(entry), "/name").unwrap_or_default().to_owned();
    // Canaries that are only reached through rules.
    let mut by_rules = BTreeSet::new();
    for (plugin, rule) in seen.entries("routes", Some("rules")) {
        let rate = seen.flow("routes", &name(rule), "matched");
        let (from, to) = (graph.node("listener", plugin), graph.node("rule", &name(rule)));
        graph.edge(&from, &to, rate, NONE, false);
        match Leads::of(rule) {
            Leads::Route(route) => {
                let failing = seen.breaker("routes", &name(rule), route).is_some_and(|[_, _, open]| open > 0);
                graph.route(seen, &to, route, rate, failing);
            }
            Leads::Canary(canary) => {
                by_rules.insert((plugin, canary));
                let canary = graph.node("canary", canary);
                graph.edge(&to, &canary, rate, NONE, false);
            }
            Leads::Redirect(label) => {
                let redirect = graph.node("redirect", &label);
                graph.edge(&to, &redirect, rate, NONE, false);
            }
        }
    }
    for policy in &seen.policies {
        let Some(default) = text(Some(&policy.document), "/routes/default") else { continue };
        let rate = seen.flow("routes", "_default", "matched");
        let from = graph.node("listener", &policy.plugin);
        graph.route(seen, &from, default, rate, false);
    }
    for (plugin, canary) in seen.entries("canaries", None) {
        let (from, to) = (graph.node("listener", plugin), graph.node("canary", &name(canary)));
        let is_asked_by_rules = by_rules.contains(&(plugin, &*name(canary)));
        for variant in canary.get("variants").and_then(Value::as_array).into_iter().flatten() {
            let rate = seen.flow("variants", &name(canary), &part(&name(variant)));
            let failing = seen.breaker("canaries", &name(canary), &name(variant)).is_some_and(|[_, _, open]| open > 0);
            if !is_asked_by_rules {
                graph.edge(&from, &to, rate, NONE, false);
            }
            graph.route(seen, &to, text(Some(variant), "/route").unwrap_or(&name(variant)), rate, failing);
        }
    }
    for (plugin, limit) in seen.entries("rateLimits", None) {
        let (from, to) = (graph.node("listener", plugin), graph.node("limit", &name(limit)));
        let flow = |outcome| seen.flow("rateLimits", &name(limit), outcome);
        graph.edge(&from, &to, flow("passed") + flow("limited"), NONE, false);
        if flow("limited").recent > 0 {
            let refused = graph.node("refused", "429");
            graph.edge(&to, &refused, flow("limited"), NONE, true);
        }
    }
    egress(seen, &mut graph);
    let requests = graph.requests(seen);
    graph.finish(&requests)
}

fn egress(seen: &VisiblePart<'_>, graph: &mut Graph) {
    for (plugin, rule) in seen.entries("egress", Some("rules")) {
        if !seen.scope.owner(text(Some(rule), "/owner")) {
            continue;
        }
        let name = text(Some(rule), "/name").unwrap_or_default();
        let (from, to) = (graph.node("listener", plugin), graph.node("egressRule", name));
        let (allowed, denied) = (seen.flow("egress", name, "allowed"), seen.flow("egress", name, "denied"));
        graph.edge(&from, &to, allowed + denied, NONE, false);
        let hosts = rule.get("to").and_then(Value::as_array).into_iter().flatten();
        let mut hosts = hosts.filter_map(|to| to.get("host").or_else(|| to.get("cidr"))?.as_str());
        if let Some(first) = hosts.next() {
            let more = hosts.count();
            let label = if more > 0 { format!("{first} +{more}") } else { first.to_owned() };
            let host = graph.node("host", &label);
            graph.edge(&to, &host, allowed, NONE, false);
        }
        if denied.recent > 0 {
            let refused = graph.node("refused", "403");
            graph.edge(&to, &refused, denied, NONE, true);
        }
    }
    if !seen.scope.every_owner() {
        return;
    }
    // Requests that no rule matches.
    let mut plugins = seen.policies.iter().filter(|policy| policy.document.get("egress").is_some());
    let by_rules: RecentRate = seen.counted("egress").map(|rule| seen.flow("egress", rule, "denied")).sum();
    let all: RecentRate =
        seen.counted("egressReasons").map(|reason| seen.flow("egressReasons", reason, "denied")).sum();
    let others = RecentRate {
        per_second: (all.per_second - by_rules.per_second).max(0.0),
        recent: all.recent.saturating_sub(by_rules.recent),
    };
    if let Some(policy) = plugins.next_back().filter(|_| others.recent > 0) {
        let (from, refused) = (graph.node("listener", &policy.plugin), graph.node("refused", "403"));
        graph.edge(&from, &refused, others, NONE, true);
    }
}

impl Graph {
    /// The requests of each plugin per second: Envoy's count, or else at least those of the section with the most.
    fn requests(&self, seen: &VisiblePart<'_>) -> BTreeMap<String, (f64, Option<u64>)> {
        let plugins = self.nodes.iter().filter(|(_, (kind, _))| *kind == "listener");
        let requests = plugins.map(|(id, (_, plugin))| {
            let by_edges = || {
                let (mut limits, mut routing, mut egress) = (0.0_f64, 0.0, 0.0);
                for ((_, to), (requests, ..)) in self.edges.iter().filter(|((from, _), _)| from == id) {
                    match to.split('/').next() {
                        // Each limit counts a request separately.
                        Some("limit") => limits = limits.max(requests.per_second),
                        Some("egressRule" | "refused") => egress += requests.per_second,
                        _ => routing += requests.per_second,
                    }
                }
                limits.max(routing).max(egress)
            };
            let own = seen.requests_of(plugin);
            (id.clone(), (own.map_or_else(by_edges, |own| own.per_second), own.map(|own| own.recent)))
        });
        requests.collect()
    }

    fn finish(self, requests: &BTreeMap<String, (f64, Option<u64>)>) -> Topology {
        let edge = |((from, to), (requests, errors, refused)): ((String, String), (RecentRate, RecentRate, bool))| {
            TopologyEdge {
                from,
                to,
                requests_per_second: requests.per_second,
                errors_per_second: errors.per_second,
                refused_per_second: if refused { requests.per_second } else { 0.0 },
                requests: requests.recent,
                errors: errors.recent,
            }
        };
        let mut edges: Vec<TopologyEdge> = self.edges.into_iter().map(edge).collect();
        edges.sort_by(|a, b| b.requests_per_second.total_cmp(&a.requests_per_second));
        let hidden = edges.len().saturating_sub(EDGES);
        edges.truncate(EDGES);
        let shown = |id: &str| edges.iter().any(|edge| edge.from == id || edge.to == id);
        let nodes = self.nodes.into_iter().filter(|(id, _)| shown(id));
        let node = |(id, (kind, label)): (String, (&'static str, String))| {
            let found = requests.get(&id).copied();
            let (requests_per_second, requests) = (found.map(|(rate, _)| rate), found.and_then(|(_, count)| count));
            TopologyNode { id, kind, label, requests_per_second, requests }
        };
        Topology { nodes: nodes.map(node).collect(), edges, hidden }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_leads_to_a_route_a_canary_or_back_to_the_client() {
        assert_eq!(Leads::of(&json!({"name": "r", "route": "beta"})), Leads::Route("beta"));
        assert_eq!(Leads::of(&json!({"name": "r", "canary": "reviews"})), Leads::Canary("reviews"));
        for (redirect, label) in [
            (json!({"scheme": "https", "statusCode": 301}), "301 https://"),
            (json!({"hostname": "new.example.com", "port": 8443}), "302 new.example.com:8443"),
            (json!({"path": {"type": "ReplacePrefixMatch", "value": "/v2"}}), "302 /v2"),
        ] {
            assert_eq!(Leads::of(&json!({"redirect": redirect})), Leads::Redirect(label.to_owned()));
        }
    }
}
