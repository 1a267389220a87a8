//! The output of `penstock render --for istio` with a real istiod: applied unchanged, it routes requests as the policy
//! says.

use std::fs;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{Access, Pod, Role, eventually, free_port};
use penstock_integration::http::HttpRequest;
use penstock_integration::{RENDERED_POLICY, Upstream, workspace};
use serde_json::json;

use crate::mesh::{Mesh, ask, is_from};
use crate::shop;

/// Makes [`RENDERED_POLICY`] a policy with all four sections.
const EGRESS: &str = "\
egress:
  rules:
  - {name: payments, to: [{host: payments.example.com, ports: [443]}]}
";

fn rendered(mesh: &Mesh, target: &str) -> Result<String> {
    let policy = mesh.cluster.folder().join("policy.yaml");
    fs::write(&policy, [EGRESS, RENDERED_POLICY].concat())?;
    let image = |module: &str| format!("oci://{}/penstock/{module}:0.1.0", mesh.registry.address());
    let output = std::process::Command::new(workspace::dist().join("penstock"))
        .arg("render")
        .arg(&policy)
        .args([
            "--for",
            target,
            "--namespace",
            "istio-system",
            "--gateway",
            "istio-system/shop",
            "--host",
            "shop.example.com",
        ])
        .args(["--image", &image("suite"), "--egress-image", &image("egress-allowlist"), "--service-namespace", "shop"])
        .args(["--service", "stable=shop:80/stable", "--service", "beta=shop:80/beta"])
        .args(["--service", "v1=reviews:80/v1", "--service", "v2=reviews:80/v2"])
        .output()
        .context("cannot run dist/penstock")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn carries_what_the_policy_says(mesh: &Mesh, user: &str) -> Result<()> {
    mesh.expect("the default route", &shop("/"), is_from("shop-stable"))?;
    mesh.expect("the limit", &shop("/limited").header("x-user", user), |response| response.status == 200)?;
    let limited = mesh.expect("its refusal", &shop("/limited").header("x-user", user), |it| it.status == 429)?;
    ensure!(limited.header("x-upstream").is_none(), "{limited:?}");
    mesh.expect("the beta route", &shop("/").header("x-user-group", "beta"), is_from("shop-beta"))?;
    mesh.expect("the canary", &shop("/reviews"), is_from("reviews-v2"))?;
    let forged = mesh.ask(&shop("/").header("x-penstock-route", "beta"))?;
    ensure!(is_from("shop-stable")(&forged), "a client chose its route: {forged:?}");
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn what_penstock_renders_for_istio_is_applied_and_carries_requests() -> Result<()> {
    let mesh = Mesh::start(&Access::Open)?;
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "shop", "namespace": "istio-system"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["shop.example.com"]}],
        },
    });
    mesh.cluster.apply(&gateway.to_string())?;
    let manifests = rendered(&mesh, "istio")?;
    mesh.cluster.apply(&manifests).map_err(|said| anyhow::anyhow!("{said}\n{manifests}"))?;
    let mut proxy = Pod::new(Role::Gateway, "istio-system", "ingress-1", &[("istio", "ingressgateway")])
        .start(&mesh.cluster, &mesh.istio)?;
    proxy.wait_for_listener(mesh.port)?;
    eprintln!("- as WasmPlugin");
    carries_what_the_policy_says(&mesh, "first")?;

    eprintln!("- as TrafficExtension");
    mesh.cluster.kubectl(["delete", "wasmplugin", "--all", "--namespace=istio-system"])?;
    mesh.cluster.apply(&rendered(&mesh, "istio-trafficextension")?)?;
    carries_what_the_policy_says(&mesh, "second")
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn what_penstock_renders_for_istios_egress_lets_out_what_the_policy_lists() -> Result<()> {
    let mesh = Mesh::start(&Access::Open)?;
    let outside = Upstream::echo()?;
    let gateway = free_port()?;
    let route = |host: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": host.replace('.', "-"), "namespace": "istio-system"},
            "spec": {"hosts": [host], "gateways": ["egress"], "http": [{"route": [{"destination": {"host": "outside.test", "port": {"number": 80}}}]}]},
        })
    };
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "istio-egressgateway", "namespace": "istio-system"},
            "spec": {"selector": {"istio": "egressgateway"}, "ports": [{"name": "http", "port": 80, "targetPort": gateway}]},
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "egress", "namespace": "istio-system"},
            "spec": {
                "selector": {"istio": "egressgateway"},
                "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
            },
        }),
        // Istio allows both hosts; only the policy refuses one.
        route("outside.test"),
        route("evil.test"),
    ] {
        mesh.cluster.apply(&object.to_string())?;
    }
    let policy = mesh.cluster.folder().join("egress.yaml");
    fs::write(
        &policy,
        "egress: {defaultPort: 80, rules: [{name: outside, to: [{host: outside.test, ports: [80]}]}]}\n",
    )?;
    for (target, kind) in [("istio", "wasmplugin"), ("istio-trafficextension", "trafficextension")] {
        eprintln!("- as {kind}");
        let output = std::process::Command::new(workspace::dist().join("penstock"))
            .arg("render")
            .arg(&policy)
            .args(["--for", target, "--namespace", "istio-system"])
            .args(["--egress-image", &format!("{}/penstock/egress-allowlist:0.1.0", mesh.registry.address())])
            .output()
            .context("cannot run dist/penstock")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The name does not resolve here, so the test adds an endpoint with an address.
        let manifests = String::from_utf8(output.stdout)?;
        let endpoint = format!(
            "resolution: DNS\n  endpoints:\n  - address: 127.0.0.1\n    ports:\n      http: {}",
            outside.address().port()
        );
        ensure!(manifests.contains("resolution: DNS"), "{manifests}");
        let manifests = manifests.replace("resolution: DNS", &endpoint);
        mesh.cluster.apply(&manifests).map_err(|said| anyhow::anyhow!("{said}\n{manifests}"))?;
        let mut proxy = Pod::new(Role::Gateway, "istio-system", "egress-1", &[("istio", "egressgateway")])
            .start(&mesh.cluster, &mesh.istio)?;
        proxy.wait_for_listener(gateway)?;
        eventually("an answer from outside", || {
            let response = ask(gateway, &HttpRequest::get("/").at("outside.test"))?;
            ensure!(response.status == 200, "{response:?}");
            Ok(())
        })?;
        let before = outside.requests();
        for (host, reason) in [("evil.test", "hostNotAllowed"), ("outside.test:8443", "portNotAllowed")] {
            let response = ask(gateway, &HttpRequest::get("/").at(host))?;
            ensure!(response.status == 403 && response.text().contains(reason), "{host}: {response:?}");
        }
        ensure!(outside.requests() == before, "a refused request went out");
        drop(proxy);
        mesh.cluster.kubectl(["delete", kind, "--all", "--namespace=istio-system"])?;
    }
    Ok(())
}
