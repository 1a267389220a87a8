//! `istio/egress` unchanged: workload, sidecar, mutual TLS, the egress gateway with the allowlist, TLS, an external
//! server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{Access, IstioProxy, Pod, Role, eventually, free_port};
use penstock_integration::http::{HttpRequest, HttpResponse};
use penstock_integration::{Bootstrap, Dash, Listener, Route, workspace};
use serde_json::json;

use crate::mesh::{Mesh, ask};

/// The address of the gateway's Pod.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 97, 1);

/// The address of the dash's Pod.
const DASH: Ipv4Addr = Ipv4Addr::new(127, 0, 97, 4);

/// The file of a certificate or key.
fn pem(name: &str) -> std::path::PathBuf {
    workspace::root().join("integration/tests/tls").join(name)
}

/// A workload in the namespace `payments`, with a sidecar.
fn workload(mesh: &Mesh, account: &str, address: [u8; 4], port: u16) -> Result<IstioProxy> {
    let labels = [("app", account)];
    let pod = Pod::new(Role::Sidecar, "payments", account, &labels).account(account).address(address.into());
    let mut proxy = pod.start(&mesh.cluster, &mesh.istio)?;
    proxy.wait_for_listener(port)?;
    Ok(proxy)
}

/// A dash to which the proxies of the mesh send their access log, as `istio/observability/decisions.yaml` says.
fn dash(mesh: &Mesh, gateway: &IstioProxy) -> Result<Dash> {
    let als = SocketAddr::from((DASH, free_port()?));
    mesh.cluster.namespace("penstock-system", &[])?;
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "penstock-dash", "namespace": "penstock-system"},
            "spec": {
                "selector": {"app": "penstock-dash"},
                "ports": [{"name": "grpc-als", "port": 9912, "targetPort": als.port()}],
            },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "dash", "namespace": "penstock-system"},
            "spec": {"address": DASH, "labels": {"app": "penstock-dash"}},
        }),
    ] {
        mesh.cluster.apply(&object.to_string())?;
    }
    let telemetry = fs::read_to_string(workspace::root().join("istio/observability/decisions.yaml"))?;
    mesh.cluster.apply(&telemetry)?;
    let admin = gateway.admin().address();
    Dash::start(&["--envoy".to_owned(), format!("mesh=http://{admin}"), "--als".to_owned(), format!("mesh={als}")])
}

fn refused_for(response: &HttpResponse, reason: &str) -> bool {
    response.status == 403 && response.json().get("reason").and_then(|it| it.as_str()) == Some(reason)
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_egress_gateway_lets_out_what_the_policy_lists_for_the_workload_that_the_certificate_names() -> Result<()> {
    let mesh = Mesh::start(&Access::Open)?;
    mesh.cluster.namespace("payments", &[])?;
    // The external server: TLS with a certificate that the gateway verifies.
    let outside = Bootstrap::new()?
        .listener(
            Listener::new("outside")
                .tls(&pem("outside.crt"), &pem("outside.key"))
                .route(Route::any().answers(200, "from outside")),
        )
        .start()?;
    // The manifests use 80 and 443; the test uses ports that any user may open.
    let (plain, gateway) = (free_port()?, free_port()?);
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "istio-egressgateway", "namespace": "istio-system"},
            "spec": {
                "selector": {"istio": "egressgateway"},
                "ports": [{"name": "https", "port": 443, "targetPort": gateway}],
            },
        }),
        // A WorkloadEntry in place of endpoints, which must not be on loopback.
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "egressgateway", "namespace": "istio-system"},
            "spec": {"address": GATEWAY, "labels": {"istio": "egressgateway"}, "serviceAccount": "egressgateway"},
        }),
    ] {
        mesh.cluster.apply(&object.to_string())?;
    }
    let port = plain.to_string();
    let endpoint = format!(
        "resolution: DNS\n  endpoints:\n  - address: 127.0.0.1\n    ports:\n      https: {}",
        outside.address("outside")?.port()
    );
    let trust = format!("mode: SIMPLE\n        caCertificates: {}", pem("outside.crt").display());
    let local = [
        ("number: 80\n", format!("number: {port}\n")),
        ("port: 80\n", format!("port: {port}\n")),
        ("resolution: DNS", endpoint),
        ("mode: SIMPLE", trust),
    ];
    let local: Vec<_> = local.iter().map(|(from, to)| (*from, to.as_str())).collect();
    mesh.cluster.apply(&mesh.kustomization("egress", &local)?)?;
    // A host that the mesh knows, and that the policy does not list.
    for file in ["service-entry.yaml", "virtual-service.yaml"] {
        let mut text = fs::read_to_string(workspace::root().join("istio/egress").join(file))?;
        for (from, to) in
            [("stripe", "evil"), ("api.evil.com", "evil.test"), ("number: 80,", &format!("number: {port},"))]
        {
            text = text.replace(from, to);
        }
        text = text.replace("port: 80}", &format!("port: {port}}}"));
        mesh.cluster.apply(&text)?;
    }

    let labels = [("istio", "egressgateway")];
    let mut proxy = Pod::new(Role::Gateway, "istio-system", "egress-1", &labels)
        .account("egressgateway")
        .address(GATEWAY)
        .start(&mesh.cluster, &mesh.istio)?;
    proxy.wait_for_listener(gateway)?;
    let charges = HttpRequest::new("POST", "api.stripe.com", "/v1/charges");

    eprintln!("- the account that the rule names");
    let sidecar = workload(&mesh, "checkout", [127, 0, 97, 2], plain)?;
    eventually("an answer from outside", || {
        let response = ask(plain, &charges)?;
        ensure!(response.status == 200 && response.text() == "from outside", "{response:?}");
        Ok(())
    })?;
    let requests = || outside.admin().stat("http.outside.downstream_rq_total");
    let before = requests()?;
    let dash = dash(&mesh, &proxy)?;
    for (request, reason) in [
        (HttpRequest::new("GET", "evil.test", "/"), "hostNotAllowed"),
        (HttpRequest::new("DELETE", "api.stripe.com", "/v1/charges"), "methodNotAllowed"),
        (HttpRequest::new("GET", "api.stripe.com", "/v1/charges/../refunds"), "pathNotAllowed"),
    ] {
        let response = ask(plain, &request)?;
        ensure!(refused_for(&response, reason), "{reason}: {response:?}");
    }
    eprintln!("- the gateway sends its refusals to the dash");
    eventually("a refusal on the dash", || {
        ask(plain, &HttpRequest::new("DELETE", "api.stripe.com", "/v1/charges"))?;
        let refusals = dash.refusals("mesh")?;
        let refusal = refusals.iter().find(|it| it["reason"] == "methodNotAllowed").context("none yet")?;
        let facts = ["namespace", "section", "host", "caller"].map(|name| refusal[name].as_str().unwrap_or_default());
        let caller = "spiffe://cluster.local/ns/payments/sa/checkout";
        ensure!(facts == ["istio-system", "egress", "api.stripe.com", caller], "{refusal:#}");
        Ok(())
    })?;
    // REGISTRY_ONLY: the sidecar does not forward hosts that the mesh does not know.
    let unknown = ask(plain, &HttpRequest::new("GET", "unknown.test", "/"))?;
    ensure!(unknown.status == 502 && unknown.body.is_empty(), "{unknown:?}");

    eprintln!("- what the NetworkPolicies select, with and without what every cluster has");
    let (whole, said) = mesh.cluster.check_selectors("istio/egress")?;
    ensure!(!whole && said.contains("4 of them select or name nothing"), "{said}");
    mesh.cluster.pod("istio-system", "istiod", &json!({"app": "istiod"}))?;
    mesh.cluster.pod("kube-system", "coredns", &json!({"k8s-app": "kube-dns"}))?;
    let (whole, said) = mesh.cluster.check_selectors("istio/egress")?;
    ensure!(whole, "{said}");
    eprintln!("{said}");

    eprintln!("- another account of the same namespace");
    drop(sidecar);
    let _sidecar = workload(&mesh, "catalogue", [127, 0, 97, 3], plain)?;
    eventually("a refusal", || {
        let response = ask(plain, &charges)?;
        ensure!(refused_for(&response, "callerNotAllowed"), "{response:?}");
        Ok(())
    })?;

    eprintln!("- nobody without a certificate");
    let naked = ask(gateway, &charges);
    ensure!(naked.is_err(), "{naked:?}");
    ensure!(requests()? == before, "a refused request went out");
    let log = proxy.log();
    ensure!(log.contains("spiffe://cluster.local/ns/payments/sa/catalogue"), "the gateway does not say who: {log}");
    Ok(())
}
