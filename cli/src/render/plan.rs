//! A policy with everything that the manifests contain.

use std::collections::HashSet;

use anyhow::{bail, ensure};
use penstock_policy::Section;
use penstock_policy::document::Node;

use super::args::{Args, RenderTarget};
use super::places::RoutePlaces;
use super::service::{CATCH_ALL, RouteService};
use crate::documents::Documents;
use crate::import::UNROUTED;
use crate::manifests::{NativePlatform, module_of, unknown_natively};
use crate::place::Place;

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A policy with everything that the manifests contain.
pub(super) struct Plan<'a> {
    pub(super) args: &'a Args,
    pub(super) header: String,
    /// The namespace of the objects.
    pub(super) namespace: String,
    /// The Gateway; empty where none is needed.
    pub(super) gateway: String,
    /// The host names that the routes are for, once each; only `*` when that is among them.
    pub(super) hosts: Vec<String>,
    /// The images of the modules, where the platform loads them.
    pub(super) image: String,
    pub(super) egress_image: String,
    pub(super) egress_sha256: Option<String>,
    /// The inbound part of the policy, if there is one.
    pub(super) ingress: Option<Node>,
    /// The outbound part of the policy, if there is one, with its `defaultPort`.
    pub(super) egress: Option<Node>,
    /// The port of an outbound request whose authority has none: 443 with TLS, unless the policy sets another.
    pub(super) default_port: u32,
    /// The allowed destinations, for other parts of the manifests.
    pub(super) documents: Documents,
    /// Every route that the policy names, once each, in the policy's order.
    pub(super) routes: Vec<RouteService>,
    /// The default route; `None` when the policy does not route.
    pub(super) catch_all: Option<RouteService>,
}

/// The section `egress` with an explicit default port.
pub(super) fn with_default_port(policy: Node, port: u32) -> Node {
    let Node::Map(mut sections) = policy else { return policy };
    for (name, section) in &mut sections {
        if let Node::Map(fields) = section
            && name == "egress"
            && !fields.iter().any(|(field, _)| field == "defaultPort")
        {
            fields.insert(0, ("defaultPort".into(), Node::Integer(port.into())));
        }
    }
    Node::Map(sections)
}

impl<'a> Plan<'a> {
    pub(super) fn new(args: &'a Args, policy: &Node) -> anyhow::Result<Plan<'a>> {
        let documents = Documents::of(policy);
        let (ingress, egress) = (Place::Ingress.part(policy), Place::Egress.part(policy));
        ensure!(
            ingress.is_some() || egress.is_some(),
            "the policy has no section, so there is nothing to render: add routes, canaries, rateLimits or egress"
        );
        let names = names(&documents);
        let is_istio = matches!(args.target, RenderTarget::Istio | RenderTarget::IstioTrafficextension);
        let is_mesh = is_istio || args.target == RenderTarget::EnvoyGateway;
        ensure!(
            !args.native || matches!(args.target, RenderTarget::Envoy | RenderTarget::EnvoyGateway),
            "--native is for envoy and envoy-gateway: Istio has no API for dynamic modules, and kustomize mounts the images of \
             wasm modules"
        );
        let platform = match args.target {
            RenderTarget::EnvoyGateway => NativePlatform::EnvoyGateway,
            _ => NativePlatform::Envoy,
        };
        if args.native
            && let Some((unknown, right)) = unknown_natively(policy, platform)
        {
            bail!("{unknown}; {right}");
        }
        ensure!(
            args.target != RenderTarget::Kustomize || args.name.starts_with(|c: char| c.is_ascii_lowercase()),
            "--name {}: the name of a Service begins with a letter",
            args.name
        );
        let loads_images = (is_mesh || args.target == RenderTarget::Kustomize) && !args.native;

        let how = "`penstock image push` puts the modules there, see docs/distribution.md";
        let image = match (&args.image, &args.egress_image) {
            (Some(image), _) => image.clone(),
            (None, _) if loads_images && ingress.is_some() => {
                bail!("set the image that runs the policy: --image oci://REGISTRY/penstock/suite:{VERSION}; {how}")
            }
            (None, egress) => egress.clone().unwrap_or_default(),
        };
        let runs_egress = module_of(&image).is_none_or(|module| module.runs(Section::Egress));
        let (egress_image, egress_sha256) = match &args.egress_image {
            Some(image) => (image.clone(), args.egress_sha256.clone()),
            None if loads_images && egress.is_some() && (image.is_empty() || !runs_egress) => {
                bail!(
                    "set the image that runs `egress`: --egress-image oci://REGISTRY/penstock/egress-allowlist:{VERSION}; {how}"
                )
            }
            None => (image.clone(), args.sha256.clone()),
        };
        let namespace = match &args.namespace {
            Some(namespace) => namespace.clone(),
            None if is_istio => {
                bail!("set the namespace of the gateway's Pods, which the plugin selects: --namespace istio-system")
            }
            None => "default".to_owned(),
        };
        if is_mesh && ingress.is_some() && !names.is_empty() {
            ensure!(
                !args.hosts.is_empty(),
                "set the hosts of the routes: --host shop.example.com (or --host '*' for every host of the gateway, \
                 which takes requests from all other routes there)"
            );
        }
        let needs_gateway =
            args.target == RenderTarget::EnvoyGateway && ingress.is_some() || is_istio && !names.is_empty();
        let gateway = match &args.gateway {
            Some(gateway) => gateway.clone(),
            None if needs_gateway => bail!("set the Gateway: --gateway NAME"),
            None => String::new(),
        };

        let places = RoutePlaces::new(args, &names)?;
        ensure!(
            places.has(UNROUTED) || !names.iter().any(|name| name == UNROUTED),
            "the policy has the route `{UNROUTED}`, by which `penstock import` marks requests that nothing in a policy \
             decides: put a route in its place, or set their destination with --service {UNROUTED}=HOST:PORT"
        );
        let routes = names.iter().map(|name| places.of(name)).collect::<anyhow::Result<Vec<RouteService>>>()?;
        let default = documents.routes.as_ref().and_then(|routes| routes.default.as_ref());
        let catch_all = match default {
            _ if places.has(CATCH_ALL) => Some(places.of(CATCH_ALL)?),
            // It is among the names.
            Some(default) => routes.iter().find(|service| service.route == *default.0).cloned(),
            None if names.is_empty() && is_mesh => None,
            None if ingress.is_none() => None,
            None => bail!(
                "the policy has no `routes.default`: set the destination of requests without a route: --service default=HOST:PORT"
            ),
        };
        let said = documents.egress.as_ref().and_then(|egress| egress.default_port);
        let default_port = said.map_or(443, |port| port.0);
        let egress = egress.map(|policy| with_default_port(policy, default_port));
        let header = documents.settings.route_header.0.to_string();
        Ok(Plan {
            args,
            header,
            namespace,
            gateway,
            hosts: hosts(&args.hosts),
            image,
            egress_image,
            egress_sha256,
            ingress,
            egress,
            default_port,
            documents,
            routes,
            catch_all,
        })
    }

    /// The `metadata` of an object, with `suffix` after its name.
    pub(super) fn metadata(&self, suffix: &str) -> String {
        format!("metadata:\n  name: {}{suffix}\n  namespace: {}\n", self.args.name, self.namespace)
    }
}

/// The hosts once each; `*` takes the requests of all others.
fn hosts(said: &[String]) -> Vec<String> {
    if said.iter().any(|host| host == "*") {
        return vec!["*".to_owned()];
    }
    let mut known = HashSet::new();
    said.iter().map(|host| host.to_ascii_lowercase()).filter(|host| known.insert(host.clone())).collect()
}

/// Every route that a policy names, once each, in order.
pub(super) fn names(documents: &Documents) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut known: HashSet<String> = HashSet::new();
    let mut add = |name: &str| {
        if known.insert(name.to_owned()) {
            names.push(name.to_owned());
        }
    };
    if let Some(routes) = &documents.routes {
        for rule in &routes.rules.0 {
            if let Some(route) = &rule.route {
                add(&route.0);
            }
            if let Some(failover) = &rule.failover {
                add(&failover.route.0);
            }
        }
    }
    for variant in documents.canaries.iter().flat_map(|canary| &canary.variants.0) {
        add(variant.route.as_ref().map_or(&variant.name.0, |route| &route.0));
    }
    if let Some(default) = documents.routes.as_ref().and_then(|routes| routes.default.as_ref()) {
        add(&default.0);
    }
    names
}
