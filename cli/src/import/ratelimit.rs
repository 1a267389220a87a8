//! The configuration of envoyproxy/ratelimit. The meaning of its keys is defined in Envoy's configuration, which is not
//! available here: the keys that Envoy itself generates are known; any other key is taken as the name of a request
//! header, and the report says so.
//!
//! In a list of entries, exactly one counts for each value: the exact value, or else the first wildcard, or else the
//! key alone. In a policy all limits count, so each excludes the values of the other entries.

use std::collections::{HashMap, HashSet};

use penstock_policy::document::Node;

use super::draft::PolicyDraft;
use super::matching::{PathSet, condition, escaped, inverted};
use super::objects::{map, text};
use super::paths::{self, PathRemainder};
use super::reader::FieldReader;
use super::report::ImportReport;

const OUT: &str = "the limit is left out";

/// The conditions of a descriptor's entries so far.
#[derive(Clone, Default)]
struct Parts {
    names: Vec<String>,
    key: Vec<Node>,
    headers: Vec<Node>,
    path: PathSet,
    /// Paths that other entries take.
    not_paths: Vec<PathSet>,
    method: Option<String>,
}

/// The meaning of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DescriptorKey<'k> {
    Address,
    Path,
    Method,
    Header(&'k str),
    /// A value that Envoy only sends when its configuration says so.
    Elsewhere,
}

impl DescriptorKey<'_> {
    fn of(key: &str) -> DescriptorKey<'_> {
        match key {
            "remote_address" | "masked_remote_address" => DescriptorKey::Address,
            "path" | ":path" => DescriptorKey::Path,
            "method" | ":method" => DescriptorKey::Method,
            "generic_key"
            | "header_match"
            | "query_match"
            | "query_parameter_value_match"
            | "source_cluster"
            | "destination_cluster"
            | "dynamic_metadata"
            | "metadata" => DescriptorKey::Elsewhere,
            header => DescriptorKey::Header(header),
        }
    }
}

/// Whether a document is such a configuration.
pub fn is_one(node: &Node) -> bool {
    node.get("domain").is_some() && node.get("descriptors").is_some()
}

/// Reads a configuration.
pub fn configuration(node: &Node, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let reader = FieldReader::new(node, "", report);
    let domain = reader.string("domain", report).unwrap_or_default();
    report.object = format!("domain {domain}");
    let what = "one count for all proxies, in fixed windows";
    report.elsewhere(
        "domain",
        what,
        "each proxy counts separately, without fixed windows; `scope: {global: …}` counts for all proxies",
    );
    list(reader.list("descriptors", report), "descriptors", &Parts::default(), draft, report);
    reader.end(report);
}

fn list(items: &[Node], path: &str, parents: &Parts, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let text_of = |node: &Node, field: &str| match node.get(field) {
        Some(Node::String(text)) => Some(text.clone()),
        Some(Node::Integer(number)) => Some(number.to_string()),
        Some(Node::Bool(value)) => Some(value.to_string()),
        _ => None,
    };
    // The key and the value of each entry; an empty value counts as none.
    let entries: Vec<DescriptorEntry> = items
        .iter()
        .map(|item| {
            (text_of(item, "key").unwrap_or_default(), text_of(item, "value").filter(|value| !value.is_empty()))
        })
        .collect();
    let siblings = Siblings::of(&entries);
    let mut seen: HashSet<&DescriptorEntry> = HashSet::new();
    for (i, (item, entry)) in items.iter().zip(&entries).enumerate() {
        let (key, value) = entry;
        let is_repeated = !seen.insert(entry);
        let descriptor = FieldReader::new(item, &format!("{path}[{i}]"), report);
        descriptor.ignore(&["key", "value", "detailed_metric", "value_to_metric"]);
        let at = descriptor.at("key");
        let mut parts = parents.clone();
        parts.names.push(value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}-{value}")));
        let is_scalar = |value: &Node| matches!(value, Node::Null | Node::String(_) | Node::Integer(_) | Node::Bool(_));
        let lost = if let Some(value) = item.get("value").filter(|value| !is_scalar(value)) {
            Some(format!("its value {value} is not a string"))
        } else if key.is_empty() {
            Some("it has no key".to_owned())
        } else if is_repeated {
            Some("it occurs twice, which the service refuses".to_owned())
        } else {
            let shared = matches!(descriptor.take("share_threshold"), Some(Node::Bool(true)));
            part(key, value.as_deref(), shared, &siblings.others(i, entry), &mut parts).err()
        };
        if let Some(why) = lost {
            report.lost(&at, format!("{}: {why}", parts.names.join("-")), "it and its nested descriptors are left out");
            draft.no_limit(format!("{}: {why}", report.place(&at)));
            continue;
        }
        if let DescriptorKey::Header(header) = DescriptorKey::of(key) {
            let what = format!(
                "{header} is assumed to be the request header of that name: Envoy's configuration defines what it is"
            );
            report.elsewhere(&at, what, "a request without that header is not counted");
        }
        let shadow = descriptor.flag("shadow_mode", report) || descriptor.flag("quota_mode", report);
        if let Some(limit) = descriptor.object("rate_limit", report) {
            push(&limit, &parts, shadow, draft, report);
            limit.end(report);
        }
        list(descriptor.list("descriptors", report), &descriptor.at("descriptors"), &parts, draft, report);
        descriptor.end(report);
    }
}

/// Converts a value with wildcards to an expression.
fn expression(value: &str) -> String {
    value.split('*').map(escaped).collect::<Vec<_>>().join(".*")
}

/// Converts a value with wildcards to paths.
fn paths_of(value: &str) -> PathSet {
    match value.split_once('*') {
        None => PathSet::Exact(value.to_owned()),
        Some((prefix, "")) => PathSet::letters(prefix),
        Some(_) => PathSet::Regex(expression(value)),
    }
}

/// Key and value of an entry of a list.
type DescriptorEntry = (String, Option<String>);

/// The values of each key of a list, with their places.
struct Siblings<'e> {
    /// In full.
    full: HashMap<&'e str, Vec<(usize, &'e str)>>,
    /// With stars.
    wildcards: HashMap<&'e str, Vec<(usize, &'e str)>>,
}

impl<'e> Siblings<'e> {
    fn of(entries: &'e [DescriptorEntry]) -> Siblings<'e> {
        let mut siblings = Siblings { full: HashMap::new(), wildcards: HashMap::new() };
        for (i, (key, value)) in entries.iter().enumerate() {
            let Some(value) = value else { continue };
            let lists = if value.contains('*') { &mut siblings.wildcards } else { &mut siblings.full };
            lists.entry(key).or_default().push((i, value));
        }
        siblings
    }

    /// The values of entry `at` that other entries of the list take.
    fn others(&self, at: usize, (key, value): &DescriptorEntry) -> Vec<&'e str> {
        let list =
            |lists: &HashMap<&'e str, Vec<(usize, &'e str)>>| lists.get(key.as_str()).cloned().unwrap_or_default();
        let mut others = match value {
            None => [list(&self.full), list(&self.wildcards)].concat(),
            // Exact values take precedence over wildcards, which count in their order.
            Some(value) if value.contains('*') => {
                let earlier = list(&self.wildcards).into_iter().filter(|(i, _)| *i < at);
                list(&self.full).into_iter().chain(earlier).collect()
            }
            Some(_) => Vec::new(),
        };
        others.sort_unstable();
        others.into_iter().map(|(_, value)| value).collect()
    }
}

/// Adds the conditions of one entry of a descriptor. Returns an error when a policy cannot express them.
fn part(key: &str, value: Option<&str>, shared: bool, others: &[&str], parts: &mut Parts) -> Result<(), String> {
    match (DescriptorKey::of(key), value) {
        (DescriptorKey::Elsewhere, _) => {
            return Err("this configuration does not define when Envoy sends it".to_owned());
        }
        (DescriptorKey::Address, Some(_)) => return Err("a policy has no condition on addresses".to_owned()),
        (DescriptorKey::Address, None) if key == "masked_remote_address" => {
            return Err("this configuration does not define how it is masked".to_owned());
        }
        (DescriptorKey::Address, None) if !others.is_empty() => {
            return Err(
                "other entries apply to single addresses, and a policy has no condition on addresses".to_owned()
            );
        }
        (DescriptorKey::Address, None) => parts.key.push(map([("sourceAddress", map([]))])),
        (DescriptorKey::Path, value) => {
            parts.path = value.map_or(PathSet::Any, paths_of);
            parts.not_paths = others.iter().map(|other| paths_of(other)).collect();
            if value.is_none_or(|value| value.contains('*') && !shared) {
                parts.key.push(map([("path", map([]))]));
            }
        }
        (DescriptorKey::Method, Some(value)) if !value.contains('*') => parts.method = Some(value.to_owned()),
        (DescriptorKey::Method, None) if others.is_empty() => parts.key.push(map([("method", map([]))])),
        (DescriptorKey::Method, _) => return Err("a policy cannot exclude some methods".to_owned()),
        (DescriptorKey::Header(header), value) => {
            let of = |value: &str| match value.split_once('*') {
                None => condition(header, "Exact", value),
                Some((prefix, "")) => condition(header, "Prefix", prefix),
                Some(_) => condition(header, "RegularExpression", &expression(value)),
            };
            parts.headers.extend(value.map(of));
            parts.headers.extend(others.iter().map(|other| inverted(&of(other))));
            if value.is_none_or(|value| value.contains('*') && !shared) {
                parts.key.push(map([("header", text(header))]));
            }
        }
    }
    Ok(())
}

fn push(limit: &FieldReader<'_>, parts: &Parts, shadow: bool, draft: &mut PolicyDraft, report: &mut ImportReport) {
    limit.ignore(&["name"]);
    if let Some(replaced) = limit.take("replaces") {
        report.lost(&limit.at("replaces"), replaced.to_string(), "both count, and the stricter one applies");
    }
    if limit.flag("unlimited", report) {
        // An entry without a limit: its values are excluded from the other entries.
        return;
    }
    let mut out = |at: &str, why: String, report: &mut ImportReport| {
        report.lost(at, why.clone(), OUT);
        draft.no_limit(format!("{}: {why}", report.place(at)));
    };
    let unit = limit.string("unit", report).unwrap_or_default();
    let Some(per) = crate::import::objects::unit(&unit) else {
        limit.ignore(&["requests_per_unit"]);
        return out(&limit.at("unit"), format!("{unit:?} is not a unit"), report);
    };
    let at = limit.at("requests_per_unit");
    let requests = match limit.integer("requests_per_unit", report) {
        None => return out(&at, "it is missing".to_owned(), report),
        Some(0) => return out(&at, "0 refuses all requests, which a limit cannot do".to_owned(), report),
        Some(requests) => requests,
    };
    let path = match paths::without(&parts.path, &parts.not_paths) {
        PathRemainder::Nothing => return,
        PathRemainder::Paths(path) => path,
        PathRemainder::Unknown => {
            return out(limit.path(), "it is unclear which paths the other entries do not match".to_owned(), report);
        }
    };
    let matches = super::matching::Match {
        method: parts.method.clone(),
        path,
        headers: parts.headers.clone(),
        ..super::matching::Match::default()
    };
    let mut node = Vec::new();
    node.extend(matches.node(&[]).map(|entry| ("matches", Node::List(vec![entry]))));
    node.push(("key", Node::List(parts.key.clone())));
    if !parts.key.is_empty() {
        // A descriptor without this entry is a different descriptor.
        node.push(("onMissingKey", text("Skip")));
    }
    node.push(("limit", map([("requests", Node::Integer(requests)), ("per", text(per))])));
    if shadow {
        node.push(("mode", text("Shadow")));
    }
    draft.limit(&parts.names.join("-"), node, &report.place(limit.path()), report);
}
