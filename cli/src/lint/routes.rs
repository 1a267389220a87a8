//! Finds rules and canaries that no request can reach, and routes that the platform's configuration does not have.

use std::collections::{HashMap, HashSet};

use penstock_policy::Problem;
use penstock_policy::canaries::CanaryDocument;
use penstock_policy::document::{At, Name, Node, NonEmpty};
use penstock_policy::matching::RequestMatch;
use penstock_policy::routes::{Precedence, RouteRuleDocument, in_order};

use super::Warnings;
use super::earlier::EarlierEntries;
use super::effort::{self, Effort};
use crate::documents::Documents;
use crate::manifests::HostRoutes;

/// The warnings for `routes` and `canaries`, in document order.
pub fn routing(document: &Node) -> Vec<Problem> {
    let documents = Documents::of(document);
    let mut warnings = Warnings(Vec::new());
    let mut effort = Effort::default();
    let root = At::Root;
    let (section, canary_list) = (root.field("routes"), root.field("canaries"));
    let rule_list = section.field("rules");
    let precedence = documents.routes.as_ref().map_or(Precedence::FirstMatch, |routes| routes.precedence);
    let rules = documents.routes.as_ref().map_or(&[][..], |routes| &routes.rules.0);
    let canaries = &documents.canaries;
    let naming = naming(rules);
    let unreached = unreachable(&entries(precedence, rules, canaries, &naming), &mut effort);
    for (number, by) in &unreached {
        // Canaries are numbered after the rules.
        let by = match rules.get(*by) {
            Some(rule) => format!("rule `{}`", rule.name.0),
            None => {
                canaries.get(by - rules.len()).map_or(String::new(), |canary| format!("canary `{}`", canary.name.0))
            }
        };
        let message = format!("is never reached: {by} and those before it match every request that it matches");
        match (number.checked_sub(rules.len()), precedence) {
            (None, Precedence::FirstMatch) => {
                warnings.push(&rule_list.index(*number), message, format!("move it above {by}, or remove it"));
            }
            (None, Precedence::GatewayApi) => {
                let help = format!("{by} takes precedence wherever it matches: make it more specific, or remove it");
                warnings.push(&rule_list.index(*number), message, help);
            }
            (Some(canary), _) if by.starts_with("rule") => {
                let help = format!("rules come before canaries: give {by} `matches`, or name this canary in a rule");
                warnings.push(&canary_list.index(canary), message, help);
            }
            (Some(canary), _) => {
                warnings.push(&canary_list.index(canary), message, format!("move it above {by}, or remove it"));
            }
        }
    }
    let unreached: HashSet<usize> = unreached.iter().map(|(number, _)| *number).collect();
    for (i, canary) in canaries.iter().enumerate() {
        let naming = naming.get(&canary.name);
        if naming.is_some_and(|naming| naming.iter().all(|rule| unreached.contains(rule))) {
            let message = "is never reached: no request reaches a rule that names it";
            warnings.push(&canary_list.index(i), message, "see the warnings about those rules".to_owned());
        }
    }
    if effort.is_spent() {
        let section = if documents.routes.is_some() { "routes" } else { "canaries" };
        warnings.push(&root.field(section), effort::SPENT, effort::HELP.to_owned());
    }
    warnings.0
}

/// For each canary, the indexes of the rules that name it.
fn naming(rules: &[RouteRuleDocument]) -> HashMap<&Name, Vec<usize>> {
    let mut naming: HashMap<&Name, Vec<usize>> = HashMap::new();
    for (i, rule) in rules.iter().enumerate() {
        if let Some(canary) = &rule.canary {
            naming.entry(canary).or_default().push(i);
        }
    }
    naming
}

/// The entries of all rules, and of the canaries that no rule names, in order of precedence, each with the number of
/// its rule or canary; canaries are numbered after the rules.
fn entries(
    precedence: Precedence,
    rules: &[RouteRuleDocument],
    canaries: &[CanaryDocument],
    naming: &HashMap<&Name, Vec<usize>>,
) -> Vec<(RequestMatch, usize)> {
    let of_rules = rules.iter().map(|rule| &rule.matches).enumerate();
    let mut entries: Vec<_> = of_rules.flat_map(|(number, matches)| numbered(number, matches)).collect();
    entries = in_order(precedence, entries);
    let unnamed = canaries.iter().enumerate().filter(|(_, canary)| !naming.contains_key(&canary.name));
    entries.extend(unnamed.flat_map(|(i, canary)| numbered(rules.len() + i, &canary.matches)));
    entries
}

/// The entries of one `matches`, each with `number`.
fn numbered(number: usize, matches: &Option<NonEmpty<RequestMatch>>) -> Vec<(RequestMatch, usize)> {
    let entries = matches.as_ref().map_or_else(|| vec![RequestMatch::default()], |matches| matches.0.clone());
    entries.into_iter().map(|entry| (entry, number)).collect()
}

/// The warnings for route names that no route of the platform matches.
pub fn missing(document: &Node, host: &HostRoutes) -> Vec<Problem> {
    let documents = Documents::of(document);
    let header = &*documents.settings.route_header.0;
    let mut warnings = Warnings(Vec::new());
    let mut look = |name: &str, at: &At<'_>| {
        if !host.has(name) {
            const SHOWN: usize = 10;
            let known: Vec<&str> = host.names().take(SHOWN).collect();
            let more = if host.names().nth(SHOWN).is_some() { ", …" } else { "" };
            let help = match known.is_empty() {
                true => format!("add a route there that matches the header {header}: {name}"),
                false => {
                    format!("add a route there that matches {header}: {name}; there are {}{more}", known.join(", "))
                }
            };
            warnings.push(
                at,
                format!("names the route `{name}`, but the platform's configuration has no route for it"),
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
            if let Some(route) = &rule.route {
                look(&route.0, &at.field("route"));
            }
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

/// Rules whose entries are all covered by entries with higher precedence.
fn unreachable(entries: &[(RequestMatch, usize)], effort: &mut Effort) -> Vec<(usize, usize)> {
    let mut earlier = EarlierEntries::default();
    // For each rule, whether any entry is reachable, and the last rule that covers the unreachable ones.
    let mut rules: HashMap<usize, (bool, usize)> = HashMap::new();
    for (entry, rule) in entries {
        let by = earlier.covering(entry, effort).and_then(|at| entries.get(at)).map(|(_, by)| *by);
        let state = rules.entry(*rule).or_insert((false, 0));
        match by {
            Some(by) if by != *rule => state.1 = state.1.max(by),
            // An entry that its own rule covers does not make the rule unreachable.
            Some(_) => {}
            None => state.0 = true,
        }
        earlier.add(entry);
    }
    let mut found: Vec<(usize, usize)> =
        rules.into_iter().filter(|(_, (reached, _))| !reached).map(|(rule, (_, by))| (rule, by)).collect();
    found.sort_unstable();
    found
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
            ["routes.rules[1]: is never reached: rule `wide` and those before it match every request that it matches"]
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
            ["routes.rules[2]: is never reached: rule `put` and those before it match every request that it matches"]
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

    fn lint_all(yaml: &str) -> Vec<String> {
        let node = crate::yaml::Located::read(yaml).unwrap().node;
        routing(&node).iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn a_canary_behind_rules_that_take_its_requests_is_never_reached() {
        let canary = "variants: [{name: v, weight: 1}]";
        for (rules, canaries, expected) in [
            (
                "{name: all, route: a}",
                format!("{{name: c, {canary}}}"),
                vec!["canaries[0]: is never reached: rule `all`"],
            ),
            (
                "{name: get, route: a, matches: [{method: GET}]}, {name: put, route: a, matches: [{method: PUT}]}",
                format!("{{name: c, matches: [{{method: PUT, path: {{value: /a}}}}, {{method: GET}}], {canary}}}"),
                vec!["canaries[0]: is never reached: rule `put`"],
            ),
            ("{name: get, route: a, matches: [{method: GET}]}", format!("{{name: c, {canary}}}"), vec![]),
            ("{name: all, canary: c}", format!("{{name: c, {canary}}}"), vec![]),
            (
                "{name: all, canary: c}",
                format!("{{name: c, {canary}}}, {{name: d, {canary}}}"),
                vec!["canaries[1]: is never reached: rule `all`"],
            ),
            (
                "{name: all, route: a}, {name: late, canary: c, matches: [{method: GET}]}",
                format!("{{name: c, {canary}}}"),
                vec![
                    "routes.rules[1]: is never reached: rule `all`",
                    "canaries[0]: is never reached: no request reaches",
                ],
            ),
            (
                "{name: all, canary: c}, {name: late, canary: c, matches: [{method: GET}]}",
                format!("{{name: c, {canary}}}"),
                vec!["routes.rules[1]: is never reached: rule `all`"],
            ),
        ] {
            for precedence in ["FirstMatch", "GatewayAPI"] {
                // When rules are ordered by specificity, a rule with conditions comes before one without.
                if precedence == "GatewayAPI" && rules.contains("late") {
                    continue;
                }
                let yaml =
                    format!("{{routes: {{precedence: {precedence}, rules: [{rules}]}}, canaries: [{canaries}]}}");
                let found = lint_all(&yaml);
                assert_eq!(found.len(), expected.len(), "{yaml}: {found:?}");
                assert!(
                    found.iter().zip(&expected).all(|(found, start)| found.starts_with(start)),
                    "{yaml}: {found:?}"
                );
            }
        }
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
