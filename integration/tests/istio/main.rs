//! The manifests of `istio/` with a real istiod: accepted by the API server, translated by istiod, fetched by the
//! agent, run by Envoy.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{Access, Pod, Role, Tokens, eventually, free_port};
use penstock_integration::http::{HttpRequest, HttpResponse};
use penstock_integration::{Traffic, shop, shop_splits_and_limits, workspace};
use serde_json::json;

mod chain;
mod claims;
mod cluster;
mod egress;
mod mesh;
mod processes;
mod rendered;
mod waypoint;

use mesh::{Mesh, ask, is_from, upstream};

/// The suite with different bytes: a custom section that is ignored.
fn another_suite(folder: &std::path::Path) -> Result<String> {
    let mut module = fs::read(workspace::module("suite")?)?;
    module.extend(b"\0\x08\x07rebuilt");
    let path = folder.join("suite.wasm");
    fs::write(&path, module)?;
    Ok(path.display().to_string())
}

/// Tests routes, canary and limit of the manifest's policy with requests.
fn the_policy_of_the_manifest_decides(mesh: &Mesh) -> Result<()> {
    mesh.expect("the stable route", &shop("/"), is_from("shop-stable"))?;
    mesh.expect("the beta route", &shop("/").header("x-user-group", "beta"), is_from("shop-beta"))?;
    let forged = mesh.ask(&shop("/").header("x-penstock-route", "beta"))?;
    ensure!(is_from("shop-stable")(&forged), "a client chose its route: {forged:?}");
    shop_splits_and_limits(|request| mesh.ask(request))
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_ingress_gateway_runs_the_suite_from_a_registry_and_survives_what_operators_do() -> Result<()> {
    let mesh = Mesh::start(&Access::Open)?;
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[])?)?;
    mesh.cluster.apply_kustomization(&workspace::root().join("istio/observability"))?;
    let mut proxy = mesh.gateway("ingress-1")?;
    proxy.wait_for_listener(mesh.port)?;

    eprintln!("- as WasmPlugin");
    the_policy_of_the_manifest_decides(&mesh)?;
    eprintln!("- counters have labels");
    let metrics = eventually("counters", || {
        let page = proxy.admin().get("/stats/prometheus?filter=penstock")?;
        ensure!(page.contains("penstock_requests_total{"), "{page}");
        Ok(page)
    })?;
    ensure!(metrics.contains("rule=\"per-user\"") && metrics.contains("outcome=\"passed\""), "{metrics}");

    eprintln!("- as TrafficExtension instead");
    mesh.cluster.kubectl(["delete", "wasmplugin", "penstock", "--namespace=istio-system"])?;
    mesh.cluster.apply(&mesh.kustomization("overlays/traffic-extension", &[])?)?;
    mesh.expect("the beta route", &shop("/").header("x-user-group", "beta"), is_from("shop-beta"))?;
    mesh.cluster.kubectl(["delete", "trafficextension", "penstock", "--namespace=istio-system"])?;
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[])?)?;
    mesh.expect("the beta route", &shop("/").header("x-user-group", "beta"), is_from("shop-beta"))?;

    eprintln!("- a mistake in the policy leaves the old one serving");
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[("value: beta", "valeu: beta")])?)?;
    proxy.wait_for_log("Unable to create Wasm plugin")?;
    // As documented in docs/istio.md.
    let why = "configuration refused: routes.rules[0].matches[0].headers[0].valeu: unknown field `valeu`";
    ensure!(proxy.log().contains(why), "{}", proxy.log());
    eventually("istiod's word of it", || {
        let (log, metrics) = (mesh.istio.log(), mesh.istio.metrics()?);
        let why = "Internal:Unable to create Wasm plugin istio-system.penstock~istio-translated-wasmplugin";
        ensure!(log.contains(&format!("ADS:ECDS: ACK ERROR ingress-1.istio-system-1 {why}")), "{log}");
        let rejected = metrics.lines().find(|line| line.starts_with("pilot_total_xds_rejects{"));
        ensure!(rejected.is_some(), "{metrics}");
        eprintln!("  {}", rejected.unwrap_or_default());
        Ok(())
    })?;
    mesh.expect("the beta route", &shop("/").header("x-user-group", "beta"), is_from("shop-beta"))?;

    eprintln!("- a new policy and a new module under 200 requests a second lose none");
    // The manifest's limit is for manual use.
    let roomy = ("requests: 100", "requests: 1000000");
    let other = another_suite(mesh.cluster.folder())?;
    mesh.push(&other, "suite:0.2.0")?;
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[roomy, ("x-user-group", "x-first")])?)?;
    mesh.expect("the policy", &shop("/").header("x-first", "beta"), is_from("shop-beta"))?;
    let started = Instant::now();
    let traffic = Traffic::start(4, ([127, 0, 0, 1], mesh.port).into(), &shop("/"), |response| {
        ensure!(response.status == 200, "{response:?}");
        Ok(())
    });
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[roomy, ("x-user-group", "x-group")])?)?;
    mesh.expect("the new policy", &shop("/").header("x-group", "beta"), is_from("shop-beta"))?;
    traffic.wait_for(200)?;
    let fetched = |log: &str| log.matches("fetching image penstock/suite").count();
    let before = fetched(&proxy.log());
    let changed = [roomy, ("x-user-group", "x-grp"), ("suite:0.1.0", "suite:0.2.0")];
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &changed)?)?;
    mesh.expect("the new module", &shop("/").header("x-grp", "beta"), is_from("shop-beta"))?;
    ensure!(fetched(&proxy.log()) > before, "the agent fetched nothing new");
    traffic.wait_for(200)?;
    // Back to the first policy.
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[roomy])?)?;
    mesh.expect("the old module", &shop("/").header("x-user-group", "beta"), is_from("shop-beta"))?;
    traffic.wait_for(200)?;
    let tally = traffic.stop()?;
    eprintln!("  {} requests in {:?}, {} failed", tally.good, started.elapsed(), tally.failures.len());
    ensure!(tally.failures.is_empty() && tally.good >= 600, "{tally:?}");

    eprintln!("- the access log says what decided");
    eventually("a line", || {
        let lines = proxy.access_log();
        let line = lines.iter().find(|line| line["penstockRoute"] == "beta").context("none about beta")?;
        ensure!(line["authority"] == "shop.example.com" && line["status"] == 200, "{line}");
        let line = lines.iter().find(|line| line["status"] == 429).context("none of a limit")?;
        ensure!(line["details"] == "penstock_rateLimits_limited", "{line}");
        Ok(())
    })
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn a_sidecar_limits_what_comes_in_with_a_module_from_a_registry_that_wants_tokens() -> Result<()> {
    let tokens = Tokens::start()?;
    let mesh = Mesh::start(&tokens.access())?;
    let workload = upstream("checkout")?;
    let port = free_port()?;
    mesh.cluster.apply(
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {"selector": {"app": "checkout"}, "ports": [{"name": "http", "port": port}]},
        })
        .to_string(),
    )?;
    mesh.cluster.apply(
        &json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {
                "workloadSelector": {"labels": {"app": "checkout"}},
                // Only inbound requests matter here.
                "egress": [{"hosts": ["~/*"]}],
                "ingress": [{
                    "port": {"number": port, "protocol": "HTTP", "name": "http"},
                    "bind": "127.0.0.1", "captureMode": "NONE",
                    "defaultEndpoint": format!("127.0.0.1:{}", workload.address().port()),
                }],
            },
        })
        .to_string(),
    )?;
    mesh.pull_secret("shop")?;
    let secret = ("failStrategy: FAIL_RELOAD", "failStrategy: FAIL_RELOAD\n  imagePullSecret: registry");
    mesh.cluster.apply(&mesh.kustomization("sidecar", &[secret])?)?;
    let mut proxy =
        Pod::new(Role::Sidecar, "shop", "checkout-1", &[("app", "checkout")]).start(&mesh.cluster, &mesh.istio)?;
    proxy.wait_for_listener(port)?;
    let tenant = |name: &str| HttpRequest::get("/").at("checkout.shop").header("x-tenant", name);
    eventually("the workload's answer", || {
        let response = ask(port, &tenant("patient"))?;
        ensure!(is_from("checkout")(&response), "{response:?}");
        Ok(())
    })?;
    let refused =
        (0..30).map(|_| ask(port, &tenant("greedy"))).find(|answer| !answer.as_ref().is_ok_and(|it| it.status == 200));
    ensure!(matches!(&refused, Some(Ok(response)) if response.status == 429), "no limit: {refused:?}");
    ensure!(ask(port, &tenant("other"))?.status == 200, "one tenant's limit is another's");
    let pulls = |path: &str| path.contains("scope=repository%3Apenstock%2Frate-limit%3Apull&");
    ensure!(tokens.requests().iter().any(|request| pulls(&request.path())), "the agent asked for no token");
    Ok(())
}

/// A gateway's proxy with an empty cache, and a registry that requires a password.
#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn what_cannot_be_fetched_is_refused_and_what_was_fetched_keeps_serving() -> Result<()> {
    let mut mesh = Mesh::start(&Access::Password)?;
    let image = "suite:0.1.0";
    let beta = |header: &str| shop("/").header(header, "beta");
    let denied = |response: &HttpResponse| response.status == 403 && response.text() == "RBAC: access denied";

    eprintln!("- without the pull secret: refused");
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[])?)?;
    let mut proxy = mesh.gateway("ingress-1")?;
    proxy.wait_for_listener(mesh.port)?;
    proxy.wait_for_log("applying deny RBAC filter")?;
    ensure!(proxy.log().contains("401 Unauthorized") || proxy.log().contains("UNAUTHORIZED"), "{}", proxy.log());
    mesh.expect("a refusal", &shop("/"), denied)?;

    eprintln!("- with it: served");
    mesh.pull_secret("istio-system")?;
    let pull = ("imagePullPolicy: IfNotPresent", "imagePullPolicy: IfNotPresent\n  imagePullSecret: registry");
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &[pull])?)?;
    mesh.expect("the beta route", &beta("x-user-group"), is_from("shop-beta"))?;

    eprintln!("- with the digest in the URL: a moved tag changes nothing");
    let digest = mesh.push(&workspace::module("suite")?.display().to_string(), image)?;
    let pinned = format!("suite@{digest}");
    let by_digest = [pull, (image, pinned.as_str()), ("x-user-group", "x-pinned")];
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &by_digest)?)?;
    mesh.expect("the policy", &beta("x-pinned"), is_from("shop-beta"))?;
    let wrong = format!("imagePullPolicy: IfNotPresent\n  imagePullSecret: registry\n  sha256: \"{}\"", "0".repeat(64));
    let wrong = [("imagePullPolicy: IfNotPresent", wrong.as_str()), ("x-user-group", "x-wrong")];
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &wrong)?)?;
    mesh.expect("a refusal of a wrong digest", &shop("/"), denied)?;
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &by_digest)?)?;
    mesh.expect("the policy", &beta("x-pinned"), is_from("shop-beta"))?;

    eprintln!("- registry down: what runs keeps serving, and takes new policies");
    mesh.registry.down();
    let offline = [pull, (image, pinned.as_str()), ("x-user-group", "x-offline")];
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &offline)?)?;
    mesh.expect("the new policy", &beta("x-offline"), is_from("shop-beta"))?;

    eprintln!("- registry down when a proxy starts: refused until the registry is back and something changes");
    drop(proxy);
    let mut proxy = mesh.gateway("ingress-2")?;
    proxy.wait_for_listener(mesh.port)?;
    proxy.wait_for_log("applying deny RBAC filter")?;
    mesh.expect("a refusal", &shop("/"), denied)?;
    mesh.registry.up()?;
    let back = [pull, (image, pinned.as_str()), ("x-user-group", "x-back")];
    mesh.cluster.apply(&mesh.kustomization("overlays/wasm-plugin", &back)?)?;
    mesh.expect("the policy", &beta("x-back"), is_from("shop-beta"))?;
    Ok(())
}
