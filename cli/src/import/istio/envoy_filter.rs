//! Istio's local rate limits: EnvoyFilters that add Envoy's `local_ratelimit` to a workload.

use penstock_policy::document::Node;

use crate::import::draft::PolicyDraft;
use crate::import::objects::{Objects, duration, map, text};
use crate::import::reader::{FieldReader, KubernetesObject};
use crate::import::report::ImportReport;

const OUT: &str = "the limit is left out";

pub fn envoy_filters(objects: &Objects<'_>, draft: &mut PolicyDraft, report: &mut ImportReport) {
    let all = objects.of("EnvoyFilter", "networking.istio.io");
    let selectors: Vec<String> = all
        .iter()
        .map(|(_, node)| {
            let object = KubernetesObject::open(node, report);
            format!("{} {:?}", object.in_namespace(), object.spec.take("workloadSelector"))
        })
        .collect();
    let is_one_place = selectors.windows(2).all(|two| two.first() == two.last());
    for (file, node) in all {
        report.file.clone_from(file);
        let object = KubernetesObject::open(node, report);
        object.spec.ignore(&["priority"]);
        let selector = object.spec.take("workloadSelector").or_else(|| object.spec.take("targetRefs"));
        if let Some(selector) = selector {
            report.elsewhere(
                "spec.workloadSelector",
                selector.to_string(),
                "the policy applies wherever you deploy it",
            );
        }
        for (i, patch) in object.spec.objects("configPatches", report).iter().enumerate() {
            let applies = patch.string("applyTo", report).unwrap_or_default();
            let scope = patch.take("match").cloned().unwrap_or(Node::Null);
            let value = patch.object("patch", report).and_then(|patch| patch.object("value", report));
            let Some(value) = value else { continue };
            let lost = |at: &str, why: String, draft: &mut PolicyDraft, report: &mut ImportReport| {
                report.lost(at, why.clone(), OUT);
                draft.no_limit(format!("{}: {why}", report.place(at)));
            };
            if !is_limit(&value, report) {
                report.lost(
                    patch.path(),
                    format!("{applies}: it is not a local rate limit"),
                    "requests are handled without it",
                );
                continue;
            }
            if !is_one_place {
                let why = "limits for different workloads, and a policy is for one";
                lost(patch.path(), why.to_owned(), draft, report);
                continue;
            }
            let config = if applies == "HTTP_FILTER" {
                value.object("typed_config", report)
            } else {
                // A patch of a route or virtual host, whose name does not identify requests here.
                let why = format!("a limit of a {applies} ({scope}): it is unclear which requests it applies to");
                lost(patch.path(), why, draft, report);
                continue;
            };
            // In a TypedStruct, the configuration is one level deeper.
            let config = config
                .and_then(|config| if config.has("value") { config.object("value", report) } else { Some(config) });
            let Some(config) = config else { continue };
            let name = format!("{}-{}", object.name, i + 1);
            match limit(&config, report) {
                Ok(None) => {}
                Ok(Some(node)) => draft.limit(&name, node, &report.place(config.path()), report),
                Err(why) => lost(config.path(), why, draft, report),
            }
        }
        for (field, value) in object.spec.rest() {
            report.lost(&object.spec.at(field), value.to_string(), "requests are handled without it");
        }
    }
}

/// Whether a patch concerns local rate limits.
fn is_limit(value: &FieldReader<'_>, report: &mut ImportReport) -> bool {
    let by_name = value.string("name", report).is_some_and(|name| name.contains("local_ratelimit"));
    by_name || value.rest().iter().any(|(_, node)| format!("{node:?}").contains("local_ratelimit"))
}

/// A limit for all requests; `None` when it is disabled.
fn limit(config: &FieldReader<'_>, report: &mut ImportReport) -> Result<Option<Vec<(&'static str, Node)>>, String> {
    config.ignore(&[
        "@type",
        "type_url",
        "stat_prefix",
        "response_headers_to_add",
        "request_headers_to_add_when_not_enforced",
        "enable_x_ratelimit_headers",
    ]);
    let share = |name: &str, report: &mut ImportReport| {
        let value = config.object(name, report)?.object("default_value", report)?;
        let of = match value.string("denominator", report).as_deref() {
            Some("TEN_THOUSAND") => 10_000,
            Some("MILLION") => 1_000_000,
            _ => 100,
        };
        Some((value.integer("numerator", report).unwrap_or(0), of))
    };
    // Without these fields, Envoy enables nothing.
    let (enabled, enforced) = (share("filter_enabled", report), share("filter_enforced", report));
    let bucket = config.object("token_bucket", report);
    if config.has("descriptors") {
        return Err("descriptors: another part of the configuration defines which requests they apply to".to_owned());
    }
    let status = config.object("status", report).and_then(|status| status.string("code", report));
    if let Some((field, value)) = config.rest().first() {
        return Err(format!("{field} {value}: `import` does not know it"));
    }
    let is_all = |share: Option<(i64, i64)>| share.is_some_and(|(some, all)| some >= all);
    match (enabled, enforced) {
        (None | Some((0, _)), _) => return Ok(None),
        (some, _) if !is_all(some) => return Err("it is enabled for a part of the requests".to_owned()),
        (_, Some((some, all))) if some > 0 && some < all => {
            return Err("it is enforced for a part of the requests".to_owned());
        }
        _ => {}
    }
    let bucket = bucket.ok_or("it has no token_bucket")?;
    let most = bucket.integer("max_tokens", report).ok_or("it has no max_tokens")?;
    let fill = bucket.integer("tokens_per_fill", report).unwrap_or(1);
    let interval = bucket.string("fill_interval", report).ok_or("it has no fill_interval")?;
    let per = duration(&interval).ok_or_else(|| format!("the fill_interval {interval}"))?;
    let quota = map([("requests", Node::Integer(fill)), ("per", text(per)), ("burst", Node::Integer(most))]);
    let mut node = vec![("key", Node::List(Vec::new())), ("limit", quota)];
    if !is_all(enforced) {
        node.push(("mode", text("Shadow")));
    }
    if let Some(status) = status.and_then(|status| status.parse().ok()) {
        node.push(("response", map([("status", Node::Integer(status))])));
    }
    Ok(Some(node))
}
