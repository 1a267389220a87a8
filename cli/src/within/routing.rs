//! Decides whether a team's routes and canaries lead only to destinations of the platform's, and change no other
//! headers.

use std::collections::BTreeSet;

use penstock_policy::DEFAULT_ROUTE_HEADER;
use penstock_policy::document::Node;

use super::excess::{Excess, setting};
use crate::words::listed;

/// The effects of rules and canaries, each with its place.
#[derive(Default)]
struct Reach {
    routes: Vec<(String, String)>,
    request_headers: Vec<(String, String)>,
    response_headers: Vec<(String, String)>,
    hosts: Vec<(String, String)>,
}

/// Where the team's `routes` and `canaries` exceed the platform's. Both sections share one ceiling, because a canary
/// leads to routes, too.
pub fn excesses(platform: &Node, team: &Node) -> Vec<Excess> {
    let has_any = |policy: &Node| policy.get("routes").is_some() || policy.get("canaries").is_some();
    if !has_any(platform) || !has_any(team) {
        return Vec::new();
    }
    let (wide, narrow) = (Reach::of(platform), Reach::of(team));
    let mut excesses = Vec::new();
    let header = |policy: &Node| match setting(policy, "routeHeader") {
        Node::String(name) => name.to_ascii_lowercase(),
        _ => DEFAULT_ROUTE_HEADER.to_owned(),
    };
    let (theirs, ours) = (header(platform), header(team));
    if theirs != ours {
        let message = format!("routes are written to the header {ours}, the platform's to {theirs}");
        let help = Some(format!("write routeHeader: {theirs}"));
        excesses.push(Excess { path: "settings.routeHeader".to_owned(), message, help, witness: None });
    }
    let mut compare = |what: &str, narrow: &[(String, String)], wide: &[(String, String)]| {
        let known: BTreeSet<&str> = wide.iter().map(|(_, name)| name.as_str()).collect();
        for (path, name) in narrow.iter().filter(|(_, name)| !known.contains(name.as_str())) {
            let help = match known.is_empty() {
                true => "the platform's policy has none".to_owned(),
                false => format!("the platform's policy has {}", listed(&known)),
            };
            let message = format!("{what} `{name}`, which the platform's policy does not name");
            excesses.push(Excess { path: path.clone(), message, help: Some(help), witness: None });
        }
    };
    compare("leads to the route", &narrow.routes, &wide.routes);
    compare("changes the request header", &narrow.request_headers, &wide.request_headers);
    compare("changes the response header", &narrow.response_headers, &wide.response_headers);
    compare("leads to the host", &narrow.hosts, &wide.hosts);
    excesses
}

impl Reach {
    fn of(policy: &Node) -> Reach {
        let mut reach = Reach::default();
        if let Some(routes) = policy.get("routes") {
            reach.route(routes.get("default"), "routes.default");
            for (i, rule) in list(routes.get("rules")).iter().enumerate() {
                reach.rule(rule, &format!("routes.rules[{i}]"));
            }
        }
        for (i, canary) in list(policy.get("canaries")).iter().enumerate() {
            for (j, variant) in list(canary.get("variants")).iter().enumerate() {
                let at = format!("canaries[{i}].variants[{j}]");
                match variant.get("route") {
                    Some(route) => reach.route(Some(route), &format!("{at}.route")),
                    None => reach.route(variant.get("name"), &format!("{at}.name")),
                }
            }
        }
        reach
    }

    fn rule(&mut self, rule: &Node, at: &str) {
        self.route(rule.get("route"), &format!("{at}.route"));
        self.route(rule.get("failover").and_then(|failover| failover.get("route")), &format!("{at}.failover.route"));
        for (field, headers) in
            [("requestHeaders", &mut self.request_headers), ("responseHeaders", &mut self.response_headers)]
        {
            let Some(changes) = rule.get(field) else { continue };
            for way in ["set", "add", "remove"] {
                for (i, change) in list(changes.get(way)).iter().enumerate() {
                    let name = if way == "remove" { Some(change) } else { change.get("name") };
                    if let Some(Node::String(name)) = name {
                        headers.push((format!("{at}.{field}.{way}[{i}]"), name.to_ascii_lowercase()));
                    }
                }
            }
        }
        for field in ["rewrite", "redirect"] {
            if let Some(Node::String(host)) = rule.get(field).and_then(|change| change.get("hostname")) {
                self.hosts.push((format!("{at}.{field}.hostname"), host.to_ascii_lowercase()));
            }
        }
    }

    fn route(&mut self, name: Option<&Node>, at: &str) {
        if let Some(Node::String(name)) = name {
            self.routes.push((at.to_owned(), name.clone()));
        }
    }
}

fn list(node: Option<&Node>) -> &[Node] {
    match node {
        Some(Node::List(items)) => items,
        _ => &[],
    }
}
