//! The command line of `penstock render`.

use std::path::PathBuf;

use penstock_policy::document::{At, Context, Decode as _, Node};
use penstock_policy::matching::HostPattern;

use super::names::dns_label;
use super::service::RouteService;
use crate::image::reference::Reference;

/// Print the complete manifests for a policy.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock render policy.yaml --for istio --namespace istio-system --gateway shop/shop --host shop.example.com \\\n      \
    --image oci://ghcr.io/you/penstock/suite:0.1.0 --service-namespace shop | kubectl apply -f -\n  \
    penstock render policy.yaml --for envoy-gateway --namespace shop --gateway shop --host shop.example.com \\\n      \
    --image ghcr.io/you/penstock/suite:0.1.0 --service beta=shop-beta:8080\n  \
    penstock render policy.yaml --for envoy --service stable=127.0.0.1:8081 > envoy.yaml\n  \
    penstock render policy.yaml --for kustomize --image ghcr.io/you/penstock/suite:0.1.0 --output base\n  \
    penstock import --report report.json ingress.yaml > policy.yaml; penstock render policy.yaml --report report.json …\n\n\
    The section `egress` gets a plugin where requests leave, and all other sections get one where requests come in.\n\
    A route without --service or --report leads to the Service with its own name on port 8080; standard error lists\n\
    these assumptions."
)]
pub struct Args {
    /// A policy, a manifest or an Envoy configuration.
    pub(super) policy: PathBuf,
    /// The platform that will run the policy.
    #[arg(long = "for", visible_alias = "target", value_enum, value_name = "PLATFORM")]
    pub(super) target: RenderTarget,
    /// Run the policy in the native body, in Envoy's own process instead of a sandbox. For envoy and envoy-gateway; see
    /// docs/native.md.
    #[arg(long)]
    pub(super) native: bool,
    /// The name of the objects.
    #[arg(long, default_value = "penstock", value_parser = object)]
    pub(super) name: String,
    /// The namespace of the objects; for Istio, the namespace of the gateway's Pods, which is required [default:
    /// default].
    #[arg(long, value_parser = namespace)]
    pub(super) namespace: Option<String>,
    /// The image of the module that runs where requests come in. The prefix `oci://` is allowed.
    #[arg(long, value_parser = image)]
    pub(super) image: Option<String>,
    /// The image of the module that runs where requests leave [default: --image].
    #[arg(long, value_parser = image)]
    pub(super) egress_image: Option<String>,
    /// The digest of `--image`, to pin the image by digest.
    #[arg(long, value_parser = sha256)]
    pub(super) sha256: Option<String>,
    /// The digest of `--egress-image`, to pin the image by digest.
    #[arg(long, value_parser = sha256, requires = "egress_image")]
    pub(super) egress_sha256: Option<String>,
    /// The Gateway of the routes: of Istio (NAMESPACE/NAME, or NAME in the same namespace), or of the Gateway API.
    #[arg(long, value_parser = gateway)]
    pub(super) gateway: Option<String>,
    /// A host name of the routes; may be repeated. `*` matches every host of the gateway, and takes requests away from
    /// existing routes.
    #[arg(long = "host", value_name = "HOST", value_parser = host)]
    pub(super) hosts: Vec<String>,
    /// Istio: the label of the Pods that run the plugin.
    #[arg(long, default_value = "istio=ingressgateway", value_parser = label)]
    pub(super) selector: (String, String),
    /// The destination of a route: ROUTE=HOST:PORT, for Istio also ROUTE=HOST:PORT/SUBSET; may be repeated. The route
    /// `default` is for requests that no rule matches.
    #[arg(long = "service", value_name = "ROUTE=HOST:PORT")]
    pub(super) services: Vec<RouteService>,
    /// The namespace of Services that are named without one; required for Istio [default: the namespace of the
    /// objects].
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace)]
    pub(super) service_namespace: Option<String>,
    /// The destinations of routes, as written by `penstock import --report`. --service takes precedence.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Write files into this folder instead of printing; required for kustomize.
    #[arg(long, short, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
}

/// The platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum RenderTarget {
    /// A bootstrap for plain Envoy.
    Envoy,
    /// Istio: WasmPlugin, VirtualService, and the objects that egress needs.
    Istio,
    /// The same with TrafficExtension (Istio 1.30 and later).
    IstioTrafficextension,
    /// Envoy Gateway: EnvoyExtensionPolicy and HTTPRoutes.
    EnvoyGateway,
    /// A kustomize base: plain Envoy as a Deployment, with a rollout for each new policy.
    Kustomize,
}

/// Checks the form of an image's name; a digest may replace the tag.
pub(super) fn image(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("oci://").unwrap_or(text);
    let (name, digest) = match name.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (name, None),
    };
    if let Some(digest) = digest {
        sha256(digest).map_err(|_| format!("{digest:?} is not a digest: write @sha256: and 64 hexadecimal digits"))?;
    }
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let whole = if digest.is_some() && !has_tag { format!("{name}:digest") } else { name.to_owned() };
    whole.parse::<Reference>().map(|_| text.to_owned())
}

/// Checks the name of the objects: the longest suffix (`-egress-stars`) must fit, too.
fn object(text: &str) -> Result<String, String> {
    dns_label(text, 50)
}

fn namespace(text: &str) -> Result<String, String> {
    dns_label(text, 63)
}

fn gateway(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 2 {
        return Err("write NAME, or NAMESPACE/NAME".to_owned());
    }
    for label in parts.iter().flat_map(|part| part.split('.')) {
        dns_label(label, 63)?;
    }
    Ok(text.to_owned())
}

fn host(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let mut context = Context::new(String::new(), 0);
    match HostPattern::decode(&Node::String(text.to_owned()), &At::Root, &mut context) {
        Some(_) => Ok(text.to_owned()),
        None => Err(context.into_problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

pub(super) fn sha256(text: &str) -> Result<String, String> {
    let digest = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let valid = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then_some(digest).ok_or_else(|| "write 64 hexadecimal digits".to_owned())
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write KEY=VALUE".to_owned())
}
