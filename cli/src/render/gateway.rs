//! Renders for Envoy Gateway: the plugin on the Gateway, HTTPRoutes that match the route header, and a Gateway for
//! egress.

use std::net::IpAddr;

use penstock_policy::document::Node;

use super::names::ObjectNames;
use super::plan::Plan;
use super::service::RouteService;
use super::text::RenderedFile;
use crate::yaml_text::{block, scalar};

pub fn manifests(plan: &Plan<'_>) -> anyhow::Result<Vec<RenderedFile>> {
    let mut manifests = Vec::new();
    if plan.args.native {
        manifests.push(RenderedFile { file: "envoy-proxy.yaml", text: native_proxy(plan) });
    }
    if let Some(policy) = &plan.ingress {
        let image = &plan.image;
        let text = format!(
            "# The policy is attached to the Gateway and not to an HTTPRoute, because it decides a request before the route is chosen.\n{}",
            extension_policy(plan, "", &plan.gateway, image, plan.args.sha256.as_deref(), policy)
        );
        manifests.push(RenderedFile { file: "extension-policy.yaml", text });
        if let (false, Some(catch_all)) = (plan.routes.is_empty(), &plan.catch_all) {
            manifests.push(RenderedFile { file: "http-route.yaml", text: http_routes(plan, catch_all)? });
        }
        manifests.push(RenderedFile { file: "client-traffic-policy.yaml", text: client_traffic_policy(plan) });
    }
    if let Some(policy) = &plan.egress {
        manifests.push(RenderedFile { file: "egress.yaml", text: egress(plan, policy) });
    }
    Ok(manifests)
}

fn extension_policy(
    plan: &Plan<'_>,
    suffix: &str,
    gateway: &str,
    image: &str,
    sha256: Option<&str>,
    policy: &Node,
) -> String {
    if plan.args.native {
        return native_extension_policy(plan, suffix, gateway, policy);
    }
    let image = image.strip_prefix("oci://").unwrap_or(image);
    let digest = sha256.map(|digest| format!("        sha256: \"{digest}\"\n")).unwrap_or_default();
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\n{}spec:\n  targetRefs:\n  \
         - {{group: gateway.networking.k8s.io, kind: Gateway, name: {}}}\n  wasm:\n  - name: {}\n    \
         # The default, written out: with true, requests would pass unfiltered when the module or the policy is broken.\n    \
         failOpen: false\n    code:\n      type: Image\n      image:\n        url: {}\n{digest}    \
         # The policy, as in the file that `penstock check` reads.\n    config:\n{}",
        plan.metadata(suffix),
        scalar(gateway),
        // Two plugins with the same name would share their metrics.
        scalar(&format!("{}{suffix}", plan.args.name)),
        scalar(image),
        block(policy, 6),
    )
}

/// The same for the native body, whose library an EnvoyProxy registers.
fn native_extension_policy(plan: &Plan<'_>, suffix: &str, gateway: &str, policy: &Node) -> String {
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\n{}spec:\n  targetRefs:\n  \
         - {{group: gateway.networking.k8s.io, kind: Gateway, name: {}}}\n  dynamicModule:\n  # As the EnvoyProxy calls it.\n  - name: penstock\n    \
         # The module, and the plugin's name: two plugins of one name share their metrics and limits.\n    \
         filterName: {}\n    \
         # The policy, as in the file that `penstock check` reads.\n    config:\n{}",
        plan.metadata(suffix),
        scalar(gateway),
        scalar(&format!("{}/{}{suffix}", if suffix.is_empty() { "suite" } else { "egress-allowlist" }, plan.args.name)),
        block(policy, 6),
    )
}

/// Allows the proxies of a Gateway to load the library, which their image must contain.
fn native_proxy(plan: &Plan<'_>) -> String {
    format!(
        "# For whoever runs the proxies: a library runs with all of Envoy's rights. Name this object in the Gateway's\n\
         # `infrastructure.parametersRef`, or in the GatewayClass. The library comes with the proxy's image, an image volume or an\n\
         # init container: see docs/native.md.\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyProxy\n{}spec:\n  dynamicModules:\n  - name: penstock\n    \
         source: {{type: Local, local: {{path: /etc/penstock/libpenstock.so}}}}\n",
        plan.metadata(""),
    )
}

/// The maximum number of rules in one HTTPRoute.
const MOST_RULES: usize = 16;
/// The maximum number of hosts of one HTTPRoute.
const MOST_HOSTS: usize = 16;

/// One rule for each route. If there are too many rules for one HTTPRoute, there are several; their order does not
/// matter, because each rule matches a different value of the header, and a rule with a match takes precedence over the
/// one without.
fn http_routes(plan: &Plan<'_>, catch_all: &RouteService) -> anyhow::Result<String> {
    // Rule names must be unique labels.
    let names = ObjectNames::new(plan.routes.iter().map(|service| service.route.as_str()), &["default-route"]);
    let mut rules = Vec::new();
    let mut grants: Vec<&str> = Vec::new();
    for service in &plan.routes {
        rules.push(format!(
            "  - name: {}\n    matches:\n    - headers: [{{name: {}, value: {}}}]\n    backendRefs:\n    - {}\n",
            scalar(&names.of(&service.route)),
            scalar(&plan.header),
            scalar(&service.route),
            backend(plan, service, &mut grants)?,
        ));
    }
    rules
        .push(format!("  - name: default-route\n    backendRefs:\n    - {}\n", backend(plan, catch_all, &mut grants)?));

    let mut texts = Vec::new();
    for hosts in hostnames(plan)? {
        for rules in rules.chunks(MOST_RULES) {
            let (about, suffix) = match texts.len() {
                0 => (
                    "# One rule for each route that the policy names, and one without a condition: without it a request for which the policy\n\
                     # names no route would be answered 404 before the filter sees it.\n",
                    String::new(),
                ),
                number => (
                    "# More of them: an HTTPRoute has at most 16 rules, for at most 16 hosts.\n",
                    format!("-{}", number + 1),
                ),
            };
            texts.push(format!(
                "{about}apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{}spec:\n  parentRefs:\n  - name: {}\n{hosts}  rules:\n{}",
                plan.metadata(&suffix),
                scalar(&plan.gateway),
                rules.concat(),
            ));
        }
    }
    texts.extend(grants.iter().map(|namespace| {
        format!(
            "# Lets the routes lead to services of another namespace.\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata:\n  name: {}\n  namespace: {}\nspec:\n  from:\n  - {{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {}}}\n  \
             to:\n  - {{group: \"\", kind: Service}}\n",
            plan.args.name,
            scalar(namespace),
            scalar(&plan.namespace),
        )
    }));
    Ok(texts.join("---\n"))
}

/// The fields `hostnames` that together have every host; a route without one is for every host of the Gateway.
fn hostnames(plan: &Plan<'_>) -> anyhow::Result<Vec<String>> {
    if plan.hosts.iter().any(|host| host == "*") {
        return Ok(vec![String::new()]);
    }
    if let Some(host) = plan.hosts.iter().find(|host| host.parse::<IpAddr>().is_ok()) {
        anyhow::bail!(
            "--host {host}: an HTTPRoute has no addresses as hosts; set --host '*' for every host of the gateway"
        );
    }
    let hosts: Vec<String> = plan.hosts.iter().map(|host| scalar(host)).collect();
    Ok(hosts.chunks(MOST_HOSTS).map(|hosts| format!("  hostnames: [{}]\n", hosts.join(", "))).collect())
}

/// A reference to a Service; records the namespaces that must allow it.
fn backend<'s>(plan: &Plan<'_>, service: &'s RouteService, grants: &mut Vec<&'s str>) -> anyhow::Result<String> {
    let Some((name, namespace)) = service.object() else {
        anyhow::bail!(
            "route `{}` goes to `{}`, which is no Service of the cluster: create a Backend for it (Envoy Gateway's API), or \
             set --service {}=NAME.NAMESPACE:PORT",
            service.route,
            service.host,
            service.route
        );
    };
    let namespace = namespace.filter(|name| *name != plan.namespace);
    if let Some(namespace) = namespace.filter(|name| !grants.contains(name)) {
        grants.push(namespace);
    }
    let namespace = namespace.map(|name| format!(", namespace: {}", scalar(name))).unwrap_or_default();
    Ok(format!("{{name: {}{namespace}, port: {}}}", scalar(name), service.port.unwrap_or(80)))
}

fn client_traffic_policy(plan: &Plan<'_>) -> String {
    format!(
        "# One form of a path for policy, routes and upstream, and no header that an upstream may take for another.\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\n{}spec:\n  targetRefs:\n  \
         - {{group: gateway.networking.k8s.io, kind: Gateway, name: {}}}\n  path:\n    escapedSlashesAction: UnescapeAndRedirect\n  \
         headers:\n    withUnderscoresAction: RejectRequest\n",
        plan.metadata(""),
        scalar(&plan.gateway),
    )
}

fn egress(plan: &Plan<'_>, policy: &Node) -> String {
    let gateway = format!("{}-egress", plan.args.name);
    format!(
        "# Where requests leave: workloads use this Gateway as their HTTP proxy for the outside.\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n{metadata}spec:\n  gatewayClassName: eg\n  listeners:\n  \
         - {{name: http, port: 8080, protocol: HTTP}}\n---\n\
         # The allowlist.\n{extension}---\n\
         # Where the request asks to go: with TLS an authority without a port means 443, else 80, as the policy's `defaultPort`.\n\
         # Envoy Gateway needs `extensionApis: {{enableBackend: true}}` for it.\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\n{metadata}spec:\n  type: DynamicResolver\n{tls}---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{metadata}spec:\n  parentRefs:\n  - name: {name}\n  rules:\n  \
         - backendRefs:\n    - {{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}\n",
        metadata = plan.metadata("-egress"),
        extension =
            extension_policy(plan, "-egress", &gateway, &plan.egress_image, plan.egress_sha256.as_deref(), policy),
        name = scalar(&gateway),
        tls = if plan.default_port == 443 { "  tls: {wellKnownCACertificates: System}\n" } else { "" },
    )
}
