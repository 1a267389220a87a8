//! The native body with Envoy Gateway: an EnvoyProxy registers the library, an EnvoyExtensionPolicy contains the
//! policy.

use std::fs;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::eventually;
use penstock_integration::{TokenSigner, Traffic, workspace};
use serde_json::{Value, json};

use crate::{Site, is_from, security_policy, shop};

/// The path at which the rendered objects expect the library.
const SHIPPED: &str = "/etc/penstock/libpenstock.so";

/// The rendered objects with this library.
fn at(library: &str, rendered: &str) -> String {
    // Gateways route to the cluster address of a Service: this cluster has no endpoints.
    rendered.replace(SHIPPED, library).replace("\n  dynamicModules:", "\n  routingType: Service\n  dynamicModules:")
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_native_body_is_served_by_what_penstock_renders_and_survives_what_operators_do() -> Result<()> {
    let site = Site::start()?;
    site.gateway_without_manifests(&json!({"infrastructure": {"parametersRef": {
        "group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "penstock",
    }}}))?;
    let library = workspace::native_library()?.display().to_string();
    let rendered = site.rendered(&["--native"])?;
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

    claims_need_a_patch(&site, at(&library, &rendered))
}

/// The EnvoyPatchPolicy of docs/native.md.
fn documented_patch() -> Result<String> {
    let page = fs::read_to_string(workspace::root().join("docs/native.md"))?;
    let block = page.split("```").find(|block| block.contains("kind: EnvoyPatchPolicy")).context("no example")?;
    Ok(block.trim_start_matches("yaml").to_owned())
}

/// With the rendered objects, changed so that their policy reads claims.
fn claims_need_a_patch(site: &Site, mut policies: String) -> Result<()> {
    let signer = TokenSigner::new()?;
    let security = security_policy(&signer, Some(json!([{"claim": "team", "header": "x-team"}])));
    site.cluster.apply(&security.to_string())?;
    for (from, to) in [
        ("    config:\n", "    config:\n      settings: {claims: {path: [example]}}\n"),
        ("- headers:\n            - name: x-user-group", "- claims:\n            - name: groups"),
        ("- header: x-user\n", "- claim: sub\n"),
    ] {
        ensure!(policies.contains(from), "no {from:?} in {policies}");
        policies = policies.replace(from, to);
    }
    site.apply_text(&policies)?;
    site.wait_for_condition("Accepted True")?;
    let with =
        |path: &str, claims: Value| Ok::<_, anyhow::Error>(shop(path).header("authorization", signer.bearer(&claims)?));
    let refused = || {
        let response = site.ask(&shop("/"))?;
        ensure!(response.status == 503 && response.header("x-upstream").is_none(), "{response:?}");
        Ok(())
    };

    eprintln!("- claims: without a filter that copies them, requests are refused");
    eventually("a refusal", refused)?;

    eprintln!("- with the documented patch, rules and limits go by claims");
    let patch = documented_patch()?;
    site.apply_text(&patch)?;
    site.expect("the beta route", &with("/", json!({"groups": ["dev", "beta"]}))?, "shop-beta")?;
    site.expect("the stable route", &with("/", json!({"groups": ["dev"]}))?, "shop-stable")?;
    site.expect("the stable route without a token", &shop("/").header("groups", "beta"), "shop-stable")?;
    let others = TokenSigner::new()?.bearer(&json!({"groups": "beta"}))?;
    ensure!(site.ask(&shop("/").header("authorization", others))?.status == 401, "another's token");
    let greedy = with("/limited", json!({"sub": "greedy"}))?;
    let answers = [site.ask(&greedy)?.status, site.ask(&greedy)?.status];
    ensure!(answers == [200, 429], "{answers:?}");
    let other = site.ask(&with("/limited", json!({"sub": "other"}))?)?;
    ensure!(other.status == 200, "one user's limit is another's: {other:?}");

    eprintln!("- a header that the SecurityPolicy makes from a claim cannot be forged");
    let team = |claims: Option<Value>| {
        let request = claims.map_or_else(|| Ok(shop("/")), |claims| with("/", claims))?.header("x-team", "forged");
        Ok::<_, anyhow::Error>(site.ask(&request)?.header("x-saw-team").unwrap_or_default())
    };
    let seen = [team(Some(json!({"team": "cart"})))?, team(Some(json!({"sub": "a"})))?, team(None)?];
    ensure!(seen == ["cart", "", ""], "{seen:?}");

    eprintln!("- the patch disappears, or names another filter: requests are refused again");
    site.apply_text(&patch.replace("/dynamic-module/0", "/dynamic-module/1"))?;
    eventually("a refusal", refused)
}
