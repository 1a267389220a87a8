//! Where an object puts our filter: at what an EnvoyExtensionPolicy is attached to, and where an EnvoyFilter inserts it.

use penstock_policy::document::Node;

use super::objects::Remark;

/// Warnings about the place of the plugin at `path` of an object, which has this policy.
pub fn doubts(object: &Node, path: &str, policy: &Node) -> Vec<Remark> {
    match text(object, "kind") {
        Some("EnvoyExtensionPolicy") => attached_to_a_route(object, policy).into_iter().collect(),
        Some("EnvoyFilter") => inserted(object, path).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A policy that must see every request, on a route of the Gateway API: the filter sees what Envoy has routed there.
fn attached_to_a_route(object: &Node, policy: &Node) -> Option<Remark> {
    // Limits may be for the requests of one route.
    let section = ["egress", "routes", "canaries"].into_iter().find(|section| policy.get(section).is_some())?;
    let spec = object.get("spec")?;
    let (field, kind) = ["targetRef", "targetRefs", "targetSelectors"].into_iter().find_map(|field| {
        let targets = match spec.get(field)? {
            Node::List(targets) => targets.iter().collect(),
            target => vec![target],
        };
        targets
            .into_iter()
            .filter_map(|target| text(target, "kind"))
            .find(|kind| kind.ends_with("Route"))
            .map(|kind| (field, kind))
    })?;
    let what = match section {
        "egress" => "requests of other routes pass without the allowlist",
        _ => "Envoy has chosen the route when the filter runs, and requests of other routes pass without it",
    };
    Some(Remark {
        path: format!("spec.{field}"),
        is_value: false,
        message: format!("the policy has `{section}` and is attached to a route ({kind}): {what}"),
        help: "attach it to the Gateway: {group: gateway.networking.k8s.io, kind: Gateway, name: …}".to_owned(),
    })
}

/// A patch that puts a filter where it never runs.
fn inserted(object: &Node, path: &str) -> Option<Remark> {
    let index: usize = path.strip_prefix("spec.configPatches[")?.split(']').next()?.parse().ok()?;
    let Node::List(patches) = object.get("spec")?.get("configPatches")? else { return None };
    let patch = patches.get(index)?;
    let remark = |field: &str, message: String, help: &str| {
        let path = format!("spec.configPatches[{index}].{field}");
        Some(Remark { path, is_value: true, message, help: help.to_owned() })
    };
    let applies_to = text(patch, "applyTo").unwrap_or_default();
    let is_a_filter = path.starts_with(&format!("spec.configPatches[{index}].patch.value.typed"));
    // Other objects have filters inside.
    if is_a_filter && !["HTTP_FILTER", "EXTENSION_CONFIG"].contains(&applies_to) {
        let message = format!("`applyTo: {applies_to}` patches no filter of HTTP: Istio leaves the filter out");
        return remark("applyTo", message, "write HTTP_FILTER");
    }
    let operation = text(patch.get("patch")?, "operation").unwrap_or_default();
    let filter = patch.get("match").and_then(|place| place.get("listener")?.get("filterChain")?.get("filter"));
    let beside = filter.and_then(|filter| text(filter.get("subFilter")?, "name")).unwrap_or_default();
    let is_last =
        operation == "ADD" || operation == "INSERT_AFTER" && (beside.is_empty() || beside.ends_with("http.router"));
    if applies_to == "HTTP_FILTER" && is_last {
        let message = format!(
            "`{operation}` puts the filter behind the router, which must be the last: Envoy refuses the listener"
        );
        return remark(
            "patch.operation",
            message,
            "write INSERT_BEFORE, with `subFilter: {name: envoy.filters.http.router}` in `match`, or INSERT_FIRST",
        );
    }
    None
}

fn text<'n>(node: &'n Node, field: &str) -> Option<&'n str> {
    match node.get(field) {
        Some(Node::String(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    fn said(object: &str, path: &str, policy: &str) -> String {
        let read = |text: &str| Located::read(text).unwrap().node;
        let doubts = doubts(&read(object), path, &read(policy));
        doubts.iter().map(|doubt| format!("{} {} {}", doubt.path, doubt.message, doubt.help)).collect()
    }

    #[test]
    fn a_policy_on_a_route_sees_only_what_is_routed_there() {
        let on = |target: &str| format!("{{kind: EnvoyExtensionPolicy, spec: {{{target}, wasm: [{{}}]}}}}");
        for (target, policy, part) in [
            ("targetRefs: [{kind: HTTPRoute, name: a}]", "{routes: {}}", "Envoy has chosen the route"),
            ("targetRef: {kind: GRPCRoute, name: a}", "{canaries: []}", "spec.targetRef the policy has `canaries`"),
            ("targetSelectors: [{kind: HTTPRoute}]", "{egress: {}}", "without the allowlist"),
            ("targetRefs: [{kind: HTTPRoute, name: a}]", "{rateLimits: []}", ""),
            ("targetRefs: [{kind: Gateway, name: a}]", "{routes: {}}", ""),
        ] {
            let said = said(&on(target), "spec.wasm[0]", policy);
            assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{target} {policy}: {said}");
        }
    }

    #[test]
    fn a_patch_puts_the_filter_before_the_router() {
        let place = "match: {listener: {filterChain: {filter: {subFilter: {name: envoy.filters.http.router}}}}}";
        let path = "spec.configPatches[0].patch.value.typed_config.config";
        for (patch, part) in [
            ("applyTo: HTTP_FILTER, patch: {operation: INSERT_BEFORE}", ""),
            ("applyTo: HTTP_FILTER, patch: {operation: INSERT_FIRST}", ""),
            ("applyTo: HTTP_FILTER, patch: {operation: INSERT_AFTER}", "behind the router"),
            ("applyTo: HTTP_FILTER, patch: {operation: ADD}", "behind the router"),
            ("applyTo: HTTP_ROUTE, patch: {operation: MERGE}", "patches no filter"),
            ("applyTo: EXTENSION_CONFIG, patch: {operation: ADD}", ""),
        ] {
            let object = format!("{{kind: EnvoyFilter, spec: {{configPatches: [{{{place}, {patch}}}]}}}}");
            let said = said(&object, path, "{routes: {}}");
            assert!(said.contains(part) && said.is_empty() == part.is_empty(), "{patch}: {said}");
        }
        // After another filter.
        let object = "{kind: EnvoyFilter, spec: {configPatches: [{applyTo: HTTP_FILTER, match: {listener: {filterChain: {filter: {subFilter: {name: envoy.filters.http.jwt_authn}}}}}, patch: {operation: INSERT_AFTER}}]}}";
        assert_eq!(said(object, path, "{}"), "");
    }
}
