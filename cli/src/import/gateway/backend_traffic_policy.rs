//! Envoy Gateway's BackendTrafficPolicy: imports its limits. Its other fields stay with the platform.

use std::collections::{HashMap, HashSet};

use penstock_policy::document::Node;

use super::listeners::{Attached, GROUP};
use super::namespaces;
use crate::import::counted::TaggedLimit;
use crate::import::draft::PolicyDraft;
use crate::import::matching::{Match, PathSet, condition, inverted};
use crate::import::objects::{Objects, map, text};
use crate::import::reader::{FieldReader, KubernetesObject};
use crate::import::report::ImportReport;

const OUT: &str = "the limit is left out";

pub fn limits(objects: &Objects<'_>, routes: &[Attached], draft: &mut PolicyDraft, report: &mut ImportReport) {
    let mut policies = Vec::new();
    for (file, node) in objects.of("BackendTrafficPolicy", "gateway.envoyproxy.io") {
        report.file.clone_from(file);
        let object = KubernetesObject::open(node, report);
        policies.push((file, targets(objects, &object, report), object));
    }
    // Of two policies for one target, the older applies.
    policies.sort_by_cached_key(|(.., object)| {
        (object.created.clone(), object.in_namespace().to_owned(), object.name.clone())
    });
    let mut taken: HashSet<String> = HashSet::new();
    for (file, targets, object) in &mut policies {
        targets.retain(|target| {
            let is_free = taken.insert(target.clone());
            if !is_free {
                open(file, object, report);
                report.elsewhere(
                    "spec.targetRefs",
                    format!("{target}: an older policy has the same target"),
                    "the older one is used",
                );
            }
            is_free
        });
    }
    // A policy on a rule takes precedence over one on its route, and that over one on the Gateway.
    let mut sections: HashMap<&str, Vec<String>> = HashMap::new();
    for own in &taken {
        if let Some((of, _)) = own.split_once('#') {
            sections.entry(of).or_default().push(own.clone());
        }
    }
    for (file, targets, object) in &policies {
        open(file, object, report);
        if object.spec.take("mergeType").is_some() && targets.iter().any(|target| !target.starts_with("Gateway ")) {
            let what = "limits of the Gateway's policy are merged into it";
            report.lost("spec.mergeType", what, "only its own limits are imported");
        }
        if let Some(limit) = object.spec.object("rateLimit", report) {
            let tags: Vec<(String, Vec<String>)> = targets
                .iter()
                .flat_map(|target| match target.starts_with("Gateway ") {
                    // Every route of a Gateway has its own counters.
                    true => routes
                        .iter()
                        .filter(|route| route.gateways.contains(target))
                        .map(|route| route.tag.clone())
                        .filter(|tag| !taken.contains(tag))
                        .collect(),
                    false => vec![target.clone()],
                })
                .map(|tag| {
                    let except = sections.get(tag.as_str()).cloned().unwrap_or_default();
                    (tag, except)
                })
                .collect();
            if tags.is_empty() {
                let is_listener = targets.iter().any(|target| target.starts_with("Gateway ") && target.contains('#'));
                let what = match is_listener {
                    true => "its target is one listener of a Gateway: a policy has no condition on the listener",
                    false => "its target is missing in the input, or has limits of its own",
                };
                report.lost(limit.path(), what, OUT);
                limit.ignore(&["type", "global", "local"]);
            }
            read(object, &limit, &tags, draft, report);
        }
        for (field, value) in object.spec.rest() {
            report.elsewhere(&object.spec.at(field), value.to_string(), "the platform's own resource still applies");
        }
    }
}

/// Names an object in the report again.
fn open(file: &str, object: &KubernetesObject<'_>, report: &mut ImportReport) {
    file.clone_into(&mut report.file);
    report.object = object.tag();
}

/// The targets of a policy, as tags name them.
fn targets(objects: &Objects<'_>, object: &KubernetesObject<'_>, report: &mut ImportReport) -> Vec<String> {
    let spec = &object.spec;
    let one = spec.object("targetRef", report);
    let mut found: Vec<String> = one
        .into_iter()
        .chain(spec.objects("targetRefs", report))
        .map(|target| {
            let kind = target.string("kind", report).unwrap_or_default();
            let name = target.string("name", report).unwrap_or_default();
            let section = target.string("sectionName", report).map(|section| format!("#{section}")).unwrap_or_default();
            format!("{kind} {}/{name}{section}", object.in_namespace())
        })
        .collect();
    for selector in spec.objects("targetSelectors", report) {
        match selected_targets(objects, object, &selector) {
            Ok(selected) => found.extend(selected),
            Err(why) => report.lost(selector.path(), why, "the objects that it selects have no limit"),
        }
    }
    found
}

/// The objects in the policy's namespace that have the labels of a selector.
fn selected_targets(
    objects: &Objects<'_>,
    object: &KubernetesObject<'_>,
    selector: &FieldReader<'_>,
) -> Result<Vec<String>, String> {
    let kind = match selector.take("kind") {
        Some(Node::String(kind)) => kind.as_str(),
        _ => return Err("it has no kind".to_owned()),
    };
    selector.ignore(&["group"]);
    let labels: Vec<(String, Node)> = ["matchLabels", "matchExpressions"]
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), selector.take(field)?.clone())))
        .collect();
    if let Some((field, value)) = selector.rest().first() {
        return Err(format!("{field} {value}: `import` does not know it"));
    }
    let labels = Node::Map(labels);
    let text = |node: Option<&Node>| match node {
        Some(Node::String(text)) => Some(text.clone()),
        _ => None,
    };
    let mut found = Vec::new();
    for (_, node) in objects.of(kind, GROUP) {
        let metadata = node.get("metadata").unwrap_or(&Node::Null);
        let namespace = text(metadata.get("namespace")).unwrap_or_else(|| "default".to_owned());
        let own = metadata.get("labels").unwrap_or(&Node::Null);
        if namespace == object.in_namespace() && namespaces::selects(&labels, &|key| Ok(text(own.get(key))))? {
            found.push(format!("{kind} {namespace}/{}", text(metadata.get("name")).unwrap_or_default()));
        }
    }
    Ok(found)
}

fn read(
    object: &KubernetesObject<'_>,
    limit: &FieldReader<'_>,
    tags: &[(String, Vec<String>)],
    draft: &mut PolicyDraft,
    report: &mut ImportReport,
) {
    limit.ignore(&["type"]);
    for scope in ["global", "local"] {
        let Some(of_scope) = limit.object(scope, report) else { continue };
        let rules = of_scope.objects("rules", report);
        let selects = |rule: &FieldReader<'_>| rule.has("clientSelectors");
        let some_select = rules.iter().any(selects);
        for (i, rule) in rules.iter().enumerate() {
            if scope == "local" && some_select && !selects(rule) {
                let what = "a limit for the requests that no other limit selects";
                report.lost(rule.path(), what, OUT);
                draft.no_limit(format!("{}: {what}", report.place(rule.path())));
                continue;
            }
            let is_shared = rule.flag("shared", report);
            match report.conditions(|report| selected(rule, report)) {
                Ok((also, key, quota)) => {
                    if scope == "global" {
                        let what = "one count for all proxies";
                        report.elsewhere(
                            rule.path(),
                            what,
                            "each proxy counts separately; `scope: {global: …}` counts for all proxies",
                        );
                    }
                    // Each target has its own count, unless they share it.
                    let together: Vec<String> = tags.iter().map(|(tag, _)| tag.clone()).collect();
                    let except = tags.iter().flat_map(|(_, except)| except.clone()).collect();
                    let counts: Vec<(Vec<String>, Vec<String>)> = match is_shared {
                        _ if tags.is_empty() => Vec::new(),
                        true => vec![(together, except)],
                        false => tags.iter().map(|(tag, except)| (vec![tag.clone()], except.clone())).collect(),
                    };
                    for (tags, except) in counts {
                        let mut node = vec![("name", text(format!("{}-{}", object.name, i + 1)))];
                        node.push(("key", Node::List(key.clone())));
                        if !key.is_empty() {
                            node.push(("onMissingKey", text("Skip")));
                        }
                        node.push(("limit", quota.clone()));
                        draft.tagged_limits.push(TaggedLimit {
                            tags,
                            except,
                            also: also.clone(),
                            limit: node,
                            place: report.place(rule.path()),
                        });
                    }
                }
                Err(why) => {
                    report.lost(rule.path(), why.clone(), OUT);
                    draft.no_limit(format!("{}: {why}", report.place(rule.path())));
                }
            }
        }
        of_scope.end(report);
    }
    for (field, value) in limit.rest() {
        report.lost(&limit.at(field), value.to_string(), "limits are counted without it");
    }
}

/// The requests that a rule counts, its key, and its limit.
fn selected(rule: &FieldReader<'_>, report: &mut ImportReport) -> Result<(Vec<Match>, Vec<Node>, Node), String> {
    let mut matches = Match::default();
    let mut methods: Vec<Option<String>> = vec![None];
    let mut key = Vec::new();
    for selector in rule.objects("clientSelectors", report) {
        for header in selector.objects("headers", report) {
            let name = header.string("name", report).unwrap_or_default();
            let value = header.string("value", report).unwrap_or_default();
            let invert = header.flag("invert", report);
            let node = match header.string("type", report).as_deref() {
                None | Some("Exact") => condition(&name, "Exact", &value),
                Some("RegularExpression") => condition(&name, "RegularExpression", &value),
                Some("Distinct") if invert => {
                    return Err(format!("header {name} of type Distinct with invert: Envoy Gateway refuses it"));
                }
                Some("Distinct") => {
                    key.push(map([("header", text(name))]));
                    continue;
                }
                Some(kind) => return Err(format!("a header of type {kind}")),
            };
            matches.headers.push(if invert { inverted(&node) } else { node });
        }
        if let Some(source) = selector.object("sourceCIDR", report) {
            let range = source.string("value", report).unwrap_or_default();
            let kind = source.string("type", report);
            if kind.as_deref() != Some("Distinct") || !matches!(range.as_str(), "0.0.0.0/0" | "::/0") {
                return Err(format!("sourceCIDR {range}: a policy has no condition on addresses"));
            }
            key.push(map([("sourceAddress", map([]))]));
        }
        let wanted = selector.objects("methods", report);
        if !wanted.is_empty() {
            if methods != [None] {
                return Err("two conditions on the method".to_owned());
            }
            if wanted.iter().any(|method| method.flag("invert", report)) {
                return Err("methods other than one".to_owned());
            }
            methods = wanted.iter().map(|method| method.string("value", report)).collect();
            if methods.contains(&None) {
                return Err("a method without a value".to_owned());
            }
        }
        if let Some(path) = selector.object("path", report) {
            if matches.path != PathSet::Any {
                return Err("two conditions on the path".to_owned());
            }
            if path.flag("invert", report) {
                return Err("paths other than one".to_owned());
            }
            let value = path.string("value", report).unwrap_or_default();
            matches.path = match path.string("type", report).as_deref() {
                None | Some("PathPrefix") => PathSet::segments(&value),
                Some("Exact") => PathSet::Exact(value),
                Some("RegularExpression") => PathSet::Regex(value),
                Some(kind) => return Err(format!("a path of type {kind}")),
            };
        }
        if let Some((name, value)) = selector.rest().first() {
            return Err(format!("{name} {value}: a policy has no such condition"));
        }
    }
    if let Some(cost) = rule.take("cost") {
        return Err(format!("cost {cost}"));
    }
    if rule.has("shadowMode") {
        return Err("shadowMode".to_owned());
    }
    let quota = rule.object("limit", report).ok_or("it has no limit")?;
    let requests = quota.integer("requests", report).ok_or("it has no number of requests")?;
    let unit = quota.string("unit", report).unwrap_or_default();
    let per = crate::import::objects::unit(&unit).ok_or_else(|| format!("the unit {unit:?}"))?;
    let node = map([("requests", Node::Integer(requests)), ("per", text(per))]);
    Ok((methods.into_iter().map(|method| Match { method, ..matches.clone() }).collect(), key, node))
}
