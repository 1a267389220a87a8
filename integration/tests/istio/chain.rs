//! The platform's plugin in the root namespace and the team's plugin in its own: a request passes when both allow it.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use penstock_integration::control_plane::{Access, Pod, Role, eventually, free_port};
use penstock_integration::http::HttpRequest;
use serde_json::{Value, json};

use super::mesh::{Mesh, ask};

fn plugin(mesh: &Mesh, namespace: &str, priority: u32, rule: &Value) -> String {
    let url = format!("oci://{}/penstock/egress-allowlist:0.1.0", mesh.registry.address());
    json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": "chain", "namespace": namespace},
        "spec": {"url": url, "phase": "AUTHZ", "priority": priority, "failStrategy": "FAIL_CLOSE",
            "pluginConfig": {"egress": {"rules": [rule]}}}})
    .to_string()
}

fn gateway(port: u16) -> String {
    let route = json!([{"route": [{"destination": {"host": "shop.shop.svc.cluster.local", "port": {"number": 80}}}]}]);
    let selector = json!({"istio": "team-gateway"});
    let objects = [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "team-gateway", "namespace": "shop"},
            "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": port}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "team", "namespace": "shop"},
            "spec": {"selector": selector, "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "team", "namespace": "shop"},
            "spec": {"hosts": ["shop.example.com"], "gateways": ["team"], "http": route}}),
    ];
    objects.map(|object| object.to_string()).join("\n---\n")
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn a_teams_plugin_never_widens_what_the_one_of_the_root_namespace_lets_pass_whatever_its_priority() -> Result<()> {
    let mesh = Mesh::start(&Access::Open)?;
    let port = free_port()?;
    mesh.cluster.apply(&gateway(port))?;
    let mut proxy = Pod::new(Role::Gateway, "shop", "team-1", &[("istio", "team-gateway")])
        .address(Ipv4Addr::new(127, 0, 0, 7))
        .start(&mesh.cluster, &mesh.istio)?;
    proxy.wait_for_listener(port)?;
    let answers = |method: &str, path: &str, status: u16| -> Result<()> {
        let response = ask(port, &HttpRequest::new(method, "shop.example.com", path))?;
        ensure!(response.status == status, "{method} {path}: {response:?}");
        Ok(())
    };
    eventually("the route", || answers("POST", "/b", 200))?;

    let platform = json!({"name": "platform", "to": [{"host": "shop.example.com"}], "methods": ["GET"]});
    let team = json!({"name": "team", "to": [{"host": "shop.example.com"}], "methods": ["GET", "POST"], "paths": [{"value": "/a"}]});
    mesh.cluster.apply(&plugin(&mesh, "istio-system", 100, &platform))?;
    eventually("the platform's plugin", || {
        answers("POST", "/a", 403)?;
        answers("GET", "/b", 200)
    })?;
    // The order does not matter: after the platform's plugin, at the same priority, and before it.
    for priority in [1, 100, 1000] {
        mesh.cluster.apply(&plugin(&mesh, "shop", priority, &team))?;
        eventually("the intersection", || {
            answers("GET", "/a", 200)?;
            answers("POST", "/a", 403)?;
            answers("GET", "/b", 403)
        })?;
    }
    Ok(())
}
