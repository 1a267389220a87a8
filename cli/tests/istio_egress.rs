//! The manifests of `istio/egress/`: they parse, refer to each other, restrict what they claim to, and their policy is
//! valid.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use penstock::yaml::Located;
use penstock_policy::document::Node;
use penstock_policy::{Module, check};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("istio/egress")
}

/// The objects of a file.
fn objects(file: &str) -> Vec<Node> {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let parts = text.split("\n---\n");
    parts.map(|part| Located::read(part).unwrap_or_else(|error| panic!("{file}: {error}")).node).collect()
}

fn at<'n>(node: &'n Node, path: &str) -> &'n Node {
    path.split('.').fold(node, |node, name| node.get(name).unwrap_or_else(|| panic!("no {path} in {node}")))
}

fn text<'n>(node: &'n Node, path: &str) -> &'n str {
    let Node::String(text) = at(node, path) else { panic!("{path} is no string") };
    text
}

fn list<'n>(node: &'n Node, path: &str) -> &'n [Node] {
    let Node::List(items) = at(node, path) else { panic!("{path} is no list") };
    items
}

#[test]
fn the_kustomization_names_every_manifest_and_each_is_an_object() {
    let kustomization = objects("kustomization.yaml").remove(0);
    let named: Vec<&str> = list(&kustomization, "resources")
        .iter()
        .map(|resource| match resource {
            Node::String(name) => name.as_str(),
            other => panic!("{other}"),
        })
        .collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") && name != "kustomization.yaml" {
            assert!(named.contains(&name.as_str()), "{name} is not in kustomization.yaml");
        }
    }
    for file in named.iter().chain(&["mesh/istio-operator.yaml", "mesh/coredns.yaml"]) {
        for object in objects(file) {
            for field in ["apiVersion", "kind", "metadata.name", "metadata.namespace"] {
                assert!(!text(&object, field).is_empty(), "{file}");
            }
        }
    }
}

#[test]
fn the_policy_passes_the_check_and_fails_closed() {
    let plugin = objects("wasm-plugin.yaml").remove(0);
    assert_eq!(text(&plugin, "spec.failStrategy"), "FAIL_CLOSE");
    let warnings = check(at(&plugin, "spec.pluginConfig"), Module::EgressAllowlist).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(text(at(&plugin, "spec.pluginConfig"), "egress.mode"), "Enforce");
}

#[test]
fn every_host_of_the_policy_is_registered_and_routed() {
    let plugin = objects("wasm-plugin.yaml").remove(0);
    let registered = objects("service-entry.yaml");
    let routed = objects("virtual-service.yaml");
    let secured = objects("destination-rule.yaml");
    for rule in list(&plugin, "spec.pluginConfig.egress.rules") {
        for to in list(rule, "to") {
            let host = at(to, "host");
            assert!(registered.iter().any(|entry| list(entry, "spec.hosts").contains(host)), "{host}");
            assert!(routed.iter().any(|entry| list(entry, "spec.hosts").contains(host)), "{host}");
            let tls = secured.iter().find(|entry| at(entry, "spec.host") == host).unwrap();
            let settings = &list(tls, "spec.trafficPolicy.portLevelSettings")[0];
            assert_eq!((text(settings, "tls.mode"), at(settings, "tls.sni")), ("SIMPLE", host));
            assert!(list(settings, "tls.subjectAltNames").contains(host), "the certificate's name is checked");
        }
    }
}

#[test]
fn the_ways_round_the_gateway_are_closed() {
    let sidecar = objects("sidecar.yaml").remove(0);
    assert_eq!(text(&sidecar, "spec.outboundTrafficPolicy.mode"), "REGISTRY_ONLY");
    let mesh = objects("mesh/istio-operator.yaml").remove(0);
    assert_eq!(text(&mesh, "spec.meshConfig.outboundTrafficPolicy.mode"), "REGISTRY_ONLY");
    assert_eq!(text(&mesh, "spec.meshConfig.pathNormalization.normalization"), "NONE");
    for policy in objects("network-policy.yaml") {
        assert_eq!(list(&policy, "spec.policyTypes"), [Node::String("Egress".into())]);
        let is_gateway = text(&policy, "metadata.name") == "egressgateway";
        for to in list(&policy, "spec.egress").iter().flat_map(|way| list(way, "to")) {
            match to.get("ipBlock") {
                None => assert!(to.get("podSelector").is_some(), "{to}"),
                Some(block) if is_gateway => {
                    let is_v4 = text(block, "cidr") == "0.0.0.0/0";
                    assert!(!is_v4 || list(block, "except").contains(&Node::String("169.254.0.0/16".into())));
                }
                Some(block) => panic!("workloads reach {block}"),
            }
        }
    }
}
