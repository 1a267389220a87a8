//! For Envoy Gateway: the plugin on the Gateway, HTTPRoutes behind the header, and a Gateway for what leaves.

use penstock_policy::document::Node;

use super::{Manifest, Plan, Service, object_name};
use crate::yaml_text::{block, scalar};

pub fn manifests(plan: &Plan<'_>) -> Vec<Manifest> {
    let mut manifests = Vec::new();
    if let Some(policy) = &plan.ingress {
        let image = &plan.args.image;
        let text = format!(
            "# The policy, on the Gateway and not on an HTTPRoute: a request must have met it before it has a route.\n{}",
            extension_policy(plan, "", &plan.args.gateway, image, plan.args.sha256.as_deref(), policy)
        );
        manifests.push(Manifest { file: "extension-policy.yaml", text });
        manifests.push(Manifest { file: "http-route.yaml", text: http_route(plan) });
        manifests.push(Manifest { file: "client-traffic-policy.yaml", text: client_traffic_policy(plan) });
    }
    if let Some(policy) = &plan.egress {
        manifests.push(Manifest { file: "egress.yaml", text: egress(plan, policy) });
    }
    manifests
}

fn extension_policy(
    plan: &Plan<'_>,
    suffix: &str,
    gateway: &str,
    image: &str,
    sha256: Option<&str>,
    policy: &Node,
) -> String {
    let image = image.strip_prefix("oci://").unwrap_or(image);
    let digest = sha256.map(|digest| format!("        sha256: \"{digest}\"\n")).unwrap_or_default();
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\n{}spec:\n  targetRefs:\n  \
         - {{group: gateway.networking.k8s.io, kind: Gateway, name: {}}}\n  wasm:\n  - name: penstock\n    \
         # The default, said aloud: with true, requests would pass unfiltered when the module or the policy is broken.\n    \
         failOpen: false\n    code:\n      type: Image\n      image:\n        url: {}\n{digest}    \
         # The policy, as in the file that `penstock check` reads.\n    config:\n{}",
        plan.metadata(suffix),
        scalar(gateway),
        scalar(image),
        block(policy, 6),
    )
}

fn http_route(plan: &Plan<'_>) -> String {
    let mut text = format!(
        "# One rule for each route that the policy names, and one without a condition: without it a request for which the policy\n\
         # names no route would be answered 404 before the filter sees it.\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{}spec:\n  parentRefs:\n  - name: {}\n",
        plan.metadata(""),
        scalar(&plan.args.gateway),
    );
    if !plan.args.hosts.is_empty() {
        let hosts: Vec<String> = plan.args.hosts.iter().map(|host| scalar(host)).collect();
        text += &format!("  hostnames: [{}]\n", hosts.join(", "));
    }
    text += "  rules:\n";
    let mut names: Vec<String> = Vec::new();
    for service in &plan.routes {
        // The API takes a rule's name only once, and only as a label.
        let mut name = object_name(&service.route);
        while names.contains(&name) || name == "default-route" {
            name += "-2";
        }
        text += &format!(
            "  - name: {}\n    matches:\n    - headers: [{{name: {}, value: {}}}]\n    backendRefs:\n    - {}\n",
            scalar(&name),
            scalar(&plan.header),
            scalar(&service.route),
            backend(service),
        );
        names.push(name);
    }
    text + &format!("  - name: default-route\n    backendRefs:\n    - {}\n", backend(&plan.catch_all))
}

fn backend(service: &Service) -> String {
    // `name.namespace.svc…` would need a ReferenceGrant as well.
    let name = service.host.split('.').next().unwrap_or_default();
    let namespace = service.host.split('.').nth(1).map(|name| format!(", namespace: {}", scalar(name)));
    format!("{{name: {}{}, port: {}}}", scalar(name), namespace.unwrap_or_default(), service.port)
}

fn client_traffic_policy(plan: &Plan<'_>) -> String {
    format!(
        "# One reading of a path for policy, routes and upstream, and no header that an upstream may take for another.\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\n{}spec:\n  targetRefs:\n  \
         - {{group: gateway.networking.k8s.io, kind: Gateway, name: {}}}\n  path:\n    escapedSlashesAction: UnescapeAndRedirect\n  \
         headers:\n    withUnderscoresAction: RejectRequest\n",
        plan.metadata(""),
        scalar(&plan.args.gateway),
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
         # Envoy Gateway wants `extensionApis: {{enableBackend: true}}` for it.\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\n{metadata}spec:\n  type: DynamicResolver\n{tls}---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{metadata}spec:\n  parentRefs:\n  - name: {name}\n  rules:\n  \
         - backendRefs:\n    - {{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}\n",
        metadata = plan.metadata("-egress"),
        extension = extension_policy(plan, "-egress", &gateway, &plan.args.egress_image, None, policy),
        name = scalar(&gateway),
        tls = if plan.default_port == 443 { "  tls: {wellKnownCACertificates: System}\n" } else { "" },
    )
}
