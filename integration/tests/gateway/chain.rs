//! The platform's plugin and the team's plugin in one chain: a request passes when both allow it.

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::eventually;
use penstock_integration::http::HttpRequest;
use penstock_integration::workspace;
use serde_json::{Map, Value, json};

use super::{Site, is_from, shop};

/// The platform allows only GET.
fn ceiling() -> Value {
    json!({"egress": {"rules": [{"name": "platform", "to": [{"host": "shop.example.com"}], "methods": ["GET"]}]}})
}

/// The team allows `/a`, and more methods than the platform permits.
fn team() -> Value {
    json!({"egress": {"rules": [{"name": "team", "to": [{"host": "shop.example.com"}], "methods": ["GET", "POST"],
        "paths": [{"value": "/a"}]}]}})
}

fn plugin(site: &Site, name: &str, policy: &Value) -> Value {
    let url = format!("{}/penstock/suite:0.1.0", site.registry.address());
    json!({"name": name, "failOpen": false, "config": policy, "code": {"type": "Image", "image": {"url": url}}})
}

/// An EnvoyExtensionPolicy for a Gateway or an HTTPRoute with these plugins.
fn policy(name: &str, kind: &str, plugins: &[Value], merge: Option<&str>) -> String {
    let mut spec = Map::new();
    spec.insert("wasm".to_owned(), json!(plugins));
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": kind, "name": "shop"}]);
    spec.insert("targetRefs".to_owned(), target);
    spec.extend(merge.map(|merge| ("mergeType".to_owned(), json!(merge))));
    json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyExtensionPolicy",
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    .to_string()
}

/// The platform's plugin in the listener itself, for every route.
fn in_the_listener() -> Result<String> {
    let text = std::fs::read_to_string(workspace::root().join("deploy/chain/envoy-patch-policy.yaml"))?;
    let module = workspace::module("suite")?.display().to_string();
    ensure!(text.contains("/modules/suite.wasm") && text.contains("'{\"egress\""), "{text}");
    let (before, rest) = text.split_once("value: '{\"egress\"").unwrap_or_default();
    let (_, after) = rest.split_once("}'\n").unwrap_or_default();
    Ok(format!("{before}value: '{}'\n{after}", ceiling()).replace("/modules/suite.wasm", &module))
}

/// Whether the EnvoyExtensionPolicy of this version has `mergeType`: from Envoy Gateway 1.9 on.
fn can_merge(site: &Site) -> Result<bool> {
    let name = "envoyextensionpolicies.gateway.envoyproxy.io";
    let resource = site.cluster.get("customresourcedefinition", "default", name)?;
    let spec = resource.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
    Ok(spec.context("no fields")?.get("mergeType").is_some())
}

fn send(method: &str, path: &str) -> HttpRequest {
    HttpRequest::new(method, "shop.example.com", path)
}

impl Site {
    fn answers(&self, method: &str, path: &str, status: u16) -> Result<()> {
        let response = self.ask(&send(method, path))?;
        ensure!(response.status == status, "{method} {path}: {response:?}");
        ensure!(status != 200 || is_from("shop-stable", &response), "{response:?}");
        Ok(())
    }

    /// A request passes only when both allow it.
    fn has_the_intersection(&self) -> Result<()> {
        eventually("the intersection", || {
            self.answers("GET", "/a", 200)?;
            self.answers("POST", "/a", 403)?;
            self.answers("GET", "/b", 403)
        })
    }
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn a_teams_policy_on_a_route_takes_the_place_of_the_gateways_and_these_ways_keep_both() -> Result<()> {
    let site = Site::start()?;
    site.apply("base", &[])?;
    let (platform, team) = (plugin(&site, "platform", &ceiling()), plugin(&site, "team", &team()));
    let on_gateway = policy("platform", "Gateway", std::slice::from_ref(&platform), None);
    site.cluster.apply(&on_gateway)?;
    let _proxy = site.gateway.proxy(&site.cluster, "shop", "shop", site.port)?;
    eventually("the platform's plugin", || {
        site.answers("POST", "/a", 403)?;
        site.answers("GET", "/b", 200)
    })?;

    let merges = can_merge(&site)?;
    for merge in [None, Some("StrategicMerge"), Some("JSONMerge")] {
        let on_route = policy("team", "HTTPRoute", std::slice::from_ref(&team), merge);
        if merge.is_some() && !merges {
            eprintln!("- a policy on the route, mergeType {merge:?}: this version does not have the field");
            let refusal = site.cluster.apply(&on_route).err().map(|error| error.to_string()).unwrap_or_default();
            ensure!(refusal.contains(".spec.mergeType: field not declared in schema"), "{refusal}");
            continue;
        }
        eprintln!("- a policy on the route, mergeType {merge:?}: the platform's plugin no longer runs");
        site.cluster.apply(&on_route)?;
        eventually("the team's plugin alone", || {
            site.answers("GET", "/b", 403)?;
            site.answers("POST", "/a", 200)
        })?;
        site.cluster.kubectl(["delete", "envoyextensionpolicy", "team", "--namespace=shop"])?;
        eventually("the platform's plugin again", || site.answers("GET", "/b", 200))?;
    }

    eprintln!("- both in one policy");
    site.cluster.apply(&policy("platform", "Gateway", &[platform, team.clone()], None))?;
    site.has_the_intersection()?;
    site.cluster.kubectl(["delete", "envoyextensionpolicy", "platform", "--namespace=shop"])?;
    eventually("no plugin", || site.answers("POST", "/b", 200))?;

    eprintln!("- the platform's in the listener, the team's on the route");
    site.cluster.apply(&in_the_listener()?)?;
    eventually("the platform's plugin", || {
        site.answers("POST", "/b", 403)?;
        site.answers("GET", "/b", 200)
    })?;
    site.cluster.apply(&policy("team", "HTTPRoute", &[team], None))?;
    site.has_the_intersection()?;
    ensure!(site.ask(&shop("/a"))?.status == 200, "refused");
    Ok(())
}
