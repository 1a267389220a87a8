//! VirtualServices as a gateway interprets them: the most specific host first; for each host, the routes of all objects
//! in one list, the oldest object first, and routes that match everything last.

use std::collections::BTreeMap;
use std::rc::Rc;

use penstock_policy::document::Node;

use super::conditions::{self, ConditionEntry};
use super::{delegate, destination_rule, full_name};
use crate::import::destination::ImportedDestination;
use crate::import::draft::PolicyDraft;
use crate::import::matching::{FILLED_IN, Match, PathSet, is_filled_in};
use crate::import::objects::{Objects, duration, map, text};
use crate::import::reader::{FieldReader, KubernetesObject};
use crate::import::report::ImportReport;
use crate::import::table::{ImportedRule, RuleAction, RuleHost, WeightedSplit};

/// What reading an object's routes needs.
struct RouteContext<'c> {
    /// The object's name, and its namespace if it has one.
    name: &'c str,
    namespace: Option<&'c str>,
    /// The gateways of the object; `mesh` stands for sidecars.
    gateways: &'c [String],
    stickiness: &'c BTreeMap<String, Node>,
}

/// A VirtualService.
struct VirtualService<'n> {
    file: String,
    object: KubernetesObject<'n>,
    hosts: Vec<String>,
    gateways: Vec<String>,
    http: Vec<Node>,
}

pub fn virtual_services(objects: &Objects<'_>, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let stickiness = destination_rule::stickiness(objects, report);
    let mut services = Vec::new();
    for (file, node) in objects.of("VirtualService", "networking.istio.io") {
        report.file.clone_from(file);
        let object = KubernetesObject::open(node, report);
        let hosts = object.spec.strings("hosts", report);
        let gateways = object.spec.strings("gateways", report);
        object.spec.ignore(&["exportTo"]);
        let http = object.spec.list("http", report).to_vec();
        for field in ["tcp", "tls"] {
            if let Some(routes) = object.spec.take(field) {
                report.elsewhere(
                    &object.spec.at(field),
                    routes.to_string(),
                    "it is not HTTP, and a policy only decides HTTP",
                );
            }
        }
        services.push(VirtualService { file: report.file.clone(), object, hosts, gateways, http });
    }
    let age = |service: &VirtualService<'_>| {
        let KubernetesObject { created, name, .. } = &service.object;
        (created.clone(), name.clone(), service.object.in_namespace().to_owned())
    };
    services.sort_by_cached_key(age);
    let gateways =
        services.iter().filter(|service| !service.hosts.is_empty()).map(|service| match &*service.gateways {
            [] => ["mesh".to_owned()].into(),
            some => some.iter().cloned().collect(),
        });
    report.several("gateways", gateways);
    let mut used: Vec<String> = Vec::new();
    // Routes that match everything come after the routes of all objects.
    let mut last = Vec::new();
    for service in &services {
        report.file.clone_from(&service.file);
        report.object = match &service.object.namespace {
            Some(namespace) => format!("VirtualService {namespace}/{}", service.object.name),
            None => format!("VirtualService {}", service.object.name),
        };
        if service.hosts.is_empty() {
            continue;
        }
        if !service.gateways.is_empty() {
            let consequence = "the policy applies wherever you deploy it";
            report.elsewhere("spec.gateways", service.gateways.join(", "), consequence);
        }
        let hosts = hosts(service, report);
        let http = expanded(service, &services, &mut used, report);
        let context = RouteContext {
            name: &service.object.name,
            namespace: service.object.namespace.as_deref(),
            gateways: &service.gateways,
            stickiness: &stickiness,
        };
        // After a route that matches everything, later routes of the object are unreachable.
        let mut is_closed = false;
        for (path, position, route) in &http {
            for rule in context.rules(route, path, position, report) {
                if is_closed {
                    break;
                }
                let never = |only: &RuleHost| !hosts.iter().any(|host| host.covers(only));
                if let Some(only) = rule.only.first().filter(|_| !hosts.is_empty() && rule.only.iter().all(never)) {
                    let what = format!("authority {}: it is none of spec.hosts", only.pattern().unwrap_or_default());
                    report.elsewhere(&format!("{path}.match"), what, "it never matches, in the source as well");
                    continue;
                }
                let rule = Rc::new(rule);
                let is_total = !matches!(rule.action, RuleAction::Omit(_))
                    && rule.only.is_empty()
                    && rule.matches.iter().any(Match::is_total);
                is_closed |= is_total;
                for host in &hosts {
                    if is_total {
                        last.push((host.clone(), rule.clone()));
                    } else {
                        draft.table.push(host, rule.clone());
                    }
                }
            }
        }
    }
    for (host, rule) in last {
        draft.table.push(&host, rule);
    }
    for service in services.iter().filter(|service| service.hosts.is_empty()) {
        let tag = service.object.tag();
        if !used.contains(&tag) {
            report.file.clone_from(&service.file);
            report.object = tag;
            report.lost("spec.http", "no VirtualService of the input delegates to it", "none of it is imported");
        }
    }
}

/// The hosts of an object, with all names that clients may use for a service of the mesh.
fn hosts(service: &VirtualService<'_>, report: &mut ImportReport) -> Vec<RuleHost> {
    let namespace = service.object.in_namespace();
    let in_mesh = service.gateways.is_empty() || service.gateways.iter().any(|gateway| gateway == "mesh");
    let mut found = Vec::new();
    for host in &service.hosts {
        let mut names = vec![host.clone()];
        let full = full_name(host, namespace);
        if let Some((short, rest)) = full.split_once('.')
            && let Some((own, "svc.cluster.local")) = rest.split_once('.')
            && in_mesh
        {
            names.extend([full.clone(), format!("{short}.{own}.svc"), format!("{short}.{own}")]);
            if own == namespace {
                names.push(short.to_owned());
            }
        }
        match names.iter().map(|name| RuleHost::parse(name)).collect::<Option<Vec<RuleHost>>>() {
            Some(hosts) if !host.is_empty() => {
                hosts.into_iter().for_each(|host| {
                    if !found.contains(&host) {
                        found.push(host)
                    }
                });
            }
            _ => report.lost(
                "spec.hosts",
                format!("{host:?} is not a host name that a policy can contain"),
                "the policy has no rule for its requests",
            ),
        }
    }
    found
}

/// The routes with their paths and positions; those that delegate are replaced.
fn expanded(
    service: &VirtualService<'_>,
    services: &[VirtualService<'_>],
    used: &mut Vec<String>,
    report: &mut ImportReport,
) -> Vec<(String, String, Node)> {
    let mut routes = Vec::new();
    for (i, route) in service.http.iter().enumerate() {
        let path = format!("spec.http[{i}]");
        let position = (i + 1).to_string();
        let Some(delegate) = route.get("delegate").filter(|delegate| **delegate != Node::Null) else {
            routes.push((path, position, route.clone()));
            continue;
        };
        let of = |field: &str| match delegate.get(field) {
            Some(Node::String(value)) => Some(value.as_str()),
            _ => None,
        };
        let name = of("name").unwrap_or_default();
        let namespace = of("namespace").unwrap_or(service.object.in_namespace());
        let found = services.iter().find(|other| {
            other.hosts.is_empty() && other.object.name == name && other.object.in_namespace() == namespace
        });
        match found {
            Some(other) => {
                used.push(other.object.tag());
                for (k, merged) in delegate::merged(route, &other.http).into_iter().enumerate() {
                    routes.push((path.clone(), format!("{position}-{}", k + 1), merged));
                }
            }
            None => {
                let what = format!("VirtualService {namespace}/{name} is missing in the input");
                report.lost(&format!("{path}.delegate"), what, "its requests are left to the platform");
                routes.push((path, position, route.clone()));
            }
        }
    }
    routes
}

impl RouteContext<'_> {
    /// The rules for a route, in order.
    fn rules(&self, node: &Node, path: &str, position: &str, report: &mut ImportReport) -> Vec<ImportedRule> {
        let route = FieldReader::new(node, path, report);
        let own = route.string("name", report).unwrap_or_else(|| position.to_owned());
        let name = format!("{}-{own}", self.name);
        let mut omitted = Vec::new();
        let mut entries = Vec::new();
        let list = match report.conditions(|report| Ok(route.objects("match", report))) {
            Ok(list) => list,
            Err(why) => {
                let consequence = "this route is left out: its requests go to the rules after it";
                report.lost(path, why.clone(), consequence);
                return vec![ImportedRule::new(name, RuleAction::Omit(why))];
            }
        };
        if list.is_empty() {
            entries.push(ConditionEntry { host: None, matches: Match::default() });
        }
        for entry in list {
            match report.conditions(|report| conditions::entries(&entry, self.gateways, report)) {
                Ok(found) => entries.extend(found),
                Err(why) => {
                    let consequence = "this match is left out: its requests go to the rules after it";
                    report.lost(entry.path(), why.clone(), consequence);
                    omitted.push(ImportedRule::new(name.clone(), RuleAction::Omit(why)));
                }
            }
        }
        let mut effects = effects(&route, report);
        let rewrite = route.object("rewrite", report);
        let action = self.action(&route, &mut effects, report);
        // Every route allows upgrades.
        route.ignore(&["match", "delegate", "websocketUpgrade"]);
        route.end(report);
        let mut rules = Vec::new();
        for entry in entries {
            let only: Vec<RuleHost> = entry.host.into_iter().collect();
            let rule = ImportedRule {
                only,
                matches: vec![entry.matches],
                effects: effects.clone(),
                ..ImportedRule::new(name.clone(), action.clone()).at(report.place(path))
            };
            match (&rewrite, &action) {
                (Some(rewrite), RuleAction::Split(_)) => rules.extend(rewritten(rule, rewrite, report)),
                _ => rules.push(rule),
            }
        }
        // Matches with equal results become one rule, except one that matches everything: that goes to the end.
        let mut joined: Vec<ImportedRule> = Vec::new();
        for rule in rules {
            match joined.last_mut() {
                Some(last)
                    if last.only == rule.only
                        && last.action == rule.action
                        && last.effects == rule.effects
                        && !last.matches.iter().chain(&rule.matches).any(Match::is_total) =>
                {
                    last.matches.extend(rule.matches);
                }
                _ => joined.push(rule),
            }
        }
        joined.into_iter().chain(omitted).collect()
    }

    fn action(
        &self,
        route: &FieldReader<'_>,
        effects: &mut Vec<(&'static str, Node)>,
        report: &mut ImportReport,
    ) -> RuleAction {
        const LEFT: &str = "its requests are left to the platform";
        let leave = |field: &str, what: &str, report: &mut ImportReport| {
            report.lost(&route.at(field), what.to_owned(), LEFT);
            RuleAction::Leave(format!("{field}: {what}"))
        };
        if route.has("delegate") {
            return RuleAction::Leave("the VirtualService that it delegates to is missing in the input".to_owned());
        }
        if let Some(redirect) = route.object("redirect", report) {
            route.ignore(&["route"]);
            return match redirected(&redirect, report) {
                Ok(redirect) => RuleAction::Redirect(redirect),
                Err(why) => leave("redirect", &why, report),
            };
        }
        if route.take("directResponse").is_some() {
            route.ignore(&["route"]);
            return leave("directResponse", "a policy cannot answer a request itself", report);
        }
        if let Some(fault) = route.take("fault") {
            if fault.get("abort").is_some() {
                route.ignore(&["route"]);
                return leave("fault", &format!("{fault}: a policy cannot inject faults"), report);
            }
            report.lost(&route.at("fault"), fault.to_string(), "requests are not delayed");
        }
        let mut to: Vec<(ImportedDestination, i64)> = Vec::new();
        let destinations = route.objects("route", report);
        let count = destinations.len();
        for item in destinations {
            let destination = item.object("destination", report);
            let Some(destination) = destination else {
                report.lost(item.path(), "it has no destination", LEFT);
                continue;
            };
            let host = destination.string("host", report).unwrap_or_default();
            let port = destination.object("port", report).and_then(|port| port.string("number", report));
            let subset = destination.string("subset", report);
            destination.end(report);
            // A single destination gets everything, whatever its weight.
            let weight = item.integer("weight", report).unwrap_or(0);
            let weight = if count == 1 { 1 } else { weight };
            if let Some(headers) = item.object("headers", report) {
                if count == 1 {
                    header_changes(&headers, effects, report);
                } else {
                    report.lost(headers.path(), "headers of one of several destinations", "they are not changed");
                }
            }
            item.end(report);
            let namespace = (!host.contains('.')).then(|| self.namespace.map(str::to_owned)).flatten();
            let destination = ImportedDestination { name: host, namespace, subset, port };
            match to.iter_mut().find(|(known, _)| *known == destination) {
                Some((_, sum)) => *sum += weight,
                None => to.push((destination, weight)),
            }
        }
        if to.is_empty() {
            return leave("route", "it has no destination", report);
        }
        if to.iter().all(|(_, weight)| *weight <= 0) {
            return leave("route", "all weights are 0", report);
        }
        let namespace = self.namespace.unwrap_or("default");
        let sticky = |(to, _): &(ImportedDestination, i64)| self.stickiness.get(&full_name(&to.name, namespace));
        let first = to.first().and_then(sticky).filter(|first| to.iter().all(|to| sticky(to) == Some(*first)));
        let stickiness = first.filter(|_| to.len() > 1).cloned();
        RuleAction::Split(WeightedSplit { to, overrides: Vec::new(), stickiness })
    }
}

/// Reads `headers`, `timeout` and `retries`; the reader reports fields that a policy cannot express.
fn effects(route: &FieldReader<'_>, report: &mut ImportReport) -> Vec<(&'static str, Node)> {
    let mut effects = Vec::new();
    if let Some(headers) = route.object("headers", report) {
        header_changes(&headers, &mut effects, report);
    }
    if let Some(timeout) = route.string("timeout", report) {
        match duration(&timeout) {
            Some(timeout) if timeout != "0s" => effects.push(("timeout", text(timeout))),
            Some(_) => {}
            None => report.lost(&route.at("timeout"), timeout, "the platform's timeout applies"),
        }
    }
    if let Some(retries) = route.object("retries", report) {
        retry(&retries, &mut effects, report);
    }
    effects
}

fn header_changes(headers: &FieldReader<'_>, effects: &mut Vec<(&'static str, Node)>, report: &mut ImportReport) {
    for (field, effect) in [("request", "requestHeaders"), ("response", "responseHeaders")] {
        let Some(changes) = headers.object(field, report) else { continue };
        let mut node = Vec::new();
        for field in ["set", "add"] {
            let mut fields: Vec<Node> = Vec::new();
            for (name, value) in changes.pairs(field, report) {
                let value = if let Node::String(value) = value { value.clone() } else { value.to_string() };
                if is_filled_in(&value) {
                    let what = format!("{value}: {FILLED_IN}");
                    report.lost(&changes.at(&format!("{field}.{name}")), what, "the header is not changed");
                } else {
                    let value = value.replace("%%", "%");
                    fields.push(map([("name", text(name.as_str())), ("value", text(value))]));
                }
            }
            if !fields.is_empty() {
                node.push((field, Node::List(fields)));
            }
        }
        let removed = changes.strings("remove", report);
        if !removed.is_empty() {
            node.push(("remove", Node::List(removed.into_iter().map(text).collect())));
        }
        changes.end(report);
        if node.is_empty() {
            continue;
        }
        match effects.iter_mut().find(|(known, _)| *known == effect) {
            Some((_, Node::Map(known))) => known.extend(node.into_iter().map(|(key, value)| (key.to_owned(), value))),
            _ => effects.push((effect, map(node))),
        }
    }
}

fn retry(retries: &FieldReader<'_>, effects: &mut Vec<(&'static str, Node)>, report: &mut ImportReport) {
    let attempts = retries.integer("attempts", report).unwrap_or(2);
    // Istio's default.
    let on = retries
        .string("retryOn", report)
        .unwrap_or_else(|| "connect-failure,refused-stream,unavailable,cancelled".to_owned());
    let on: Vec<Node> = on.split(',').map(str::trim).filter(|word| !word.is_empty()).map(text).collect();
    let mut node = vec![("attempts", Node::Integer(attempts)), (crate::import::objects::RETRY_ON, Node::List(on))];
    if let Some(timeout) = retries.string("perTryTimeout", report) {
        match duration(&timeout) {
            Some(timeout) if timeout != "0s" => node.push(("perTryTimeout", text(timeout))),
            Some(_) => {}
            None => report.lost(&retries.at("perTryTimeout"), timeout, "attempts have no timeout of their own"),
        }
    }
    let consequence = "the platform's own retries apply";
    retries.elsewhere(&["backoff", "retryRemoteLocalities", "retryIgnorePreviousHosts"], consequence, report);
    retries.end(report);
    effects.push(("retries", map(node)));
}

/// A `redirect` as a policy expresses it.
fn redirected(redirect: &FieldReader<'_>, report: &mut ImportReport) -> Result<Node, String> {
    let mut node = Vec::new();
    node.extend(redirect.string("scheme", report).map(|scheme| ("scheme", text(scheme))));
    if let Some(authority) = redirect.string("authority", report) {
        let (host, port) = authority.rsplit_once(':').unwrap_or((&authority, ""));
        node.push(("hostname", text(host)));
        if let Ok(port) = port.parse() {
            node.push(("port", Node::Integer(port)));
        }
    }
    if let Some(port) = redirect.integer("port", report) {
        node.push(("port", Node::Integer(port)));
    }
    // The default port of the scheme, which a redirect in a policy uses anyway.
    if let Some(derived) = redirect.string("derivePort", report).filter(|derived| derived != "FROM_PROTOCOL_DEFAULT") {
        return Err(format!("derivePort {derived}: a redirect of a policy cannot use the port of the connection"));
    }
    if let Some(uri) = redirect.string("uri", report) {
        if uri.contains(['?', '%']) || !uri.starts_with('/') {
            return Err(format!("uri {uri}: a redirect of a policy has a fixed path"));
        }
        node.push(("path", map([("type", text("ReplaceFullPath")), ("value", text(uri))])));
    }
    node.push(("statusCode", Node::Integer(redirect.integer("redirectCode", report).unwrap_or(301))));
    match redirect.rest().first() {
        Some((name, value)) => Err(format!("{name} {value}: `import` does not know it")),
        None => Ok(map(node)),
    }
}

/// A rule with one match and a rewrite. Envoy replaces the matched characters; a policy replaces whole segments.
fn rewritten(rule: ImportedRule, rewrite: &FieldReader<'_>, report: &mut ImportReport) -> Vec<ImportedRule> {
    let leave = |why: String, report: &mut ImportReport| {
        report.lost(rewrite.path(), why.clone(), "its requests are left to the platform");
        vec![ImportedRule { effects: Vec::new(), action: RuleAction::Leave(why), ..rule.clone() }]
    };
    let mut node = Vec::new();
    let mut rules = vec![rule.clone()];
    if let Some(uri) = rewrite.string("uri", report) {
        let matched = rule.matches.first().cloned().unwrap_or_default();
        let of = |kind: &str, value: &str| map([("type", text(kind)), ("value", text(value))]);
        let rest = |path: PathSet, why: &str| ImportedRule {
            effects: Vec::new(),
            matches: vec![Match { path, ..matched.clone() }],
            action: RuleAction::Leave(why.to_owned()),
            ..rule.clone()
        };
        match &matched.path {
            PathSet::Exact(_) | PathSet::Regex(_) => node.push(("path", of("ReplaceFullPath", &uri))),
            PathSet::Any if uri.ends_with('/') => node.push(("path", of("ReplacePrefixMatch", &uri))),
            PathSet::Letters(prefix) => {
                let (segments, ends) = match prefix.strip_suffix('/') {
                    Some(segments) => (segments, true),
                    None => (prefix.as_str(), false),
                };
                if ends && !uri.ends_with('/') {
                    return leave(format!("uri {uri} for {prefix}: it would join segments without a slash"), report);
                }
                if !ends && uri.ends_with('/') {
                    let what = format!("uri {uri} for {prefix}");
                    report.lost(&rewrite.at("uri"), what, "where the source writes two slashes, the policy writes one");
                }
                node.push(("path", of("ReplacePrefixMatch", &uri)));
                rules = vec![ImportedRule {
                    matches: vec![Match { path: PathSet::segments(segments), ..matched.clone() }],
                    ..rule.clone()
                }];
                if ends {
                    let why = format!("the source's prefix {prefix} does not rewrite {segments} itself");
                    rules.insert(0, rest(PathSet::Exact(segments.to_owned()), &why));
                } else {
                    let why = format!("the source rewrites {prefix} also within a segment");
                    report.lost(&rewrite.at("uri"), why.clone(), "such requests are left to the platform");
                    rules.push(rest(PathSet::Letters(prefix.clone()), &why));
                }
            }
            _ => return leave(format!("uri {uri}: the source writes it before the path without a slash"), report),
        }
    }
    if let Some(regex) = rewrite.take("uriRegexRewrite") {
        return leave(format!("uriRegexRewrite {regex}: a policy cannot rewrite by expression"), report);
    }
    node.extend(rewrite.string("authority", report).map(|host| ("hostname", text(host))));
    for rule in rules.iter_mut().filter(|rule| matches!(rule.action, RuleAction::Split(_))) {
        if !node.is_empty() {
            rule.effects.insert(0, ("rewrite", map(node.clone())));
        }
    }
    rules
}
