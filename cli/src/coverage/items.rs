//! The parts of a policy that can decide a request.

use penstock_policy::Request;
use penstock_policy::canaries::OverrideCondition;
use penstock_policy::egress::{Destination, DestinationTarget};
use penstock_policy::matching::RequestMatch;

use crate::cover::items;
use crate::documents::Documents;
use crate::words;

/// A part of a policy.
#[derive(Clone, Debug)]
pub struct CoverageItem {
    /// Its path, such as `egress.rules[0].methods[1]`.
    pub path: String,
    /// Its human-readable name, such as `egress rule stripe, method POST`.
    pub what: String,
    /// Whether it is a whole rule, limit or canary.
    pub is_whole: bool,
    /// The number of requests that it decided.
    pub hits: u64,
}

/// All parts, in the engine's order.
pub fn all(documents: &Documents) -> Vec<CoverageItem> {
    let mut all = Vec::new();
    let mut push = |path: String, what: String, is_whole: bool| {
        let what = words::shortened(&what.replace(char::is_control, "\u{fffd}"), 200);
        all.push(CoverageItem { path, what, is_whole, hits: 0 });
    };
    if let Some(egress) = &documents.egress {
        for (number, to) in egress.deny.iter().enumerate() {
            push(format!("egress.deny[{number}]"), format!("egress deny {}", destination(to)), true);
        }
        for (number, rule) in egress.rules.0.iter().enumerate() {
            let (path, what) = (format!("egress.rules[{number}]"), format!("egress rule `{}`", rule.name.0));
            push(path.clone(), what.clone(), true);
            let mut list = |field: &str, word: &str, values: Vec<String>| {
                for (n, value) in values.into_iter().enumerate() {
                    push(format!("{path}.{field}[{n}]"), format!("{what}, {word} {value}"), false);
                }
            };
            let texts = |list: Option<Vec<String>>| list.unwrap_or_default();
            list("from", "caller", texts(items(&rule.from).map(|l| l.iter().map(|c| c.as_str().to_owned()).collect())));
            list("to", "to", rule.to.0.iter().map(destination).collect());
            list("methods", "method", texts(items(&rule.methods).map(|l| l.iter().map(|m| m.0.to_string()).collect())));
            list("paths", "path", texts(items(&rule.paths).map(|l| l.iter().map(|p| p.0.to_string()).collect())));
        }
    }
    let mut with_matches = |path: String, what: String, entries: Option<&[RequestMatch]>| {
        push(path.clone(), what.clone(), true);
        for (number, entry) in entries.unwrap_or_default().iter().enumerate() {
            let place = format!("{path}.matches[{number}]");
            push(place.clone(), format!("{what}, entry {} of its matches", number + 1), false);
            let words = entry.verdicts(&Request::new(&[])).into_iter().map(|verdict| verdict.condition);
            for (condition, words) in conditions(entry, &place).into_iter().zip(words) {
                push(condition, format!("{what}, a request that fails only because {words}"), false);
            }
        }
    };
    for (number, limit) in documents.limits.iter().enumerate() {
        with_matches(
            format!("rateLimits[{number}]"),
            format!("limit `{}` refuses", limit.name.0),
            items(&limit.matches),
        );
    }
    if let Some(routes) = &documents.routes {
        for (number, rule) in routes.rules.0.iter().enumerate() {
            let what = format!("route rule `{}`", rule.name.0);
            with_matches(format!("routes.rules[{number}]"), what, items(&rule.matches));
        }
    }
    for (number, canary) in documents.canaries.iter().enumerate() {
        let what = format!("canary `{}`", canary.name.0);
        with_matches(format!("canaries[{number}]"), what, items(&canary.matches));
    }
    if documents.routes.as_ref().is_some_and(|routes| routes.default.is_some()) {
        push("routes.default".to_owned(), "the default route".to_owned(), true);
    }
    for (number, canary) in documents.canaries.iter().enumerate() {
        let what = format!("canary `{}`", canary.name.0);
        for (n, variant) in canary.variants.0.iter().enumerate() {
            push(format!("canaries[{number}].variants[{n}]"), format!("{what}, variant `{}`", variant.name.0), false);
        }
        for (n, one) in canary.overrides.iter().enumerate() {
            let condition = match &one.condition {
                OverrideCondition::Header(condition) => condition.words("header"),
                OverrideCondition::Cookie(condition) => condition.words("cookie"),
            };
            push(format!("canaries[{number}].overrides[{n}]"), format!("{what}, override: {condition}"), false);
        }
    }
    all
}

/// The paths of an entry's conditions, in the order of its verdicts. Conditions on claims and metadata are left out;
/// they come last.
pub fn conditions(entry: &RequestMatch, place: &str) -> Vec<String> {
    // Destructured without `..`, so that a new kind of condition cannot be forgotten.
    let RequestMatch { method, hostnames, path, headers, query_params, cookies, facts: _ } = entry;
    let one = |is: bool, field: &str| is.then(|| format!("{place}.{field}"));
    let list = |field: &'static str, count: usize| (0..count).map(move |n| format!("{place}.{field}[{n}]"));
    let single = [one(method.is_some(), "method"), one(path.is_some(), "path"), one(hostnames.is_some(), "hostnames")];
    let lists = list("headers", headers.len())
        .chain(list("queryParams", query_params.len()))
        .chain(list("cookies", cookies.len()));
    single.into_iter().flatten().chain(lists).collect()
}

fn destination(to: &Destination) -> String {
    let target = match &to.target {
        DestinationTarget::Host(host) => host.0.to_string(),
        DestinationTarget::Cidr(range) => range.to_string(),
    };
    let ports: Vec<String> = items(&to.ports).unwrap_or_default().iter().map(|port| port.0.to_string()).collect();
    if ports.is_empty() { target } else { format!("{target}:{}", ports.join(",")) }
}
