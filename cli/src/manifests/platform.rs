//! Checks how a platform treats a plugin's own settings, apart from its policy: settings that let requests pass
//! unfiltered, modules that are never loaded, and filter orders that break a guarantee.

use std::collections::BTreeSet;

use penstock_policy::Policy;
use penstock_policy::document::Node;
use penstock_policy::module::Suite;

use super::capabilities;
use super::copied_metadata;
use super::envoy_fields;
use super::plugin::{code, dynamic_module, vm_config};

/// A warning about a plugin: the field below it, the consequence, the suggestion.
#[derive(Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The path below the plugin.
    pub path: String,
    /// The consequence.
    pub message: String,
    /// The suggestion.
    pub help: String,
}

fn doubt(path: &str, message: impl Into<String>, help: impl Into<String>) -> Doubt {
    Doubt { path: path.to_owned(), message: message.into(), help: help.into() }
}

/// Warnings about the settings of a plugin of ours. With `is_bootstrap`, the configuration is the one that Envoy starts
/// with: then it waits for remote code, which it does not when a discovery service sends the configuration.
pub fn doubts(plugin: &Node, is_bootstrap: bool) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let opens = |node: &Node| match node {
        Node::String(text) => text.eq_ignore_ascii_case("FAIL_OPEN") || text == "3" || envoy_fields::is_true(node),
        Node::Bool(value) => *value,
        // As Envoy numbers it.
        Node::Integer(3) => true,
        _ => false,
    };
    for field in ["failStrategy", "failOpen", "failure_policy", "failurePolicy", "fail_open"] {
        if plugin.get(field).is_some_and(opens) {
            let right = match field {
                "failStrategy" => "FAIL_RELOAD, or FAIL_CLOSE (the default)",
                "failOpen" | "fail_open" => "false (the default)",
                _ => "FAIL_RELOAD, or FAIL_CLOSED",
            };
            let message = "while the module or its policy is broken, every request passes without the filter";
            doubts.push(doubt(field, message, format!("use {right}")));
        }
    }
    if let Some(vm) = vm_config(plugin)
        && let Some(vm_field) = ["vm_config", "vmConfig"].into_iter().find(|field| plugin.get(field).is_some())
    {
        let nacks = ["nack_on_code_cache_miss", "nackOnCodeCacheMiss"].iter().find_map(|field| vm.get(field));
        if vm.get("code").is_some_and(|code| code.get("remote").is_some())
            && nacks != Some(&Node::Bool(true))
            && !is_bootstrap
        {
            let message = "if a discovery service sends this configuration before Envoy has the code, Envoy accepts it, never \
                           fetches the code, and every request passes without the filter";
            doubts.push(doubt(vm_field, message, "set `nack_on_code_cache_miss: true` in it"));
        }
    }
    if let Some(module) = dynamic_module(plugin)
        && let Some(field) =
            ["dynamic_module_config", "dynamicModuleConfig"].into_iter().find(|field| plugin.get(field).is_some())
        && module.get("module").is_some_and(|module| module.get("remote").is_some())
    {
        let nacks = ["nack_on_cache_miss", "nackOnCacheMiss"].iter().find_map(|field| module.get(field));
        match (nacks == Some(&Node::Bool(true)), is_bootstrap) {
            (false, _) => doubts.push(doubt(
                field,
                "until Envoy has fetched the module, every request passes without the filter",
                "use `local`, or set `nack_on_cache_miss: true` where a discovery service sends the configuration",
            )),
            (true, true) => doubts.push(doubt(
                field,
                "Envoy does not wait for a module when it starts: with `nack_on_cache_miss` it refuses its own bootstrap",
                "use `local` in a bootstrap",
            )),
            (true, false) => {}
        }
    }
    if let Some(remark) = capabilities::remark(plugin).filter(|remark| !remark.is_error) {
        doubts.push(doubt(&remark.path, remark.message, remark.help));
    }
    for place in code(plugin) {
        if is_placeholder(place) {
            let message =
                format!("{place:?} is a placeholder: the module cannot be fetched, and every request is refused");
            doubts.push(doubt(
                "",
                message,
                "name the image in your registry, such as oci://ghcr.io/you/penstock/suite:0.1.0",
            ));
        }
    }
    doubts
}

/// Where the native body runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativePlatform {
    /// In a filter of an Envoy's own configuration.
    Envoy,
    /// In an Envoy that Envoy Gateway configures.
    EnvoyGateway,
}

/// Inputs of a policy that the native body does not have, so that it refuses the policy or its requests: the consequence
/// and the suggestion. A policy that is invalid everywhere is not reported here.
pub fn unknown_natively(policy: &Node, platform: NativePlatform) -> Option<(&'static str, &'static str)> {
    let namespaces = copied_metadata::namespaces(policy);
    if platform == NativePlatform::EnvoyGateway && !namespaces.is_empty() {
        return Some((
            "the native body refuses requests: Envoy Gateway has no filter that shows it claims or metadata",
            "load the wasm module, have `claimToHeaders` of the SecurityPolicy write the claim into a header, or insert such a filter \
             with an EnvoyPatchPolicy: docs/native.md has an example",
        ));
    }
    if !namespaces.iter().all(|namespace| copied_metadata::is_copyable(namespace)) {
        return Some((
            "the native body refuses requests: Envoy's %DYNAMIC_METADATA(...)% cannot name a namespace with `:`, `)` or `%`",
            "load the wasm module, or choose another namespace in the filter that writes the metadata",
        ));
    }
    let policy = Policy::<Suite>::from_node(policy).ok()?;
    policy.needs_workload().then_some((
        "the native body refuses this policy: Envoy passes no metadata of its node to a dynamic module, so `workload` is unknown",
        "load the wasm module, or name the caller by `peerCertificate` or `filterState`",
    ))
}

/// The namespaces of claims and metadata that a policy reads, which Envoy Gateway does not show to the native body: the consequence and
/// the suggestion.
pub fn uncopied_metadata(policy: &Node) -> Option<(BTreeSet<String>, String, String)> {
    let namespaces = copied_metadata::namespaces(policy);
    let first = namespaces.first()?;
    let message = format!(
        "goes by claims or metadata of `{first}`, which no EnvoyPatchPolicy here copies into filter state: the native body refuses these requests with 503"
    );
    let help = "load the wasm module, have `claimToHeaders` of the SecurityPolicy write the claim into a header, or check it together with an \
                EnvoyPatchPolicy that inserts a filter `set_filter_state` directly before this one: docs/native.md has an example";
    Some((namespaces, message, help.to_owned()))
}

/// Whether an image or URL is the one of an example.
fn is_placeholder(place: &str) -> bool {
    let path = place.split_once("://").map_or(place, |(_, rest)| rest);
    if path.starts_with(['/', '.']) {
        return false;
    }
    let registry = path.split('/').next().unwrap_or_default();
    let registry = registry.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let example = |name: &str| registry == name || registry.ends_with(&format!(".{name}"));
    ["example.com", "example.org", "example.net", "example"].into_iter().any(example)
        || path.contains(['<', '>', '$', '{'])
        || ["REGISTRY", "YOUR", "CHANGEME"]
            .iter()
            .any(|word| path.split(['/', '-', '_', '.', ':']).any(|part| part == *word))
}

/// A filter of a chain, with what the order depends on.
pub struct ChainFilter<'n> {
    /// The filter's name in Envoy, and its type.
    pub names: Vec<&'n str>,
    /// The policies of our plugins in it.
    pub policies: Vec<&'n Node>,
    /// Its configuration.
    pub config: Option<&'n Node>,
    /// Whether it is a dynamic module.
    pub is_native: bool,
    /// Whether it answers requests itself.
    pub is_terminal: bool,
}

impl ChainFilter<'_> {
    /// Whether it is of one of these kinds.
    fn is(&self, kinds: &[&str]) -> bool {
        self.names.iter().any(|name| kinds.iter().any(|kind| name.split(['.', '/']).any(|part| part == *kind)))
    }
}

/// What Envoy refuses about the end of a chain, which must be its only terminal filter: the filter's number, what happens, what would
/// be right.
pub fn wrong_end(filters: &[ChainFilter<'_>]) -> Option<(usize, String, String)> {
    // Of Envoy's own filters those that people put last by mistake; of others it is not known.
    const NEVER_LAST: [&str; 18] = [
        "wasm",
        "lua",
        "cors",
        "ext_authz",
        "ext_proc",
        "rbac",
        "jwt_authn",
        "fault",
        "local_ratelimit",
        "ratelimit",
        "buffer",
        "compressor",
        "header_mutation",
        "grpc_web",
        "health_check",
        "golang",
        "csrf",
        "oauth2",
    ];
    let is_terminal = |filter: &ChainFilter<'_>| filter.is_terminal || filter.is(&["router"]);
    let (last, before) = filters.split_last()?;
    if let Some(i) = before.iter().position(is_terminal) {
        let message = "is before other filters, which never see a request: Envoy does not start";
        return Some((i, message.to_owned(), "put it last, and only once".to_owned()));
    }
    let is_open = !is_terminal(last) && (!last.policies.is_empty() || last.is(&NEVER_LAST));
    is_open.then(|| {
        let message = "is the last filter, and no router comes after it: Envoy does not start";
        let router = "{name: envoy.filters.http.router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
        (before.len(), message.to_owned(), format!("add {router}"))
    })
}

/// Why the native body at this place of a chain refuses requests, for lack of a copy of the metadata that it needs: the consequence and the suggestion.
pub fn missing_metadata(filters: &[ChainFilter<'_>], at: usize) -> Option<(String, String)> {
    let filter = filters.get(at).filter(|filter| filter.is_native)?;
    let needed: Vec<String> = filter.policies.iter().flat_map(|policy| copied_metadata::namespaces(policy)).collect();
    let before = filters.get(..at).unwrap_or_default();
    let namespace = needed.iter().find(|namespace| {
        !before.iter().any(|filter| filter.config.is_some_and(|config| copied_metadata::copies(config, namespace)))
    })?;
    let message = format!(
        "goes by claims or metadata of `{namespace}`, which no earlier filter copies into filter state: the native body refuses these \
         requests with 503"
    );
    let help = format!(
        "put a filter `set_filter_state` directly before it, with `on_request_headers: [{{object_key: {}, factory_key: envoy.string, \
         format_string: {{text_format_source: {{inline_string: \"{}\"}}}}}}]`",
        copied_metadata::state_key(namespace),
        copied_metadata::format_string(namespace)
    );
    Some((message, help))
}

/// Warnings about the order of a connection manager's filters: the filter's number, the consequence, the suggestion.
pub fn order(filters: &[ChainFilter<'_>]) -> Vec<(usize, String, String)> {
    let mut doubts = Vec::new();
    let is = ChainFilter::is;
    for (i, filter) in filters.iter().enumerate() {
        for policy in &filter.policies {
            let (before, after) = (filters.get(..i).unwrap_or_default(), filters.get(i + 1..).unwrap_or_default());
            if before.iter().any(|other| is(other, &["router"])) {
                let message = "is after the router, which ends the chain: it never sees a request";
                doubts.push((i, message.to_owned(), "put the router last".to_owned()));
            }
            let changes = [
                "lua",
                "ext_proc",
                "header_mutation",
                "golang",
                "grpc_json_transcoder",
                "ext_authz",
                "wasm",
                "dynamic_modules",
            ];
            let changer = after.iter().find(|other| other.policies.is_empty() && is(other, &changes));
            if let (Some(changer), true) = (changer, policy.get("egress").is_some()) {
                let name = changer.names.first().copied().unwrap_or_default();
                let message = format!(
                    "`{name}` is between the egress rules and the router: its changes of authority, path or method are forwarded without being matched"
                );
                doubts.push((i, message, format!("put `{name}` before the egress rules")));
            }
            let claims = policy.get("settings").and_then(|settings| settings.get("claims")).is_some();
            if claims && after.iter().any(|other| is(other, &["jwt_authn"])) {
                let message = "reads claims before `jwt_authn` has verified the token: it sees none";
                doubts.push((i, message.to_owned(), "put `jwt_authn` before it".to_owned()));
            }
            let (has_routes, has_canaries) =
                (|policy: &Node| policy.get("routes").is_some(), |policy: &Node| policy.get("canaries").is_some());
            let routes = |policy: &Node| has_routes(policy) || has_canaries(policy);
            let later = || after.iter().flat_map(|other| &other.policies).copied().filter(|other| routes(other));
            // The sections of the modules header-routing and canary: the second gets the result of the first through
            // filter state.
            let is_pair = has_routes(policy) && !has_canaries(policy) && later().all(|other| !has_routes(other));
            let is_chained = policy.get("settings").and_then(|settings| settings.get("chained"));
            if routes(policy) && later().next().is_some() && !(is_pair && is_chained == Some(&Node::Bool(true))) {
                let message = "a later plugin of the same chain has routes, too, and removes this plugin's route header as if a client had sent it";
                let help = if is_pair {
                    "put the rules into one policy for the suite, or set `settings.chained: true` here when this is the header-routing module and the later one the canary module"
                } else {
                    "put the rules into one policy, or give each its own `settings.routeHeader`"
                };
                doubts.push((i, message.to_owned(), help.to_owned()));
            }
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    fn said(yaml: &str) -> Vec<String> {
        doubts(&Located::read(yaml).unwrap().node, false)
            .into_iter()
            .map(|doubt| format!("{}: {}", doubt.path, doubt.message))
            .collect()
    }

    #[test]
    fn settings_that_let_requests_pass_unfiltered_are_reported_for_every_platform() {
        for yaml in [
            "{url: oci://r.test/penstock/suite, failStrategy: FAIL_OPEN}",
            "{failOpen: true}",
            "{failure_policy: FAIL_OPEN}",
            "{failurePolicy: FAIL_OPEN}",
            "{fail_open: true}",
            "{vm_config: {code: {remote: {http_uri: {uri: 'http://files.test/suite.wasm'}}}}}",
            "{vmConfig: {code: {remote: {}}, nackOnCodeCacheMiss: false}}",
            "{dynamic_module_config: {name: penstock, module: {remote: {}}}}",
            "{dynamicModuleConfig: {name: penstock, module: {remote: {}}, nackOnCacheMiss: false}}",
        ] {
            let said = said(yaml);
            assert!(said.len() == 1 && said[0].contains("without the filter"), "{yaml}: {said:?}");
        }
        for yaml in [
            "{url: oci://r.test/penstock/suite, failStrategy: FAIL_CLOSE}",
            "{failOpen: false}",
            "{failure_policy: FAIL_RELOAD, vm_config: {code: {local: {filename: /x}}}}",
            "{vm_config: {code: {remote: {}}, nack_on_code_cache_miss: true}}",
            "{dynamic_module_config: {name: penstock, module: {remote: {}}, nack_on_cache_miss: true}}",
            "{dynamic_module_config: {name: penstock}}",
        ] {
            assert_eq!(said(yaml), [] as [&str; 0], "{yaml}");
        }
    }

    #[test]
    fn separate_modules_may_route_one_after_the_other_when_the_first_says_what_it_decided() {
        let said = |first: &str, second: &str| {
            let policies = [first, second].map(|policy| Located::read(policy).unwrap().node);
            let filters = policies.iter().map(|policy| ChainFilter {
                names: vec!["penstock"],
                policies: vec![policy],
                config: None,
                is_native: false,
                is_terminal: false,
            });
            order(&filters.collect::<Vec<_>>()).into_iter().map(|(i, _, help)| (i, help)).collect::<Vec<_>>()
        };
        let (routes, canaries) = ("{routes: {default: a}}", "{canaries: []}");
        let chained = "{settings: {chained: true}, routes: {default: a}}";
        assert_eq!(said(chained, canaries), []);
        assert!(said(routes, canaries)[0].1.contains("settings.chained"));
        // The canary module gets the result of one routing module; the suite gets none.
        for (first, second) in [(chained, routes), (canaries, routes), (canaries, canaries)] {
            let said = said(first, second);
            assert!(said.len() == 1 && said[0].1.contains("settings.routeHeader"), "{first} {second}: {said:?}");
        }
    }

    #[test]
    fn an_image_of_an_example_is_a_placeholder() {
        for place in [
            "oci://registry.example.com/penstock/suite:1",
            "REGISTRY/penstock/suite",
            "${REGISTRY}/suite",
            "<registry>/suite",
        ] {
            assert!(is_placeholder(place), "{place}");
        }
        for place in
            ["oci://ghcr.io/example/penstock/suite:1", "/etc/penstock/suite.wasm", "127.0.0.1:5000/penstock/suite"]
        {
            assert!(!is_placeholder(place), "{place}");
        }
    }
}
