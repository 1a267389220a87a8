//! The output of `penstock render --for envoy-gateway` with a real Envoy Gateway: applied unchanged, it routes requests
//! as the policy says.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{OUTSIDE, eventually, free_port};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Upstream, UpstreamReply, workspace};
use serde_json::json;

use crate::{Site, is_from, shop};

/// An egress policy that allows one external host, and a name for the gateway itself, at this port.
fn egress(port: u16) -> String {
    let (outside, _) = OUTSIDE;
    format!(
        "egress:\n  defaultPort: 80\n  rules:\n  - {{name: outside, to: [{{host: {outside}, ports: [{port}]}}], methods: [GET]}}\n  \
         - {{name: itself, to: [{{host: localhost, ports: [{port}]}}], methods: [GET]}}\n"
    )
}

/// Tests the egress Gateway, which listens on the port `gateway`; the external host listens on the port `outside`.
fn lets_out_what_the_policy_allows(site: &Site, gateway: u16, outside: u16) -> Result<()> {
    let (name, address) = OUTSIDE;
    let _upstream = Upstream::at((address, outside).into(), |_| {
        UpstreamReply::Status(200, vec![("x-upstream".to_owned(), "outside".to_owned())])
    })?;
    let _proxy = site.gateway.proxy(&site.cluster, "shop", "penstock-egress", gateway)?;
    let ask = |method: &str, authority: &str| -> Result<HttpResponse> {
        let to = SocketAddr::from(([127, 0, 0, 1], gateway));
        http::send(Protocol::Http1, to, &HttpRequest::new(method, authority, "/"))
    };
    let allowed = format!("{name}:{outside}");
    eventually("the host outside", || {
        let response = ask("GET", &allowed)?;
        ensure!(is_from("outside", &response), "{response:?}");
        Ok(())
    })?;
    for (method, authority) in
        [("POST", allowed.clone()), ("GET", format!("{name}:1")), ("GET", "other.test".to_owned())]
    {
        let response = ask(method, &authority)?;
        ensure!(response.status == 403 && !response.text().contains("RBAC"), "{method} {authority}: {response:?}");
    }
    // As documented in docs/envoy-gateway.md, Envoy Gateway refuses this itself, even if the policy allows it.
    let itself = ask("GET", &format!("localhost:{outside}"))?;
    ensure!(itself.status == 403 && itself.text() == "RBAC: access denied", "{itself:?}");
    Ok(())
}

/// More routes than fit into one HTTPRoute.
const MANY: usize = 20;

/// The output of `penstock render` for a policy, in the namespace `shop`.
fn rendered(site: &Site, policy: &str, more: &[String]) -> Result<String> {
    let file = site.cluster.folder().join("policy.yaml");
    fs::write(&file, policy)?;
    let output = std::process::Command::new(workspace::dist().join("penstock"))
        .arg("render")
        .arg(&file)
        .args(["--for", "envoy-gateway", "--namespace", "shop"])
        .args(more)
        .output()
        .context("cannot run dist/penstock")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn what_penstock_renders_for_envoy_gateway_is_applied_and_carries_requests() -> Result<()> {
    let site = Site::start()?;
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"gatewayClassName": "eg", "listeners": [{"name": "http", "protocol": "HTTP", "port": site.port}]},
    });
    site.cluster.apply(&gateway.to_string())?;
    let (egress_port, outside) = (free_port()?, free_port()?);
    let many: String = (0..MANY)
        .map(|i| {
            format!("  - {{name: many-{i}, matches: [{{path: {{type: Exact, value: /many/{i}}}}}], route: many-{i}}}\n")
        })
        .collect();
    let policy = format!(
        "rateLimits:\n- {{name: per-user, matches: [{{path: {{value: /limited}}}}], key: [{{header: x-user}}], limit: {{requests: 1, per: 1h}}}}\n\
         routes:\n  default: stable\n  rules:\n  - {{name: beta-users, matches: [{{headers: [{{name: x-user-group, value: beta}}]}}], route: \
         beta}}\n{many}canaries:\n- {{name: reviews, matches: [{{path: {{value: /reviews}}}}], variants: [{{name: v1, weight: 0}}, {{name: v2, weight: 1}}]}}\n{}",
        egress(outside)
    );
    let service = |route: &str, name: &str| format!("--service={route}={name}:{}", site.service_port);
    // The routes lead to two services alternately, so that a wrong order is noticed.
    let of_many = |i: usize| if i.is_multiple_of(2) { "shop-beta" } else { "reviews-v1" };
    let mut arguments = vec![
        "--gateway=shop".to_owned(),
        "--host=shop.example.com".to_owned(),
        format!("--image={}/penstock/suite:0.1.0", site.registry.address()),
        service("stable", "shop-stable"),
        service("beta", "shop-beta"),
        service("v1", "reviews-v1"),
        service("v2", "reviews-v2"),
    ];
    arguments.extend((0..MANY).map(|i| service(&format!("many-{i}"), of_many(i))));
    let manifests = rendered(&site, &policy, &arguments)?;
    ensure!(manifests.contains("port: 8080, protocol: HTTP"), "{manifests}");
    let manifests = manifests.replace("port: 8080, protocol: HTTP", &format!("port: {egress_port}, protocol: HTTP"));
    ensure!(manifests.matches("kind: HTTPRoute").count() == 3, "{manifests}");
    site.cluster.apply(&manifests).map_err(|said| anyhow::anyhow!("{said}\n{manifests}"))?;
    site.wait_for_condition("Accepted True")?;
    let _proxy = site.gateway.proxy(&site.cluster, "shop", "shop", site.port)?;
    site.expect("the default route", &shop("/"), "shop-stable")?;
    site.expect("the beta route", &shop("/").header("x-user-group", "beta"), "shop-beta")?;
    site.expect("the canary", &shop("/reviews"), "reviews-v2")?;
    for i in 0..MANY {
        site.expect("one of many routes", &shop(&format!("/many/{i}")), of_many(i))?;
    }
    let limited = shop("/limited").header("x-user", "a");
    let answers = [site.ask(&limited)?.status, site.ask(&limited)?.status];
    ensure!(answers == [200, 429], "{answers:?}");
    let forged = site.ask(&shop("/").header("x-penstock-route", "beta"))?;
    ensure!(is_from("shop-stable", &forged), "a client chose its route: {forged:?}");

    eprintln!("- and what leaves");
    lets_out_what_the_policy_allows(&site, egress_port, outside)
}
