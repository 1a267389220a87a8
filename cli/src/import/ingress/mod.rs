//! Ingress as ingress-nginx interprets it: a server for each host, in it first the exact locations, then the longest
//! prefix; a canary belongs to the location with the same host, path and type.

mod annotations;
mod rewrite;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use penstock_policy::document::Node;

use super::counted::TaggedLimit;
use super::destination::ImportedDestination;
use super::draft::PolicyDraft;
use super::matching::{Match, PathSet, condition, matches_nothing};
use super::objects::{Objects, map, text};
use super::reader::{FieldReader, KubernetesObject};
use super::report::ImportReport;
use super::table::{ImportedRule, RuleAction, RuleHost, WeightedSplit};
use annotations::IngressSettings;

/// The API groups of Ingress: that of today, and the one before Kubernetes 1.14.
pub const GROUPS: [&str; 2] = ["networking.k8s.io", "extensions"];

/// How a path of an Ingress is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum PathType {
    Exact,
    Prefix,
    /// A prefix of characters in nginx, not of segments.
    ImplementationSpecific,
}

/// A path of an Ingress.
#[derive(Clone, Debug)]
struct IngressPath {
    host: RuleHost,
    path: String,
    kind: PathType,
    to: ImportedDestination,
}

impl IngressPath {
    /// The fields that a canary must have in common with its main Ingress.
    fn place(&self) -> (&RuleHost, &str, PathType) {
        (&self.host, &self.path, self.kind)
    }
}

/// Canaries with their paths, by host, path and type; the oldest first.
type CanaryPlaces<'i> = HashMap<(&'i RuleHost, &'i str, PathType), Vec<(usize, usize, &'i Ingress, &'i IngressPath)>>;

/// An Ingress.
struct Ingress {
    file: String,
    object: String,
    tag: String,
    name: String,
    age: (String, String),
    places: Vec<IngressPath>,
    settings: IngressSettings,
    tls: Vec<String>,
}

pub fn ingresses(objects: &Objects<'_>, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let mut all: Vec<Ingress> = Vec::new();
    for (file, node) in GROUPS.iter().flat_map(|group| objects.of("Ingress", group)) {
        report.file.clone_from(file);
        all.push(read(node, report));
    }
    // When two objects define the same location, the older one applies.
    all.sort_by(|a, b| a.age.cmp(&b.age));
    let (canaries, mains): (Vec<&Ingress>, Vec<&Ingress>) =
        all.iter().partition(|ingress| ingress.settings.canary.is_some());
    // The hosts in order of precedence, each with its paths.
    let mut hosts: Vec<(&RuleHost, Vec<(&Ingress, &IngressPath)>)> = Vec::new();
    let mut places: HashMap<&RuleHost, usize> = HashMap::new();
    for (main, path) in mains.iter().flat_map(|main| main.places.iter().map(move |path| (*main, path))) {
        let place = *places.entry(&path.host).or_insert(hosts.len());
        match hosts.get_mut(place) {
            Some((_, list)) => list.push((main, path)),
            None => hosts.push((&path.host, vec![(main, path)])),
        }
    }
    let mut by_place: CanaryPlaces<'_> = HashMap::new();
    for (c, canary) in canaries.iter().enumerate() {
        for (p, path) in canary.places.iter().enumerate() {
            by_place.entry(path.place()).or_default().push((c, p, *canary, path));
        }
    }
    let mut used: HashSet<(usize, usize)> = HashSet::new();
    for (host, of_host) in hosts {
        server(host, of_host, &by_place, &mut used, draft, report);
    }
    for (c, canary) in canaries.iter().enumerate() {
        report.file.clone_from(&canary.file);
        report.object.clone_from(&canary.object);
        for (p, place) in canary.places.iter().enumerate().filter(|(p, _)| !used.contains(&(c, *p))) {
            let what = format!("{} of {}", place.path, place.host.pattern().unwrap_or_else(|| "any host".to_owned()));
            let why = "no Ingress of the input with a Service has the same host, path and pathType, or another canary is older";
            report.lost(
                &format!("spec.rules[].paths[{p}]"),
                format!("{what}: {why}"),
                "the canary gets no requests there",
            );
        }
    }
    // An object whose locations all belong to older ones has no limits of its own.
    let decide: HashSet<String> = draft.table.tags().map(str::to_owned).collect();
    for main in mains.iter().filter(|main| decide.contains(&main.tag)) {
        report.file.clone_from(&main.file);
        report.object.clone_from(&main.object);
        // Redirects are not counted.
        for (name, limit) in main.settings.limits.iter().filter(|_| main.settings.redirect.is_none()) {
            let place = report.place(&format!("metadata.annotations.{name}"));
            let limit = [("name", text(format!("{}-{}", main.name, name.rsplit('/').next().unwrap_or_default())))]
                .into_iter()
                .chain(limit.clone())
                .collect();
            let (tags, also) = (vec![main.tag.clone()], vec![Match::default()]);
            draft.tagged_limits.push(TaggedLimit { tags, except: Vec::new(), also, limit, place });
        }
    }
}

/// The rules of a host.
fn server(
    host: &RuleHost,
    of_host: Vec<(&Ingress, &IngressPath)>,
    canaries: &CanaryPlaces<'_>,
    used: &mut HashSet<(usize, usize)>,
    draft: &mut PolicyDraft,
    report: &mut ImportReport,
) {
    // One Ingress with regular expressions turns all paths of the host into regular expressions.
    let is_regex = of_host.iter().any(|(main, _)| main.settings.use_regex || main.settings.rewrite_target.is_some());
    let guard = of_host.iter().find_map(|(main, _)| main.settings.guards_hosts.clone());
    let mut locations: Vec<(&Ingress, &IngressPath)> = Vec::new();
    let mut known: HashSet<(&str, PathType)> = HashSet::new();
    for (main, place) in of_host {
        if !known.insert((&place.path, place.kind)) {
            report.file.clone_from(&main.file);
            report.object.clone_from(&main.object);
            report.elsewhere(
                "spec.rules",
                format!("{}: an older Ingress has the same path", place.path),
                "the older one is used",
            );
        } else {
            locations.push((main, place));
        }
    }
    let is_exact = |place: &IngressPath| !is_regex && place.kind == PathType::Exact;
    // A prefix of segments becomes a location with a slash at its end.
    let length = |place: &IngressPath| {
        place.path.len() + usize::from(!is_regex && place.kind == PathType::Prefix && !place.path.ends_with('/'))
    };
    locations.sort_by(|(_, a), (_, b)| (!is_exact(a), length(b), &b.path).cmp(&(!is_exact(b), length(a), &a.path)));
    let app_root = locations.iter().find(|(main, _)| main.settings.app_root.is_some() && guard.is_none());
    if let Some((main, _)) = app_root {
        let path = map([
            ("type", text("ReplaceFullPath")),
            ("value", text(main.settings.app_root.clone().unwrap_or_default())),
        ]);
        let redirect = map([("path", path), ("statusCode", Node::Integer(302))]);
        let matches = vec![Match::path(PathSet::Exact("/".to_owned()))];
        let rule = ImportedRule {
            matches,
            ..ImportedRule::new(format!("{}-app-root", main.name), RuleAction::Redirect(redirect))
        };
        draft.table.push(host, Rc::new(rule));
    }
    for (main, place) in locations {
        report.file.clone_from(&main.file);
        report.object.clone_from(&main.object);
        let place_of = report.place("spec.rules");
        let new = |action| {
            let rule = ImportedRule::new(main.name.clone(), action).at(place_of.clone());
            ImportedRule { tags: vec![main.tag.clone()], ..rule }
        };
        if let RuleHost::Star(name) = host {
            let why = format!("*.{name} is one label in ingress-nginx, and one or more in a policy");
            report.lost("spec.rules", why.clone(), "its requests are left to the platform");
            // Its limits cannot be expressed either.
            draft.table.push(host, Rc::new(ImportedRule { tags: Vec::new(), ..new(RuleAction::Leave(why)) }));
            return;
        }
        let path = match (is_regex, place.kind) {
            (true, _) if place.path == "/" => PathSet::Any,
            (true, _) if matches_nothing(&place.path).is_none() => {
                // Its matches are unknown, so what is left for later locations is unknown, too.
                let why = format!("{} is not an RE2 expression", place.path);
                report.lost("spec.rules", why.clone(), "it and all shorter paths of its host are left to the platform");
                draft.table.push(host, Rc::new(new(RuleAction::Leave(why))));
                return;
            }
            (true, _) => PathSet::Regex(format!("(?i)(?:{}).*", place.path)),
            (false, PathType::Exact) => PathSet::Exact(place.path.clone()),
            (false, PathType::Prefix) => PathSet::segments(&place.path),
            (false, PathType::ImplementationSpecific) => PathSet::letters(&place.path),
        };
        let matches = vec![Match::path(path.clone())];
        if guard.is_none() && main.settings.redirects_to_https(host, &main.tls) {
            let redirect = map([("scheme", text("https")), ("statusCode", Node::Integer(308))]);
            let mut matches = matches.clone();
            for entry in &mut matches {
                entry.headers.push(condition("x-forwarded-proto", "Exact", "http"));
            }
            draft
                .table
                .push(host, Rc::new(ImportedRule { matches, tags: Vec::new(), ..new(RuleAction::Redirect(redirect)) }));
        }
        if let Some(why) = guard.as_ref().or(main.settings.guarded.as_ref()) {
            report.lost("metadata.annotations", why.clone(), "requests to its paths are left to the platform");
            draft.table.push(host, Rc::new(ImportedRule { matches, ..new(RuleAction::Leave(why.clone())) }));
            continue;
        }
        if let Some(redirect) = &main.settings.redirect {
            let action = match redirect {
                Ok(redirect) => RuleAction::Redirect(redirect.clone()),
                Err(why) => {
                    report.lost("metadata.annotations", why.clone(), "requests to its paths are left to the platform");
                    RuleAction::Leave(why.clone())
                }
            };
            draft.table.push(host, Rc::new(ImportedRule { matches, ..new(action) }));
            continue;
        }
        let split = split(place, main, canaries, used);
        let effects =
            main.settings.upstream_host.iter().map(|host| ("rewrite", map([("hostname", text(host.as_str()))])));
        let rule = ImportedRule { matches, effects: effects.collect(), ..new(RuleAction::Split(split)) };
        let rules = match &main.settings.rewrite_target {
            Some(target) => rewrite::rules(rule, &place.path, target, report),
            None => vec![rule],
        };
        for rule in rules {
            draft.table.push(host, Rc::new(rule));
        }
    }
}

/// The destinations of a location: its service, and its canary if it has one.
fn split(
    place: &IngressPath,
    main: &Ingress,
    canaries: &CanaryPlaces<'_>,
    used: &mut HashSet<(usize, usize)>,
) -> WeightedSplit {
    let of_place = canaries.get(&place.place()).into_iter().flatten();
    let mut others = of_place.filter(|(.., other)| other.to != place.to);
    let found = others.find_map(|(c, p, ingress, other)| Some((*c, *p, ingress.settings.canary.as_ref()?, other)));
    let Some((c, p, canary, other)) = found else {
        return WeightedSplit { to: vec![(place.to.clone(), 1)], ..WeightedSplit::default() };
    };
    used.insert((c, p));
    if canary.weight == 0 && canary.overrides.is_empty() {
        return WeightedSplit { to: vec![(place.to.clone(), 1)], ..WeightedSplit::default() };
    }
    let overrides = canary.overrides.iter().map(|over| {
        let to = if over.to_canary { &other.to } else { &place.to };
        ((over.field, over.condition.clone()), to.clone())
    });
    WeightedSplit {
        to: vec![(place.to.clone(), canary.total - canary.weight), (other.to.clone(), canary.weight)],
        overrides: overrides.collect(),
        stickiness: main.settings.stickiness.clone(),
    }
}

fn read(node: &Node, report: &mut ImportReport) -> Ingress {
    let object = KubernetesObject::open(node, report);
    let mut settings = IngressSettings::read(&object, report);
    let spec = &object.spec;
    let class = spec.string("ingressClassName", report);
    let other_class = class.filter(|class| !class.contains("nginx"));
    let mut tls = Vec::new();
    for entry in spec.objects("tls", report) {
        tls.extend(entry.strings("hosts", report));
    }
    let mut places = Vec::new();
    let rules = spec.objects("rules", report);
    for rule in &rules {
        let host = report.conditions(|report| {
            let written = rule.string("host", report).unwrap_or_default();
            RuleHost::parse(&written).ok_or_else(|| format!("{written:?} is not a host name"))
        });
        let host = match host {
            Ok(host) => host,
            Err(why) => {
                report.lost(&rule.at("host"), why, "the policy has no rule for its requests");
                rule.ignore(&["http"]);
                continue;
            }
        };
        let http = rule.object("http", report);
        if http.is_none() {
            report.lost(rule.path(), "a host without paths", "the policy has no rule for its requests");
        }
        let items = http.map(|http| http.objects("paths", report)).unwrap_or_default();
        for item in items {
            let (path, kind) = match report.conditions(|report| path_of(&item, report)) {
                Ok(found) => found,
                Err(why) => {
                    report.lost(item.path(), why, "its requests go to other paths");
                    continue;
                }
            };
            match destination(item.object("backend", report), &object, report) {
                Some(to) => {
                    let aliases = settings.aliases.iter().filter_map(|alias| RuleHost::parse(alias));
                    for host in [host.clone()].into_iter().chain(aliases) {
                        places.push(IngressPath { host, path: path.clone(), kind, to: to.clone() });
                    }
                }
                None => report.lost(item.path(), "its backend is not a Service", "its requests go to other paths"),
            }
        }
    }
    if let Some(backend) = spec.object("defaultBackend", report) {
        let at = backend.path().to_owned();
        match destination(Some(backend), &object, report) {
            Some(to) if rules.is_empty() => {
                places.push(IngressPath { host: RuleHost::Any, path: "/".to_owned(), kind: PathType::Prefix, to });
            }
            _ => report.lost(
                &at,
                "a default backend besides rules",
                "the policy has no rule for requests that match none of its paths",
            ),
        }
    }
    // Exact and Prefix mean the same for every controller.
    if let Some(class) =
        other_class.filter(|_| places.iter().any(|place| place.kind == PathType::ImplementationSpecific))
    {
        settings.guarded.get_or_insert_with(|| {
            format!("`import` does not know how {class} matches a path of type ImplementationSpecific")
        });
    }
    for (field, value) in spec.rest() {
        report.lost(&spec.at(field), value.to_string(), "requests are handled without it");
    }
    let namespace = object.in_namespace().to_owned();
    Ingress {
        file: report.file.clone(),
        object: report.object.clone(),
        tag: object.tag(),
        age: (object.created.clone(), format!("{namespace}/{}", object.name)),
        name: object.name,
        places,
        settings,
        tls,
    }
}

fn path_of(item: &FieldReader<'_>, report: &mut ImportReport) -> Result<(String, PathType), String> {
    let path = item.string("path", report).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let kind = match item.string("pathType", report).as_deref() {
        Some("Exact") => PathType::Exact,
        Some("ImplementationSpecific") => PathType::ImplementationSpecific,
        None | Some("Prefix") => PathType::Prefix,
        Some(other) => return Err(format!("pathType {other}: it is Exact, Prefix or ImplementationSpecific")),
    };
    Ok((path, kind))
}

fn destination(
    backend: Option<FieldReader<'_>>,
    object: &KubernetesObject<'_>,
    report: &mut ImportReport,
) -> Option<ImportedDestination> {
    let backend = backend?;
    // Before `networking.k8s.io/v1`.
    if let Some(name) = backend.string("serviceName", report) {
        let port = backend.string("servicePort", report);
        return Some(ImportedDestination { name, namespace: object.namespace.clone(), subset: None, port });
    }
    let service = backend.object("service", report)?;
    let name = service.string("name", report)?;
    let port = service.object("port", report);
    let port = port.and_then(|port| port.string("number", report).or_else(|| port.string("name", report)));
    Some(ImportedDestination { name, namespace: object.namespace.clone(), subset: None, port })
}
