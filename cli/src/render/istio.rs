//! Renders for Istio: the plugin on the ingress gateway, routes that match the route header, and the plugin on the
//! egress gateway.

use std::collections::{BTreeMap, HashSet};

use penstock_policy::document::Node;
use penstock_policy::egress::DestinationTarget;

use super::names::free;
use super::plan::Plan;
use super::service::RouteService;
use super::text::{RenderedFile, indented};
use crate::yaml_text::{block, scalar};

/// The kind of object that contains the plugin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PluginObject {
    /// Every version of Istio.
    WasmPlugin,
    /// Istio 1.30 and later.
    TrafficExtension,
}

pub fn manifests(plan: &Plan<'_>, plugin: PluginObject) -> Vec<RenderedFile> {
    let mut manifests = Vec::new();
    if let Some(policy) = &plan.ingress {
        let (key, value) = &plan.args.selector;
        let image = &plan.image;
        let text = format!(
            "# The policy, on the gateway where requests come in.\n{}",
            object(plan, plugin, "", (key, value), image, plan.args.sha256.as_deref(), policy)
        );
        manifests.push(RenderedFile { file: "plugin.yaml", text });
        if let (false, Some(catch_all)) = (plan.routes.is_empty(), &plan.catch_all) {
            manifests.push(RenderedFile { file: "virtual-service.yaml", text: virtual_service(plan, catch_all) });
        }
        let rules = destination_rules(plan);
        if !rules.is_empty() {
            manifests.push(RenderedFile { file: "destination-rules.yaml", text: rules });
        }
    }
    if let Some(policy) = &plan.egress {
        let text = format!(
            "# The allowlist, on the gateway where requests leave. It sees what goes through there: send the mesh's traffic to it,\n\
             # and close every other way out (outboundTrafficPolicy REGISTRY_ONLY, and a NetworkPolicy).\n{}",
            object(
                plan,
                plugin,
                "-egress",
                ("istio", "egressgateway"),
                &plan.egress_image,
                plan.egress_sha256.as_deref(),
                policy
            )
        );
        manifests.push(RenderedFile { file: "egress-plugin.yaml", text });
        if let Some(text) = service_entry(plan) {
            manifests.push(RenderedFile { file: "service-entry.yaml", text });
        }
    }
    manifests
}

fn object(
    plan: &Plan<'_>,
    plugin: PluginObject,
    suffix: &str,
    selector: (&str, &str),
    image: &str,
    sha256: Option<&str>,
    policy: &Node,
) -> String {
    let kind = match plugin {
        PluginObject::WasmPlugin => "WasmPlugin",
        PluginObject::TrafficExtension => "TrafficExtension",
    };
    let image = image.strip_prefix("oci://").unwrap_or(image);
    let mut module = format!("url: {}\n", scalar(&format!("oci://{image}")));
    if let Some(digest) = sha256 {
        module += &format!("sha256: \"{digest}\"\n");
    }
    module += "imagePullPolicy: IfNotPresent\n\
        # What a failed fetch or a trap does: requests get an error. Never FAIL_OPEN: they would pass unfiltered.\n\
        failStrategy: FAIL_RELOAD\n\
        # The policy, as in the file that `penstock check` reads.\n\
        pluginConfig:\n";
    module += &block(policy, 2);
    let spec = match plugin {
        PluginObject::WasmPlugin => indented(&module, 2),
        PluginObject::TrafficExtension => format!("  wasm:\n{}", indented(&module, 4)),
    };
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\n{}spec:\n  selector:\n    matchLabels: {{{}: {}}}\n{spec}",
        plan.metadata(suffix),
        scalar(selector.0),
        scalar(selector.1),
    )
}

fn virtual_service(plan: &Plan<'_>, catch_all: &RouteService) -> String {
    let hosts: Vec<String> = plan.hosts.iter().map(|host| scalar(host)).collect();
    let hosts = hosts.join(", ");
    let mut text = format!(
        "# One entry for each route that the policy names, and one without a condition, last: it takes requests for which the\n\
         # policy names no route. The header comes from the plugin alone: one that a client sends is removed.\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\n{}spec:\n  hosts: [{hosts}]\n  gateways: [{}]\n  http:\n",
        plan.metadata(""),
        scalar(&plan.gateway),
    );
    for service in &plan.routes {
        text += &format!(
            "  - name: {name}\n    match:\n    - headers: {{{header}: {{exact: {name}}}}}\n    route:\n    - destination: {to}\n",
            name = scalar(&service.route),
            header = scalar(&plan.header),
            to = destination(service),
        );
    }
    let name = free("default", |name| plan.routes.iter().any(|service| service.route == name));
    text + &format!("  - name: {}\n    route:\n    - destination: {}\n", scalar(&name), destination(catch_all))
}

fn destination(service: &RouteService) -> String {
    let subset = service.subset.as_ref().map(|subset| format!(", subset: {}", scalar(subset))).unwrap_or_default();
    let port = service.port.map(|port| format!(", port: {{number: {port}}}")).unwrap_or_default();
    format!("{{host: {}{port}{subset}}}", scalar(&full_host(service)))
}

/// The fully qualified name, because short names belong to the namespace of the object, which may be a different one.
fn full_host(service: &RouteService) -> String {
    match service.object() {
        Some((name, Some(namespace))) => format!("{name}.{namespace}.svc.cluster.local"),
        _ => service.host.clone(),
    }
}

fn destination_rules(plan: &Plan<'_>) -> String {
    let mut subsets: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for service in plan.routes.iter().chain(&plan.catch_all) {
        if let Some(subset) = &service.subset {
            let of_host = subsets.entry(full_host(service)).or_default();
            if !of_host.contains(&subset.as_str()) {
                of_host.push(subset);
            }
        }
    }
    let rules = subsets.iter().enumerate().map(|(i, (host, subsets))| {
        let number = if i == 0 { String::new() } else { format!("-{}", i + 1) };
        let subsets: String = subsets
            .iter()
            .map(|subset| format!("  - {{name: {subset}, labels: {{version: {subset}}}}}\n", subset = scalar(subset)))
            .collect();
        format!(
            "# The subsets: the pods with these labels.\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n{}spec:\n  \
             host: {}\n  subsets:\n{subsets}",
            plan.metadata(&number),
            scalar(host)
        )
    });
    rules.collect::<Vec<_>>().join("---\n")
}

/// Declares the external hosts, so that the mesh knows them under REGISTRY_ONLY. Wildcards need no address; names are
/// resolved.
fn service_entry(plan: &Plan<'_>) -> Option<String> {
    let egress = plan.documents.egress.as_ref()?;
    let mut hosts: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    let mut known: HashSet<String> = HashSet::new();
    for to in egress.rules.0.iter().flat_map(|rule| &rule.to.0) {
        if let DestinationTarget::Host(host) = &to.target {
            let of_kind = hosts.entry(host.0.wildcard).or_default();
            let name = if host.0.wildcard { format!("*.{}", host.0.name) } else { host.0.name.to_string() };
            if known.insert(name.clone()) {
                of_kind.push(name);
            }
        }
    }
    let entries: Vec<String> = hosts
        .iter()
        .map(|(star, hosts)| {
            let hosts: Vec<String> = hosts.iter().map(|host| scalar(host)).collect();
            let (suffix, resolution) = if *star { ("-egress-stars", "NONE") } else { ("-egress", "DNS") };
            format!(
                "# The hosts of the allowlist: with REGISTRY_ONLY the mesh lets nothing else out.\n\
                 apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n{}spec:\n  hosts: [{}]\n  location: MESH_EXTERNAL\n  \
                 ports:\n  - {{number: 443, name: tls, protocol: TLS}}\n  - {{number: 80, name: http, protocol: HTTP}}\n  \
                 resolution: {resolution}\n",
                plan.metadata(suffix),
                hosts.join(", "),
            )
        })
        .collect();
    (!entries.is_empty()).then(|| entries.join("---\n"))
}
