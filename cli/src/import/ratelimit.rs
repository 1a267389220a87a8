//! The configuration of envoyproxy/ratelimit. Its keys mean what Envoy's `rate_limits` actions, which are elsewhere, make
//! of them: those that Envoy names itself are known, any other is taken for a header of that name, and said so.

use penstock_policy::document::Node;

use super::reader::{Lost, Reader};
use super::{Draft, map, text};

/// A part of a descriptor, with what a request must have for it.
#[derive(Clone, Default)]
struct Parts {
    names: Vec<String>,
    key: Vec<Node>,
    headers: Vec<Node>,
}

pub fn configuration(node: &Node, draft: &mut Draft, lost: &mut Lost) {
    let reader = Reader::new(node, "", lost);
    let domain = reader.string("domain", lost).unwrap_or_default();
    lost.object = format!("domain {domain}");
    lost.note("domain", "each proxy counts for itself, not all together");
    descriptors(reader.list("descriptors", lost), "descriptors", &Parts::default(), draft, lost);
    reader.end(lost);
}

fn descriptors(list: &[Node], path: &str, parents: &Parts, draft: &mut Draft, lost: &mut Lost) {
    for (i, node) in list.iter().enumerate() {
        let descriptor = Reader::new(node, &format!("{path}[{i}]"), lost);
        let at = descriptor.at("key");
        let Some(key) = descriptor.string("key", lost) else {
            lost.note(&at, "is missing");
            continue;
        };
        let value = descriptor.string("value", lost);
        let shared = matches!(descriptor.take("share_threshold"), Some(Node::Bool(true)));
        let mut parts = parents.clone();
        parts.names.push(value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}-{value}")));
        part(&key, value.as_deref(), shared, list, &at, &mut parts, lost);
        let shadow = matches!(descriptor.take("shadow_mode"), Some(Node::Bool(true)));
        descriptor.ignore(&["detailed_metric"]);
        if let Some(limit) = descriptor.take("rate_limit") {
            let limit = Reader::new(limit, &descriptor.at("rate_limit"), lost);
            push(&limit, &parts, shadow, draft, lost);
            limit.end(lost);
        }
        let nested = descriptor.list("descriptors", lost);
        descriptors(nested, &descriptor.at("descriptors"), &parts, draft, lost);
        descriptor.end(lost);
    }
}

/// Adds what one entry of a descriptor asks of a request.
fn part(key: &str, value: Option<&str>, shared: bool, siblings: &[Node], at: &str, parts: &mut Parts, lost: &mut Lost) {
    match (key, value) {
        ("remote_address", None) => parts.key.push(map([("sourceAddress", map([]))])),
        ("path", None) => parts.key.push(map([("path", map([]))])),
        ("method", None) => parts.key.push(map([("method", map([]))])),
        ("generic_key" | "header_match", value) => {
            lost.note(
                at,
                &format!("{key} {}: when Envoy sends it is not said here: add `matches`", value.unwrap_or_default()),
            );
            parts.key.extend(value.map(|value| map([("constant", text(value))])));
        }
        ("remote_address" | "destination_cluster" | "source_cluster", value) => {
            lost.note(at, &format!("{key} {}: a policy has no such condition", value.unwrap_or_default()));
        }
        (header, value) => {
            let note = format!("{header} is taken for the request header of that name: Envoy's actions say what it is");
            lost.note(at, &note);
            let condition = |kind: &str, field: &'static str, value: Node| {
                map([("name", text(header)), ("type", text(kind)), (field, value)])
            };
            match value.map(|value| (value, value.strip_suffix('*'))) {
                Some((_, Some(prefix))) => {
                    if !prefix.is_empty() {
                        parts.headers.push(condition("Prefix", "value", text(prefix)));
                    }
                    if !shared {
                        parts.key.push(map([("header", text(header))]));
                    }
                }
                Some((value, None)) => parts.headers.push(condition("Exact", "value", text(value))),
                None => {
                    parts.key.push(map([("header", text(header))]));
                    // A value of its own elsewhere in the list goes before.
                    let own: Vec<Node> = siblings
                        .iter()
                        .filter(|other| matches!(other.get("key"), Some(Node::String(key)) if key == header))
                        .filter_map(|other| other.get("value").cloned())
                        .collect();
                    if !own.is_empty() {
                        let mut node = vec![("name", text(header)), ("type", text("In")), ("values", Node::List(own))];
                        node.push(("invert", Node::Bool(true)));
                        parts.headers.push(map(node));
                    }
                }
            }
        }
    }
}

fn push(limit: &Reader<'_>, parts: &Parts, shadow: bool, draft: &mut Draft, lost: &mut Lost) {
    if matches!(limit.take("unlimited"), Some(Node::Bool(true))) {
        // No limit: values of its own have been taken out of the general one.
        return;
    }
    let unit = limit.string("unit", lost).unwrap_or_default().to_lowercase();
    let per = match unit.as_str() {
        "second" => "1s",
        "minute" => "1m",
        "hour" => "1h",
        "day" => "24h",
        "week" => "168h",
        "month" => "720h",
        "year" => "8760h",
        unit => {
            lost.note(&limit.at("unit"), &format!("{unit:?} is no unit: the limit is left out"));
            return;
        }
    };
    let Some(requests) = limit.integer("requests_per_unit", lost) else {
        lost.note(&limit.at("requests_per_unit"), "is missing: the limit is left out");
        return;
    };
    let mut node = vec![("name", text(draft.name(&parts.names.join("-"))))];
    if !parts.headers.is_empty() {
        node.push(("matches", Node::List(vec![map([("headers", Node::List(parts.headers.clone()))])])));
    }
    node.push(("key", Node::List(parts.key.clone())));
    if !parts.key.is_empty() {
        // A descriptor that lacks an entry is another descriptor.
        node.push(("onMissingKey", text("Skip")));
    }
    if requests == 0 {
        lost.note(&limit.at("requests_per_unit"), "0 refuses everything, which no limit does: it is left out");
        return;
    }
    node.push(("limit", map([("requests", Node::Integer(requests)), ("per", text(per))])));
    if shadow {
        node.push(("mode", text("Shadow")));
    }
    draft.limits.push(map(node));
}
