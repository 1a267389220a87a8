//! Describes the requirements of `egress` rules.

use penstock_policy::egress::{Destination, DestinationTarget, EgressDocument, EgressRuleDocument};
use penstock_policy::{Reason, Request};

use super::report::EgressReport;
use crate::words;

/// A destination of a rule or of `deny`.
pub fn destination_words(destination: &Destination) -> String {
    let target = match &destination.target {
        DestinationTarget::Host(host) => host.0.to_string(),
        DestinationTarget::Cidr(range) => range.to_string(),
    };
    match &destination.ports {
        None => target,
        Some(ports) => format!("{target} port {}", list(ports.0.iter().map(|port| port.0.to_string()))),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// What `rule` requires at the point where it did not allow the request.
pub fn wants(rule: &EgressRuleDocument, stopped: Reason, report: &EgressReport, request: &Request<'_>) -> String {
    let lossy = |bytes: &[u8]| words::shortened(&String::from_utf8_lossy(bytes), 200);
    let caller = || report.caller.as_deref().unwrap_or("unknown").to_owned();
    match stopped {
        Reason::PortNotAllowed => {
            let to = list(rule.to.0.iter().map(destination_words));
            format!(
                "requires {to}; the request is for port {}",
                report.port.map_or("unknown".to_owned(), |port| port.to_string())
            )
        }
        Reason::CallerUnknown | Reason::CallerNotAllowed => {
            let from = list(rule.from.iter().flat_map(|from| &from.0).map(|pattern| pattern.as_str().to_owned()));
            format!("is for {from}; the caller is {}", caller())
        }
        Reason::RuleNotYetValid => format!("begins at {}", rule.not_before.map(words::instant).unwrap_or_default()),
        Reason::RuleExpired => format!("expired at {}", rule.expires.map(words::instant).unwrap_or_default()),
        Reason::MethodNotAllowed | Reason::MethodOverrideNotAllowed => {
            let methods = list(rule.methods.iter().flat_map(|methods| &methods.0).map(|method| method.0.to_string()));
            let overrides = ["x-http-method-override", "x-http-method", "x-method-override"];
            let asked = overrides
                .iter()
                .find_map(|name| request.value(name.as_bytes()))
                .filter(|_| stopped != Reason::MethodNotAllowed);
            format!("lists {methods}; the request's is {}", lossy(asked.unwrap_or(request.method)))
        }
        Reason::ConnectNotAllowed => "has no `connect: true`".to_owned(),
        Reason::UpgradeNotAllowed => match rule.upgrades.is_empty() {
            true => "lists no `upgrades`".to_owned(),
            false => {
                format!("lists the upgrades {}", list(rule.upgrades.iter().map(|protocol| protocol.0.to_string())))
            }
        },
        Reason::PathNotAllowed => {
            let paths = list(rule.paths.iter().flat_map(|paths| &paths.0).map(|path| path.0.to_string()));
            let path = report.canonical_path.clone().unwrap_or_else(|| lossy(request.path));
            format!("requires a path that {paths}; the canonical path is {path}")
        }
        other => other.words().to_owned(),
    }
}

/// Hosts of the rules that the user may have meant: similar spelling, or parents or children of the requested host.
pub fn similar_hosts(document: &EgressDocument, host: &str, most: usize) -> Vec<String> {
    let mut similar: Vec<(f64, String)> = Vec::new();
    for to in document.rules.0.iter().flat_map(|rule| &rule.to.0) {
        let DestinationTarget::Host(pattern) = &to.target else { continue };
        let name = &*pattern.0.name;
        let below = |a: &str, b: &str| a.strip_suffix(b).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let likeness = match below(host, name) || below(name, host) && host.contains('.') {
            true => 1.0,
            false => strsim::normalized_damerau_levenshtein(host, name),
        };
        let text = pattern.0.to_string();
        if likeness >= 0.75 && similar.iter().all(|(_, other)| *other != text) {
            similar.push((likeness, text));
            similar.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            similar.truncate(most);
        }
    }
    similar.into_iter().map(|(_, text)| text).collect()
}
