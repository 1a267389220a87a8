//! `penstock image`: modules as OCI images, on disk or in a registry.

mod bill;
mod layout;
mod package;
mod provenance;
pub mod reference;
mod registry;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::output::Output;
use package::{About, Attachment, Manifest, digest, package};
use reference::Reference;
use registry::Registry;

/// Put a module into an OCI registry, in the forms that Istio and Envoy Gateway take.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  penstock image push dist/suite.wasm registry.example.com/penstock/suite:0.1.0")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a module's images to a folder (an OCI image layout), and print their digests.
    #[command(after_help = "Example:\n  penstock image build dist/suite.wasm --output images/suite")]
    Build {
        #[command(flatten)]
        module: ModuleArgs,
        /// The folder to write to.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Push a module's images to a registry, and print their digests.
    ///
    /// Pushes the image under the tag, the artifact form under `<tag>-artifact`, and a bill of materials and a provenance
    /// statement as referrers of both. The same module and flags give the same digests, so a second push changes nothing.
    #[command(
        after_help = "Credentials are those of `docker login` ($DOCKER_CONFIG/config.json, credential helpers included).\n\n\
        Example:\n  penstock image push dist/suite.wasm registry.example.com/penstock/suite:0.1.0"
    )]
    Push {
        #[command(flatten)]
        module: ModuleArgs,
        /// Where to: `registry/repository:tag`.
        to: Reference,
        /// Speak HTTP to the registry, without TLS. Registries on this machine are spoken to in HTTP anyway.
        #[arg(long)]
        plain_http: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ModuleArgs {
    /// The module, such as `dist/suite.wasm`.
    module: PathBuf,
    /// The module's name; by default that of the file.
    #[arg(long)]
    name: Option<String>,
    /// The module's version.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    module_version: String,
    /// The commit that it was built from.
    #[arg(long)]
    revision: Option<String>,
    /// Where its source is.
    #[arg(long, default_value = env!("CARGO_PKG_REPOSITORY"))]
    source: String,
    /// The SPDX expression of its licence.
    #[arg(long, default_value = env!("CARGO_PKG_LICENSE"))]
    licence: String,
    /// Who built it: a URI, for the provenance statement.
    #[arg(long, default_value = "https://github.com/penstock-proxy/penstock/by-hand")]
    builder: String,
    /// The output of `cargo metadata --format-version 1 --filter-platform wasm32-wasip1`, for the bill of materials. Without it there is
    /// none.
    #[arg(long)]
    cargo_metadata: Option<PathBuf>,
}

impl Args {
    /// Builds or pushes, and prints a line for each manifest: its kind and its name with the digest.
    ///
    /// # Errors
    /// When a file cannot be read or written, when it is not a module, or when the registry cannot be reached or refuses it.
    pub fn run(&self, out: &mut Output<'_>) -> Result<bool> {
        match &self.command {
            Command::Build { module, output } => {
                let manifests = module.package()?;
                layout::write(output, &manifests).with_context(|| format!("cannot write {}", output.display()))?;
                for manifest in &manifests {
                    writeln!(out, "{:<11} {}", manifest.kind, manifest.blob.digest)?;
                }
            }
            Command::Push { module, to, plain_http } => {
                let manifests = module.package()?;
                let mut registry = Registry::new(to, *plain_http)?;
                for manifest in &manifests {
                    let tagged = manifest.tag_suffix.map(|suffix| to.with_suffix(suffix));
                    registry
                        .push(manifest, tagged.as_ref().map(|tagged| tagged.tag.as_str()))
                        .with_context(|| format!("cannot push the {} to {to}", manifest.kind))?;
                    let name = tagged
                        .map_or_else(|| format!("{}/{}", to.registry, to.repository), |tagged| tagged.to_string());
                    writeln!(out, "{:<11} {name}@{}", manifest.kind, manifest.blob.digest)?;
                    // Whoever waits sees what is done.
                    out.flush()?;
                }
            }
        }
        Ok(true)
    }
}

impl ModuleArgs {
    fn package(&self) -> Result<Vec<Manifest>> {
        let path = self.module.display();
        let module = fs::read(&self.module).with_context(|| format!("cannot read {path}"))?;
        let stem = || self.module.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let about = About {
            name: self.name.clone().unwrap_or_else(stem),
            version: self.module_version.clone(),
            revision: self.revision.clone(),
            source: self.source.clone(),
            licence: self.licence.clone(),
        };
        let digest = digest(&module);
        let sha256 = digest.trim_start_matches("sha256:");
        let mut attachments = Vec::new();
        if let Some(path) = &self.cargo_metadata {
            let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let metadata: Value =
                serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
            let document = bill::bill(&metadata, &format!("penstock-{}", about.name), sha256)?;
            attachments.push(Attachment { kind: "sbom", media_type: bill::MEDIA_TYPE, document });
        }
        let document = provenance::statement(&about, sha256, &self.builder);
        attachments.push(Attachment { kind: "provenance", media_type: provenance::MEDIA_TYPE, document });
        package(&module, &about, &attachments).with_context(|| path.to_string())
    }
}
