//! Traefik: IngressRoutes with their Middlewares and TraefikServices. It has no virtual hosts: the route with the
//! highest priority decides, which by default is the one with the longest rule.

mod expression;
mod middleware;
mod objects;

use penstock_policy::document::Node;

use super::counted::TaggedLimit;
use super::destination::ImportedDestination;
use super::draft::PolicyDraft;
use super::matching::{Match, condition};
use super::objects::{Objects, map, text};
use super::reader::{FieldReader, KubernetesObject};
use super::report::ImportReport;
use super::table::{ImportedRule, RuleAction, RuleHost, WeightedSplit};
use middleware::Chain;
use objects::TraefikObjects;

/// A route before it is put in order.
struct TraefikRoute {
    priority: i64,
    hosts: Option<Vec<RuleHost>>,
    rules: Vec<ImportedRule>,
    /// `http` or `https`.
    protocol: &'static str,
}

pub fn routes(objects: &Objects<'_>, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let (mut found, mut all_entry_points) = (Vec::new(), Vec::new());
    let objects = &TraefikObjects::of(objects);
    for (file, node) in objects.routes() {
        report.file.clone_from(file);
        let object = KubernetesObject::open(node, report);
        let entry_points = object.spec.strings("entryPoints", report);
        // Those two differ in TLS, which a policy knows.
        let others = entry_points.iter().filter(|name| !["web", "websecure"].contains(&name.as_str()));
        all_entry_points.push(others.cloned().collect());
        // A route with TLS only gets TLS requests, and one without only the others.
        let has_tls = object.spec.take("tls").is_some_and(|tls| *tls != Node::Null);
        let protocol = if has_tls || entry_points == ["websecure"] { "https" } else { "http" };
        object.spec.ignore(&["ingressClassName"]);
        let parents = object.spec.take("parentRefs").map(ToString::to_string);
        for (i, route) in object.spec.objects("routes", report).iter().enumerate() {
            let tag = format!("{}#{i}", object.tag());
            if let Some(parents) = &parents {
                let why = format!("parentRefs {parents}: the conditions of its parent apply, too");
                let out = "its routes are left out: their requests go to the rules after them";
                report.lost("spec.parentRefs", why.clone(), out);
                let rules = vec![ImportedRule {
                    tags: vec![tag],
                    ..ImportedRule::new(object.name.clone(), RuleAction::Omit(why))
                }];
                found.push(TraefikRoute { priority: 0, hosts: None, rules, protocol });
                continue;
            }
            read(objects, &object, route, &tag, protocol, &mut found, draft, report);
        }
        for (field, value) in object.spec.rest() {
            report.lost(&object.spec.at(field), value.to_string(), "requests are handled without it");
        }
    }
    report.several("entry points", all_entry_points);
    found.sort_by_key(|route| std::cmp::Reverse(route.priority));
    let both = ["http", "https"].iter().all(|protocol| found.iter().any(|route| route.protocol == *protocol));
    for route in found {
        let hosts = route.hosts.unwrap_or_else(|| vec![RuleHost::Any]);
        for mut rule in route.rules {
            for entry in rule.matches.iter_mut().filter(|_| both) {
                entry.headers.push(condition("x-forwarded-proto", "Exact", route.protocol));
            }
            draft.table.push_flat(hosts.clone(), rule);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what a route is read with, once")]
fn read(
    objects: &TraefikObjects<'_>,
    object: &KubernetesObject<'_>,
    route: &FieldReader<'_>,
    tag: &str,
    protocol: &'static str,
    found: &mut Vec<TraefikRoute>,
    draft: &mut PolicyDraft,
    report: &mut ImportReport,
) {
    let written = route.string("match", report).unwrap_or_default();
    let length = i64::try_from(written.chars().count()).unwrap_or(i64::MAX);
    let priority = route.integer("priority", report).filter(|priority| *priority != 0).unwrap_or(length);
    route.ignore(&["kind", "syntax", "observability"]);
    let mut chain = Chain::new(protocol);
    let middlewares = report.conditions(|report| Ok(route.objects("middlewares", report))).unwrap_or_else(|why| {
        chain.leave = Some(why);
        Vec::new()
    });
    for middleware in middlewares {
        let name = middleware.string("name", report).unwrap_or_default();
        let namespace = middleware.string("namespace", report).unwrap_or_else(|| object.in_namespace().to_owned());
        chain.add(objects, &name, &namespace, report);
    }
    let action = match chain.leave.clone() {
        Some(why) => {
            report.lost(&route.at("middlewares"), why.clone(), "its requests are left to the platform");
            route.ignore(&["services"]);
            RuleAction::Leave(why)
        }
        None => match chain.redirect() {
            Some(redirect) => {
                route.ignore(&["services"]);
                RuleAction::Redirect(redirect)
            }
            None => action(objects, object, route, report),
        },
    };
    for (field, value) in route.rest() {
        report.lost(&route.at(field), value.to_string(), "requests are handled without it");
    }
    let name = if tag.ends_with("#0") {
        object.name.clone()
    } else {
        format!("{}-{}", object.name, tag.rsplit('#').next().unwrap_or_default())
    };
    let rule =
        ImportedRule { tags: vec![tag.to_owned()], ..ImportedRule::new(name, action).at(report.place(route.path())) };
    match expression::alternatives(&written) {
        Ok(alternatives) => {
            let mut by_hosts: Vec<(Option<Vec<RuleHost>>, Vec<Match>)> = Vec::new();
            for (hosts, matches) in alternatives {
                match by_hosts.iter_mut().find(|(known, _)| *known == hosts) {
                    Some((_, list)) => list.push(matches),
                    None => by_hosts.push((hosts, vec![matches])),
                }
            }
            for (hosts, matches) in by_hosts {
                let rules = chain.applied(ImportedRule { matches, ..rule.clone() }, report);
                found.push(TraefikRoute { priority, hosts, rules, protocol });
            }
        }
        Err(why) => {
            report.lost(
                &route.at("match"),
                why.clone(),
                "this route is left out: its requests go to the rules after it",
            );
            let rules = vec![ImportedRule { action: RuleAction::Omit(why), ..rule }];
            found.push(TraefikRoute { priority, hosts: None, rules, protocol });
        }
    }
    for (name, limit) in chain.limits {
        let limit = [("name", text(name))].into_iter().chain(limit).collect();
        let place = report.place(&route.at("middlewares"));
        let (tags, also) = (vec![tag.to_owned()], vec![Match::default()]);
        draft.tagged_limits.push(TaggedLimit { tags, except: Vec::new(), also, limit, place });
    }
}

fn action(
    objects: &TraefikObjects<'_>,
    object: &KubernetesObject<'_>,
    route: &FieldReader<'_>,
    report: &mut ImportReport,
) -> RuleAction {
    let mut split = WeightedSplit::default();
    let services = route.objects("services", report);
    let result =
        targets(objects, &services, object.in_namespace(), object.namespace.as_deref(), 1, 0, &mut split, report);
    let why = match result {
        Err(why) => why,
        Ok(()) if split.to.is_empty() => "it has no service".to_owned(),
        Ok(()) if split.to.iter().all(|(_, weight)| *weight <= 0) => "all weights are 0".to_owned(),
        Ok(()) => return RuleAction::Split(split),
    };
    report.lost(&route.at("services"), why.clone(), "its requests are left to the platform");
    RuleAction::Leave(why)
}

/// Adds destinations with their weights; those of a TraefikService are scaled by its own weights.
#[expect(clippy::too_many_arguments, reason = "it calls itself")]
fn targets(
    objects: &TraefikObjects<'_>,
    services: &[FieldReader<'_>],
    namespace: &str,
    said: Option<&str>,
    share: i64,
    depth: usize,
    split: &mut WeightedSplit,
    report: &mut ImportReport,
) -> Result<(), String> {
    const DEEPEST: usize = 8;
    for service in services {
        let name = service.string("name", report).unwrap_or_default();
        let own = service.string("namespace", report);
        let weight = service.integer("weight", report).unwrap_or(1);
        let weight = if services.len() == 1 && depth == 0 { 1 } else { weight };
        let weight = share.saturating_mul(weight.max(0));
        service.ignore(&[
            "kind",
            "port",
            "strategy",
            "scheme",
            "passHostHeader",
            "responseForwarding",
            "serversTransport",
            "nativeLB",
            "nodePortLB",
        ]);
        service.elsewhere(
            &["sticky", "healthCheck", "passiveHealthCheck"],
            "it concerns the endpoints of one Service",
            report,
        );
        for (field, value) in service.rest() {
            report.lost(&service.at(field), value.to_string(), "requests are handled without it");
        }
        if service.string("kind", report).as_deref() != Some("TraefikService") {
            let port = service.string("port", report);
            let namespace = own.or_else(|| said.map(str::to_owned));
            let to = ImportedDestination { name, namespace, subset: None, port };
            match split.to.iter_mut().find(|(known, _)| *known == to) {
                Some((_, sum)) => *sum = sum.saturating_add(weight),
                None => split.to.push((to, weight)),
            }
            continue;
        }
        let inside = own.unwrap_or_else(|| namespace.to_owned());
        if depth >= DEEPEST {
            return Err(format!("TraefikService {inside}/{name} contains itself"));
        }
        if name.ends_with("@internal") {
            return Err(format!("{name} is a service of Traefik itself"));
        }
        let found = objects.named("TraefikService", &name, &inside);
        let Some(node) = found else { return Err(format!("TraefikService {inside}/{name} is missing in the input")) };
        let spec =
            FieldReader::new(node.get("spec").unwrap_or(&Node::Null), &format!("TraefikService {name}: spec"), report);
        if let Some(mirroring) = spec.take("mirroring") {
            report.lost(&spec.at("mirroring"), mirroring.to_string(), "requests are not mirrored");
            let main = FieldReader::new(mirroring, &spec.at("mirroring"), report);
            main.ignore(&["mirrors", "mirrorBody", "maxBodySize"]);
            targets(objects, &[main], &inside, Some(&inside), weight, depth + 1, split, report)?;
            continue;
        }
        let Some(weighted) = spec.object("weighted", report) else {
            return Err(format!("TraefikService {name} is not weighted"));
        };
        if let Some(cookie) = weighted.object("sticky", report).and_then(|sticky| sticky.object("cookie", report)) {
            let mut node =
                vec![("name", text(cookie.string("name", report).unwrap_or_else(|| "penstock-id".to_owned())))];
            let age = cookie.integer("maxAge", report).filter(|age| *age > 0);
            node.extend(
                age.and_then(|age| crate::import::objects::duration(&format!("{age}s")))
                    .map(|age| ("maxAge", text(age))),
            );
            node.extend(cookie.string("path", report).map(|path| ("path", text(path))));
            split.stickiness = Some(map([("cookie", map(node))]));
        }
        let services = weighted.objects("services", report);
        let sum: i64 = services.iter().map(|service| service.integer("weight", report).unwrap_or(1).max(0)).sum();
        // Makes nested weights integers by scaling the existing ones with this factor.
        for (_, known) in &mut split.to {
            *known = known.saturating_mul(sum.max(1));
        }
        targets(objects, &services, &inside, said.or(Some(&inside)), weight, depth + 1, split, report)?;
    }
    Ok(())
}
