//! The native body with Envoy Gateway: an EnvoyProxy registers the library, an EnvoyExtensionPolicy contains the
//! policy.

use anyhow::{Result, ensure};
use penstock_integration::control_plane::eventually;
use penstock_integration::{Traffic, workspace};
use serde_json::json;

use crate::{Site, is_from, shop};

/// The path at which the rendered objects expect the library.
const SHIPPED: &str = "/etc/penstock/libpenstock.so";

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_native_body_is_served_by_what_penstock_renders_and_survives_what_operators_do() -> Result<()> {
    let site = Site::start()?;
    site.gateway_without_manifests(&json!({"infrastructure": {"parametersRef": {
        "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "penstock",
    }}}))?;
    let library = workspace::native_library()?.display().to_string();
    let rendered = site.rendered(&["--native"])?;
    let at = |library: &str, rendered: &str| {
        // Gateways route to the cluster address of a Service: this cluster has no endpoints.
        rendered.replace(SHIPPED, library).replace("\n  dynamicModules:", "\n  routingType: Service\n  dynamicModules:")
    };
    ensure!(rendered.contains(SHIPPED) && rendered.contains("\n  dynamicModules:"), "{rendered}");

    eprintln!("- accepted, served to Envoy, and deciding");
    site.apply_text(&at(&library, &rendered))?;
    site.wait_for_condition("Accepted True")?;
    let mut proxy = site.gateway.proxy(&site.cluster, "shop", "shop", site.port)?;
    site.does_what_the_rendered_policy_says()?;
    let listeners = proxy.admin().get("/config_dump?resource=dynamic_listeners")?;
    ensure!(listeners.contains("DynamicModuleFilter") && listeners.contains(&library), "{listeners}");
    ensure!(!listeners.contains("wasm.v3.Wasm"), "there is a wasm filter: {listeners}");

    eprintln!("- counters, with labels, under the names that docs/native.md has");
    eventually("counters", || {
        let page = proxy.admin().get("/stats/prometheus?filter=penstock")?;
        let has = |line: &str, label: &str| line.contains(label);
        let limit = page.lines().find(|line| {
            line.contains("penstock_requests_total{")
                && has(line, "rule=\"per-user\"")
                && has(line, "outcome=\"limited\"")
        });
        let limit = limit.ok_or_else(|| anyhow::anyhow!("no limit in {page}"))?;
        ensure!(limit.starts_with("envoy_dynamicmodulescustom_penstock_requests_total{"), "{limit}");
        ensure!(has(limit, "section=\"rateLimits\""), "{limit}");
        Ok(())
    })?;

    eprintln!("- a mistake in the policy leaves the old one serving");
    site.apply_text(&at(&library, &rendered.replace("- name: x-user-group", "- nmae: x-user-group")))?;
    proxy.wait_for_log("configuration refused: routes.rules[0].matches[0].headers[0]")?;
    site.expect("the beta route", &shop("/").header("x-user-group", "beta"), "shop-beta")?;

    eprintln!("- new policies under traffic lose no request, and keep what a limit has counted");
    let traffic = Traffic::start(2, ([127, 0, 0, 1], site.port).into(), &shop("/"), |response| {
        ensure!(response.status == 200, "{response:?}");
        Ok(())
    });
    for header in ["x-first", "x-second"] {
        site.apply_text(&at(&library, &rendered.replace("x-user-group", header)))?;
        site.expect("the new policy", &shop("/").header(header, "beta"), "shop-beta")?;
        traffic.wait_for(50)?;
    }
    let mut tally = traffic.stop()?;
    // A changed listener drains: HTTP/2 clients get GOAWAY and repeat their requests.
    tally.failures.retain(|failure| !failure.ends_with("the connection ended: NO_ERROR "));
    ensure!(tally.failures.is_empty() && tally.good >= 100, "{tally:?}");
    let limited = site.ask(&shop("/limited").header("x-user", "a"))?;
    ensure!(limited.status == 429, "the limit has forgotten: {limited:?}");

    eprintln!("- a module that no EnvoyProxy names is not accepted, and nothing passes without it");
    site.apply_text(&at(&library, &rendered).replace(
        "dynamicModule:\n  # As the EnvoyProxy calls it.\n  - name: penstock",
        "dynamicModule:\n  - name: another",
    ))?;
    site.wait_for_condition("Accepted False")?;
    eprintln!("  {}", site.conditions()?);
    ensure!(site.conditions()?.contains("not registered in the EnvoyProxy"), "{}", site.conditions()?);
    eventually("a refusal", || {
        let response = site.ask(&shop("/"))?;
        ensure!(response.status == 500, "{response:?}");
        Ok(())
    })?;

    eprintln!("- a library that is not there: what serves goes on serving");
    site.apply_text(&at(&library, &rendered))?;
    site.expect("the beta route", &shop("/").header("x-user-group", "beta"), "shop-beta")?;
    site.apply_text(&at("/etc/penstock/none.so", &rendered))?;
    proxy.wait_for_log("none.so")?;
    ensure!(is_from("shop-beta", &site.ask(&shop("/").header("x-user-group", "beta"))?), "it does not serve");
    Ok(())
}
