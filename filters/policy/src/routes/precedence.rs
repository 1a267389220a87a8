//! The order of matching entries under `precedence: GatewayAPI`.

use std::cmp::Reverse;

use super::document::Precedence;
use crate::matching::{HostPattern, HostSet, PathMatch, RequestMatch};

/// The entries in the order in which they win; equal ones stay in document order.
pub fn in_order<T: Clone>(precedence: Precedence, mut entries: Vec<(RequestMatch, T)>) -> Vec<(RequestMatch, T)> {
    if precedence == Precedence::GatewayApi {
        entries = entries.into_iter().flat_map(|(entry, of)| by_host(entry).map(move |e| (e, of.clone()))).collect();
        entries.sort_by_key(|(entry, _)| Reverse(specificity(entry)));
    }
    entries
}

/// How specific a host pattern is: an exact host, otherwise the length of the star's suffix.
fn host_specificity(pattern: &HostPattern) -> (u8, usize) {
    if pattern.wildcard { (1, pattern.name.len()) } else { (2, 0) }
}

/// Each entry once for each class of its hosts, because the match is as specific as the host pattern that matched.
fn by_host(entry: RequestMatch) -> impl Iterator<Item = RequestMatch> {
    let mut classes: Vec<((u8, usize), Vec<HostPattern>)> = Vec::new();
    for pattern in entry.hostnames.iter().flat_map(HostSet::patterns) {
        let class = host_specificity(pattern);
        match classes.iter_mut().find(|(known, _)| *known == class) {
            Some((_, patterns)) => patterns.push(pattern.clone()),
            None => classes.push((class, vec![pattern.clone()])),
        }
    }
    let mut entries: Vec<RequestMatch> = Vec::new();
    if classes.len() > 1 {
        entries.extend(
            classes
                .into_iter()
                .map(|(_, patterns)| RequestMatch { hostnames: Some(HostSet::new(patterns)), ..entry.clone() }),
        );
    } else {
        entries.push(entry);
    }
    entries.into_iter()
}

/// The order under `precedence: GatewayAPI`, greater first: an exact host before a star, the longer star, no host; then
/// exact path, expression, longest prefix, method, number of headers (cookies are parts of one header, so they count as
/// headers), number of query parameters. The Gateway API leaves the place of expressions to the implementation; this is
/// Envoy Gateway's.
pub fn specificity(entry: &RequestMatch) -> impl Ord + use<> {
    let host = entry.hostnames.iter().flat_map(HostSet::patterns).map(host_specificity).max();
    let path = match &entry.path {
        Some(PathMatch::Exact(path)) => (2, path.len()),
        Some(PathMatch::Regex(regex)) => (1, regex.pattern().len()),
        Some(PathMatch::Prefix(prefix)) => (0, prefix.len()),
        None => (0, 0),
    };
    (host, path, entry.method.is_some(), entry.headers.len() + entry.cookies.len(), entry.query_params.len())
}
