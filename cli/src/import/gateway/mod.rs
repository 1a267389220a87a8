//! The Gateway API: HTTPRoute and GRPCRoute with the listeners of their Gateways, and Envoy Gateway's limits for them.
//! The most specific host decides, then the most specific match, then the older object, then its name.

mod backend_traffic_policy;
mod filters;
mod listeners;
mod matches;
mod namespaces;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use penstock_policy::document::{GatewayDuration, Node};

use super::destination::ImportedDestination;
use super::draft::PolicyDraft;
use super::matching::{Match, PathSet, condition};
use super::objects::{Objects, RETRY_ON, map, text};
use super::reader::{FieldReader, KubernetesObject};
use super::report::ImportReport;
use super::table::{ImportedRule, RuleAction, RuleHost, WeightedSplit};
use listeners::{Attached, GROUP, Listeners};

/// One match of one rule.
struct MatchEntry {
    matches: Match,
    rule: usize,
    hosts: Vec<RuleHost>,
    age: (String, String, usize),
    /// The only scheme, `http` or `https`, for which it applies.
    protocol: Option<String>,
    /// The lengths of the service and the method of a GRPCRoute match, by which matches are ordered.
    grpc: Option<(usize, usize)>,
}

pub fn routes(objects: &Objects<'_>, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let listeners = Listeners::read(objects, report);
    let mut entries = Vec::new();
    let mut rules: Vec<ImportedRule> = Vec::new();
    let mut attached: Vec<Attached> = Vec::new();
    for kind in ["HTTPRoute", "GRPCRoute"] {
        for (file, node) in objects.of(kind, GROUP) {
            report.file.clone_from(file);
            let object = KubernetesObject::open(node, report);
            let Some(to) = listeners.attach(&object, report) else { continue };
            read(&object, &to, &mut rules, &mut entries, report);
            attached.push(to);
        }
    }
    let gateways = attached.iter().map(|to| to.gateways.iter().cloned().collect::<BTreeSet<String>>());
    report.several("Gateways", gateways.filter(|gateways| !gateways.is_empty()));
    // Limits routes to one scheme by a condition on its header, when requests with the other scheme exist, too.
    let of_routes = attached.iter().flat_map(|to| to.hosts.iter().map(|(_, protocol)| protocol.as_deref()));
    let known: BTreeSet<Option<&str>> = of_routes.chain(listeners.protocols().map(Some)).collect();
    let has_both = known.len() > 1;
    if !has_both {
        entries.iter_mut().for_each(|entry| entry.protocol = None);
    }
    let closer: Vec<(&RuleHost, &str)> = listeners.closer_hosts().collect();
    place(entries, &closer, has_both, &rules, draft);
    closer.iter().for_each(|(host, _)| draft.table.close(host));
    backend_traffic_policy::limits(objects, &attached, draft, report);
}

impl MatchEntry {
    /// The match with the condition on the scheme.
    fn conditions(&self) -> Match {
        let mut matches = self.matches.clone();
        matches.headers.extend(self.protocol.iter().map(|only| condition("x-forwarded-proto", "Exact", only)));
        matches
    }
}

/// Each scheme has its own virtual hosts: where one lacks a host that the other has, its next less specific host
/// decides. Hosts in `closer` have a listener even without a route.
fn of_both(entries: Vec<MatchEntry>, closer: &[(&RuleHost, &str)]) -> Vec<MatchEntry> {
    let of_entries = entries.iter().flat_map(|entry| &entry.hosts);
    let all: BTreeSet<RuleHost> = of_entries.chain(closer.iter().map(|(host, _)| *host)).cloned().collect();
    // For each host and scheme, the host that decides its requests.
    let mut more: BTreeMap<(&str, RuleHost), Vec<RuleHost>> = BTreeMap::new();
    for protocol in ["http", "https"] {
        let is_for = |entry: &&MatchEntry| entry.protocol.as_deref().is_none_or(|only| only == protocol);
        let of_entries = entries.iter().filter(is_for).flat_map(|entry| &entry.hosts);
        let closed = closer.iter().filter(|(_, of)| *of == protocol).map(|(host, _)| *host);
        let own: BTreeSet<&RuleHost> = of_entries.chain(closed).collect();
        for host in all.iter().filter(|host| !own.contains(host)) {
            if let Some(wider) = host.around().find(|wider| own.contains(wider)) {
                more.entry((protocol, wider)).or_default().push(host.clone());
            }
        }
    }
    let mut placed = Vec::with_capacity(entries.len());
    for entry in entries {
        for protocol in ["http", "https"] {
            let is_for = entry.protocol.as_deref().is_none_or(|only| only == protocol);
            let hosts: Vec<RuleHost> = entry
                .hosts
                .iter()
                .filter(|_| is_for)
                .flat_map(|host| more.get(&(protocol, host.clone())).into_iter().flatten().cloned())
                .collect();
            if !hosts.is_empty() {
                let (matches, age) = (entry.matches.clone(), entry.age.clone());
                let protocol = Some(protocol.to_owned());
                placed.push(MatchEntry { matches, hosts, age, protocol, ..entry });
            }
        }
        placed.push(entry);
    }
    placed
}

/// Puts every match in its place in the lists of its hosts.
fn place(
    mut entries: Vec<MatchEntry>,
    closer: &[(&RuleHost, &str)],
    has_both: bool,
    rules: &[ImportedRule],
    draft: &mut PolicyDraft,
) {
    let specificity = |entry: &MatchEntry| {
        let path = match (&entry.grpc, &entry.matches.path) {
            (Some((service, method)), _) => (0, *service, *method),
            (None, PathSet::Exact(path)) => (2, path.len(), 0),
            (None, PathSet::Regex(expression)) => (1, expression.len(), 0),
            (None, PathSet::Segments(path) | PathSet::Letters(path)) => (0, path.len(), 0),
            (None, PathSet::Any) => (0, 0, 0),
        };
        (path, entry.matches.method.is_some(), entry.matches.headers.len(), entry.matches.query.len())
    };
    entries.sort_by_cached_key(|entry| (Reverse(specificity(entry)), entry.age.clone()));
    let entries = if has_both { of_both(entries, closer) } else { entries };
    // The hosts in order of precedence, each with its entries.
    let mut hosts: Vec<(&RuleHost, Vec<usize>)> = Vec::new();
    let mut places: HashMap<&RuleHost, usize> = HashMap::new();
    for (i, entry) in entries.iter().enumerate() {
        for host in &entry.hosts {
            let place = *places.entry(host).or_insert(hosts.len());
            match hosts.get_mut(place) {
                Some((_, list)) if list.last() == Some(&i) => {}
                Some((_, list)) => list.push(i),
                None => hosts.push((host, vec![i])),
            }
        }
    }
    // Adjacent matches of one rule become one rule again, shared by all hosts that have it.
    let mut made: BTreeMap<(usize, Vec<usize>), Rc<ImportedRule>> = BTreeMap::new();
    for (host, list) in &hosts {
        let mut runs: Vec<(usize, Vec<usize>)> = Vec::new();
        for (i, entry) in list.iter().filter_map(|&i| Some((i, entries.get(i)?))) {
            match runs.last_mut() {
                Some((rule, run)) if *rule == entry.rule => run.push(i),
                _ => runs.push((entry.rule, vec![i])),
            }
        }
        for run in runs {
            let Some(rule) = rules.get(run.0) else { continue };
            let matches = || run.1.iter().filter_map(|&i| entries.get(i)).map(MatchEntry::conditions).collect();
            let rule =
                made.entry(run.clone()).or_insert_with(|| Rc::new(ImportedRule { matches: matches(), ..rule.clone() }));
            draft.table.push(host, rule.clone());
        }
    }
}

fn read(
    object: &KubernetesObject<'_>,
    to: &Attached,
    rules: &mut Vec<ImportedRule>,
    entries: &mut Vec<MatchEntry>,
    report: &mut ImportReport,
) {
    let is_grpc = object.kind == "GRPCRoute";
    let mut by_protocol: BTreeMap<Option<String>, Vec<RuleHost>> = BTreeMap::new();
    for (host, protocol) in &to.hosts {
        by_protocol.entry(protocol.clone()).or_default().push(host.clone());
    }
    let mut omitted: BTreeMap<(Option<String>, &str), Vec<RuleHost>> = BTreeMap::new();
    for (host, protocol, why) in &to.omitted {
        omitted.entry((Some(protocol.clone()), why.as_str())).or_default().push(host.clone());
    }
    let spec = &object.spec;
    let list = spec.objects("rules", report);
    for (i, rule) in list.iter().enumerate() {
        let section = rule.string("name", report);
        let name = format!("{}-{}", object.name, section.clone().unwrap_or_else(|| (i + 1).to_string()));
        let mut found = matches::of(rule, is_grpc, report);
        let mut effects = Vec::new();
        let action = action(object, rule, &mut effects, report);
        if let RuleAction::Redirect(_) | RuleAction::Leave(_) = action {
            rule.ignore(&["backendRefs", "timeouts", "retry"]);
        }
        timeouts(rule, &mut effects, report);
        if let Some(session) = rule.take("sessionPersistence") {
            report.lost(&rule.at("sessionPersistence"), session.to_string(), "each request is decided anew");
        }
        let mut tags = vec![object.tag()];
        tags.extend(section.map(|section| format!("{}#{section}", object.tag())));
        for (field, value) in rule.rest() {
            report.lost(&rule.at(field), value.to_string(), "requests are handled without it");
        }
        if let Err(why) = &found {
            report.lost(rule.path(), why.clone(), "this rule is left out: its requests go to the rules after it");
            let omit = ImportedRule::new(name.clone(), RuleAction::Omit(why.clone()));
            rules.push(ImportedRule { tags: tags.clone(), ..omit });
            found = Ok(vec![(Match::default(), None)]);
        } else {
            let imported = ImportedRule::new(name.clone(), action).at(report.place(rule.path()));
            rules.push(ImportedRule { effects, tags: tags.clone(), ..imported });
        }
        let mut groups: Vec<(usize, &Option<String>, &Vec<RuleHost>)> =
            by_protocol.iter().map(|(protocol, hosts)| (rules.len() - 1, protocol, hosts)).collect();
        for ((protocol, why), hosts) in &omitted {
            let omit = ImportedRule::new(name.clone(), RuleAction::Omit((*why).to_owned()));
            rules.push(ImportedRule { tags: tags.clone(), ..omit });
            groups.push((rules.len() - 1, protocol, hosts));
        }
        for (k, (matches, grpc)) in found.unwrap_or_default().into_iter().enumerate() {
            let owner = format!("{}/{}", object.in_namespace(), object.name);
            let age = (object.created.clone(), owner, i * 1000 + k);
            for (rule, protocol, hosts) in &groups {
                let (matches, age, rule) = (matches.clone(), age.clone(), *rule);
                let (protocol, hosts) = ((*protocol).clone(), (*hosts).clone());
                entries.push(MatchEntry { matches, rule, hosts, age, protocol, grpc });
            }
        }
    }
    if list.is_empty() {
        report.lost("spec.rules", "it has none", "none of it is imported");
    }
    for (field, value) in spec.rest() {
        report.lost(&spec.at(field), value.to_string(), "requests are handled without it");
    }
}

fn action(
    object: &KubernetesObject<'_>,
    rule: &FieldReader<'_>,
    effects: &mut Vec<(&'static str, Node)>,
    report: &mut ImportReport,
) -> RuleAction {
    const LEFT: &str = "its requests are left to the platform";
    let leave = |at: &str, why: String, report: &mut ImportReport| {
        report.lost(at, why.clone(), LEFT);
        RuleAction::Leave(why)
    };
    match filters::read(rule, "filters", effects, report) {
        Ok(Some(redirect)) => return RuleAction::Redirect(redirect),
        Ok(None) => {}
        Err(why) => return leave(&rule.at("filters"), why, report),
    }
    let backends = rule.objects("backendRefs", report);
    let mut to: Vec<(ImportedDestination, i64)> = Vec::new();
    let mut own: Vec<Vec<(&'static str, Node)>> = Vec::new();
    for backend in &backends {
        let kind = backend.string("kind", report).unwrap_or_else(|| "Service".to_owned());
        let group = backend.string("group", report).unwrap_or_default();
        let name = backend.string("name", report).unwrap_or_default();
        let weight = backend.integer("weight", report).unwrap_or(1);
        if kind != "Service" || !matches!(group.as_str(), "" | "core") {
            if weight > 0 || backends.len() == 1 {
                let why = format!("{kind} {name}: a route leads to a Service");
                return leave(backend.path(), why, report);
            }
            // It gets no requests.
            continue;
        }
        let namespace = backend.string("namespace", report).or_else(|| object.namespace.clone());
        let port = backend.string("port", report);
        let mut changes = Vec::new();
        match filters::read(backend, "filters", &mut changes, report) {
            Ok(None) => {}
            Ok(Some(_)) => return leave(&backend.at("filters"), "a redirect for one backend".to_owned(), report),
            Err(why) => return leave(&backend.at("filters"), why, report),
        }
        own.push(changes);
        for (field, value) in backend.rest() {
            report.lost(&backend.at(field), value.to_string(), "requests are handled without it");
        }
        if weight <= 0 && backends.len() == 1 {
            return leave(backend.path(), "its weight is 0, so no request is forwarded".to_owned(), report);
        }
        let destination = ImportedDestination { name, namespace, subset: None, port };
        match to.iter_mut().find(|(known, _)| *known == destination) {
            Some((_, sum)) => *sum += weight,
            None => to.push((destination, weight)),
        }
    }
    if to.is_empty() {
        return leave(rule.path(), "it has no backend".to_owned(), report);
    }
    if to.iter().all(|(_, weight)| *weight <= 0) {
        return leave(&rule.at("backendRefs"), "all weights are 0, so no request is forwarded".to_owned(), report);
    }
    match own.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => {
            for (effect, node) in first {
                if effects.iter().any(|(known, _)| known == effect) {
                    report.lost(
                        &rule.at("backendRefs"),
                        format!("{effect} of rule and backend"),
                        "those of the rule are used",
                    );
                } else {
                    effects.push((effect, node.clone()));
                }
            }
        }
        _ => report.lost(&rule.at("backendRefs"), "filters of one of several backends", "they have no effect"),
    }
    RuleAction::Split(WeightedSplit { to, ..WeightedSplit::default() })
}

/// `timeouts` and `retry`.
fn timeouts(rule: &FieldReader<'_>, effects: &mut Vec<(&'static str, Node)>, report: &mut ImportReport) {
    let (mut request, mut each) = (None, None);
    if let Some(timeouts) = rule.object("timeouts", report) {
        let take = |name: &str, report: &mut ImportReport| {
            let timeout = timeouts.string(name, report)?;
            match GatewayDuration::parse(&timeout) {
                Some(GatewayDuration(time)) if time.is_zero() => None,
                Some(_) => Some(timeout),
                None => {
                    report.lost(&timeouts.at(name), timeout, "the platform's timeout applies");
                    None
                }
            }
        };
        request = take("request", report);
        each = take("backendRequest", report);
        timeouts.end(report);
    }
    let retry = rule.object("retry", report);
    // A rule has one timeout. Without retries, the timeout of an attempt equals that of the request.
    let timeout = if retry.is_none() { each.clone().or(request) } else { request };
    effects.extend(timeout.map(|timeout| ("timeout", text(timeout))));
    if let Some(retry) = retry {
        let attempts = retry.integer("attempts", report).unwrap_or(1);
        let codes = retry.list("codes", report).iter().map(|code| text(code.to_string()));
        let on = codes.chain(["reset", "connect-failure"].map(text)).collect();
        let mut node = vec![("attempts", Node::Integer(attempts)), (RETRY_ON, Node::List(on))];
        node.extend(each.map(|timeout| ("perTryTimeout", text(timeout))));
        retry.elsewhere(&["backoff"], "the platform's delay between attempts applies", report);
        retry.end(report);
        effects.push(("retries", map(node)));
    }
}
