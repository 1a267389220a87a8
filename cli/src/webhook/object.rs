//! What of an object is ours, and whether it may be written.

use annotate_snippets::Level;
use penstock_policy::Module;
use penstock_policy::document::Node;
use sha2::{Digest, Sha256};

use super::ceilings::Ceilings;
use super::registry;
use super::review::{Answer, Request};
use super::routes::Routes;
use crate::check::{self, Options};
use crate::diagnostics::Finding;
use crate::diff;
use crate::manifests::File;
use crate::within::Ceiling;
use crate::{replay, yaml_text};

/// What becomes of an update that loosens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Loosening {
    /// It passes, with a warning.
    Allow,
    /// It needs the annotation `penstock.io/approved-loosening` with the hash that the refusal names.
    RequireAnnotation,
}

/// The kinds whose plugins are looked at.
const PLUGINS: [&str; 3] = ["WasmPlugin", "TrafficExtension", "EnvoyExtensionPolicy"];

/// ConfigMaps with this label, and the value `true`, have policies as their data.
pub const LABEL: &str = "penstock.io/policy";

/// The annotation that approves a loosening: the hash that the refusal names.
pub const APPROVAL: &str = "penstock.io/approved-loosening";

/// What objects are judged against.
#[derive(Debug)]
pub struct Judge {
    /// What teams must keep to.
    pub ceilings: Ceilings,
    /// What routes there are.
    pub routes: Routes,
    /// What becomes of updates that loosen.
    pub loosening: Loosening,
}

/// A file of an object: the object itself, or one entry of a ConfigMap.
struct Part {
    name: String,
    file: File,
}

impl Judge {
    /// Whether an object may be written; with a ceiling only whether it is within it.
    pub fn judge(&self, request: &Request, ceiling: Option<&str>) -> Answer {
        let Some(object) = request.object.as_ref().and_then(|raw| Node::from_json(raw.get().as_bytes()).ok()) else {
            return Answer::default();
        };
        let kind = request.kind.kind.as_str();
        if kind == "EnvoyProxy" {
            return registry::judge(&object, &name(request));
        }
        if !is_ours(kind, &object) {
            return Answer::default();
        }
        let (parts, broken) = parts(request, kind, &object);
        let mut answer = Answer::default();
        if let Some(broken) = broken {
            answer.refusal = Some(broken);
            return answer;
        }
        let has_policies = parts.iter().any(|part| !part.file.policies.is_empty() || !part.file.broken.is_empty());
        let loosens = match (&request.old_object, ceiling) {
            (Some(old), None) => self.loosened(request, kind, old.get(), &object, &parts),
            _ => None,
        };
        if !has_policies && loosens.is_none() {
            return answer;
        }
        let bound = match ceiling.map(|name| (name, self.ceilings.get(name))) {
            Some((name, None)) => {
                let message = format!("this namespace has the ceiling `{name}`, which the webhook does not have");
                answer.refusal = Some(message);
                return answer;
            }
            Some((_, Some(ceiling))) => Some(ceiling),
            None => None,
        };
        self.check(&parts, bound.as_deref(), &mut answer);
        if let Some(loosens) = loosens {
            self.settle(&loosens, &object, &mut answer);
        }
        answer
    }

    fn check(&self, parts: &[Part], ceiling: Option<&Ceiling>, answer: &mut Answer) {
        let known = if ceiling.is_none() { self.routes.known() } else { None };
        let options =
            Options { module: None, ceiling, routes: known.as_ref().map_or(&[][..], |routes| routes.as_slice()) };
        let mut refusals = Vec::new();
        for part in parts {
            for report in check::check_file(&part.name, &part.file, &options) {
                refusals.extend(report.errors.with_rest("error").map(|finding| {
                    let text = finding.render(Level::ERROR, &part.name, part.file.text());
                    anstream::adapter::strip_str(&text).to_string()
                }));
                if ceiling.is_none() {
                    answer.warnings.extend(report.warnings.with_rest("warning").map(|finding| warning(&finding)));
                }
            }
        }
        if !refusals.is_empty() {
            answer.refusal = Some(format!("\n{}", refusals.join("\n\n")));
        }
    }

    /// What an update lets pass that was refused.
    fn loosened(&self, request: &Request, kind: &str, old: &str, object: &Node, parts: &[Part]) -> Option<Loosened> {
        let old = Node::from_json(old.as_bytes()).ok()?;
        if !is_ours(kind, &old) || content(&old) == content(object) {
            return None;
        }
        let (before, _) = self::parts(request, kind, &old);
        let was = policies(&before);
        let is = policies(parts);
        let mut changes = Vec::new();
        for (place, policy) in &was {
            match is.iter().find(|(other, _)| other == place) {
                Some((_, new)) if new == policy => {}
                Some((_, new)) => changes.extend(diff::loosenings(policy, new, replay::now())),
                None if restricts(policy) => changes.push(format!("the policy {place} is gone")),
                None => {}
            }
        }
        if was.iter().any(|(_, policy)| restricts(policy)) {
            if fails_open(object) && !fails_open(&old) {
                changes.push("a plugin that fails lets everything pass".to_owned());
            }
            let spec = |object: &Node, field: &str| object.get("spec").and_then(|spec| spec.get(field)).cloned();
            const WHERE: [&str; 6] = ["selector", "targetRef", "targetRefs", "targetSelectors", "match", "phase"];
            for field in WHERE.iter().filter(|field| spec(&old, field) != spec(object, field)) {
                changes.push(format!("spec.{field}: the plugin runs elsewhere, and no longer where it did"));
            }
        }
        (!changes.is_empty()).then(|| Loosened { changes, hash: hash(&old, object) })
    }

    fn settle(&self, loosens: &Loosened, object: &Node, answer: &mut Answer) {
        let annotation = object
            .get("metadata")
            .and_then(|metadata| metadata.get("annotations"))
            .and_then(|annotations| annotations.get(APPROVAL));
        let is_approved = matches!(annotation, Some(Node::String(hash)) if *hash == loosens.hash);
        match self.loosening {
            Loosening::RequireAnnotation if !is_approved => {
                let list: String = loosens.changes.iter().map(|change| format!("- {change}\n")).collect();
                let message = format!(
                    "\nthe update loosens the policy:\n{list}to approve it, annotate the object: {APPROVAL}: \"{}\"",
                    loosens.hash
                );
                let before = answer.refusal.take().unwrap_or_default();
                answer.refusal = Some(if before.is_empty() { message } else { format!("{before}\n{message}") });
            }
            _ => answer.warnings.extend(loosens.changes.iter().map(|change| format!("loosens: {change}"))),
        }
    }
}

/// What an update loosens.
struct Loosened {
    changes: Vec<String>,
    /// Of what the object was and is to be: an approval is for one update only.
    hash: String,
}

fn is_ours(kind: &str, object: &Node) -> bool {
    let label = || object.get("metadata")?.get("labels")?.get(LABEL);
    PLUGINS.contains(&kind) || (kind == "ConfigMap" && matches!(label(), Some(Node::String(value)) if value == "true"))
}

/// `WasmPlugin shop/penstock`.
fn name(request: &Request) -> String {
    let kind = &request.kind.kind;
    match request.namespace.is_empty() {
        true => format!("{kind} {}", request.name),
        false => format!("{kind} {}/{}", request.namespace, request.name),
    }
}

/// The files of an object, or why one cannot be read. Shown as YAML, as most people write it, without what they do not.
fn parts(request: &Request, kind: &str, object: &Node) -> (Vec<Part>, Option<String>) {
    let name = name(request);
    let mut texts = Vec::new();
    if kind == "ConfigMap" {
        if let Some(Node::Map(data)) = object.get("data") {
            for (key, value) in data {
                if let Node::String(text) = value {
                    texts.push((format!("{name}, {key}"), text.clone()));
                }
            }
        }
    } else {
        texts.push((name, yaml_text::block(&written(object), 0)));
    }
    let mut parts = Vec::new();
    for (name, text) in texts {
        match File::read_as(&name, text.as_str().into(), false) {
            Ok(file) => parts.push(Part { name, file }),
            Err(error) => {
                let text = crate::text::Text::new(text);
                let report = Finding::syntax(&error, &text).render(Level::ERROR, &name, &text);
                return (Vec::new(), Some(format!("\n{}", anstream::adapter::strip_str(&report))));
            }
        }
    }
    (parts, None)
}

/// An object without its status and what the server keeps in its metadata.
fn written(object: &Node) -> Node {
    const SERVERS: [&str; 6] =
        ["managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"];
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let Node::Map(fields) = object else { return object.clone() };
    let fields = fields.iter().filter(|(field, _)| field != "status").map(|(field, value)| match value {
        Node::Map(metadata) if field == "metadata" => {
            let kept = metadata.iter().filter(|(name, _)| !SERVERS.contains(&name.as_str()));
            let kept = kept.map(|(name, value)| match value {
                Node::Map(annotations) if name == "annotations" => {
                    let kept = annotations.iter().filter(|(name, _)| name != LAST_APPLIED).cloned();
                    (name.clone(), Node::Map(kept.collect()))
                }
                value => (name.clone(), value.clone()),
            });
            (field.clone(), Node::Map(kept.collect()))
        }
        value => (field.clone(), value.clone()),
    });
    Node::Map(fields.collect())
}

/// What an object does: everything but its metadata and status.
fn content(object: &Node) -> Vec<&(String, Node)> {
    match object {
        Node::Map(fields) => fields.iter().filter(|(field, _)| field == "spec" || field == "data").collect(),
        _ => Vec::new(),
    }
}

/// The policies that compile, each with its place: those of a plugin by number, those of a ConfigMap by key.
fn policies(parts: &[Part]) -> Vec<(String, Node)> {
    let each = parts.iter().flat_map(|part| {
        part.file.policies.iter().enumerate().map(|(number, found)| (format!("{}#{number}", part.name), &found.node))
    });
    let compiles = |node: &Node| penstock_policy::check(node, Module::Suite).is_ok();
    each.filter(|(_, node)| compiles(node)).map(|(place, node)| (place, node.clone())).collect()
}

fn restricts(policy: &Node) -> bool {
    policy.get("egress").is_some() || policy.get("rateLimits").is_some()
}

/// Whether a plugin says that requests pass when it fails.
fn fails_open(node: &Node) -> bool {
    match node {
        Node::Map(fields) => fields.iter().any(|(field, value)| match (field.as_str(), value) {
            ("failStrategy", Node::String(word)) => word == "FAIL_OPEN",
            ("failOpen", Node::Bool(open)) => *open,
            ("pluginConfig" | "config", _) => false,
            _ => fails_open(value),
        }),
        Node::List(items) => items.iter().any(fails_open),
        _ => false,
    }
}

/// Sixteen hexadecimal digits.
fn hash(old: &Node, new: &Node) -> String {
    let text = |object: &Node| content(object).iter().map(|(_, value)| yaml_text::block(value, 0)).collect::<String>();
    let mut hasher = Sha256::new();
    hasher.update(text(old));
    hasher.update([0]);
    hasher.update(text(new));
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A warning in one line.
fn warning(finding: &Finding) -> String {
    let mut text = format!("{}: {}", finding.path, finding.message);
    if let Some(help) = &finding.help {
        text += &format!(" ({help})");
    }
    text
}
