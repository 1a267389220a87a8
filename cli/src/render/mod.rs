//! `penstock render`: the manifests that put a policy to work, ready to apply.

mod envoy;
mod gateway;
mod istio;
mod kustomize;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use penstock_policy::document::Node;

use crate::documents::Documents;
use crate::output::Output;
use crate::policy_file::PolicyFile;

/// Print the complete manifests for a policy.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock render policy.yaml --for istio --namespace istio-system --gateway shop | kubectl apply -f -\n  \
    penstock render policy.yaml --for envoy-gateway --namespace shop --gateway shop --service beta=shop-beta:8080\n  \
    penstock render policy.yaml --for envoy --service stable=127.0.0.1:8081 > envoy.yaml\n  \
    penstock render policy.yaml --for kustomize --output base\n\n\
    Sections are attached where they belong: egress where requests leave, everything else where they come in.\n\
    Routes go to the service of the same name, port 8080, unless --service says otherwise."
)]
pub struct Args {
    /// The policy, YAML or JSON.
    policy: PathBuf,
    /// The host that will run it.
    #[arg(long = "for", value_enum, value_name = "HOST")]
    target: Target,
    /// What the objects are called.
    #[arg(long, default_value = "penstock")]
    name: String,
    /// Their namespace.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The image of the module that runs where requests come in; `oci://` may stand before it.
    #[arg(long, default_value = concat!("registry.example.com/penstock/suite:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The image of the module that runs where requests leave.
    #[arg(long, default_value = concat!("registry.example.com/penstock/egress-allowlist:", env!("CARGO_PKG_VERSION")))]
    egress_image: String,
    /// The digest of `--image`: with it, what runs cannot change behind your back.
    #[arg(long, value_parser = sha256)]
    sha256: Option<String>,
    /// The Gateway that the routes belong to: Istio's, or the Gateway API's.
    #[arg(long, default_value = "gateway")]
    gateway: String,
    /// The host names that the routes are for [default: all].
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Istio: the label of the pods that run the plugin.
    #[arg(long, default_value = "istio=ingressgateway", value_parser = label)]
    selector: (String, String),
    /// Where a route goes: ROUTE=HOST:PORT, for Istio also ROUTE=HOST:PORT/SUBSET. The route `default` is for requests
    /// that no other takes.
    #[arg(long = "service", value_name = "ROUTE=HOST:PORT")]
    services: Vec<Service>,
    /// Write files into this folder instead of printing; needed for kustomize.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// The hosts.
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

/// Where a route goes.
#[derive(Clone, Debug)]
struct Service {
    route: String,
    host: String,
    port: u16,
    subset: Option<String>,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "write ROUTE=HOST:PORT, such as beta=shop-beta:8080".to_owned();
        let (route, place) = text.split_once('=').ok_or_else(form)?;
        let (place, subset) = match place.split_once('/') {
            Some((place, subset)) => (place, Some(subset.to_owned())),
            None => (place, None),
        };
        let (host, port) = place.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(form)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if route.is_empty() || host.is_empty() || !host.bytes().all(plain) {
            return Err(form());
        }
        Ok(Service { route: route.to_owned(), host: host.to_owned(), port, subset })
    }
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

/// The name of the route that takes what no other does, as `--service` calls it.
const CATCH_ALL: &str = "default";

/// A policy with everything that the manifests say.
struct Plan<'a> {
    args: &'a Args,
    header: String,
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
    /// For requests without a route.
    catch_all: Service,
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
        let plan = Plan::new(self, &policy.node);
        self.check_default_port(&plan)?;
        anyhow::ensure!(
            plan.ingress.is_some() || plan.egress.is_some(),
            "the policy has no section, so there is nothing to render: add routes, canaries, rateLimits or egress"
        );
        let manifests = match self.target {
            Target::Envoy => vec![Manifest { file: "envoy.yaml", text: envoy::bootstrap(&plan) }],
            Target::Istio => istio::manifests(&plan, istio::Plugin::WasmPlugin),
            Target::IstioTrafficextension => istio::manifests(&plan, istio::Plugin::TrafficExtension),
            Target::EnvoyGateway => gateway::manifests(&plan),
            Target::Kustomize => kustomize::base(&plan),
        };
        match &self.output {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(|error| anyhow::anyhow!("{}: {error}", folder.display()))?;
                for manifest in &manifests {
                    let path = folder.join(manifest.file);
                    fs::write(&path, &manifest.text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
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
    fn new(args: &'a Args, policy: &Node) -> Plan<'a> {
        let documents = Documents::of(policy);
        let with = |sections: &[&str]| {
            let Node::Map(entries) = policy else { return None };
            let has = entries.iter().any(|(name, _)| sections.contains(&name.as_str()));
            let kept = |name: &str| name == "settings" || sections.contains(&name);
            has.then(|| Node::Map(entries.iter().filter(|(name, _)| kept(name)).cloned().collect()))
        };
        let service = |route: &str| {
            let said = args.services.iter().find(|service| service.route == route).cloned();
            said.unwrap_or_else(|| Service {
                route: route.to_owned(),
                host: object_name(route),
                port: 8080,
                subset: None,
            })
        };
        let default = documents.routes.as_ref().and_then(|routes| routes.default.as_ref());
        let catch_all = match default {
            Some(default) if !args.services.iter().any(|service| service.route == CATCH_ALL) => service(&default.0),
            _ => service(CATCH_ALL),
        };
        let said = documents.egress.as_ref().and_then(|egress| egress.default_port);
        let default_port = said.map_or(443, |port| port.0);
        let routes = names(&documents).iter().map(|name| service(name)).collect();
        Plan {
            args,
            header: documents.settings.route_header.0.to_string(),
            ingress: with(&["rateLimits", "routes", "canaries"]),
            egress: with(&["egress"]).map(|policy| with_default_port(policy, default_port)),
            default_port,
            documents,
            routes,
            catch_all,
        }
    }

    /// `metadata` of an object, with `suffix` behind its name.
    fn metadata(&self, suffix: &str) -> String {
        format!("metadata:\n  name: {}{suffix}\n  namespace: {}\n", self.args.name, self.args.namespace)
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
