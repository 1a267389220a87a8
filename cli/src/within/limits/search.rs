//! A sequence of requests that shows a looser limit: the team's limits let all pass, the platform's refuses the last.
//!
//! The requests match the platform's limit; what the limits look at is kept, changed with each request, or left out, and
//! the clock goes on whenever the team's limits would refuse.

use penstock_policy::document::Node;
use penstock_policy::facts::FactParts;
use penstock_policy::matching::{Condition, PathMatch, RequestMatch, TextMatch};
use penstock_policy::wire::World;
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};

use super::limit::ReadLimit;
use crate::cover::items;
use crate::within::witness::{RequestDraft, Witness, refusal};

/// The longest sequence, the most decisions in all, and
const LONGEST: usize = 10_000;
const MOST_DECISIONS: usize = 200_000;
/// As many decisions again for each request of the platform's burst.
const FOR_EACH: usize = 8;

/// Something that limits look at.
#[derive(Clone, Debug, PartialEq)]
struct LimitAttribute {
    kind: &'static str,
    name: String,
}

/// What becomes of an attribute in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttributeChange {
    /// The same value in every request.
    Same,
    /// Another value in every request; of an address these bits.
    Each(Bits),
    /// None.
    Missing,
    /// The number 1, or a large one: for costs.
    One,
    Large,
}

/// Which bits of an address change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    Ipv4Low,
    Ipv4High,
    Ipv6Low,
    Ipv6High,
}

/// A sequence, if one is found.
pub fn witness(
    platform: &Node,
    limit: ReadLimit<'_>,
    team: &Node,
    ours: &[ReadLimit<'_>],
    now: Timestamp,
) -> Option<Witness> {
    let alone = |policy: &Node, limits: Vec<Node>| {
        let mut fields = vec![("rateLimits".to_owned(), Node::List(limits))];
        fields.extend(policy.get("settings").map(|settings| ("settings".to_owned(), settings.clone())));
        Policy::from_node(&Node::Map(fields)).ok()
    };
    let theirs = alone(platform, vec![limit.node.clone()])?;
    let mine = alone(team, ours.iter().map(|limit| limit.node.clone()).collect())?;
    let most = (30_000 + FOR_EACH * usize::try_from(limit.burst()).unwrap_or(LONGEST)).min(MOST_DECISIONS);
    let mut search = LimitSearch { theirs, mine, limit, now, most, decisions: 0 };
    let attributes = attributes(limit, ours);
    let (bases, patterns) = (bases(limit, ours), patterns(&attributes));
    // Short sequences show most: a burst, and what comes right after it. A rate that is a little higher takes many requests.
    let short = 2 * usize::try_from(limit.burst()).unwrap_or(LONGEST) + 32;
    for longest in [short.min(LONGEST), LONGEST] {
        for base in &bases {
            for ways in &patterns {
                if let Some(sequence) = search.run(base, &attributes, ways, longest) {
                    return Some(sequence);
                }
                if search.decisions > search.most {
                    return None;
                }
            }
        }
    }
    None
}

struct LimitSearch<'d> {
    theirs: Policy,
    mine: Policy,
    limit: ReadLimit<'d>,
    now: Timestamp,
    most: usize,
    decisions: usize,
}

impl LimitSearch<'_> {
    fn run(
        &mut self,
        base: &RequestDraft,
        attributes: &[LimitAttribute],
        ways: &[AttributeChange],
        longest: usize,
    ) -> Option<Witness> {
        let (mut ours, mut theirs) = (World::new(self.now, 0), World::new(self.now, 0));
        let quota = &self.limit.document.limit;
        let step = u64::try_from(quota.per.0.as_nanos() / u128::from(quota.requests.0.max(1)) / 2).unwrap_or(1).max(1);
        let mut time = self.now;
        let mut sequence = Vec::new();
        let mut waits = 0;
        while sequence.len() < longest && waits < longest && self.decisions <= self.most {
            let mut draft = base.clone();
            for (attribute, way) in attributes.iter().zip(ways) {
                apply(&mut draft, attribute, *way, sequence.len());
            }
            draft.time = Some(time);
            let request = draft.wire()?;
            self.decisions += 2;
            if refusal(&self.mine, &request, &mut ours).is_some() {
                time.0 = time.0.saturating_add(step);
                waits += 1;
                // Slower than the platform's own pace nothing is found.
                if waits > 4 * sequence.len() + 8 {
                    return None;
                }
                continue;
            }
            sequence.push(draft.json());
            if refusal(&self.theirs, &request, &mut theirs).is_some() {
                return Some(match <[_; 1]>::try_from(sequence) {
                    Ok([request]) => Witness::Request(request),
                    Err(sequence) => Witness::Sequence(sequence),
                });
            }
        }
        None
    }
}

/// All that the limits count by or take costs from.
fn attributes(limit: ReadLimit<'_>, ours: &[ReadLimit<'_>]) -> Vec<LimitAttribute> {
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
                    "sourceAddress" => add("address", ""),
                    "path" => add("path", ""),
                    "method" => add("method", ""),
                    "hostname" => add("host", ""),
                    "peer" => add("peer", ""),
                    "claim" => add("claim", name),
                    "metadata" => add("metadata", &metadata_name(value)),
                    _ => {}
                }
            }
        }
        if let Some(Node::String(header)) = limit.node.get("cost").and_then(|cost| cost.get("header")) {
            add("cost", &header.to_ascii_lowercase());
        }
    }
    found
}

/// Namespace and path of `{namespace, path}`, divided by NUL.
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

/// Nothing changes, then one thing, then two.
fn patterns(attributes: &[LimitAttribute]) -> Vec<Vec<AttributeChange>> {
    let ways = |attribute: &LimitAttribute| match attribute.kind {
        "address" => vec![
            AttributeChange::Each(Bits::Ipv4Low),
            AttributeChange::Each(Bits::Ipv4High),
            AttributeChange::Each(Bits::Ipv6Low),
            AttributeChange::Each(Bits::Ipv6High),
            AttributeChange::Missing,
        ],
        "cost" => vec![AttributeChange::One, AttributeChange::Large, AttributeChange::Missing],
        "path" | "method" | "host" => vec![AttributeChange::Each(Bits::Ipv4Low)],
        _ => vec![AttributeChange::Missing, AttributeChange::Each(Bits::Ipv4Low)],
    };
    let same = vec![AttributeChange::Same; attributes.len()];
    let mut all = vec![same.clone()];
    let with = |base: &[AttributeChange], at: usize, way: AttributeChange| {
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

fn apply(draft: &mut RequestDraft, attribute: &LimitAttribute, way: AttributeChange, number: usize) {
    let text = match way {
        AttributeChange::Missing => None,
        AttributeChange::Each(_) => Some(format!("v{number}")),
        AttributeChange::Same => Some("v".to_owned()),
        AttributeChange::One => Some("1".to_owned()),
        AttributeChange::Large => Some("1000000".to_owned()),
    };
    let name = attribute.name.clone();
    match (attribute.kind, text) {
        ("header" | "cost", text) => {
            let is_there = draft.headers.iter().any(|(other, _)| *other == name);
            match (text, way) {
                // What the match asks for stays as it is.
                (_, AttributeChange::Same) if is_there || attribute.kind == "cost" => {}
                (text, _) => {
                    draft.headers.retain(|(other, _)| *other != name);
                    draft.headers.extend(text.map(|text| (name, text)));
                }
            }
        }
        ("cookie", Some(text)) => add_cookie(draft, &name, &text),
        ("query", Some(text)) => add_query(draft, &name, &text),
        ("peer", text) => draft.peer = text.map(|text| format!("spiffe://cluster.local/ns/{text}/sa/any")),
        // What the match asks for stays as it is.
        ("claim", Some(text)) => {
            let is_there = draft.claims.as_ref().is_some_and(|claims| claims.get(&name).is_some());
            if way != AttributeChange::Same || !is_there {
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
                AttributeChange::Missing => None,
                AttributeChange::Each(Bits::Ipv4Low) => {
                    Some(format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255))
                }
                // Another network of whatever length; from 1, and no more of them than there are.
                AttributeChange::Each(Bits::Ipv4High) => {
                    let high = (u32::try_from(number % 0xff_ffff).unwrap_or(0) + 1).reverse_bits();
                    Some(std::net::Ipv4Addr::from_bits(high).to_string())
                }
                AttributeChange::Each(Bits::Ipv6Low) => Some(format!("2001:db8::{:x}", number + 1)),
                AttributeChange::Each(Bits::Ipv6High) => Some(format!("2001:db8:{number:x}::1")),
                _ => Some("192.0.2.1".to_owned()),
            };
        }
        ("path", Some(text)) if way != AttributeChange::Same => {
            draft.path = format!("{}/{text}", draft.path.trim_end_matches('/'));
        }
        ("method", Some(text)) if way != AttributeChange::Same => draft.method = text.to_ascii_uppercase(),
        ("host", Some(text)) if way != AttributeChange::Same => draft.authority = format!("{text}.{}", draft.authority),
        _ => {}
    }
}

/// Gives the request a fact, whatever it had in its place.
fn add_fact(draft: &mut RequestDraft, name: &FactParts<'_>, text: &str) {
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

/// The object under a field, which comes into being when it is new.
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

fn add_cookie(draft: &mut RequestDraft, name: &str, text: &str) {
    let pair = format!("{name}={text}");
    match draft.headers.iter_mut().find(|(other, _)| other == "cookie") {
        Some((_, cookies)) if cookies.split("; ").any(|cookie| cookie.starts_with(&format!("{name}="))) => {}
        Some((_, cookies)) => *cookies = format!("{cookies}; {pair}"),
        None => draft.headers.push(("cookie".to_owned(), pair)),
    }
}

fn add_query(draft: &mut RequestDraft, name: &str, text: &str) {
    let sign = if draft.path.contains('?') { '&' } else { '?' };
    if !draft.path.contains(&format!("{name}=")) {
        draft.path = format!("{}{sign}{name}={text}", draft.path);
    }
}

/// Requests for which the limit holds: one for each entry of its `matches`, as it is and with what other limits' entries
/// ask for left out.
fn bases(limit: ReadLimit<'_>, ours: &[ReadLimit<'_>]) -> Vec<RequestDraft> {
    let plain = RequestDraft {
        method: "GET".to_owned(),
        scheme: Some("https"),
        authority: "a.example.com".to_owned(),
        path: "/".to_owned(),
        ..RequestDraft::default()
    };
    let Some(entries) = items(&limit.document.matches) else {
        // One that no entry of the team's holds for, and one for each that holds.
        let mut bases =
            vec![RequestDraft { method: "QUERY".to_owned(), path: "/unlisted".to_owned(), ..plain.clone() }];
        bases.insert(0, plain.clone());
        let theirs = ours.iter().filter_map(|limit| items(&limit.document.matches)).flatten();
        bases.extend(theirs.filter_map(|entry| entry_draft(&plain, entry)));
        return bases;
    };
    let mut bases: Vec<RequestDraft> = entries.iter().filter_map(|entry| entry_draft(&plain, entry)).collect();
    let other: Vec<RequestDraft> = entries
        .iter()
        .filter_map(|entry| {
            let strange = RequestDraft {
                method: "QUERY".to_owned(),
                path: "/unlisted".to_owned(),
                authority: "unlisted.example.com".to_owned(),
                ..plain.clone()
            };
            let mut draft = entry_draft(&strange, entry)?;
            if let Some(PathMatch::Prefix(_)) = entry.path {
                draft.path = format!("{}/unlisted", draft.path.trim_end_matches('/'));
            }
            Some(draft)
        })
        .collect();
    bases.extend(other);
    bases
}

/// A request for which the entry holds; `None` where that is not obvious.
fn entry_draft(plain: &RequestDraft, entry: &RequestMatch) -> Option<RequestDraft> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let mut draft = plain.clone();
    if let Some(method) = &entry.method {
        draft.method = text(method)?;
    }
    if let Some(host) = entry.hostnames.as_ref().and_then(|hosts| hosts.patterns().first()) {
        draft.authority = if host.wildcard { format!("x.{}", host.name) } else { host.name.to_string() };
    }
    match &entry.path {
        Some(PathMatch::Exact(path)) => draft.path = text(path)?,
        Some(PathMatch::Prefix(path)) => draft.path = if path.is_empty() { "/".to_owned() } else { text(path)? },
        Some(path @ PathMatch::Regex(_)) => draft.path = super::super::egress::a_path(path)?,
        None => {}
    }
    let wanted = |conditions: &'_ [Condition]| -> Option<Vec<(String, String)>> {
        let wanted = conditions.iter().filter(|condition| !condition.invert);
        wanted.map(|condition| Some((text(&condition.name)?, value(&condition.text)?))).collect()
    };
    draft.headers.extend(wanted(&entry.headers)?);
    for (name, value) in wanted(&entry.query_params)? {
        add_query(&mut draft, &name, &value);
    }
    for (name, value) in wanted(&entry.cookies)? {
        add_cookie(&mut draft, &name, &value);
    }
    for condition in entry.facts.iter().filter(|condition| !condition.invert) {
        add_fact(&mut draft, &FactParts::of(&condition.name), &value(&condition.text)?);
    }
    Some(draft)
}

/// A value that compares equal.
fn value(matches: &TextMatch) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    match matches {
        TextMatch::Exact(value) | TextMatch::Prefix(value) | TextMatch::Suffix(value) => text(value),
        TextMatch::Contains(finder) => text(finder.needle()),
        TextMatch::In(values) => text(values.iter().min()?),
        TextMatch::Present => Some("v".to_owned()),
        TextMatch::Regex(_) => None,
    }
}
