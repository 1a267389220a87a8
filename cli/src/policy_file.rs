//! Reads and compiles policies for subcommands that run or compare them, from policy files, manifests and Envoy
//! configurations.

use std::fmt;
use std::path::Path;

use annotate_snippets::Level;
use penstock_policy::document::Node;
use penstock_policy::{Module, Policy};

use crate::diagnostics::{Finding, Findings};
use crate::inputs::{self, InputFile};
use crate::manifests::{self, FoundPolicy, ManifestFile};
use crate::text::SourceText;
use crate::yaml::Located;

/// A compiled policy, with its source tree.
#[derive(Debug)]
pub struct PolicyFile {
    /// The compiled policy.
    pub policy: Policy,
    /// The source tree.
    pub node: Node,
    /// The file.
    pub file: String,
    /// The object that contains the policy, such as `WasmPlugin istio-system/penstock`; `None` when the file is the
    /// policy.
    pub resource: Option<String>,
}

/// An invalid document, which gives exit status 1. Displays as the report of all its problems, with styles.
#[derive(Debug)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

impl PolicyFile {
    /// Reads and compiles the one policy of a file or folder; `-` is standard input. Policies of several plugins are
    /// merged when they have different sections.
    ///
    /// # Errors
    /// Returns an error when it cannot be read, has no policy, or has several that cannot be merged; [`Invalid`] when
    /// one is invalid.
    pub fn load(path: &Path) -> anyhow::Result<PolicyFile> {
        one(load_all(&inputs::read(&[path.to_owned()])?)?, None)
    }

    /// Compiles the text of a policy.
    ///
    /// # Errors
    /// Returns all problems as an error.
    pub fn compile(text: &SourceText) -> Result<PolicyFile, Findings> {
        let located = Located::read(text).map_err(|error| Findings::one(Finding::syntax(&error, text)))?;
        match Policy::from_node(&located.node) {
            Ok(policy) => Ok(PolicyFile { policy, node: located.node, file: String::new(), resource: None }),
            Err(problems) => Err(Findings::of(&problems, |problem| Finding::of(problem, &located, text))),
        }
    }

    /// The file, and the object in it.
    pub fn name(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{} ({resource})", self.file),
            None => self.file.clone(),
        }
    }

    /// Whether `--plugin` names this one: its object's name, with or without namespace and kind.
    pub fn is_called(&self, plugin: &str) -> bool {
        let Some(resource) = &self.resource else { return false };
        let name = resource.split_once(' ').map_or(resource.as_str(), |(_, name)| name);
        resource == plugin || name == plugin || name.rsplit('/').next() == Some(plugin)
    }
}

/// Reads and compiles every policy of the inputs, at least one.
///
/// # Errors
/// Returns [`Invalid`] when one is invalid.
pub fn load_all(inputs: &[InputFile]) -> anyhow::Result<Vec<PolicyFile>> {
    let mut policies = Vec::new();
    for input in inputs.iter().filter(|input| !(input.is_found && inputs::is_test(&input.name))) {
        let requests = || {
            anyhow::anyhow!(
                "{} contains recorded requests, not a policy: pass the policy first, then the requests",
                input.name
            )
        };
        let file = match ManifestFile::read_as(&input.name, input.text.clone(), false) {
            Ok(file) if file.host_configs().next().is_none() && are_requests(&input.text) => return Err(requests()),
            Ok(file) => file,
            Err(_) if input.is_found && input.text.contains("{{") => continue,
            Err(_) if are_requests(&input.text) => return Err(requests()),
            Err(error) => {
                return Err(Invalid::new(
                    &input.name,
                    &input.text,
                    &Findings::one(Finding::syntax(&error, &input.text)),
                )
                .into());
            }
        };
        if let Some((_, finding)) = file.broken.first() {
            return Err(Invalid::new(&input.name, file.text(), &Findings::one(finding.clone())).into());
        }
        for found in &file.policies {
            if input.is_found && found.resource.is_none() && !manifests::has_section(&found.node) {
                continue;
            }
            policies.push(compile(input, &file, found)?);
        }
    }
    match policies.is_empty() {
        true => Err(inputs::no_policy(inputs)),
        false => Ok(policies),
    }
}

fn compile(input: &InputFile, file: &ManifestFile, found: &FoundPolicy) -> anyhow::Result<PolicyFile> {
    let module = found.module.unwrap_or(Module::Suite);
    let find = |problem: &_| file.finding(found, problem);
    let mut findings = match penstock_policy::check(&found.node, module) {
        Ok(_) => Findings::default(),
        Err(problems) => Findings::of(&problems, find),
    };
    if findings.is_empty() {
        findings.extend(file.misreadings(found), |(path, text)| file.misreading(found, path, text));
    }
    match Policy::from_node(&found.node) {
        Ok(policy) if findings.is_empty() => {
            let (node, file, resource) = (found.node.clone(), input.name.clone(), found.resource.clone());
            Ok(PolicyFile { policy, node, file, resource })
        }
        _ => Err(Invalid::new(&input.name, file.text(), &findings).into()),
    }
}

/// Whether a text is JSON lines with requests, which users sometimes pass instead of a policy.
fn are_requests(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let is_request = |line: &str| {
        Node::from_json(line.as_bytes())
            .is_ok_and(|node| ["authority", ":authority", "request", "path"].iter().any(|key| node.get(key).is_some()))
    };
    lines.next().is_some_and(is_request)
}

/// Selects one policy of several: that of `plugin`, or all merged when no two have a section in common.
///
/// # Errors
/// Returns an error when the choice is ambiguous, or they cannot be merged.
pub fn one(mut policies: Vec<PolicyFile>, plugin: Option<&str>) -> anyhow::Result<PolicyFile> {
    let names = |policies: &[PolicyFile]| policies.iter().map(PolicyFile::name).collect::<Vec<_>>().join(", ");
    if let Some(plugin) = plugin {
        let known = names(&policies);
        policies.retain(|policy| policy.is_called(plugin));
        anyhow::ensure!(!policies.is_empty(), "there is no plugin `{plugin}`; the plugins are {known}");
    }
    if policies.len() == 1
        && let Some(policy) = policies.pop()
    {
        return Ok(policy);
    }
    let Some(node) = together(&policies) else {
        if policies.iter().all(|policy| policy.resource.is_none()) {
            anyhow::bail!("{} policies: {}; pass a file with one", policies.len(), names(&policies));
        }
        anyhow::bail!("{} policies: {}; choose one with --plugin NAME", policies.len(), names(&policies));
    };
    match Policy::from_node(&node) {
        Ok(policy) => Ok(PolicyFile { policy, node, file: names(&policies), resource: None }),
        Err(problems) => anyhow::bail!("{} cannot be combined: {problems}", names(&policies)),
    }
}

/// Merges policies with different sections and equal settings.
fn together(policies: &[PolicyFile]) -> Option<Node> {
    let mut all: Vec<(String, Node)> = Vec::new();
    for policy in policies {
        let Node::Map(entries) = &policy.node else { return None };
        for (name, node) in entries {
            match all.iter().find(|(known, _)| known == name) {
                None => all.push((name.clone(), node.clone())),
                Some((_, known)) if name == "settings" && known == node => {}
                Some(_) => return None,
            }
        }
    }
    Some(Node::Map(all))
}

impl Invalid {
    /// The report on a file with these problems.
    pub fn new(file: &str, text: &SourceText, findings: &Findings) -> Invalid {
        let report = findings.render(Level::ERROR, "error", file, text);
        Invalid(format!("{report}{file}: invalid, {}", findings.count("error")))
    }
}
