//! `penstock import`: a policy out of what other products call one, and a report of all that could not be carried over.

mod gateway;
mod ingress;
mod istio;
mod ratelimit;
mod reader;

use std::io::Write;
use std::path::PathBuf;

use penstock_policy::Module;
use penstock_policy::document::Node;

use crate::output::{Output, count};
use crate::yaml::Located;
use crate::{source, yaml_text};
use reader::Lost;

/// Turn the configuration of other products into a policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kubectl get ingress -o yaml | penstock import - > policy.yaml\n  \
    penstock import virtual-service.yaml http-route.yaml --strict > policy.yaml\n  \
    penstock import ratelimit.yaml\n\n\
    Reads: Ingress with ingress-nginx's canary annotations, Istio's VirtualService, the Gateway API's HTTPRoute, and\n\
    the configuration of envoyproxy/ratelimit. The policy goes to standard output; what it could not take over goes to\n\
    standard error, with its place. Nothing is lost without a word.")]
pub struct Args {
    /// Files of any number of documents, YAML or JSON; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// End with status 1 when anything could not be carried over.
    #[arg(long)]
    strict: bool,
}

/// The policy so far.
#[derive(Debug, Default)]
pub struct Draft {
    /// Whether rules come from the Gateway API, where the most specific wins.
    gateway_api: bool,
    /// Whether rules come from where the first wins.
    first_match: bool,
    rules: Vec<Node>,
    canaries: Vec<Node>,
    limits: Vec<Node>,
    names: Vec<String>,
}

/// A map.
pub fn map(entries: impl IntoIterator<Item = (&'static str, Node)>) -> Node {
    Node::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A string.
pub fn text(text: impl Into<String>) -> Node {
    Node::String(text.into())
}

impl Draft {
    /// A name like `wanted` that nothing else has.
    fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        for i in 2.. {
            if !self.names.contains(&name) {
                break;
            }
            name = format!("{wanted}-{i}");
        }
        self.names.push(name.clone());
        name
    }

    fn into_policy(self, lost: &mut Lost) -> Node {
        let mut policy = Vec::new();
        if !self.limits.is_empty() {
            policy.push(("rateLimits", Node::List(self.limits)));
        }
        if !self.rules.is_empty() {
            let mut routes = Vec::new();
            if self.gateway_api {
                routes.push(("precedence", text("GatewayAPI")));
            }
            if self.gateway_api && self.first_match {
                lost.note(
                    "",
                    "the order of the VirtualServices' routes: together with HTTPRoutes the most specific wins",
                );
            }
            routes.push(("rules", Node::List(self.rules)));
            policy.push(("routes", map(routes)));
        }
        if !self.canaries.is_empty() {
            policy.push(("canaries", Node::List(self.canaries)));
        }
        map(policy)
    }
}

impl Args {
    /// Prints the policy, and to standard error what is missing in it. `false`: under `--strict` something is.
    ///
    /// # Errors
    /// When a file cannot be read or nothing in any is known.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let mut lost = Lost::default();
        let mut documents = Vec::new();
        for path in &self.files {
            let text = source::read_text(path)?;
            let name = source::display(path);
            let read = Located::read_all(&text).map_err(|error| anyhow::anyhow!("{name}: not YAML: {error}"))?;
            for located in read {
                // `kubectl get -o yaml` gives a list.
                match located.node.get("items") {
                    Some(Node::List(items)) => documents.extend(items.iter().map(|item| (name.clone(), item.clone()))),
                    _ => documents.push((name.clone(), located.node)),
                }
            }
        }
        let (policy, known) = import(&documents, &mut lost);
        anyhow::ensure!(
            known > 0,
            "nothing here that can be imported: give an Ingress, a VirtualService, an HTTPRoute or a configuration of \
             envoyproxy/ratelimit"
        );
        if let Err(problems) = penstock_policy::check(&policy, Module::Suite) {
            // A value that a policy cannot say: the whole is shown, and what is wrong with it.
            for problem in &problems {
                lost.note("", &format!("the policy is not valid as it is: {problem}"));
            }
        }
        writeln!(
            out,
            "# Made by `penstock import`. Read it, check it with `penstock check`, try it with `penstock explain`."
        )?;
        out.write_all(yaml_text::block(&policy, 0).as_bytes())?;
        out.flush()?;
        let mut err = std::io::stderr();
        for (route, destination) in &lost.routes {
            writeln!(err, "the host must send the route {route} to {destination}")?;
        }
        for note in &lost.notes {
            writeln!(err, "not carried over: {note}")?;
        }
        if !lost.notes.is_empty() {
            writeln!(err, "{} not carried over", count(lost.notes.len(), "thing"))?;
        }
        Ok(!self.strict || lost.notes.is_empty())
    }
}

/// The policy of all documents, and how many of them were known.
fn import(documents: &[(String, Node)], lost: &mut Lost) -> (Node, usize) {
    let mut draft = Draft::default();
    let mut known = 0;
    let kind = |node: &Node| match node.get("kind") {
        Some(Node::String(kind)) => kind.clone(),
        _ => String::new(),
    };
    for (file, node) in documents {
        lost.file = file.clone();
        lost.object = String::new();
        known += 1;
        match kind(node).as_str() {
            "VirtualService" => istio::virtual_service(node, &mut draft, lost),
            "HTTPRoute" => gateway::http_route(node, &mut draft, lost),
            // Together: a canary's main Ingress is another object.
            "Ingress" => {}
            "" if node.get("domain").is_some() && node.get("descriptors").is_some() => {
                ratelimit::configuration(node, &mut draft, lost);
            }
            "" if *node == Node::Null => known -= 1,
            kind => {
                known -= 1;
                let what = if kind.is_empty() { "a document of an unknown kind" } else { kind };
                lost.note(
                    "",
                    &format!("{what}: only Ingress, VirtualService, HTTPRoute and ratelimit's configuration are"),
                );
            }
        }
    }
    let ingresses: Vec<&(String, Node)> = documents.iter().filter(|(_, node)| kind(node) == "Ingress").collect();
    ingress::ingresses(&ingresses, &mut draft, lost);
    (draft.into_policy(lost), known)
}

#[cfg(test)]
mod tests;
