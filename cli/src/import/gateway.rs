//! The Gateway API's HTTPRoute: the words are the same; the most specific match wins.

use std::cmp::Reverse;

use penstock_policy::document::{At, Context, Decode, Node};
use penstock_policy::matching::RequestMatch;
use penstock_policy::routes::specificity;

use super::reader::{Lost, Reader, object};
use super::{Draft, map, text};

/// One match of one rule.
struct Entry {
    matches: Option<Node>,
    rule: usize,
}

/// What a rule does.
struct Rule {
    name: String,
    targets: Vec<(String, i64)>,
    effects: Vec<(&'static str, Node)>,
}

pub fn http_route(node: &Node, draft: &mut Draft, lost: &mut Lost) {
    let (name, reader) = object(node, lost);
    let spec = Reader::new(reader.take("spec").unwrap_or(&Node::Null), "spec", lost);
    reader.end(lost);
    let hosts = spec.list("hostnames", lost);
    let (mut rules, mut entries) = (Vec::new(), Vec::new());
    for (i, rule) in spec.list("rules", lost).iter().enumerate() {
        let path = format!("spec.rules[{i}]");
        let rule = Reader::new(rule, &path, lost);
        let own = rule.string("name", lost);
        let name = format!("{name}-{}", own.unwrap_or_else(|| (i + 1).to_string()));
        let targets = backends(&rule, lost);
        let matches = matches(&rule, hosts, lost);
        let mut effects = filters(&rule, lost);
        if let Some(timeouts) = rule.take("timeouts") {
            let timeouts = Reader::new(timeouts, &rule.at("timeouts"), lost);
            effects.extend(timeouts.take("request").map(|timeout| ("timeout", timeout.clone())));
            timeouts.end(lost);
        }
        rule.end(lost);
        if targets.is_empty() {
            lost.note(&path, "a rule without a backend");
            continue;
        }
        entries.extend(matches.into_iter().map(|matches| Entry { matches, rule: rules.len() }));
        rules.push(Rule { name, targets, effects });
    }
    spec.end(lost);
    if rules.iter().all(|rule| rule.targets.len() == 1) {
        draft.gateway_api = true;
        for (i, rule) in rules.iter().enumerate() {
            let matches: Option<Vec<Node>> =
                entries.iter().filter(|entry| entry.rule == i).map(|entry| entry.matches.clone()).collect();
            push_rule(rule, matches.map(Node::List), draft);
        }
        return;
    }
    // Canaries decide after all rules and in order: every match by itself, the most specific first. Before the first
    // weighted one they can be rules.
    entries.sort_by_key(|entry| {
        let node = entry.matches.clone().unwrap_or(Node::Null);
        let decoded = RequestMatch::decode(&node, &At::Root, &mut Context::new(String::new(), usize::MAX));
        Reverse(specificity(&decoded.unwrap_or_default()))
    });
    draft.first_match = true;
    let mut weighted = false;
    for entry in entries {
        let Some(rule) = rules.get(entry.rule) else { continue };
        weighted |= rule.targets.len() > 1;
        let matches = entry.matches.map(|matches| Node::List(vec![matches]));
        if !weighted {
            push_rule(rule, matches, draft);
            continue;
        }
        for (effect, value) in &rule.effects {
            lost.note(
                &format!("rule {}", rule.name),
                &format!("{effect}: {value}: a weighted rule chooses, nothing else"),
            );
        }
        let variants = rule
            .targets
            .iter()
            .map(|(name, weight)| map([("name", text(name.as_str())), ("weight", Node::Integer(*weight))]));
        let variants = Node::List(variants.collect());
        let mut canary = vec![("name", text(draft.name(&rule.name)))];
        canary.extend(matches.map(|matches| ("matches", matches)));
        // The matches of one rule choose alike.
        canary.push(("salt", text(rule.name.as_str())));
        canary.push(("variants", variants));
        draft.canaries.push(map(canary));
    }
}

fn push_rule(rule: &Rule, matches: Option<Node>, draft: &mut Draft) {
    let mut node = vec![("name", text(draft.name(&rule.name)))];
    node.extend(matches.map(|matches| ("matches", matches)));
    node.push(("route", text(rule.targets.first().map(|(name, _)| name.clone()).unwrap_or_default())));
    node.extend(rule.effects.clone());
    draft.rules.push(map(node));
}

/// The names of the routes with their weights.
fn backends(rule: &Reader<'_>, lost: &mut Lost) -> Vec<(String, i64)> {
    let mut targets = Vec::new();
    for (i, backend) in rule.list("backendRefs", lost).iter().enumerate() {
        let backend = Reader::new(backend, &format!("{}[{i}]", rule.at("backendRefs")), lost);
        backend.ignore(&["group", "kind"]);
        let name = backend.string("name", lost).unwrap_or_default();
        let namespace = backend.string("namespace", lost).map(|name| format!(" namespace {name}")).unwrap_or_default();
        let port = backend.integer("port", lost).map(|port| format!(" port {port}")).unwrap_or_default();
        lost.leads_to(&name, &format!("{name}{namespace}{port}"));
        targets.push((name, backend.integer("weight", lost).unwrap_or(1)));
        backend.end(lost);
    }
    targets
}

/// One for each match; `None` holds always.
fn matches(rule: &Reader<'_>, hosts: &[Node], lost: &mut Lost) -> Vec<Option<Node>> {
    let with_hosts = |mut conditions: Vec<(&'static str, Node)>| {
        if !hosts.is_empty() {
            conditions.push(("hostnames", Node::List(hosts.to_vec())));
        }
        (!conditions.is_empty()).then(|| map(conditions))
    };
    let mut found = Vec::new();
    for (i, entry) in rule.list("matches", lost).iter().enumerate() {
        let entry = Reader::new(entry, &format!("{}[{i}]", rule.at("matches")), lost);
        let mut conditions = Vec::new();
        for field in ["method", "path", "headers", "queryParams"] {
            conditions.extend(entry.take(field).map(|value| (field, value.clone())));
        }
        entry.end(lost);
        found.push(with_hosts(conditions));
    }
    if found.is_empty() {
        found.push(with_hosts(Vec::new()));
    }
    found
}

fn filters(rule: &Reader<'_>, lost: &mut Lost) -> Vec<(&'static str, Node)> {
    let mut effects = Vec::new();
    for (i, filter) in rule.list("filters", lost).iter().enumerate() {
        let filter = Reader::new(filter, &format!("{}[{i}]", rule.at("filters")), lost);
        match filter.string("type", lost).as_deref() {
            Some("RequestHeaderModifier") => {
                effects.extend(filter.take("requestHeaderModifier").map(|changes| ("requestHeaders", changes.clone())));
            }
            Some("URLRewrite") => {
                let rewrite =
                    Reader::new(filter.take("urlRewrite").unwrap_or(&Node::Null), &filter.at("urlRewrite"), lost);
                let mut node = Vec::new();
                if let Some(path) = rewrite.take("path") {
                    let path = Reader::new(path, &rewrite.at("path"), lost);
                    let kind = path.string("type", lost).unwrap_or_default();
                    let value =
                        path.string("replaceFullPath", lost).or_else(|| path.string("replacePrefixMatch", lost));
                    node.push(("path", map([("type", text(kind)), ("value", text(value.unwrap_or_default()))])));
                    path.end(lost);
                }
                node.extend(rewrite.take("hostname").map(|host| ("hostname", host.clone())));
                rewrite.end(lost);
                effects.push(("rewrite", map(node)));
            }
            kind => lost.note(&filter.at("type"), kind.unwrap_or("a filter without a type")),
        }
        filter.end(lost);
    }
    effects
}
