//! Where policies come from: files, folders, globs, a running Envoy, a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::kubectl::{KINDS, Kubectl};
use crate::source;
use crate::text::SourceText;

/// That nothing had a policy, and what to give.
pub fn no_policy(inputs: &[InputFile]) -> anyhow::Error {
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).take(5).collect();
    if !inputs.is_empty() && names.iter().all(|name| name.starts_with(CLUSTER)) {
        return anyhow::anyhow!(
            "no plugin of ours runs there: the cluster has no policy in its WasmPlugins, TrafficExtensions and \
             EnvoyExtensionPolicies (--cluster-namespace and --context say where to look)"
        );
    }
    let more = if inputs.len() > names.len() { ", …" } else { "" };
    anyhow::anyhow!(
        "no policy in {}{more}: give a policy, or a manifest or Envoy configuration whose plugin has one in `pluginConfig`, \
         `config` or `configuration`",
        names.join(", ")
    )
}

/// What the names of objects of a cluster begin with.
const CLUSTER: &str = "cluster ";

/// What was read, under the name that messages give it.
#[derive(Debug)]
pub struct InputFile {
    /// How messages name it.
    pub name: String,
    /// Its text.
    pub text: SourceText,
    /// It was found in a folder, not named: what is no policy is passed over.
    pub is_found: bool,
}

/// Policies that run somewhere.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunningInputs {
    /// What a running Envoy has: the base URL of its admin interface, such as http://127.0.0.1:9901.
    #[arg(long, value_name = "URL")]
    pub from_envoy: Option<String>,
    /// What the cluster has (WasmPlugin, TrafficExtension, EnvoyExtensionPolicy), through `kubectl`.
    #[arg(long)]
    pub from_cluster: bool,
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME", requires = "from_cluster")]
    pub context: Option<String>,
    /// Only objects of this namespace of the cluster.
    #[arg(long, value_name = "NAMESPACE", requires = "from_cluster", id = "cluster-namespace")]
    pub cluster_namespace: Option<String>,
}

impl RunningInputs {
    /// Whether anything is asked for.
    pub fn is_any(&self) -> bool {
        self.from_envoy.is_some() || self.from_cluster
    }

    /// What runs.
    ///
    /// # Errors
    /// When Envoy or the cluster cannot be asked.
    pub fn read(&self) -> anyhow::Result<Vec<InputFile>> {
        let mut inputs = Vec::new();
        if let Some(url) = &self.from_envoy {
            inputs.push(envoy(url)?);
        }
        if self.from_cluster {
            inputs.extend(self.cluster()?);
        }
        Ok(inputs)
    }

    fn cluster(&self) -> anyhow::Result<Vec<InputFile>> {
        let kubectl = Kubectl { context: self.context.clone() };
        let mut inputs = Vec::new();
        for kind in KINDS {
            let whose = match &self.cluster_namespace {
                Some(namespace) => vec!["--namespace", namespace],
                None => vec!["--all-namespaces"],
            };
            // Without it, that control plane is not installed.
            if let Some(text) = kubectl.run(&[&["get", kind, "--output", "json"], &whose[..]].concat())? {
                let name = format!("{CLUSTER}{}", kind.split('.').next().unwrap_or(kind));
                inputs.push(InputFile { name, text: SourceText::new(text), is_found: true });
            }
        }
        ensure!(
            !inputs.is_empty(),
            "the cluster has none of the kinds that hold policies: {} (neither Istio nor Envoy Gateway is installed)",
            KINDS.join(", ")
        );
        Ok(inputs)
    }
}

/// The configuration dump of a running Envoy.
///
/// # Errors
/// When it does not answer.
pub fn envoy(url: &str) -> anyhow::Result<InputFile> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let form = "write the address of Envoy's admin interface, such as http://127.0.0.1:9901";
    let uri: http::Uri = url.parse().map_err(|_| anyhow::anyhow!("--from-envoy {url:?} is not a URL: {form}"))?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    ensure!(is_http && uri.host().is_some_and(|host| !host.is_empty()), "--from-envoy {url:?} is not a URL: {form}");
    let place = format!("{}/config_dump", url.trim_end_matches('/').trim_end_matches("/config_dump"));
    let text = (|| -> anyhow::Result<String> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(std::time::Duration::from_secs(30))).build();
        let mut response = ureq::Agent::new_with_config(agent).get(&place).call()?;
        Ok(response.body_mut().with_config().limit(1 << 30).read_to_string()?)
    })();
    let text = text.map_err(|error| {
        let why = match error.downcast_ref::<ureq::Error>() {
            Some(ureq::Error::Io(io)) => source::why(io),
            Some(ureq::Error::StatusCode(status)) => format!("it answers {status}"),
            Some(ureq::Error::HostNotFound) => "there is no host of this name".to_owned(),
            Some(ureq::Error::Timeout(_)) => "no answer within 30 seconds".to_owned(),
            _ => format!("{error:#}"),
        };
        anyhow::anyhow!("cannot get {place}: {why}; {form}")
    })?;
    ensure!(
        text.trim_start().starts_with('{') && text.contains("\"configs\""),
        "{place} is no configuration dump; {form}"
    );
    Ok(InputFile { name: url, text: SourceText::new(text), is_found: true })
}

/// Reads files, every YAML and JSON file of folders, and what globs match.
///
/// # Errors
/// When one cannot be read, or a glob or folder has none.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<InputFile>> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut files = Vec::new();
            below(path, &mut files);
            ensure!(!files.is_empty(), "{} has no .yaml, .yml or .json file", path.display());
            for file in files {
                // What is no text is no policy.
                if let Ok(text) = source::read_text(&file) {
                    inputs.push(InputFile {
                        name: source::display(&file),
                        text: SourceText::new(text),
                        is_found: true,
                    });
                }
            }
            continue;
        }
        for file in matching(path)? {
            inputs.push(InputFile {
                name: source::display(&file),
                text: SourceText::new(source::read_text(&file)?),
                is_found: false,
            });
        }
    }
    Ok(inputs)
}

/// The files that a glob matches; a path without stars is itself.
///
/// # Errors
/// When none matches.
pub fn matching(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let found = glob::glob(&text).with_context(|| format!("{text} is not a pattern of files"))?;
    let mut files: Vec<PathBuf> = found.flatten().filter(|path| path.is_file()).collect();
    files.sort();
    ensure!(!files.is_empty(), "no file matches {text}: the pattern is read from this folder on");
    Ok(files)
}

/// The YAML and JSON files below a folder, in order, without hidden folders and those of tools.
pub fn below(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && !["node_modules", "target", "vendor"].contains(&name.as_str()) {
                below(&path, files);
            }
        } else if [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending)) {
            files.push(path);
        }
    }
}

/// The test files below a folder.
pub fn tests(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    below(folder, &mut files);
    files.retain(|file| is_test(&file.to_string_lossy()));
    files
}

/// Whether a file is one of `penstock test`, by its name.
pub fn is_test(name: &str) -> bool {
    [".test.yaml", ".test.yml", ".test.json"].iter().any(|ending| name.ends_with(ending))
}

/// The policy of this folder, when a command is given none.
///
/// # Errors
/// When there is none.
pub fn default_policy() -> anyhow::Result<PathBuf> {
    let names = ["policy.yaml", "policy.yml", "policy.json"];
    let found = names.iter().map(PathBuf::from).find(|path| path.is_file());
    found.context("give a policy: there is no policy.yaml here (`penstock init` writes one)")
}
