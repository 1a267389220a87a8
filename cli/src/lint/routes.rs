//! Rules and canaries that no request can reach, and routes that the host does not have.

use std::collections::HashMap;

use penstock_policy::Problem;
use penstock_policy::document::{At, Node};
use penstock_policy::matching::{PathMatch, RequestMatch};
use penstock_policy::routes::{Precedence, RoutesDocument, specificity};

use super::Warnings;
use crate::cover::entry_covers;
use crate::documents::Documents;
use crate::manifests::HostRoutes;

/// The warnings for `routes` and `canaries`, in document order.
pub fn routing(document: &Node) -> Vec<Problem> {
    let documents = Documents::of(document);
    let mut warnings = Warnings(Vec::new());
    let root = At::Root;
    if let Some(routes) = &documents.routes {
        let section = root.field("routes");
        let list = section.field("rules");
        for (i, by) in unreachable_rules(routes) {
            let by = routes.rules.0.get(by).map_or("", |rule| &rule.name.0);
            let help = match routes.precedence {
                Precedence::FirstMatch => format!("move it above `{by}`, or take it out"),
                Precedence::GatewayApi => {
                    format!("`{by}` wins wherever it matches: make it more specific, or take it out")
                }
            };
            let message = format!("is never reached: `{by}` and those before it take every request that it matches");
            warnings.push(&list.index(i), message, help);
        }
    }
    let list = root.field("canaries");
    let canaries = &documents.canaries;
    let entries = canaries.iter().map(|canary| canary.matches.as_ref().map(|matches| matches.0.clone()));
    for (i, by) in unreachable(ordered(entries, |_| ())) {
        let by = canaries.get(by).map_or("", |canary| &canary.name.0);
        let message = format!("is never reached: `{by}` and those before it take every request that it matches");
        warnings.push(&list.index(i), message, format!("move it above `{by}`, or take it out"));
    }
    warnings.0
}

/// The warnings for routes that no host route is for.
pub fn missing(document: &Node, host: &HostRoutes) -> Vec<Problem> {
    let documents = Documents::of(document);
    let header = &*documents.settings.route_header.0;
    let mut warnings = Warnings(Vec::new());
    let mut look = |name: &str, at: &At<'_>| {
        if !host.has(name) {
            let known: Vec<&str> = host.names().collect();
            let help = match known.is_empty() {
                true => format!("add a route there that matches the header {header}: {name}"),
                false => format!("add a route there that matches {header}: {name}; there are {}", known.join(", ")),
            };
            warnings.push(
                at,
                format!("names the route `{name}`, for which the platform's configuration has no route"),
                help,
            );
        }
    };
    let root = At::Root;
    if let Some(routes) = &documents.routes {
        let section = root.field("routes");
        if let Some(default) = &routes.default {
            look(&default.0, &section.field("default"));
        }
        let list = section.field("rules");
        for (i, rule) in routes.rules.0.iter().enumerate() {
            let at = list.index(i);
            look(&rule.route.0, &at.field("route"));
            if let Some(failover) = &rule.failover {
                look(&failover.route.0, &at.field("failover").field("route"));
            }
        }
    }
    let list = root.field("canaries");
    for (i, canary) in documents.canaries.iter().enumerate() {
        let at = list.index(i);
        let variants = at.field("variants");
        for (k, variant) in canary.variants.0.iter().enumerate() {
            let at = variants.index(k);
            match &variant.route {
                Some(route) => look(&route.0, &at.field("route")),
                None => look(&variant.name.0, &at.field("name")),
            }
        }
    }
    warnings.0
}

/// The rules that no request reaches, each with the last of those that take its requests.
fn unreachable_rules(routes: &RoutesDocument) -> Vec<(usize, usize)> {
    let entries = routes.rules.0.iter().map(|rule| rule.matches.as_ref().map(|matches| matches.0.clone()));
    unreachable(match routes.precedence {
        Precedence::FirstMatch => ordered(entries, |_| ()),
        Precedence::GatewayApi => ordered(entries, |entry| std::cmp::Reverse(specificity(entry))),
    })
}

/// All entries in the order in which they win, each with its rule.
fn ordered<K: Ord>(
    rules: impl Iterator<Item = Option<Vec<RequestMatch>>>,
    order: impl Fn(&RequestMatch) -> K,
) -> Vec<(RequestMatch, usize)> {
    let mut entries: Vec<(RequestMatch, usize)> = rules
        .enumerate()
        .flat_map(|(i, matches)| {
            matches.unwrap_or_else(|| vec![RequestMatch::default()]).into_iter().map(move |m| (m, i))
        })
        .collect();
    entries.sort_by_key(|(entry, _)| order(entry));
    entries
}

/// Rules all of whose entries are covered by entries that win before them.
fn unreachable(entries: Vec<(RequestMatch, usize)>) -> Vec<(usize, usize)> {
    let mut earlier = Earlier::default();
    // Of each rule whether something of it is reached, and the last rule that takes what is not.
    let mut rules: HashMap<usize, (bool, usize)> = HashMap::new();
    for (at, (entry, rule)) in entries.iter().enumerate() {
        let by = earlier.covering(entry, &entries).filter(|by| by != rule);
        let state = rules.entry(*rule).or_insert((false, 0));
        match by {
            Some(by) => state.1 = state.1.max(by),
            // Covered by its own rule: what reaches that one has been seen.
            None if earlier.covering(entry, &entries).is_some() => {}
            None => state.0 = true,
        }
        earlier.add(at, entry);
    }
    let mut found: Vec<(usize, usize)> =
        rules.into_iter().filter(|(_, (reached, _))| !reached).map(|(rule, (_, by))| (rule, by)).collect();
    found.sort_unstable();
    found
}

/// Entries by their path, so that not every pair need be compared.
#[derive(Default)]
struct Earlier {
    /// Without a path, or with an expression.
    others: Vec<usize>,
    by_path: HashMap<Box<[u8]>, Vec<usize>>,
}

impl Earlier {
    fn add(&mut self, at: usize, entry: &RequestMatch) {
        match &entry.path {
            Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) => {
                self.by_path.entry(path.clone()).or_default().push(at)
            }
            _ => self.others.push(at),
        }
    }

    /// The rule of the first entry that covers `entry`.
    fn covering(&self, entry: &RequestMatch, entries: &[(RequestMatch, usize)]) -> Option<usize> {
        let mut candidates: Vec<&[usize]> = vec![&self.others];
        if let Some(PathMatch::Exact(path) | PathMatch::Prefix(path)) = &entry.path {
            let ancestors =
                path.iter().enumerate().filter(|(_, byte)| **byte == b'/').filter_map(|(at, _)| path.get(..at));
            let paths = std::iter::once(&**path).chain(ancestors);
            candidates.extend(paths.filter_map(|path| self.by_path.get(path).map(Vec::as_slice)));
        }
        let covering = candidates
            .into_iter()
            .flatten()
            .filter(|at| entries.get(**at).is_some_and(|(wide, _)| entry_covers(wide, entry)));
        covering.min().and_then(|at| entries.get(*at)).map(|(_, rule)| *rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(precedence: &str, rules: &[(&str, &str)]) -> Vec<String> {
        let rules: Vec<String> =
            rules.iter().map(|(name, matches)| format!("{{name: {name}, route: r, matches: [{matches}]}}")).collect();
        let yaml = format!("routes: {{precedence: {precedence}, rules: [{}]}}", rules.join(", "));
        let node = crate::yaml::Located::read(&yaml).unwrap().node;
        routing(&node).iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn a_rule_after_a_wider_one_is_never_reached_in_document_order() {
        let rules = [("wide", "{path: {value: /a}}"), ("narrow", "{path: {value: /a/b}, method: GET}")];
        assert_eq!(
            lint("FirstMatch", &rules),
            ["routes.rules[1]: is never reached: `wide` and those before it take every request that it matches"]
        );
        assert_eq!(lint("GatewayAPI", &rules), [] as [&str; 0], "there the more specific wins");
    }

    #[test]
    fn the_more_specific_of_two_equals_is_the_earlier_one_under_both() {
        let rules = [("one", "{headers: [{name: x, type: Present}]}"), ("two", "{headers: [{name: x, value: a}]}")];
        assert_eq!(lint("FirstMatch", &rules).len(), 1);
        assert_eq!(lint("GatewayAPI", &rules).len(), 1, "both have one header: document order");
    }

    #[test]
    fn several_rules_together_can_take_everything() {
        let rules = [
            ("get", "{method: GET}"),
            ("put", "{method: PUT}"),
            ("both", "{method: GET, path: {value: /a}}, {method: PUT}"),
        ];
        assert_eq!(
            lint("FirstMatch", &rules),
            ["routes.rules[2]: is never reached: `put` and those before it take every request that it matches"]
        );
        let rules = [("get", "{method: GET}"), ("more", "{method: GET, path: {value: /a}}, {method: POST}")];
        assert_eq!(lint("FirstMatch", &rules), [] as [&str; 0]);
        assert_eq!(lint("FirstMatch", &[("own", "{method: GET}, {method: GET, path: {value: /a}}")]), [] as [&str; 0]);
    }

    #[test]
    fn a_canary_after_a_wider_one_is_never_reached() {
        let node = crate::yaml::Located::read(
            "canaries: [{name: a, variants: [{name: v, weight: 1}]}, {name: b, matches: [{method: GET}], variants: [{name: v, weight: 1}]}]",
        );
        let found = routing(&node.unwrap().node);
        assert_eq!(found[0].path, "canaries[1]");
    }

    #[test]
    fn ten_thousand_rules_are_looked_through_in_seconds() {
        let rules: Vec<String> =
            (0..10_000).map(|i| format!("{{name: r{i}, route: r, matches: [{{path: {{value: /p{i}}}}}]}}")).collect();
        let node = crate::yaml::Located::read(&format!("routes: {{rules: [{}]}}", rules.join(", "))).unwrap().node;
        let start = std::time::Instant::now();
        assert!(routing(&node).is_empty());
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
