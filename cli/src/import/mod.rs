//! `penstock import`: converts the configuration of other products to a policy, and reports everything that is not in
//! it.
//!
//! A rule never takes more requests than its source. The sources fill one `table::Table`, which puts their rules in the
//! order in which a proxy evaluates them; what a policy cannot express is left out, with a comment in its place.

mod cilium;
mod counted;
mod destination;
mod draft;
mod gateway;
mod ingress;
mod istio;
mod matching;
pub(crate) mod objects;
mod paths;
mod placed_index;
mod ratelimit;
mod reader;
mod report;
mod smokescreen;
mod table;
mod traefik;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use penstock_policy::document::Node;
use penstock_policy::{Module, check};

use crate::inputs::{self, InputFile};
use crate::manifests;
use crate::output::{Output, count};
use crate::yaml::Located;
use draft::PolicyDraft;
use objects::{Objects, is};
use report::ImportReport;
pub use table::UNROUTED;

/// Convert the configuration of other products to a policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kubectl get ingress -A -o yaml | penstock import - > policy.yaml\n  \
    penstock import virtual-service.yaml http-route.yaml --strict > policy.yaml\n  \
    penstock import ratelimit.yaml --report report.json\n\n\
    Supported: Ingress (ingress-nginx), Istio's VirtualService, DestinationRule, ServiceEntry and local rate limits, the\n\
    Gateway API's HTTPRoute, GRPCRoute and Gateway, Envoy Gateway's BackendTrafficPolicy, Traefik's IngressRoute,\n\
    Middleware and TraefikService, the configuration of envoyproxy/ratelimit, Smokescreen's ACLs, and Cilium's toFQDNs.\n\
    Prints the policy to standard output. Standard error lists what was not imported, where it is, and the consequence.")]
pub struct Args {
    /// Files with any number of YAML or JSON documents, or folders with such files; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Exit with status 1 if something that changes decisions was not imported.
    #[arg(long)]
    strict: bool,
    /// Write the destinations of the routes, and what was not imported, to this file as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The kinds that are imported, with their groups.
const KINDS: [(&str, &str); 22] = [
    ("Ingress", ingress::GROUPS[0]),
    ("Ingress", ingress::GROUPS[1]),
    ("VirtualService", "networking.istio.io"),
    ("DestinationRule", "networking.istio.io"),
    ("ServiceEntry", "networking.istio.io"),
    ("Sidecar", "networking.istio.io"),
    ("EnvoyFilter", "networking.istio.io"),
    ("IstioOperator", "install.istio.io"),
    ("Gateway", "gateway.networking.k8s.io"),
    ("ListenerSet", "gateway.networking.k8s.io"),
    ("XListenerSet", "gateway.networking.x-k8s.io"),
    ("HTTPRoute", "gateway.networking.k8s.io"),
    ("GRPCRoute", "gateway.networking.k8s.io"),
    ("BackendTrafficPolicy", "gateway.envoyproxy.io"),
    ("IngressRoute", "traefik.io"),
    ("IngressRoute", "traefik.containo.us"),
    ("Middleware", "traefik.io"),
    ("Middleware", "traefik.containo.us"),
    ("TraefikService", "traefik.io"),
    ("TraefikService", "traefik.containo.us"),
    ("CiliumNetworkPolicy", "cilium.io"),
    ("CiliumClusterwideNetworkPolicy", "cilium.io"),
];

impl Args {
    /// Prints the policy to standard output, and what is missing in it to standard error. Returns `false` under
    /// `--strict` when something is missing.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read, or no document is of a known kind.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let mut report = ImportReport::default();
        let mut documents = Vec::new();
        for InputFile { name, text, .. } in inputs::read(&self.files)? {
            let read = Located::read_all(&text).map_err(|error| anyhow::anyhow!("{name}: not YAML: {error}"))?;
            for located in read {
                // `kubectl get -o yaml` prints a list.
                match located.node.get("items") {
                    Some(Node::List(items)) => documents.extend(items.iter().map(|item| (name.clone(), item.clone()))),
                    _ => documents.push((name.clone(), located.node)),
                }
            }
        }
        let (draft, known) = import(&documents, &mut report);
        if let (0, Some((name, _))) = (known, documents.iter().find(|(_, node)| manifests::has_section(node))) {
            anyhow::bail!(
                "{name} is a policy already: `penstock check` checks it, `penstock render` prints its manifests"
            );
        }
        anyhow::ensure!(
            known > 0,
            "nothing here that can be imported: give an Ingress, a VirtualService, an HTTPRoute, an IngressRoute, a \
             configuration of envoyproxy/ratelimit, an ACL of Smokescreen or a CiliumNetworkPolicy"
        );
        writeln!(
            out,
            "# Made by `penstock import`. Read it, check it with `penstock check`, try it with `penstock explain`."
        )?;
        out.write_all(draft.text().as_bytes())?;
        out.flush()?;
        if let Some(path) = &self.report {
            let text = format!("{:#}\n", report.json());
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut err = std::io::stderr();
        for lead in &report.routes {
            writeln!(err, "route {} leads to {}", lead.route, lead.to)?;
        }
        let mut deciding = 0;
        for note in &report.notes {
            let label = if note.decides { "not imported" } else { "note" };
            deciding += usize::from(note.decides);
            let place = if note.place.is_empty() { String::new() } else { format!("{}: ", note.place) };
            writeln!(err, "{label}: {place}{} ({})", note.what, note.consequence)?;
        }
        if deciding > 0 {
            writeln!(
                err,
                "{} not imported that {} decisions",
                count(deciding, "thing"),
                if deciding == 1 { "changes" } else { "change" }
            )?;
        }
        Ok(!self.strict || report.is_complete())
    }
}

/// The policy of all documents, and how many of them have a known kind.
fn import(documents: &[(String, Node)], report: &mut ImportReport) -> (PolicyDraft, usize) {
    let mut draft = PolicyDraft::default();
    let mut known = 0;
    for (file, node) in documents {
        report.file.clone_from(file);
        report.object = String::new();
        let kind = match node.get("kind") {
            Some(Node::String(kind)) => kind.as_str(),
            _ => "",
        };
        known += 1;
        match () {
            () if KINDS.iter().any(|(kind, group)| is(node, kind, group)) => {}
            () if ratelimit::is_one(node) => ratelimit::configuration(node, &mut draft, report),
            () if smokescreen::is_one(node) => smokescreen::acl(node, &mut draft, report),
            // Reads from Istio's mesh configuration whether all egress is allowed.
            () if istio::says_what_may_leave(node) => {}
            () if *node == Node::Null || is(node, "Namespace", "v1") => known -= 1,
            () => {
                known -= 1;
                let what = if kind.is_empty() { "a document of an unknown kind" } else { kind };
                report.elsewhere("", what, "it is not read: `penstock import --help` lists what is");
            }
        }
    }
    let objects = Objects(documents);
    istio::virtual_services(&objects, &mut draft, report);
    gateway::routes(&objects, &mut draft, report);
    ingress::ingresses(&objects, &mut draft, report);
    traefik::routes(&objects, &mut draft, report);
    istio::envoy_filters(&objects, &mut draft, report);
    istio::service_entries(&objects, &mut draft, report);
    cilium::policies(&objects, &mut draft, report);
    report.file.clear();
    report.object.clear();
    draft.finish(report);
    if let Err(problems) = check(&draft.node(), Module::Suite) {
        // Each part is valid, but together they are not, for example because of too many expressions.
        for problem in problems.iter() {
            report.lost("", problem.to_string(), "the policy as a whole is not valid");
        }
    }
    (draft, known)
}

#[cfg(test)]
mod tests;
