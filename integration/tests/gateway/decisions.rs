//! The access log of `envoy-configs/gateway/observability/decisions.yaml`, which proxies send to the dash.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{GatewayProxy, eventually};
use penstock_integration::demo::json::of_yaml;
use penstock_integration::{Dash, shop, workspace};
use serde_json::{Value, json};

use crate::Site;

/// The cluster address of the dash's Service.
const DASH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 96, 15)), 9912);

/// Merges the log into the EnvoyProxy that is there, as the file says, and waits for a refusal on the dash.
pub(crate) fn reach_the_dash(site: &Site, proxy: &GatewayProxy) -> Result<()> {
    eprintln!("- the proxy sends its refusals to the dash");
    site.cluster.namespace("penstock-system", &[])?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "penstock-dash", "namespace": "penstock-system"},
        "spec": {"clusterIP": DASH.ip(), "ports": [{"name": "als", "port": DASH.port()}]},
    });
    site.cluster.apply(&service.to_string())?;
    let admin = proxy.admin().address();
    let dash = Dash::start(&[
        "--envoy".to_owned(),
        format!("edge=http://{admin}"),
        "--als".to_owned(),
        format!("edge={DASH}"),
    ])?;

    let shipped = fs::read_to_string(workspace::root().join("envoy-configs/gateway/observability/decisions.yaml"))?;
    let shipped: Value = serde_json::from_str(&of_yaml(&shipped)?)?;
    let logs = "/spec/telemetry/accessLog/settings";
    let log = shipped.pointer(logs).and_then(|logs| logs.get(0)).context("no access log")?;
    let there = site.cluster.get("envoyproxy", "envoy-gateway-system", "penstock")?;
    let mut all = there.pointer(logs).and_then(Value::as_array).cloned().context("no access logs there")?;
    all.push(log.clone());
    let patch = json!({"spec": {"telemetry": {"accessLog": {"settings": all}}}}).to_string();
    let patch = format!("--patch={patch}");
    site.cluster.kubectl(["patch", "envoyproxy", "penstock", "-n", "envoy-gateway-system", "--type=merge", &patch])?;
    site.apply("image", &[("requests: 100", "requests: 1")])?;
    eventually("a refusal on the dash", || {
        let answer = site.ask(&shop("/reviews").header("x-user-id", "greedy"))?;
        let refusals = dash.refusals("edge")?;
        let refusal = refusals.first().with_context(|| format!("none after {}", answer.status))?;
        ensure!((&refusal["section"], &refusal["reason"]) == (&json!("rateLimits"), &json!("limited")), "{refusal:#}");
        Ok(())
    })
}
