//! `consistentHash` of a DestinationRule, which becomes the stickiness of the service's users.

use std::collections::BTreeMap;

use penstock_policy::document::Node;

use super::full_name;
use crate::import::objects::{Objects, duration, map, text};
use crate::import::reader::{FieldReader, KubernetesObject};
use crate::import::report::ImportReport;

/// `stickiness` by the fully qualified name of a service.
pub fn stickiness(objects: &Objects<'_>, report: &mut ImportReport) -> BTreeMap<String, Node> {
    let mut found = BTreeMap::new();
    for (file, node) in objects.of("DestinationRule", "networking.istio.io") {
        report.file.clone_from(file);
        let object = KubernetesObject::open(node, report);
        let host = object.spec.string("host", report).unwrap_or_default();
        let policy = object.spec.take("trafficPolicy").unwrap_or(&Node::Null);
        // Load balancing and connection settings belong to the platform.
        object.spec.ignore(&["subsets", "exportTo", "workloadSelector"]);
        let hash = policy.get("loadBalancer").and_then(|balancer| balancer.get("consistentHash"));
        if let Some(hash) = hash {
            let reader = FieldReader::new(hash, "spec.trafficPolicy.loadBalancer.consistentHash", report);
            if let Some(stickiness) = of(&reader, report) {
                found.insert(full_name(&host, object.in_namespace()), stickiness);
            }
            reader.ignore(&["minimumRingSize", "ringHash", "maglev"]);
            reader.end(report);
        }
        object.spec.end(report);
    }
    found
}

fn of(hash: &FieldReader<'_>, report: &mut ImportReport) -> Option<Node> {
    if let Some(header) = hash.string("httpHeaderName", report) {
        return Some(map([("header", text(header))]));
    }
    if hash.flag("useSourceIp", report) {
        return Some(map([("sourceAddress", map([]))]));
    }
    if let Some(cookie) = hash.object("httpCookie", report) {
        let mut node = vec![("name", text(cookie.string("name", report).unwrap_or_default()))];
        let ttl = cookie.string("ttl", report).and_then(|ttl| duration(&ttl)).filter(|ttl| ttl != "0s");
        node.extend(ttl.map(|ttl| ("maxAge", text(ttl))));
        node.extend(cookie.string("path", report).map(|path| ("path", text(path))));
        cookie.ignore(&["attributes"]);
        cookie.end(report);
        return Some(map([("cookie", map(node))]));
    }
    if let Some(name) = hash.string("httpQueryParameterName", report) {
        report.lost(
            &hash.at("httpQueryParameterName"),
            name,
            "the weighted choice is made for each request, because stickiness cannot use a query parameter",
        );
    }
    None
}
