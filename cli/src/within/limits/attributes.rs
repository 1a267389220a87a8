//! The attributes of a request that limits depend on, and how a sequence of requests varies them.

use penstock_policy::document::Node;
use penstock_policy::facts::FactParts;
use serde_json::{Value, json};

use super::limit::ReadLimit;
use crate::within::excess::setting;
use crate::within::witness::RequestDraft;

/// An attribute that limits depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitAttribute {
    kind: &'static str,
    name: String,
}

/// How an attribute varies within a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variation {
    /// The same value in every request.
    Same,
    /// A new value in every request; for an address, in these bits.
    Each(Bits),
    /// The attribute is absent.
    Missing,
    /// The number 1, or a large one, for costs.
    One,
    /// A large number.
    Large,
    /// A new value in every request, at this position of a list, from the right.
    At(usize),
}

/// The bits of an address that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// The last bits of IPv4.
    Ipv4Low,
    /// The first bits of IPv6.
    Ipv4High,
    /// The last bits of IPv6.
    Ipv6Low,
    /// The middle bits of IPv6.
    Ipv6High,
}

/// All attributes that the limits use in keys or for costs.
pub fn attributes(limit: ReadLimit<'_>, ours: &[ReadLimit<'_>], settings: [&Node; 2]) -> Vec<LimitAttribute> {
    let differs = |name: &str| {
        let [one, other] = settings;
        setting(one, name) != setting(other, name)
    };
    let mut found: Vec<LimitAttribute> = Vec::new();
    let mut add = |kind, name: &str| {
        let attribute = LimitAttribute { kind, name: name.to_owned() };
        if !found.contains(&attribute) {
            found.push(attribute);
        }
    };
    for limit in std::iter::once(&limit).chain(ours) {
        for part in limit.key() {
            let Node::Map(fields) = part else { continue };
            for (field, value) in fields {
                let name = match value {
                    Node::String(name) => name.as_str(),
                    _ => "",
                };
                match field.as_str() {
                    "header" => add("header", &name.to_ascii_lowercase()),
                    "cookie" => add("cookie", name),
                    "queryParam" => add("query", name),
                    "sourceAddress" => {
                        add("address", "");
                        if differs("sourceAddress") {
                            add("forwarded", "");
                        }
                    }
                    "path" => {
                        add("path", "");
                        if differs("path") {
                            add("spelling", "");
                        }
                    }
                    "method" => add("method", ""),
                    "hostname" => add("host", ""),
                    "peer" => add("peer", ""),
                    "claim" if differs("claims") => {
                        settings.iter().for_each(|policy| add("metadata", &claim_in_metadata(policy, name)));
                    }
                    "claim" => add("claim", name),
                    "metadata" => add("metadata", &metadata_name(value)),
                    _ => {}
                }
            }
        }
        if let Some(Node::String(header)) = limit.node.get("cost").and_then(|cost| cost.get("header")) {
            add("cost", &header.to_ascii_lowercase());
        }
        if let Some(Node::String(header)) = limit.node.get("cost").and_then(|cost| cost.get("responseHeader")) {
            add("response", &header.to_ascii_lowercase());
        }
    }
    found
}

/// Namespace and path of `{namespace, path}`, separated by NUL.
fn metadata_name(place: &Node) -> String {
    let mut name = String::new();
    if let Some(Node::String(namespace)) = place.get("namespace") {
        name += namespace;
    }
    if let Some(Node::List(path)) = place.get("path") {
        for field in path {
            if let Node::String(field) = field {
                name = name + "\0" + field;
            }
        }
    }
    name
}

/// Where a policy's settings say that a claim is stored: namespace and path, separated by NUL.
fn claim_in_metadata(policy: &Node, claim: &str) -> String {
    match setting(policy, "claims") {
        Node::Null => format!("envoy.filters.http.jwt_authn\0payload\0{claim}"),
        place => format!("{}\0{claim}", metadata_name(place)),
    }
}

/// First no attribute varies, then one, then two.
pub fn patterns(attributes: &[LimitAttribute]) -> Vec<Vec<Variation>> {
    let ways = |attribute: &LimitAttribute| match attribute.kind {
        "address" => vec![
            Variation::Each(Bits::Ipv4Low),
            Variation::Each(Bits::Ipv4High),
            Variation::Each(Bits::Ipv6Low),
            Variation::Each(Bits::Ipv6High),
            Variation::Missing,
        ],
        "forwarded" => vec![Variation::At(1), Variation::At(2), Variation::At(3)],
        "cost" | "response" => vec![Variation::One, Variation::Large, Variation::Missing],
        "path" | "spelling" | "method" | "host" => vec![Variation::Each(Bits::Ipv4Low)],
        _ => vec![Variation::Missing, Variation::Each(Bits::Ipv4Low)],
    };
    let same = vec![Variation::Same; attributes.len()];
    let mut all = vec![same.clone()];
    let with = |base: &[Variation], at: usize, way: Variation| {
        let mut ways = base.to_vec();
        if let Some(place) = ways.get_mut(at) {
            *place = way;
        }
        ways
    };
    for (i, one) in attributes.iter().enumerate() {
        all.extend(ways(one).into_iter().map(|way| with(&same, i, way)));
    }
    for (i, one) in attributes.iter().enumerate() {
        for (j, other) in attributes.iter().enumerate().skip(i + 1) {
            for way in ways(one) {
                all.extend(ways(other).into_iter().map(|second| with(&with(&same, i, way), j, second)));
            }
        }
    }
    all
}

/// Sets an attribute of a request.
pub fn apply(draft: &mut RequestDraft, attribute: &LimitAttribute, way: Variation, number: usize) {
    let text = match way {
        Variation::Missing => None,
        Variation::Each(_) => Some(format!("v{number}")),
        Variation::Same => Some("v".to_owned()),
        Variation::One => Some("1".to_owned()),
        Variation::Large => Some("1000000".to_owned()),
        Variation::At(_) => None,
    };
    let name = attribute.name.clone();
    match (attribute.kind, text) {
        ("header" | "cost", text) => {
            let is_there = draft.headers.iter().any(|(other, _)| *other == name);
            match (text, way) {
                // A value that the match requires stays unchanged.
                (_, Variation::Same) if is_there || attribute.kind == "cost" => {}
                (text, _) => {
                    draft.headers.retain(|(other, _)| *other != name);
                    draft.headers.extend(text.map(|text| (name, text)));
                }
            }
        }
        ("cookie", Some(text)) => add_cookie(draft, &name, &text),
        ("query", Some(text)) => add_query(draft, &name, &text),
        ("peer", text) => draft.peer = text.map(|text| format!("spiffe://cluster.local/ns/{text}/sa/any")),
        // A value that the match requires stays unchanged.
        ("claim", Some(text)) => {
            let is_there = draft.claims.as_ref().is_some_and(|claims| claims.get(&name).is_some());
            if way != Variation::Same || !is_there {
                add_fact(draft, &FactParts::Claim(&name), &text);
            }
        }
        ("metadata", Some(text)) => {
            if let Some((namespace, path)) = name.split_once('\0') {
                let name = FactParts::Metadata { namespace, path: path.split('\0').collect() };
                add_fact(draft, &name, &text);
            }
        }
        ("address", _) => {
            draft.source_address = match way {
                Variation::Missing => None,
                Variation::Same if draft.source_address.is_some() => draft.source_address.clone(),
                Variation::Each(Bits::Ipv4Low) => {
                    Some(format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255))
                }
                // Another network for every prefix length, numbered from 1, as long as there are more.
                Variation::Each(Bits::Ipv4High) => {
                    let high = (u32::try_from(number % 0xff_ffff).unwrap_or(0) + 1).reverse_bits();
                    Some(std::net::Ipv4Addr::from_bits(high).to_string())
                }
                Variation::Each(Bits::Ipv6Low) => Some(format!("2001:db8::{:x}", number + 1)),
                Variation::Each(Bits::Ipv6High) => Some(format!("2001:db8:{number:x}::1")),
                _ => Some("192.0.2.1".to_owned()),
            };
        }
        ("forwarded", _) => {
            let entry = |at: usize| match way == Variation::At(at) {
                true => format!("198.51.{}.{}", number >> 8 & 255, number & 255),
                false => format!("203.0.113.{at}"),
            };
            draft.headers.retain(|(name, _)| name != "x-forwarded-for");
            draft.headers.push(("x-forwarded-for".to_owned(), [3, 2, 1].map(entry).join(", ")));
        }
        ("response", Some(text)) if way != Variation::Same => {
            draft.response = Some(json!({"status": 200, "headers": [[name, text]]}));
        }
        ("spelling", Some(_)) if way != Variation::Same => draft.path = format!("{}{}", "/".repeat(number), draft.path),
        ("path", Some(text)) if way != Variation::Same => {
            let (path, query) = draft.path.split_at(draft.path.find('?').unwrap_or(draft.path.len()));
            draft.path = format!("{}/{text}{query}", path.trim_end_matches('/'));
        }
        ("method", Some(text)) if way != Variation::Same => draft.method = text.to_ascii_uppercase(),
        ("host", Some(text)) if way != Variation::Same => draft.authority = format!("{text}.{}", draft.authority),
        _ => {}
    }
}

/// Sets a field of the request, replacing its value.
pub fn add_fact(draft: &mut RequestDraft, name: &FactParts<'_>, text: &str) {
    let (here, last) = match name {
        FactParts::Claim(name) => (draft.claims.get_or_insert_with(|| json!({})), *name),
        FactParts::Metadata { namespace, path } => {
            let Some((last, path)) = path.split_last() else { return };
            let mut here = object(draft.metadata.get_or_insert_with(|| json!({})), namespace);
            for field in path {
                here = object(here, field);
            }
            (here, *last)
        }
    };
    if let Some(fields) = here.as_object_mut() {
        fields.insert(last.to_owned(), json!(text));
    }
}

/// The object in a field, created when it is missing.
fn object<'v>(parent: &'v mut Value, field: &str) -> &'v mut Value {
    if !parent.is_object() {
        *parent = json!({});
    }
    let child = &mut parent[field];
    if !child.is_object() {
        *child = json!({});
    }
    child
}

pub fn add_cookie(draft: &mut RequestDraft, name: &str, text: &str) {
    let pair = format!("{name}={text}");
    match draft.headers.iter_mut().find(|(other, _)| other == "cookie") {
        Some((_, cookies)) if cookies.split("; ").any(|cookie| cookie.starts_with(&format!("{name}="))) => {}
        Some((_, cookies)) => *cookies = format!("{cookies}; {pair}"),
        None => draft.headers.push(("cookie".to_owned(), pair)),
    }
}

pub fn add_query(draft: &mut RequestDraft, name: &str, text: &str) {
    let sign = if draft.path.contains('?') { '&' } else { '?' };
    if !draft.path.contains(&format!("{name}=")) {
        draft.path = format!("{}{sign}{name}={text}", draft.path);
    }
}
