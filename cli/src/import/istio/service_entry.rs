//! ServiceEntries of a mesh with REGISTRY_ONLY, where they are an allowlist for egress.

use penstock_policy::document::Node;

use crate::import::draft::PolicyDraft;
use crate::import::objects::{Objects, map, text};
use crate::import::reader::KubernetesObject;
use crate::import::report::ImportReport;
use crate::yaml::Located;

/// The mode of `outboundTrafficPolicy` in a document, at any of its possible places.
fn mode(node: &Node) -> Option<String> {
    let of = |node: Option<&Node>| match node.and_then(|node| node.get("outboundTrafficPolicy")?.get("mode").cloned()) {
        Some(Node::String(mode)) => Some(mode),
        _ => None,
    };
    let spec = node.get("spec");
    // The document is a Sidecar, an IstioOperator, values of a chart, or the mesh configuration itself.
    let found = of(spec)
        .or_else(|| of(spec.and_then(|spec| spec.get("meshConfig"))))
        .or_else(|| of(node.get("meshConfig")))
        .or_else(|| of(Some(node)));
    // In a ConfigMap, the mesh configuration is YAML in a string.
    let mesh = node.get("data").and_then(|data| data.get("mesh"));
    found.or_else(|| match mesh {
        Some(Node::String(mesh)) => Located::read(mesh).ok().and_then(|mesh| of(Some(&mesh.node))),
        _ => None,
    })
}

/// Whether a document is the mesh configuration.
pub fn says_what_may_leave(node: &Node) -> bool {
    mode(node).is_some()
}

/// The hosts that Sidecars make visible to their workloads: for each Sidecar with restrictions, namespaces and names.
fn sights(objects: &Objects<'_>, report: &mut ImportReport) -> Vec<Vec<(String, String)>> {
    let mut sights = Vec::new();
    for (_, node) in objects.of("Sidecar", "networking.istio.io") {
        let object = KubernetesObject::open(node, report);
        let hosts = report.conditions(|report| {
            let egress = object.spec.objects("egress", report);
            let hosts: Vec<String> = egress.iter().flat_map(|egress| egress.strings("hosts", report)).collect();
            Ok((!egress.is_empty()).then_some(hosts))
        });
        let hosts = match hosts {
            Ok(Some(hosts)) => hosts,
            Ok(None) => continue,
            Err(why) => {
                report.lost("spec.egress", why, "its workloads are assumed to reach no host");
                Vec::new()
            }
        };
        let pattern = |host: &String| {
            let (namespace, name) = host.split_once('/').unwrap_or(("*", host));
            let namespace = if namespace == "." { object.in_namespace() } else { namespace };
            (namespace.to_owned(), name.to_ascii_lowercase())
        };
        sights.push(hosts.iter().map(pattern).collect());
    }
    sights
}

/// Whether every Sidecar makes visible all that an entry's host matches.
fn is_seen(sights: &[Vec<(String, String)>], namespace: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let covers = |pattern: &str| {
        pattern == "*" || pattern == host || pattern.strip_prefix('*').is_some_and(|below| host.ends_with(below))
    };
    sights.iter().all(|patterns| patterns.iter().any(|(of, name)| (of == "*" || of == namespace) && covers(name)))
}

pub fn service_entries(objects: &Objects<'_>, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let entries = objects.of("ServiceEntry", "networking.istio.io");
    if entries.is_empty() {
        return;
    }
    let modes: Vec<String> = objects.0.iter().filter_map(|(_, node)| mode(node)).collect();
    let is_only = !modes.is_empty() && modes.iter().all(|mode| mode == "REGISTRY_ONLY");
    if !is_only {
        report.file.clone_from(&entries.first().map(|(file, _)| file.clone()).unwrap_or_default());
        report.object = "ServiceEntry".to_owned();
        let what = "the input does not contain outboundTrafficPolicy: REGISTRY_ONLY, so the mesh allows all hosts";
        report.lost(
            "",
            what,
            "no egress rules are written; add the configuration of the mesh (ConfigMap istio) to the input",
        );
        return;
    }
    let sights = sights(objects, report);
    for (file, node) in entries {
        report.file.clone_from(file);
        let object = KubernetesObject::open(node, report);
        let spec = &object.spec;
        let is_inside = spec.string("location", report).as_deref() == Some("MESH_INTERNAL");
        spec.ignore(&["resolution", "endpoints", "subjectAltNames", "workloadSelector", "addresses"]);
        let hosts = spec.strings("hosts", report);
        let (hosts, hidden): (Vec<String>, Vec<String>) =
            hosts.into_iter().partition(|host| is_seen(&sights, object.in_namespace(), host));
        for host in hidden {
            let what = format!("{host}: a Sidecar does not import it for its workloads");
            report.lost(&spec.at("hosts"), what, "it allows nothing");
        }
        let visible = match report.conditions(|report| Ok(spec.strings("exportTo", report))) {
            Ok(visible) => visible,
            Err(why) => {
                report.lost("spec.exportTo", why, "it allows nothing");
                continue;
            }
        };
        let mut ports = Vec::new();
        let listed = spec.objects("ports", report);
        for port in &listed {
            let protocol = port.string("protocol", report).unwrap_or_else(|| "TCP".to_owned()).to_uppercase();
            match port.integer("number", report) {
                Some(number)
                    if matches!(protocol.as_str(), "HTTP" | "HTTPS" | "HTTP2" | "GRPC" | "GRPC-WEB" | "TLS") =>
                {
                    ports.push(Node::Integer(number));
                }
                number => {
                    let what = format!("port {} {protocol}", number.unwrap_or_default());
                    report.elsewhere(port.path(), what, "it is not HTTP, and a policy only decides HTTP");
                }
            }
        }
        spec.ignore(&["targetPort"]);
        for (field, value) in spec.rest() {
            report.lost(&spec.at(field), value.to_string(), "requests are decided without it");
        }
        if is_inside {
            report.elsewhere("spec.location", "MESH_INTERNAL", "it does not leave the mesh");
            continue;
        }
        if ports.is_empty() || hosts.is_empty() {
            continue;
        }
        let to = hosts
            .iter()
            .map(|host| map([("host", text(host.to_ascii_lowercase())), ("ports", Node::List(ports.clone()))]));
        let mut node = Vec::new();
        if !visible.is_empty() && !visible.iter().any(|namespace| namespace == "*") {
            let namespaces = visible
                .iter()
                .map(|namespace| if namespace == "." { object.in_namespace() } else { namespace.as_str() });
            let callers: Vec<Node> = namespaces
                .filter(|namespace| *namespace != "~")
                .map(|namespace| text(format!("spiffe://cluster.local/ns/{namespace}/sa/*")))
                .collect();
            if callers.is_empty() {
                continue;
            }
            report.elsewhere(
                "spec.exportTo",
                visible.join(", "),
                "callers are identified by their certificate; the trust domain cluster.local is assumed",
            );
            node.push(("from", Node::List(callers)));
        }
        node.push(("to", Node::List(to.collect())));
        draft.egress_rule(&object.name, node, &report.place("spec"), report);
    }
}
