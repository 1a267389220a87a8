//! Finds the policies of an object, and decides whether the object is admitted.

use annotate_snippets::Level;
use penstock_policy::document::Node;

use super::ceilings::Ceilings;
use super::marks::{self, PLUGINS};
use super::registry;
use super::review::{ReviewAnswer, ReviewRequest};
use super::routes::KnownRoutes;
use super::update;
use crate::check::{self, CheckContext};
use crate::diagnostics::Finding;
use crate::manifests::{ManifestFile, label};
use crate::within::Ceiling;
use crate::yaml_text;

/// What happens to an update that loosens a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Loosening {
    /// Accept it with a warning.
    Allow,
    /// Refuse it, unless the annotation `penstock.io/approved-loosening` contains the hash that the refusal states.
    RequireAnnotation,
}

/// What objects are checked against.
#[derive(Debug)]
pub struct ObjectJudge {
    /// The limits for teams.
    pub ceilings: Ceilings,
    /// The routes of the cluster.
    pub routes: KnownRoutes,
    /// How updates that loosen a policy are handled.
    pub loosening: Loosening,
}

/// A file of an object: the object itself, or one entry of a ConfigMap.
struct ObjectFile {
    name: String,
    file: ManifestFile,
}

impl ObjectJudge {
    /// Decides whether an object is admitted; for a team with a ceiling, only whether it is within the ceiling.
    pub fn judge(&self, request: &ReviewRequest, ceiling: Option<&str>) -> ReviewAnswer {
        let kind = request.kind.kind.as_str();
        let is_known = PLUGINS.contains(&kind) || ["ConfigMap", "EnvoyProxy"].contains(&kind);
        let Some(raw) = request.object.as_ref().filter(|_| is_known) else { return ReviewAnswer::default() };
        let object = match Node::from_json(raw.get().as_bytes()) {
            Ok(object) => object,
            Err(error) => {
                return ReviewAnswer::refused(format!("\n{kind} {}: cannot be read: {error}", request.name));
            }
        };
        // Removing the last finalizers must always be possible.
        if object.get("metadata").is_some_and(|metadata| metadata.get("deletionTimestamp").is_some()) {
            return ReviewAnswer::default();
        }
        let old = request.old_object.as_ref().and_then(|raw| Node::from_json(raw.get().as_bytes()).ok());
        let mut answer = match kind {
            "EnvoyProxy" if ceiling.is_some() => ReviewAnswer::default(),
            "EnvoyProxy" => registry::judge(&object, &name(request, &object)),
            _ => self.judge_policies(request, &object, old.as_ref(), ceiling),
        };
        if old.is_some_and(|old| update::is_same(&old, &object))
            && let Some(why) = answer.refusal.take()
        {
            let first = why.trim_start().lines().next().unwrap_or_default();
            answer.warnings.insert(0, format!("will be refused when it changes: {first}"));
        }
        answer
    }

    fn judge_policies(
        &self,
        request: &ReviewRequest,
        object: &Node,
        old: Option<&Node>,
        ceiling: Option<&str>,
    ) -> ReviewAnswer {
        let kind = request.kind.kind.as_str();
        let mut answer = ReviewAnswer::default();
        if ceiling.is_none() {
            answer.warnings.extend(marks::doubts(kind, object));
        }
        let old = old.filter(|old| is_ours(kind, old));
        let is_ours = is_ours(kind, object);
        if !is_ours && old.is_none() {
            return answer;
        }
        let parts = match if is_ours { parts(request, kind, object) } else { Ok(Vec::new()) } {
            Ok(parts) => parts,
            Err(refused) => return ReviewAnswer { refusal: Some(refused), ..answer },
        };
        if parts.iter().any(|part| !part.file.policies.is_empty() || !part.file.broken.is_empty()) {
            match ceiling.map(|name| (name, self.ceilings.get(name))) {
                Some((name, None)) => {
                    let message = format!("this namespace has the ceiling `{name}`, which the webhook does not have");
                    return ReviewAnswer::refused(message);
                }
                Some((_, Some(ceiling))) => self.check(&parts, Some(&ceiling), &mut answer),
                None => self.check(&parts, None, &mut answer),
            }
        }
        // An update that is refused anyway is not compared.
        if let (Some(old), None, None) = (old, ceiling, &answer.refusal) {
            let before = self::parts(request, kind, old).unwrap_or_default();
            if let Some(loosened) = update::loosened((old, &policies(&before)), (object, &policies(&parts))) {
                let requires = self.loosening == Loosening::RequireAnnotation;
                loosened.settle(object, requires, &mut answer);
            }
        }
        answer
    }

    fn check(&self, parts: &[ObjectFile], ceiling: Option<&Ceiling>, answer: &mut ReviewAnswer) {
        let known = if ceiling.is_none() { self.routes.known() } else { None };
        let options =
            CheckContext { module: None, ceiling, routes: known.as_ref().map_or(&[][..], |routes| routes.as_slice()) };
        let mut refusals = Vec::new();
        for part in parts {
            let mut refuse = |finding: &Finding| {
                let text = finding.render(Level::ERROR, &part.name, part.file.text());
                refusals.push(anstream::adapter::strip_str(&text).to_string());
            };
            for report in check::check_file(&part.name, &part.file, &options) {
                report.errors.with_rest("error").for_each(|finding| refuse(&finding));
                if ceiling.is_none() {
                    answer.warnings.extend(report.warnings.with_rest("warning").map(|finding| warning(&finding)));
                }
            }
            if ceiling.is_some_and(Ceiling::restricts) {
                fails_open(&part.file).for_each(&mut refuse);
            }
        }
        if !refusals.is_empty() {
            answer.refusal = Some(format!("\n{}", refusals.join("\n\n")));
        }
    }
}

/// Plugins that refuse requests, but let all of them pass when they cannot run.
fn fails_open(file: &ManifestFile) -> impl Iterator<Item = &Finding> {
    let restricting = file.policies.iter().filter(|found| update::restricts(&found.node));
    let doubts = restricting.flat_map(|found| &found.doubts);
    doubts.filter(|doubt| ["failStrategy", "failOpen"].contains(&doubt.path.as_str()))
}

fn is_ours(kind: &str, object: &Node) -> bool {
    PLUGINS.contains(&kind) || (kind == "ConfigMap" && label(object).is_some_and(|value| value == "true"))
}

/// The object, such as `WasmPlugin shop/penstock`.
fn name(request: &ReviewRequest, object: &Node) -> String {
    let kind = &request.kind.kind;
    // The API server has not generated the name yet.
    let name = match object.get("metadata").and_then(|metadata| metadata.get("generateName")) {
        Some(Node::String(prefix)) if request.name.is_empty() => format!("{prefix}…"),
        _ => request.name.clone(),
    };
    match request.namespace.is_empty() {
        true => format!("{kind} {name}"),
        false => format!("{kind} {}/{name}", request.namespace),
    }
}

/// The files of an object. They are shown as YAML, which most users write, without fields that users do not write.
///
/// # Errors
/// Returns an error when a file cannot be parsed.
fn parts(request: &ReviewRequest, kind: &str, object: &Node) -> Result<Vec<ObjectFile>, String> {
    let name = name(request, object);
    let mut texts = Vec::new();
    if kind == "ConfigMap" {
        if let Some(Node::Map(data)) = object.get("binaryData")
            && let Some((key, _)) = data.first()
        {
            return Err(format!("\n{name}: binaryData.{key}: is not checked; put policies into `data`, as text"));
        }
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
    texts.into_iter().map(|(name, text)| part(name, text)).collect()
}

fn part(name: String, text: String) -> Result<ObjectFile, String> {
    match ManifestFile::read_as(&name, text.as_str().into(), false) {
        Ok(file) => Ok(ObjectFile { name, file }),
        Err(error) => {
            let text = crate::text::SourceText::new(text);
            let report = Finding::syntax(&error, &text).render(Level::ERROR, &name, &text);
            Err(format!("\n{}", anstream::adapter::strip_str(&report)))
        }
    }
}

/// The object without its status and without metadata that the server maintains.
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

/// The policies with their places: those of a plugin by number, those of a ConfigMap by key.
fn policies(parts: &[ObjectFile]) -> Vec<(String, &Node)> {
    parts
        .iter()
        .flat_map(|part| {
            let numbered = part.file.policies.iter().enumerate();
            numbered.map(|(number, found)| (format!("{}#{number}", part.name), &found.node))
        })
        .collect()
}

/// A warning in one line.
fn warning(finding: &Finding) -> String {
    let mut text = format!("{}: {}", finding.path, finding.message);
    if let Some(help) = &finding.help {
        text += &format!(" ({help})");
    }
    text
}
