//! Who calls what: from the plugins over the rules to the routes, clusters and hosts, with rates.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::sections::{cluster_errors, text};
use super::seen::{VisiblePart, part};

/// So many edges are shown, those with the most traffic: a picture of more says nothing.
const EDGES: usize = 60;

/// A graph without cycles.
#[derive(Debug, Default, Serialize)]
pub(super) struct Topology {
    nodes: Vec<TopologyNode>,
    edges: Vec<TopologyEdge>,
    /// Edges that are not shown.
    hidden: usize,
}

#[derive(Debug, Serialize)]
struct TopologyNode {
    id: String,
    kind: &'static str,
    label: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TopologyEdge {
    from: String,
    to: String,
    requests_per_second: f64,
    errors_per_second: f64,
    refused_per_second: f64,
}

#[derive(Default)]
struct Graph {
    nodes: BTreeMap<String, (&'static str, String)>,
    edges: BTreeMap<(String, String), (f64, f64, bool)>,
}

impl Graph {
    fn node(&mut self, kind: &'static str, label: &str) -> String {
        let id = format!("{kind}/{label}");
        self.nodes.entry(id.clone()).or_insert_with(|| (kind, label.to_owned()));
        id
    }

    fn edge(&mut self, from: &str, to: &str, rate: f64, errors: f64, refused: bool) {
        let edge = self.edges.entry((from.to_owned(), to.to_owned())).or_default();
        edge.0 += rate;
        edge.1 += errors;
        edge.2 |= refused;
    }

    /// From a rule to its route, and on to Envoy's cluster.
    fn route(&mut self, seen: &VisiblePart<'_>, from: &str, route: &str, rate: f64, failing: bool) {
        let errors = cluster_errors(seen, route).unwrap_or(if failing { rate } else { 0.0 });
        let to = self.node("route", route);
        self.edge(from, &to, rate, errors.min(rate), false);
        if let Some(cluster) = seen.routes.get(route) {
            let cluster = self.node("cluster", cluster);
            self.edge(&to, &cluster, rate, errors.min(rate), false);
        }
    }
}

/// Where a rule leads.
#[derive(Debug, PartialEq, Eq)]
enum Leads<'r> {
    Route(&'r str),
    Canary(&'r str),
    /// Where to, as far as the rule says it.
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
    // Canaries that only rules lead to.
    let mut by_rules = BTreeSet::new();
    for (plugin, rule) in seen.entries("routes", Some("rules")) {
        let rate = seen.per_second("routes", &name(rule), "matched");
        let (from, to) = (graph.node("listener", plugin), graph.node("rule", &name(rule)));
        graph.edge(&from, &to, rate, 0.0, false);
        match Leads::of(rule) {
            Leads::Route(route) => {
                let failing = seen.breaker(&name(rule), route).is_some_and(|[_, _, open]| open > 0);
                graph.route(seen, &to, route, rate, failing);
            }
            Leads::Canary(canary) => {
                by_rules.insert((plugin, canary));
                let canary = graph.node("canary", canary);
                graph.edge(&to, &canary, rate, 0.0, false);
            }
            Leads::Redirect(label) => {
                let redirect = graph.node("redirect", &label);
                graph.edge(&to, &redirect, rate, 0.0, false);
            }
        }
    }
    for policy in &seen.policies {
        let Some(default) = text(Some(&policy.document), "/routes/default") else { continue };
        let rate = seen.per_second("routes", "_default", "matched");
        let from = graph.node("listener", &policy.plugin);
        graph.route(seen, &from, default, rate, false);
    }
    for (plugin, canary) in seen.entries("canaries", None) {
        let (from, to) = (graph.node("listener", plugin), graph.node("canary", &name(canary)));
        let is_asked_by_rules = by_rules.contains(&(plugin, &*name(canary)));
        for variant in canary.get("variants").and_then(Value::as_array).into_iter().flatten() {
            let rate = seen.per_second("canaries", &name(canary), &part(&name(variant)));
            let failing = seen.breaker(&name(canary), &name(variant)).is_some_and(|[_, _, open]| open > 0);
            if !is_asked_by_rules {
                graph.edge(&from, &to, rate, 0.0, false);
            }
            graph.route(seen, &to, text(Some(variant), "/route").unwrap_or(&name(variant)), rate, failing);
        }
    }
    for (plugin, limit) in seen.entries("rateLimits", None) {
        let (from, to) = (graph.node("listener", plugin), graph.node("limit", &name(limit)));
        let rate = |outcome| seen.per_second("rateLimits", &name(limit), outcome);
        graph.edge(&from, &to, rate("passed") + rate("limited"), 0.0, false);
        if rate("limited") > 0.0 {
            let refused = graph.node("refused", "429");
            graph.edge(&to, &refused, rate("limited"), 0.0, true);
        }
    }
    egress(seen, &mut graph);
    graph.finish()
}

fn egress(seen: &VisiblePart<'_>, graph: &mut Graph) {
    for (plugin, rule) in seen.entries("egress", Some("rules")) {
        if !seen.scope.owner(text(Some(rule), "/owner")) {
            continue;
        }
        let name = text(Some(rule), "/name").unwrap_or_default();
        let (from, to) = (graph.node("listener", plugin), graph.node("egressRule", name));
        let (allowed, denied) = (seen.per_second("egress", name, "allowed"), seen.per_second("egress", name, "denied"));
        graph.edge(&from, &to, allowed + denied, 0.0, false);
        let hosts = rule.get("to").and_then(Value::as_array).into_iter().flatten();
        let mut hosts = hosts.filter_map(|to| to.get("host").or_else(|| to.get("cidr"))?.as_str());
        if let Some(first) = hosts.next() {
            let more = hosts.count();
            let label = if more > 0 { format!("{first} +{more}") } else { first.to_owned() };
            let host = graph.node("host", &label);
            graph.edge(&to, &host, allowed, 0.0, false);
        }
        if denied > 0.0 {
            let refused = graph.node("refused", "403");
            graph.edge(&to, &refused, denied, 0.0, true);
        }
    }
    if !seen.scope.every_owner() {
        return;
    }
    // What no rule stands for.
    let mut plugins = seen.policies.iter().filter(|policy| policy.document.get("egress").is_some());
    let by_rules: f64 = seen.counted("egress").map(|rule| seen.per_second("egress", rule, "denied")).sum();
    let all: f64 = seen.counted("egressReasons").map(|reason| seen.per_second("egressReasons", reason, "denied")).sum();
    let others = all - by_rules;
    if let Some(policy) = plugins.next_back().filter(|_| others > 0.05) {
        let (from, refused) = (graph.node("listener", &policy.plugin), graph.node("refused", "403"));
        graph.edge(&from, &refused, others, 0.0, true);
    }
}

impl Graph {
    fn finish(self) -> Topology {
        let mut edges: Vec<TopologyEdge> = self
            .edges
            .into_iter()
            .map(|((from, to), (requests_per_second, errors_per_second, refused))| TopologyEdge {
                from,
                to,
                requests_per_second,
                errors_per_second,
                refused_per_second: if refused { requests_per_second } else { 0.0 },
            })
            .collect();
        edges.sort_by(|a, b| b.requests_per_second.total_cmp(&a.requests_per_second));
        let hidden = edges.len().saturating_sub(EDGES);
        edges.truncate(EDGES);
        let shown = |id: &str| edges.iter().any(|edge| edge.from == id || edge.to == id);
        let nodes = self.nodes.into_iter().filter(|(id, _)| shown(id));
        Topology { nodes: nodes.map(|(id, (kind, label))| TopologyNode { id, kind, label }).collect(), edges, hidden }
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
