//! `penstock image`: modules, the native body, and the command itself, as OCI images, in a folder or in a registry.

mod bill;
mod container;
mod elf;
mod layout;
mod library;
mod package;
mod provenance;
pub mod reference;
mod registry;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::output::Output;
use crate::source;
use package::{About, Attachment, ImageManifest, digest, package};
use reference::Reference;
use registry::RegistryClient;

/// Pack a module, the native body or this command as an OCI image, and push it to a registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  penstock image push dist/suite.wasm registry.example.com/penstock/suite:0.1.0")]
pub struct Args {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ImageCommand {
    /// Write the images to a folder (an OCI image layout), and print their digests.
    #[command(
        after_help = "Examples:\n  penstock image build dist/suite.wasm --output images/suite\n  penstock image build amd64/penstock --also arm64/penstock --output images/penstock\n  \
                      penstock image build dist/libpenstock.so --output images/libpenstock"
    )]
    Build {
        #[command(flatten)]
        module: ModuleArgs,
        /// The folder to write to.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Push the images to a registry, and print their digests.
    ///
    /// For a module, pushes the image with the tag, the artifact with the tag `<tag>-artifact`, and a bill of materials
    /// and a provenance statement as referrers of both. For the command, pushes a container image with the same
    /// referrers. The same files and options give the same digests, so a second push changes nothing.
    #[command(
        after_help = "Credentials are those of `docker login` ($DOCKER_CONFIG/config.json, credential helpers included).\n\n\
        Example:\n  penstock image push dist/suite.wasm registry.example.com/penstock/suite:0.1.0"
    )]
    Push {
        #[command(flatten)]
        module: ModuleArgs,
        /// The destination: `registry/repository:tag`.
        to: Reference,
        /// Use HTTP without TLS for the registry. Registries on this machine are always contacted over HTTP.
        #[arg(long)]
        plain_http: bool,
    },
    /// Copy the library into a folder in one step, as the image for init containers does.
    #[command(after_help = "Example:\n  penstock image place /libpenstock.so /etc/penstock")]
    Place {
        /// The library.
        file: PathBuf,
        /// An existing folder.
        folder: PathBuf,
    },
    /// Print the bill of materials (CycloneDX) of a module or of the command.
    #[command(
        after_help = "Example:\n  cargo metadata --format-version 1 --filter-platform wasm32-wasip1 >metadata.json\n  \
        penstock image sbom dist/suite.wasm --cargo-metadata metadata.json >suite.cdx.json"
    )]
    Sbom {
        #[command(flatten)]
        module: ModuleArgs,
    },
}

#[derive(Debug, clap::Args)]
struct ModuleArgs {
    /// The module, such as `dist/suite.wasm`, the library `dist/libpenstock.so`, or the `penstock` command for Linux.
    module: PathBuf,
    /// The same command or library for another architecture. The result is an image index of both; may be repeated.
    #[arg(long, value_name = "FILE")]
    also: Vec<PathBuf>,
    /// Add a file to the command's image, such as the certificates of authorities; may be repeated.
    #[arg(long, value_name = "PATH=FILE")]
    file: Vec<String>,
    /// For the library: make an image for an init container, in which this static `penstock` command copies the
    /// library; may be repeated for other architectures.
    #[arg(long, value_name = "COMMAND", conflicts_with = "base")]
    init: Vec<PathBuf>,
    /// For the library: add it to the image of Envoy in this folder (an OCI image layout, for example from `crane pull
    /// --format=oci`).
    #[arg(long, value_name = "FOLDER")]
    base: Option<PathBuf>,
    /// The name [default: the name of the file].
    #[arg(long)]
    name: Option<String>,
    /// The version.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    module_version: String,
    /// The commit that it was built from.
    #[arg(long)]
    revision: Option<String>,
    /// The URL of its source.
    #[arg(long, default_value = env!("CARGO_PKG_REPOSITORY"))]
    source: String,
    /// The SPDX expression of its licence.
    #[arg(long, default_value = env!("CARGO_PKG_LICENSE"))]
    licence: String,
    /// The builder for the provenance statement, a URI.
    #[arg(long, default_value = "https://github.com/penstock-proxy/penstock/by-hand")]
    builder: String,
    /// The output of `cargo metadata --format-version 1 --filter-platform TARGET`, for the bill of materials. Without
    /// this option there is no bill of materials. TARGET is wasm32-wasip1 for a module.
    #[arg(long)]
    cargo_metadata: Option<PathBuf>,
}

impl Args {
    /// Builds or pushes images, and prints a line for each manifest: its kind and its name with the digest.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read or written, when it is not a module, or when the registry is
    /// unreachable or refuses it.
    pub fn run(&self, out: &mut Output<'_>) -> Result<bool> {
        match &self.command {
            ImageCommand::Build { module, output } => {
                let manifests = module.package()?;
                layout::write(output, &manifests).with_context(|| format!("cannot write {}", output.display()))?;
                for manifest in &manifests {
                    writeln!(out, "{:<11} {}", manifest.kind, manifest.blob.digest)?;
                }
            }
            ImageCommand::Place { file, folder } => library::place(file, folder)?,
            ImageCommand::Sbom { module } => {
                let metadata =
                    module.cargo_metadata.as_ref().context("a bill of materials needs --cargo-metadata FILE")?;
                let bill = module.bill(metadata, &digest(&read(&module.module)?))?;
                writeln!(out, "{}", serde_json::to_string_pretty(&bill)?)?;
            }
            ImageCommand::Push { module, to, plain_http } => {
                let manifests = module.package()?;
                let mut registry = RegistryClient::new(to, *plain_http)?;
                for manifest in &manifests {
                    let tagged = manifest.tag_suffix.map(|suffix| to.with_suffix(suffix));
                    registry
                        .push(manifest, tagged.as_ref().map(|tagged| tagged.tag.as_str()))
                        .with_context(|| format!("cannot push the {} to {to}", manifest.kind))?;
                    let name = tagged
                        .map_or_else(|| format!("{}/{}", to.registry, to.repository), |tagged| tagged.to_string());
                    writeln!(out, "{:<11} {name}@{}", manifest.kind, manifest.blob.digest)?;
                    // Prints progress, because pushing may take a while.
                    out.flush()?;
                }
            }
        }
        Ok(true)
    }
}

impl ModuleArgs {
    fn name(&self) -> String {
        let stem = || self.module.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.name.clone().unwrap_or_else(stem)
    }

    /// The bill of materials of what is linked into the file with this digest.
    fn bill(&self, metadata: &Path, digest: &str) -> Result<Value> {
        let metadata: Value =
            serde_json::from_slice(&read(metadata)?).with_context(|| format!("{} is not JSON", metadata.display()))?;
        let name = self.name();
        // The command's crate has the project's name; the names of the modules' crates start with it.
        let package = match name.as_str() {
            "penstock" => name,
            "libpenstock" => "penstock-native".to_owned(),
            _ => format!("penstock-{name}"),
        };
        bill::bill(&metadata, &package, digest.trim_start_matches("sha256:"))
    }

    fn package(&self) -> Result<Vec<ImageManifest>> {
        let module = read(&self.module)?;
        let about = About {
            name: self.name(),
            version: self.module_version.clone(),
            revision: self.revision.clone(),
            source: self.source.clone(),
            licence: self.licence.clone(),
        };
        let digest = digest(&module);
        let mut attachments = Vec::new();
        if let Some(metadata) = &self.cargo_metadata {
            let document = self.bill(metadata, &digest)?;
            attachments.push(Attachment { kind: "sbom", media_type: bill::MEDIA_TYPE, document });
        }
        let is_library = elf::is_library(&module);
        let is_command = elf::is_elf(&module) && !is_library;
        let file = match (is_command, is_library) {
            (true, _) => about.name.clone(),
            (_, true) => format!("{}.so", about.name),
            _ => format!("{}.wasm", about.name),
        };
        let document = provenance::statement(&about, &file, digest.trim_start_matches("sha256:"), &self.builder);
        attachments.push(Attachment { kind: "provenance", media_type: provenance::MEDIA_TYPE, document });
        let path = self.module.display().to_string();
        ensure!(
            is_library || (self.init.is_empty() && self.base.is_none()),
            "{path} is not the library: --init and --base are for libpenstock.so"
        );
        ensure!(is_command || self.file.is_empty(), "{path} is not the command: --file is for its image");
        if is_command || is_library {
            let mut all = vec![module];
            for other in &self.also {
                let other_bytes = read(other)?;
                ensure!(
                    elf::is_library(&other_bytes) == is_library,
                    "{} is not the same as {path} for another architecture",
                    other.display()
                );
                all.push(other_bytes);
            }
            if is_command {
                return container::package(&all, &self.files()?, &about, &attachments).context(path);
            }
            let commands = self.init.iter().map(|command| read(command)).collect::<Result<Vec<_>>>()?;
            let form = match (&self.base, commands.is_empty()) {
                (Some(base), _) => library::LibraryForm::OnTopOf(base),
                (None, false) => library::LibraryForm::Init(&commands),
                (None, true) => library::LibraryForm::Volume,
            };
            library::package(&all, &form, &about, &attachments).context(path)
        } else {
            ensure!(self.also.is_empty(), "{path} is a module: --also is for the command and the library");
            package(&module, &about, &attachments).context(path)
        }
    }

    /// The content of the files that `--file` names.
    fn files(&self) -> Result<Vec<container::ImageFile>> {
        let file = |text: &String| {
            let (path, from) = text
                .split_once('=')
                .with_context(|| format!("--file {text}: expected PATH=FILE, a path in the image first"))?;
            let from = Path::new(from);
            let bytes = read(from)?;
            let executable = elf::is_elf(&bytes);
            Ok(container::ImageFile { path: path.trim_start_matches('/').to_owned(), bytes, executable })
        };
        self.file.iter().map(file).collect()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| source::unreadable("cannot read", path, &error))
}
