//! `penstock render`: the manifests that put a policy to work, ready to apply.

mod envoy;
mod gateway;
mod istio;
mod kustomize;
mod service;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use penstock_policy::Section;
use penstock_policy::document::Node;

use crate::documents::Documents;
use crate::image::reference::Reference;
use crate::manifests::module_of;
use crate::output::Output;
use crate::place::Place;
use crate::policy_file::PolicyFile;
use crate::source;
use service::{CATCH_ALL, Places, Service};

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
    Sections are attached where they belong: egress where requests leave, everything else where they come in.\n\
    A route goes where --service or --report says, else to the service of its own name, port 8080; standard error lists\n\
    what was assumed."
)]
pub struct Args {
    /// The policy: a file of ours, a manifest, an Envoy configuration.
    policy: PathBuf,
    /// The platform that will run it.
    #[arg(long = "for", visible_alias = "target", value_enum, value_name = "PLATFORM")]
    target: Target,
    /// What the objects are called.
    #[arg(long, default_value = "penstock")]
    name: String,
    /// Their namespace; for Istio that of the gateway's pods [default: default, for Istio none].
    #[arg(long)]
    namespace: Option<String>,
    /// The image of the module that runs where requests come in, in your registry; `oci://` may stand before it.
    #[arg(long, value_parser = image)]
    image: Option<String>,
    /// The image of the module that runs where requests leave [default: --image].
    #[arg(long, value_parser = image)]
    egress_image: Option<String>,
    /// The digest of `--image`: pins the image by digest.
    #[arg(long, value_parser = sha256)]
    sha256: Option<String>,
    /// The digest of `--egress-image`.
    #[arg(long, value_parser = sha256, requires = "egress_image")]
    egress_sha256: Option<String>,
    /// The Gateway that the routes belong to: Istio's (NAMESPACE/NAME, or NAME in the same namespace), or the Gateway
    /// API's.
    #[arg(long)]
    gateway: Option<String>,
    /// A host name that the routes are for; several times for several. `*` for all of the gateway's, which takes them
    /// from every route that is there.
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Istio: the label of the pods that run the plugin.
    #[arg(long, default_value = "istio=ingressgateway", value_parser = label)]
    selector: (String, String),
    /// Where a route goes: ROUTE=HOST:PORT, for Istio also ROUTE=HOST:PORT/SUBSET. The route `default` is for requests
    /// that no other takes.
    #[arg(long = "service", value_name = "ROUTE=HOST:PORT")]
    services: Vec<Service>,
    /// The namespace of services that are given without one [default: that of the objects, for Istio none].
    #[arg(long, value_name = "NAMESPACE")]
    service_namespace: Option<String>,
    /// Where routes go, as `penstock import --report` has written it; --service wins.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write files into this folder instead of printing; needed for kustomize.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// The platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// A bootstrap for plain Envoy.
    Envoy,
    /// Istio's WasmPlugin, VirtualService and what egress needs.
    Istio,
    /// The same with Istio's TrafficExtension (Istio 1.30 and later).
    IstioTrafficextension,
    /// Envoy Gateway's EnvoyExtensionPolicy with HTTPRoutes.
    EnvoyGateway,
    /// A kustomize base: plain Envoy as a Deployment that rolls when the policy changes.
    Kustomize,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Checks the form of an image's name; a digest may stand in place of the tag.
fn image(text: &str) -> Result<String, String> {
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

fn sha256(text: &str) -> Result<String, String> {
    let digest = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let valid = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then_some(digest).ok_or_else(|| "write 64 hexadecimal digits".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write KEY=VALUE".to_owned())
}

/// A policy with everything that the manifests say.
struct Plan<'a> {
    args: &'a Args,
    header: String,
    /// The namespace of the objects.
    namespace: String,
    /// The Gateway; empty where none is needed.
    gateway: String,
    /// The images, where the platform loads them.
    image: String,
    egress_image: String,
    egress_sha256: Option<String>,
    /// What runs where requests come in; `None` when the policy says nothing for there.
    ingress: Option<Node>,
    /// What runs where requests leave; it says its `defaultPort`.
    egress: Option<Node>,
    /// The port to which what leaves goes when its authority says none: 443, with TLS, unless the policy has another.
    default_port: u32,
    /// The allowed destinations, for what must know them beside the module.
    documents: Documents,
    /// Every route that the policy names, each once, in the policy's order.
    routes: Vec<Service>,
    /// For requests without a route; `None`: the policy does not route.
    catch_all: Option<Service>,
}

/// One file of the output.
struct Manifest {
    file: &'static str,
    text: String,
}

impl Args {
    /// Prints or writes the manifests.
    ///
    /// # Errors
    /// When the policy is not valid, does nothing, or the output cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let policy = PolicyFile::load(&self.policy)?;
        let plan = Plan::new(self, &policy.node)?;
        self.check_default_port(&plan)?;
        let manifests = match self.target {
            Target::Envoy => vec![Manifest { file: "envoy.yaml", text: envoy::bootstrap(&plan) }],
            Target::Istio => istio::manifests(&plan, istio::Plugin::WasmPlugin),
            Target::IstioTrafficextension => istio::manifests(&plan, istio::Plugin::TrafficExtension),
            Target::EnvoyGateway => gateway::manifests(&plan)?,
            Target::Kustomize => kustomize::base(&plan),
        };
        match &self.output {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(|error| source::unreadable("cannot make", folder, &error))?;
                for manifest in &manifests {
                    let path = folder.join(manifest.file);
                    source::write(&path, &manifest.text)?;
                    writeln!(out, "{}", path.display())?;
                }
            }
            None if self.target == Target::Kustomize => {
                anyhow::bail!("a kustomize base is several files: say where with --output DIR");
            }
            None => {
                let texts: Vec<&str> = manifests.iter().map(|manifest| manifest.text.as_str()).collect();
                out.write_all(texts.join("---\n").as_bytes())?;
            }
        }
        Ok(true)
    }
}

impl Args {
    /// Envoy's dynamic forward proxy knows two ports for an authority without one, and the policy must mean the same.
    fn check_default_port(&self, plan: &Plan<'_>) -> anyhow::Result<()> {
        let is_istio = matches!(self.target, Target::Istio | Target::IstioTrafficextension);
        anyhow::ensure!(
            plan.egress.is_none() || is_istio || matches!(plan.default_port, 443 | 80),
            "egress.defaultPort: {}: an authority without a port goes to 443 (with TLS) or 80 in what `render` makes; \
             write one of them, or list this port in `to` and let clients say it",
            plan.default_port
        );
        Ok(())
    }
}

/// The section `egress` with its default port said.
fn with_default_port(policy: Node, port: u32) -> Node {
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
    fn new(args: &'a Args, policy: &Node) -> anyhow::Result<Plan<'a>> {
        let documents = Documents::of(policy);
        let (ingress, egress) = (Place::Ingress.part(policy), Place::Egress.part(policy));
        ensure!(
            ingress.is_some() || egress.is_some(),
            "the policy has no section, so there is nothing to render: add routes, canaries, rateLimits or egress"
        );
        let names = names(&documents);
        let is_istio = matches!(args.target, Target::Istio | Target::IstioTrafficextension);
        let is_mesh = is_istio || args.target == Target::EnvoyGateway;
        let loads_images = is_mesh || args.target == Target::Kustomize;

        let how = "`penstock image push` puts the modules there, see docs/distribution.md";
        let image = match (&args.image, &args.egress_image) {
            (Some(image), _) => image.clone(),
            (None, _) if loads_images && ingress.is_some() => {
                bail!("say which image runs the policy: --image oci://REGISTRY/penstock/suite:{VERSION}; {how}")
            }
            (None, egress) => egress.clone().unwrap_or_default(),
        };
        let runs_egress = module_of(&image).is_none_or(|module| module.runs(Section::Egress));
        let (egress_image, egress_sha256) = match &args.egress_image {
            Some(image) => (image.clone(), args.egress_sha256.clone()),
            None if loads_images && egress.is_some() && (image.is_empty() || !runs_egress) => {
                bail!(
                    "say which image runs `egress`: --egress-image oci://REGISTRY/penstock/egress-allowlist:{VERSION}; {how}"
                )
            }
            None => (image.clone(), args.sha256.clone()),
        };
        let namespace = match &args.namespace {
            Some(namespace) => namespace.clone(),
            None if is_istio => {
                bail!("say where the gateway's pods are, which the plugin selects: --namespace istio-system")
            }
            None => "default".to_owned(),
        };
        if is_mesh && ingress.is_some() && !names.is_empty() {
            ensure!(
                !args.hosts.is_empty(),
                "say which hosts the routes are for: --host shop.example.com (or --host '*' for every host of the gateway, \
                 which takes requests from all other routes there)"
            );
        }
        let needs_gateway = args.target == Target::EnvoyGateway && ingress.is_some() || is_istio && !names.is_empty();
        let gateway = match &args.gateway {
            Some(gateway) => gateway.clone(),
            None if needs_gateway => bail!("say which Gateway: --gateway NAME"),
            None => String::new(),
        };

        let places = Places::new(args, &names, is_istio)?;
        let routes = names.iter().map(|name| places.of(name)).collect::<anyhow::Result<Vec<Service>>>()?;
        let default = documents.routes.as_ref().and_then(|routes| routes.default.as_ref());
        let catch_all = match default {
            _ if places.has(CATCH_ALL) => Some(places.of(CATCH_ALL)?),
            Some(default) => Some(places.of(&default.0)?),
            None if names.is_empty() && is_mesh => None,
            None if ingress.is_none() => None,
            None => bail!(
                "the policy has no `routes.default`: say where requests without a route go, with --service default=HOST:PORT"
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

    /// `metadata` of an object, with `suffix` behind its name.
    fn metadata(&self, suffix: &str) -> String {
        format!("metadata:\n  name: {}{suffix}\n  namespace: {}\n", self.args.name, self.namespace)
    }
}

/// Every route that a policy names, each once, in order.
fn names(documents: &Documents) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !names.iter().any(|known| known == name) {
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

/// A name that Kubernetes takes (RFC 1123 label) out of a route's name.
fn object_name(route: &str) -> String {
    let name: String =
        route.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(63).collect();
    match name.trim_matches('-') {
        "" => "route".to_owned(),
        name => name.to_owned(),
    }
}

/// Each line of `text` indented by `indent` spaces.
fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    text.lines().map(|line| format!("{pad}{line}\n")).collect()
}
