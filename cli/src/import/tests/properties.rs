//! For generated objects of each source: the imported policy takes no request that the source leaves alone, and sends
//! the requests that it takes where the source does. The models of the sources are written from their documentation.

mod annotations;
mod backend_traffic_policy;
mod cilium;
mod delegates;
mod envoy_filter;
mod gateway;
mod grpc;
mod ingress;
mod istio;
mod listeners;
mod middlewares;
mod ratelimit;
mod service_entry;
mod smokescreen;
mod traefik;

use std::collections::BTreeMap;

use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use crate::import::table::UNROUTED;

const HOSTS: [&str; 5] = ["shop.example.com", "www.shop.example.com", "api.example.com", "example.com", "other.test"];
const PATTERNS: [&str; 5] = ["*", "*.example.com", "*.shop.example.com", "shop.example.com", "api.example.com"];
const PATHS: [&str; 9] = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/b", "/A", "/c"];
const DESTINATIONS: [&str; 4] = ["one", "two", "three", "four"];

/// A quarter of the default number of cases, because each case has many requests.
fn few() -> ProptestConfig {
    let all = ProptestConfig::default();
    ProptestConfig { cases: all.cases.div_ceil(4), ..all }
}

/// A route of the Gateway API, with the conditions of its rules.
#[derive(Clone, Debug)]
struct GatewayRoute<C> {
    hosts: Vec<&'static str>,
    rules: Vec<(Vec<C>, Targets)>,
    created: u8,
}

/// Some routes, whose rules have so many conditions.
fn gateway_routes<C: Clone + std::fmt::Debug>(
    condition: impl Strategy<Value = C>,
    conditions: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<GatewayRoute<C>>> {
    let rule = (prop::collection::vec(condition, conditions), targets());
    let hosts = prop::sample::subsequence(&PATTERNS[1..], 0..3);
    let route = (hosts, prop::collection::vec(rule, 1..4), 0..3_u8);
    prop::collection::vec(route.prop_map(|(hosts, rules, created)| GatewayRoute { hosts, rules, created }), 1..4)
}

/// A request of a client.
#[derive(Clone, Debug)]
struct Request {
    host: &'static str,
    path: &'static str,
    method: &'static str,
    header: Option<&'static str>,
}

impl Request {
    fn wire(&self) -> WireRequest {
        let headers: Vec<[&str; 2]> = self.header.iter().map(|value| ["x-h", *value]).collect();
        let json = json!({"method": self.method, "authority": self.host, "path": self.path, "headers": headers});
        serde_json::from_value(json).unwrap()
    }
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let one = (
        prop::sample::select(&HOSTS[..]),
        prop::sample::select(&PATHS[..]),
        prop::sample::select(&["GET", "POST"][..]),
        prop::option::of(prop::sample::select(&["1", "2"][..])),
    );
    let one = one.prop_map(|(host, path, method, header)| Request { host, path, method, header });
    prop::collection::vec(one, 1..40)
}

/// Destinations with weights.
type Targets = Vec<(&'static str, i64)>;

/// Destinations with weights: one, or two of which one may have weight 0.
fn targets() -> impl Strategy<Value = Targets> {
    let name = prop::sample::select(&DESTINATIONS[..]);
    prop_oneof![
        3 => name.clone().prop_map(|name| vec![(name, 1)]),
        1 => (name.clone(), name, 0..3_i64, 1..3_i64).prop_map(|(a, b, x, y)| if a == b { vec![(a, 1)] } else { vec![(a, x), (b, y)] }),
    ]
}

/// The possible destinations of a request; empty when the source leaves it alone.
type Expected = Vec<&'static str>;

fn weighted(targets: &[(&'static str, i64)]) -> Expected {
    targets.iter().filter(|(_, weight)| *weight > 0).map(|(name, _)| *name).collect()
}

/// The result of an import.
struct Imported {
    node: Node,
    policy: Policy,
    /// The destinations of routes.
    leads: BTreeMap<String, String>,
    /// The policy as printed.
    text: String,
    /// Whether no loss is reported that changes decisions.
    is_complete: bool,
}

fn policy_of(documents: &[Value]) -> (Node, Policy, BTreeMap<String, String>, String) {
    let imported = imported(documents);
    (imported.node, imported.policy, imported.leads, imported.text)
}

fn imported(documents: &[Value]) -> Imported {
    let nodes: Vec<(String, Node)> = documents
        .iter()
        .map(|document| (String::new(), Node::from_json(document.to_string().as_bytes()).unwrap()))
        .collect();
    let mut report = ImportReport::default();
    let (draft, _) = import(&nodes, &mut report);
    let node = draft.node();
    let policy = Policy::from_node(&node).unwrap_or_else(|problems| panic!("{problems}\n{}", draft.text()));
    let is_complete = report.is_complete();
    let leads = report.routes.into_iter().map(|lead| (lead.route, lead.to)).collect();
    Imported { node, policy, leads, text: draft.text(), is_complete }
}

/// The destination of a request; `None` when it is left alone.
fn went(request: &WireRequest, policy: &Policy, leads: &BTreeMap<String, String>, seed: u64) -> Option<String> {
    let decision = request.decide(policy, &mut World::new(Timestamp(0), seed));
    let route = decision.route.filter(|route| route != UNROUTED)?;
    leads.get(&route).and_then(|to| to.split(' ').next()).map(str::to_owned)
}

/// Compares the policy for objects with a model of their source.
fn agrees(
    documents: &[Value],
    requests: &[Request],
    model: &dyn Fn(&Request) -> Expected,
) -> Result<(), TestCaseError> {
    let (_, policy, leads, text) = policy_of(documents);
    for (seed, request) in requests.iter().enumerate() {
        let went = went(&request.wire(), &policy, &leads, seed as u64);
        let expected = model(request);
        match went.as_deref() {
            // A policy can express everything in these objects.
            None => prop_assert!(expected.is_empty(), "{request:?} is left alone, not sent to {expected:?}\n{text}"),
            Some(went) => {
                prop_assert!(expected.contains(&went), "{request:?} goes to {went}, not {expected:?}\n{text}")
            }
        }
    }
    Ok(())
}

/// How specifically a host pattern matches a host; `None` when it does not.
fn closeness(pattern: &str, host: &str) -> Option<(bool, usize)> {
    match pattern.strip_prefix('*') {
        Some(rest) => host.ends_with(rest).then_some((false, rest.len())),
        None => (pattern == host).then_some((true, pattern.len())),
    }
}

/// The most specific of some patterns.
fn closest<'p>(patterns: impl Iterator<Item = &'p str>, host: &str) -> Option<&'p str> {
    patterns.filter_map(|pattern| Some((closeness(pattern, host)?, pattern))).max().map(|(_, pattern)| pattern)
}
