//! Finds the parts of the egress section that decided a request.

use std::net::IpAddr;

use penstock_policy::egress::{Destination, DestinationTarget, EgressDocument};
use penstock_policy::explain::{self, Note, Notes};
use penstock_policy::wire::{WireDecision, WireRequest};

use crate::cover::items;

/// Adds the paths of the parts that decided.
pub fn hits(
    egress: &EgressDocument,
    request: &WireRequest,
    decision: &WireDecision,
    trace: &Notes,
    hits: &mut Vec<String>,
) {
    let destination = trace.0.iter().find_map(|note| match note {
        Note::Destination(destination) => Some(destination),
        _ => None,
    });
    let Some(destination) = destination else { return };
    if decision.reason == Some("hostDenied") || is_denied(trace) {
        let denied = trace.0.iter().filter_map(|note| match note {
            Note::Denied(denied) => Some(denied),
            _ => None,
        });
        return hits.extend(denied.flatten().map(|number| format!("egress.deny[{number}]")));
    }
    let allowing = trace.0.iter().filter_map(|note| match note {
        Note::EgressRule(number, None) => Some(*number),
        _ => None,
    });
    // The first matching rule in the document is the one that decides.
    let Some((number, rule)) = allowing.min().and_then(|number| Some((number, egress.rules.0.get(number)?))) else {
        return;
    };
    let path = format!("egress.rules[{number}]");
    let mut list = |field: &str, which: Vec<usize>| {
        hits.extend(which.into_iter().map(|n| format!("{path}.{field}[{n}]")));
    };
    let caller = request.peer.as_deref().unwrap_or_default();
    list("from", places(items(&rule.from), |pattern| pattern.covers(caller.as_bytes())));
    list("to", places(Some(&rule.to.0), |to| has(to, destination)));
    list("methods", places(items(&rule.methods), |method| *method.0 == *destination.method));
    let canonical = trace.0.iter().find_map(|note| match note {
        Note::CanonicalPath(Ok(path)) => Some(path.as_str()),
        _ => None,
    });
    let own = request.path.split(['?', '#']).next().unwrap_or_default();
    let asked = canonical.unwrap_or(own);
    list("paths", places(items(&rule.paths), |path| path.0.matches(asked.as_bytes())));
    hits.push(path);
}

/// Whether `deny` decided, including decisions that a mode only reports.
fn is_denied(trace: &Notes) -> bool {
    trace
        .0
        .iter()
        .any(|note| matches!(note, Note::Egress { reason: Some(reason), .. } if reason.as_str() == "hostDenied"))
}

/// The places of the items in a list that are true for the request.
fn places<T>(list: Option<&[T]>, holds: impl Fn(&T) -> bool) -> Vec<usize> {
    let list = list.unwrap_or_default().iter().enumerate();
    list.filter(|(_, item)| holds(item)).map(|(number, _)| number).collect()
}

/// Whether `to` contains this destination.
fn has(to: &Destination, asked: &explain::DestinationNote) -> bool {
    let host = asked.host.trim_start_matches('[').trim_end_matches(']');
    let is_host = match &to.target {
        DestinationTarget::Host(pattern) => pattern.0.matches(asked.host.as_bytes()),
        DestinationTarget::Cidr(range) => host.parse::<IpAddr>().is_ok_and(|address| range.contains(address)),
    };
    let has_port = |ports: &[_]| {
        ports.iter().any(|port: &penstock_policy::document::Whole<1, 65535>| asked.port.map(u32::from) == Some(port.0))
    };
    is_host && items(&to.ports).is_none_or(has_port)
}
