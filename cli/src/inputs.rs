//! Sources of policies: files, folders, globs, a running Envoy, a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::kubectl::{ENVOY_KINDS, KINDS, Kubectl};
use crate::source;
use crate::text::SourceText;

/// The error when no input contains a policy, with what to pass instead.
pub fn no_policy(inputs: &[InputFile]) -> anyhow::Error {
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).take(5).collect();
    if !inputs.is_empty() && names.iter().all(|name| name.starts_with(CLUSTER)) {
        return anyhow::anyhow!(
            "no plugin of Penstock runs there: the cluster has no policy in its WasmPlugins, TrafficExtensions, \
             EnvoyExtensionPolicies, EnvoyFilters and EnvoyPatchPolicies (set --cluster-namespace and --context to read others)"
        );
    }
    let more = if inputs.len() > names.len() { ", …" } else { "" };
    anyhow::anyhow!(
        "no policy in {}{more}: give a policy, or a manifest or Envoy configuration whose plugin has one in `pluginConfig`, \
         `config` or `configuration`",
        names.join(", ")
    )
}

/// The prefix for the names of cluster objects.
const CLUSTER: &str = "cluster ";

/// An input, with the name that messages use for it.
#[derive(Debug)]
pub struct InputFile {
    /// The name in messages.
    pub name: String,
    /// Its content.
    pub text: SourceText,
    /// Whether it was found in a folder instead of being named: then files without a policy are skipped.
    pub is_found: bool,
}

/// Sources of policies that are in use.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunningInputs {
    /// Read the policies of a running Envoy. URL is its admin interface, such as http://127.0.0.1:9901.
    #[arg(long, value_name = "URL")]
    pub from_envoy: Option<String>,
    /// Read the policies of the cluster (WasmPlugin, TrafficExtension, EnvoyExtensionPolicy, EnvoyFilter, EnvoyPatchPolicy)
    /// with `kubectl`.
    #[arg(long)]
    pub from_cluster: bool,
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME", requires = "from_cluster")]
    pub context: Option<String>,
    /// Only read objects of this namespace of the cluster.
    #[arg(long, value_name = "NAMESPACE", requires = "from_cluster", id = "cluster-namespace")]
    pub cluster_namespace: Option<String>,
}

impl RunningInputs {
    /// Whether any of these options is set.
    pub fn is_any(&self) -> bool {
        self.from_envoy.is_some() || self.from_cluster
    }

    /// Reads the policies that are in use.
    ///
    /// # Errors
    /// Returns an error when Envoy or the cluster does not respond.
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
        for kind in KINDS.into_iter().chain(ENVOY_KINDS) {
            // If the kind is missing, that control plane is not installed.
            if let Some(text) = kubectl.list(kind, self.cluster_namespace.as_deref())? {
                let name = format!("{CLUSTER}{}", kind.split('.').next().unwrap_or(kind));
                inputs.push(InputFile { name, text: SourceText::new(text), is_found: true });
            }
        }
        ensure!(
            !inputs.is_empty(),
            "the cluster has no resource type that contains policies: {} (neither Istio nor Envoy Gateway is installed)",
            KINDS.join(", ")
        );
        Ok(inputs)
    }
}

/// Fetches the configuration dump of a running Envoy.
///
/// # Errors
/// Returns an error when Envoy does not respond.
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
        "{place} is not a configuration dump; {form}"
    );
    Ok(InputFile { name: url, text: SourceText::new(text), is_found: true })
}

/// Reads files, every YAML and JSON file in folders, and the matches of globs.
///
/// # Errors
/// Returns an error when a file cannot be read, or when a glob or folder has no files.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<InputFile>> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut files = Vec::new();
            below(path, &mut files);
            ensure!(!files.is_empty(), "{} has no .yaml, .yml or .json file", path.display());
            for file in files {
                // Binary files are not policies.
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

/// The files that a glob matches; a path without wildcards matches itself.
///
/// # Errors
/// Returns an error when there is no match.
pub fn matching(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let found = glob::glob(&text).with_context(|| format!("{text} is not a pattern of files"))?;
    let mut files: Vec<PathBuf> = found.flatten().filter(|path| path.is_file()).collect();
    files.sort();
    ensure!(!files.is_empty(), "no file matches {text}: patterns are relative to this folder");
    Ok(files)
}

/// The YAML and JSON files below a folder in order, except in hidden folders and folders of tools.
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

/// Whether the name of a file is that of a `penstock test` file.
pub fn is_test(name: &str) -> bool {
    [".test.yaml", ".test.yml", ".test.json"].iter().any(|ending| name.ends_with(ending))
}

/// The default policy file in the current folder, for commands without an argument.
///
/// # Errors
/// Returns an error when there is none.
pub fn default_policy() -> anyhow::Result<PathBuf> {
    let names = ["policy.yaml", "policy.yml", "policy.json"];
    let found = names.iter().map(PathBuf::from).find(|path| path.is_file());
    found.context("pass a policy: there is no policy.yaml in this folder (`penstock init` writes one)")
}
