//! The native body, `libpenstock.so`, as a container image: alone for an image volume, with a command that copies it for an init
//! container, or on top of an image of Envoy.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::container::{COMMAND, ImageFile, OCI_LAYER, USER, from_scratch, layer, of_platforms};
use super::elf::{architecture, loader};
use super::package::{About, Attachment, Blob, ImageManifest, MANIFEST, digest};

/// The library's file name, by which Envoy finds it.
const FILE: &str = "libpenstock.so";
/// The folder in which configurations of Envoy look for it.
const FOLDER: &str = "etc/penstock";
/// The environment variable with the folder in which Envoy searches for modules by name.
const SEARCH_PATH: &str = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH";

/// The purpose of the image.
#[derive(Debug)]
pub enum LibraryForm<'a> {
    /// A volume: contains only the library.
    Volume,
    /// An init container: one of these static `penstock` commands copies the library to the folder in its argument.
    Init(&'a [Vec<u8>]),
    /// A proxy: the library on top of the Envoy image in this folder, which is an OCI image layout.
    OnTopOf(&'a Path),
}

/// The manifests of an image with the library, in the order in which they must be pushed.
///
/// # Errors
/// Returns an error when a library has an unknown architecture, when two have the same, or when one has no command or
/// no base image.
pub fn package(
    libraries: &[Vec<u8>],
    form: &LibraryForm<'_>,
    about: &About,
    attachments: &[Attachment],
) -> Result<Vec<ImageManifest>> {
    let mut images = Vec::new();
    for library in libraries {
        let architecture = architecture(library)?;
        let at =
            |folder: &str| ImageFile { path: format!("{folder}{FILE}"), bytes: library.clone(), executable: false };
        let image = match form {
            LibraryForm::Volume => from_scratch(&[at("")], architecture, &json!({}), about)?,
            LibraryForm::Init(commands) => {
                let command = command_for(commands, architecture)?;
                let command = ImageFile { path: COMMAND.to_owned(), bytes: command.clone(), executable: true };
                let entrypoint = [&format!("/{COMMAND}"), "image", "place", &format!("/{FILE}")];
                let start =
                    json!({"User": USER, "WorkingDir": "/", "Entrypoint": entrypoint, "Cmd": [format!("/{FOLDER}")]});
                from_scratch(&[at(""), command], architecture, &start, about)?
            }
            LibraryForm::OnTopOf(layout) => on_top_of(layout, &at(&format!("{FOLDER}/")), architecture, about)
                .with_context(|| format!("the base image in {}", layout.display()))?,
        };
        images.push((architecture, image));
    }
    of_platforms(images, about, attachments)
}

fn command_for<'a>(commands: &'a [Vec<u8>], wanted: &str) -> Result<&'a Vec<u8>> {
    for command in commands {
        if architecture(command)? == wanted {
            ensure!(
                loader(command).is_none(),
                "the command is linked dynamically, and an image has no libraries: take the static one of a release, or build it for \
                 x86_64-unknown-linux-musl or aarch64-unknown-linux-musl"
            );
            return Ok(command);
        }
    }
    bail!("no command of --init is for {wanted}")
}

/// Adds a layer to the image of a layout.
fn on_top_of(layout: &Path, library: &ImageFile, architecture: &str, about: &About) -> Result<ImageManifest> {
    let base = find(layout, architecture)?;
    let mut manifest: Value = serde_json::from_slice(&base).context("its manifest is not JSON")?;
    let descriptors = |manifest: &Value, field: &str| {
        manifest.get(field).cloned().with_context(|| format!("its manifest has no `{field}`"))
    };
    let config = descriptors(&manifest, "config")?;
    let config_type = text(&config, "mediaType").unwrap_or("application/vnd.oci.image.config.v1+json").to_owned();
    let mut blobs = Vec::new();
    for layer in descriptors(&manifest, "layers")?.as_array().context("its `layers` are not a list")? {
        blobs.push(Blob::new(text(layer, "mediaType").unwrap_or(OCI_LAYER), blob(layout, layer)?));
    }
    let media_type = text(&manifest, "mediaType").unwrap_or(MANIFEST).to_owned();
    let layer_type =
        if media_type.contains("docker") { "application/vnd.docker.image.rootfs.diff.tar.gzip" } else { OCI_LAYER };
    let added = layer(std::slice::from_ref(library), layer_type)?;

    let mut config: Value = serde_json::from_slice(&blob(layout, &config)?).context("its configuration is not JSON")?;
    list(&mut config, "/rootfs", "diff_ids")?.push(json!(added.diff_id));
    if config.get("history").is_some() {
        list(&mut config, "", "history")?.push(json!({"created_by": format!("penstock image: {}", library.path)}));
    }
    if config.get("config").is_none_or(Value::is_null) {
        *field(&mut config, "", "config")? = json!({});
    }
    let variables = list(&mut config, "/config", "Env")?;
    if !variables.iter().any(|known| known.as_str().is_some_and(|known| known.starts_with(&format!("{SEARCH_PATH}="))))
    {
        variables.push(json!(format!("{SEARCH_PATH}=/{FOLDER}")));
    }
    let config = Blob::json(&config_type, &config);

    list(&mut manifest, "", "layers")?.push(added.blob.descriptor());
    *field(&mut manifest, "", "config")? = config.descriptor();
    if !media_type.contains("docker") {
        *field(&mut manifest, "", "annotations")? = json!(about.annotations());
    }
    blobs.push(added.blob);
    blobs.push(config);
    let blob = Blob::json(&media_type, &manifest);
    Ok(ImageManifest { kind: "image", blob, blobs, tag_suffix: Some(""), subject: None, listing: None })
}

/// The manifest of the layout's image for an architecture.
fn find(layout: &Path, architecture: &str) -> Result<Vec<u8>> {
    let path = layout.join("index.json");
    let index =
        fs::read(&path).with_context(|| format!("cannot read {}: is it an OCI image layout?", path.display()))?;
    let mut waiting = vec![index];
    let mut seen = 0;
    while let Some(bytes) = waiting.pop() {
        let document: Value = serde_json::from_slice(&bytes).context("an index is not JSON")?;
        let Some(listed) = document.get("manifests").and_then(Value::as_array) else {
            let config: Value =
                serde_json::from_slice(&blob(layout, document.get("config").context("a manifest has no `config`")?)?)
                    .context("a configuration is not JSON")?;
            if text(&config, "architecture") == Some(architecture) {
                return Ok(bytes);
            }
            continue;
        };
        for descriptor in listed {
            seen += 1;
            ensure!(seen < 1000, "it has too many manifests");
            let platform = descriptor.pointer("/platform/architecture").and_then(Value::as_str);
            if platform.is_none_or(|platform| platform == architecture) {
                waiting.push(blob(layout, descriptor)?);
            }
        }
    }
    bail!("it has no image for {architecture}")
}

/// Reads the blob of a descriptor and verifies its digest.
fn blob(layout: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let named = text(descriptor, "digest").context("a descriptor has no `digest`")?;
    let hash = named.strip_prefix("sha256:").filter(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let hash = hash.with_context(|| format!("{named} is not a SHA-256 digest"))?;
    let bytes = fs::read(layout.join("blobs/sha256").join(hash)).with_context(|| format!("it lacks {named}"))?;
    ensure!(digest(&bytes) == named, "the content of {named} does not have this digest");
    Ok(bytes)
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

/// The field of the object at `pointer`, created when it is missing.
fn field<'a>(value: &'a mut Value, pointer: &str, name: &str) -> Result<&'a mut Value> {
    let object = value.pointer_mut(pointer).and_then(Value::as_object_mut);
    Ok(object.with_context(|| format!("its image has no {pointer}"))?.entry(name).or_insert(Value::Null))
}

fn list<'a>(value: &'a mut Value, pointer: &str, name: &str) -> Result<&'a mut Vec<Value>> {
    let field = field(value, pointer, name)?;
    if field.is_null() {
        *field = json!([]);
    }
    field.as_array_mut().with_context(|| format!("its `{name}` is not a list"))
}

/// Copies a file into a folder atomically: writes beside the old file, then renames, because a running Envoy may have
/// the old one mapped.
///
/// # Errors
/// Returns an error when the file cannot be read or the folder not be written.
pub fn place(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().with_context(|| format!("{} is no file", file.display()))?;
    let mut part = name.to_owned();
    part.push(".part");
    let (part, to) = (folder.join(part), folder.join(name));
    let bytes = fs::read(file).map_err(|error| crate::source::unreadable("cannot read", file, &error))?;
    fs::write(&part, bytes).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, &to).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
