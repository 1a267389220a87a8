//! The tables "Compared with other gateways" in `docs/filters/`: each cell of ours compiles, and imported objects of others decide
//! alike.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::io::Write;
use std::process::{Command, Stdio};

use penstock::yaml::Located;
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};

const ROUTING: &str = include_str!("../../docs/filters/header-routing.md");
const CANARY: &str = include_str!("../../docs/filters/canary.md");
const LIMITS: &str = include_str!("../../docs/filters/rate-limit.md");
const EGRESS: &str = include_str!("../../docs/filters/egress.md");

/// The code in the cells of the table, row by row; `None` for a dash or text.
fn rows(page: &str) -> Vec<Vec<Option<String>>> {
    let section = page.split("## Compared with other gateways\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cell = |cell: &str| {
        let cell = cell.trim();
        let code = cell.strip_prefix("``").and_then(|rest| rest.split("``").next());
        code.or_else(|| cell.strip_prefix('`').and_then(|rest| rest.split('`').next())).map(str::to_owned)
    };
    let rows: Vec<Vec<_>> = lines.map(|line| line.trim_matches('|').split(" | ").map(cell).collect()).collect();
    assert!(rows.len() >= 7, "{section}");
    rows
}

fn compiles(policy: &str) -> Policy {
    let node = Located::read(policy).unwrap_or_else(|error| panic!("{error}\n{policy}")).node;
    Policy::from_node(&node).unwrap_or_else(|problems| panic!("{problems}\n{policy}"))
}

fn rule(ours: &str) -> String {
    let leads = ["redirect:", "canary:"].iter().any(|field| ours.starts_with(field));
    let route = if leads { "" } else { "route: a, " };
    let canary = "canaries: [{name: cart, variants: [{name: a, weight: 90}, {name: b, weight: 10}]}]\n";
    let canary = if ours.starts_with("canary:") { canary } else { "" };
    format!("routes: {{rules: [{{name: r, {route}{ours}}}]}}\n{canary}")
}

#[test]
fn every_cell_of_ours_is_part_of_a_policy() {
    for row in rows(ROUTING) {
        compiles(&rule(row.last().unwrap().as_ref().unwrap()));
    }
    for row in rows(CANARY) {
        let ours = row.last().unwrap().as_ref().unwrap();
        let variants = if ours.starts_with("variants") {
            ""
        } else {
            ", variants: [{name: v1, weight: 1}, {name: v2, weight: 1}]"
        };
        compiles(&format!("canaries: [{{name: c, {ours}{variants}}}]"));
    }
    for row in rows(LIMITS) {
        let ours = row.last().unwrap().as_ref().unwrap();
        let key = if ours.starts_with("key") { "" } else { ", key: []" };
        let limit = if ours.starts_with("limit") { "" } else { ", limit: {requests: 10, per: 1s}" };
        compiles(&format!("rateLimits: [{{name: l, {ours}{key}{limit}}}]"));
    }
    for row in rows(EGRESS) {
        let ours = row.last().unwrap().as_ref().unwrap();
        let to = if ours.starts_with("to:") { "" } else { ", to: [{host: api.example.com}]" };
        compiles(&match ours.strip_prefix("mode:") {
            Some(mode) => format!("egress: {{mode: {mode}, rules: []}}"),
            None => format!("egress: {{rules: [{{name: r, owner: o, reason: x, {ours}{to}}}]}}"),
        });
    }
}

fn import(manifest: &str) -> Policy {
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{manifest}", String::from_utf8_lossy(&output.stderr));
    compiles(std::str::from_utf8(&output.stdout).unwrap())
}

fn http_route(theirs: &str) -> String {
    let backends = if theirs.contains("backendRefs") || theirs.contains("RequestRedirect") {
        ""
    } else {
        ", backendRefs: [{name: a, port: 80}]"
    };
    let theirs = theirs
        .replace("{name: a, weight", "{name: a, port: 80, weight")
        .replace("{name: b, weight", "{name: b, port: 80, weight");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  rules:\n  - {{{theirs}{backends}}}\n"
    )
}

fn virtual_service(theirs: &str) -> String {
    let leads = theirs.starts_with("redirect") || theirs.starts_with("route");
    let route = if leads { "" } else { ", route: [{destination: {host: a}}]" };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, namespace: shop}}\nspec:\n  hosts: [\"*\"]\n  http:\n  - {{{theirs}{route}}}\n"
    )
}

fn ingress_route(theirs: &str) -> String {
    format!(
        "apiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n  routes:\n  - {{match: '{theirs}', kind: Rule, services: [{{name: a, port: 80}}]}}\n"
    )
}

/// The relevant part of a decision: where it leads, but not the route's name.
fn essence(decision: &WireDecision) -> Value {
    let mut decision = serde_json::to_value(decision).unwrap();
    let fields = decision.as_object_mut().unwrap();
    let routed = fields.remove("route").is_some();
    for field in ["rule", "section", "variant", "reason"] {
        fields.remove(field);
    }
    if let Some(Value::Object(headers)) = fields.get_mut("headers") {
        if let Some(Value::Array(set)) = headers.get_mut("set") {
            set.retain(|pair| pair[0] != "x-penstock-route");
            set.sort_by_key(Value::to_string);
        }
        headers.retain(|_, list| list != &json!([]));
        if headers.is_empty() {
            fields.remove("headers");
        }
    }
    json!({"routed": routed, "decision": decision})
}

#[test]
fn what_others_call_it_is_imported_and_decides_as_ours_does() {
    let mut compared = 0;
    for row in rows(ROUTING) {
        let [gateway, istio, _, traefik, ours] = <[_; 5]>::try_from(row).unwrap();
        let ours = ours.unwrap();
        let mine = compiles(&rule(&ours));
        let theirs = [gateway.as_deref().map(http_route), istio.as_deref().map(virtual_service)];
        let is_match = ours.starts_with("matches");
        let theirs = theirs.into_iter().chain([traefik.as_deref().filter(|_| is_match).map(ingress_route)]);
        for manifest in theirs.flatten() {
            let imported = import(&manifest);
            for method in ["GET", "POST"] {
                for path in ["/", "/cart", "/cart/7", "/cartoon", "/cart?v=two", "/x?v=one", "/x?v=two"] {
                    for group in [None, Some("beta"), Some("alpha")] {
                        let headers: Vec<_> = group.map(|group| json!(["x-group", group])).into_iter().collect();
                        let request = json!({"method": method, "scheme": "http", "authority": "shop.example.com",
                            "path": path, "headers": headers});
                        let request: WireRequest = serde_json::from_value(request).unwrap();
                        let decide = |policy| essence(&request.decide(policy, &mut World::new(Timestamp(0), 7)));
                        assert_eq!(decide(&imported), decide(&mine), "{request:?}\n{manifest}\n{ours}");
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 1000, "{compared}");
}
