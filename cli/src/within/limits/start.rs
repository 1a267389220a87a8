//! Makes requests to which a limit applies, as the start of sequences.

use penstock_policy::document::Node;
use penstock_policy::facts::FactParts;
use penstock_policy::matching::{Condition, PathMatch, RequestMatch, TextMatch};

use super::attributes::{Variation, add_cookie, add_fact, add_query, apply, attributes};
use super::limit::ReadLimit;
use crate::automata;
use crate::cover::items;
use crate::within::egress::a_path;
use crate::within::excess::setting;
use crate::within::witness::RequestDraft;

/// The maximum number of requests for one entry.
const MOST: usize = 64;

/// The request from which others are made.
pub fn plain() -> RequestDraft {
    RequestDraft {
        method: "GET".to_owned(),
        scheme: Some("https"),
        authority: "a.example.com".to_owned(),
        path: "/".to_owned(),
        ..RequestDraft::default()
    }
}

/// Sets every attribute in the keys of `limits`, so that no limit refuses the request because its key is incomplete.
pub fn complete(draft: &mut RequestDraft, limits: &[ReadLimit<'_>]) {
    let Some((first, rest)) = limits.split_first() else { return };
    let (method, path) = (draft.method.clone(), draft.path.clone());
    for attribute in attributes(*first, rest, [&Node::Null, &Node::Null]) {
        apply(draft, &attribute, Variation::Same, 0);
    }
    draft.method = method;
    if draft.method == "CONNECT" {
        draft.path = path;
    }
}

/// Requests to which the limit applies: for each entry of its `matches`, the entry alone, without the conditions of
/// other limits' entries, and with a difference from each of them.
pub fn starts(
    limit: ReadLimit<'_>,
    ours: &[ReadLimit<'_>],
    plain: &[RequestDraft],
    settings: [&Node; 2],
) -> Vec<RequestDraft> {
    let theirs: Vec<&RequestMatch> = ours.iter().filter_map(|limit| items(&limit.document.matches)).flatten().collect();
    let mut starts = Vec::new();
    let Some(first) = plain.first() else { return starts };
    match items(&limit.document.matches) {
        None => {
            starts.extend(plain.iter().cloned());
            // One request that no entry of the others matches, and one for each entry that matches.
            starts.push(RequestDraft { method: "QUERY".to_owned(), path: "/unlisted".to_owned(), ..first.clone() });
            starts.extend(theirs.iter().take(MOST).filter_map(|entry| entry_draft(first, entry)));
            for plain in plain {
                starts.extend(apart(plain, None, &theirs));
            }
        }
        Some(entries) => {
            for plain in plain {
                starts.extend(entries.iter().filter_map(|entry| entry_draft(plain, entry)));
            }
            let strange = RequestDraft {
                method: "QUERY".to_owned(),
                path: "/unlisted".to_owned(),
                authority: "unlisted.example.com".to_owned(),
                ..first.clone()
            };
            starts.extend(entries.iter().filter_map(|entry| {
                let mut draft = entry_draft(&strange, entry)?;
                if let Some(PathMatch::Prefix(_)) = entry.path {
                    draft.path = format!("{}/unlisted", draft.path.trim_end_matches('/'));
                }
                Some(draft)
            }));
            for plain in plain {
                let drafts = entries.iter().filter_map(|entry| Some((entry_draft(plain, entry)?, entry)));
                let drafts: Vec<RequestDraft> =
                    drafts.flat_map(|(draft, entry)| apart(&draft, Some(entry), &theirs)).collect();
                starts.extend(drafts);
            }
        }
    }
    starts.truncate(4 * MOST);
    let more = starts.iter().flat_map(|start| elsewhere(start, limit, settings)).take(4 * MOST).collect::<Vec<_>>();
    starts.extend(more);
    starts
}

/// The request with what each policy needs to see its own attributes.
fn elsewhere(start: &RequestDraft, limit: ReadLimit<'_>, [theirs, ours]: [&Node; 2]) -> Vec<RequestDraft> {
    let mut found = Vec::new();
    if setting(theirs, "path") != setting(ours, "path") {
        for tail in ["/../unlisted", "/.."] {
            found.push(RequestDraft { path: format!("{}{tail}", start.path.trim_end_matches('/')), ..start.clone() });
        }
        found.push(RequestDraft { path: format!("/unlisted/..{}", start.path), ..start.clone() });
    }
    if setting(theirs, "sourceAddress") != setting(ours, "sourceAddress") {
        for policy in [theirs, ours] {
            let Some(Node::List(ranges)) = setting(policy, "sourceAddress").get("trustedProxies") else { continue };
            for range in ranges.iter().take(8) {
                let Node::String(range) = range else { continue };
                let address = range.split('/').next().unwrap_or_default().to_owned();
                found.push(RequestDraft { source_address: Some(address), ..start.clone() });
            }
        }
    }
    // A rate-limit service has refused the request already where the limit counts it.
    if limit.node.get("scope").is_some_and(|scope| scope.get("global").is_some()) {
        for service in ["overLimit", "error"] {
            found.push(RequestDraft { service: Some(service), ..start.clone() });
        }
    }
    found
}

/// Variants of the request `draft`, made for `entry`, that one of `theirs` does not match.
fn apart(draft: &RequestDraft, entry: Option<&RequestMatch>, theirs: &[&RequestMatch]) -> Vec<RequestDraft> {
    let mut found = Vec::new();
    let hosts = entry.and_then(|entry| entry.hostnames.as_ref()).map(|hosts| hosts.patterns()).unwrap_or_default();
    for host in hosts.iter().skip(1).take(8) {
        let authority = if host.wildcard { format!("x.{}", host.name) } else { host.name.to_string() };
        found.push(RequestDraft { authority, ..draft.clone() });
    }
    let own_path = entry.and_then(|entry| entry.path.as_ref());
    let paths: Vec<&PathMatch> = theirs.iter().filter_map(|entry| entry.path.as_ref()).take(MOST).collect();
    let alone = paths.iter().map(|path| vec![*path]);
    let outside = std::iter::once(paths.clone()).chain(alone).filter(|others| !others.is_empty());
    found.extend(outside.filter_map(|others| Some(RequestDraft { path: a_path(own_path, &others)?, ..draft.clone() })));
    for other in theirs {
        for (place, conditions) in places(other) {
            for condition in conditions {
                let own = entry.and_then(|entry| {
                    let (_, conditions) = places(entry).into_iter().find(|(known, _)| *known == place)?;
                    conditions.iter().find(|own| own.name == condition.name)
                });
                // With `invert`, their condition is true for every other value.
                let value = match (own.filter(|own| !own.invert).map(|own| &own.text), condition.invert) {
                    (Some(own), true) if !own.matches(&value(&condition.text).unwrap_or_default()) => continue,
                    (_, true) => value(&condition.text),
                    (own, false) => automata::value_outside(own.unwrap_or(&TextMatch::Present), &[&condition.text]),
                };
                let Some((name, value)) = text(&condition.name).zip(value.and_then(|value| text(&value))) else {
                    continue;
                };
                let mut draft = draft.clone();
                place.put(&mut draft, &name, &value);
                found.push(draft);
            }
        }
        if found.len() > MOST {
            break;
        }
    }
    found
}

/// A part of a request that conditions refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    Query,
    Cookie,
    Fact,
}

impl Part {
    fn put(self, draft: &mut RequestDraft, name: &str, value: &str) {
        match self {
            Part::Header => {
                draft.headers.retain(|(other, _)| other != name);
                draft.headers.push((name.to_owned(), value.to_owned()));
            }
            Part::Query => {
                let (path, query) = draft.path.split_once('?').unwrap_or((&draft.path, ""));
                let kept = others(query, "&", name);
                draft.path = if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") };
                add_query(draft, name, value);
            }
            Part::Cookie => {
                if let Some((_, cookies)) = draft.headers.iter_mut().find(|(other, _)| other == "cookie") {
                    *cookies = others(cookies, "; ", name);
                }
                draft.headers.retain(|(other, value)| other != "cookie" || !value.is_empty());
                add_cookie(draft, name, value);
            }
            Part::Fact => add_fact(draft, &FactParts::of(name.as_bytes()), value),
        }
    }
}

/// The pairs of a list with other names.
fn others(pairs: &str, separator: &str, name: &str) -> String {
    let is_other = |pair: &&str| !pair.is_empty() && pair.split('=').next() != Some(name);
    pairs.split(separator).filter(is_other).collect::<Vec<_>>().join(separator)
}

fn places(entry: &RequestMatch) -> [(Part, &[Condition]); 4] {
    [
        (Part::Header, &entry.headers),
        (Part::Query, &entry.query_params),
        (Part::Cookie, &entry.cookies),
        (Part::Fact, &entry.facts),
    ]
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// A request that the entry matches; `None` where none is obvious.
fn entry_draft(plain: &RequestDraft, entry: &RequestMatch) -> Option<RequestDraft> {
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
        Some(path @ PathMatch::Regex(_)) => draft.path = a_path(Some(path), &[])?,
        None => {}
    }
    for (place, conditions) in places(entry) {
        for condition in conditions.iter().filter(|condition| !condition.invert) {
            place.put(&mut draft, &text(&condition.name)?, &text(&value(&condition.text)?)?);
        }
    }
    Some(draft)
}

/// A value that compares as equal.
fn value(matches: &TextMatch) -> Option<Vec<u8>> {
    match matches {
        TextMatch::Exact(value) | TextMatch::Prefix(value) | TextMatch::Suffix(value) => Some(value.to_vec()),
        TextMatch::Contains(finder) => Some(finder.needle().to_vec()),
        TextMatch::In(values) => Some(values.iter().min()?.to_vec()),
        TextMatch::Present => Some(b"v".to_vec()),
        TextMatch::Regex(_) => automata::value_outside(matches, &[]),
    }
}
