//! The `penstock` command as a container image, without Docker: one layer with the executable and the files that it needs.
//!
//! There is no base image, so the executable must be static (a build for `x86_64-unknown-linux-musl`), or its libraries
//! must be added. Executables for several architectures become an index, from which a container runtime selects its
//! own.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::elf::{architecture, loader};
use super::package::{About, Attachment, Blob, ImageManifest, MANIFEST, digest, referrer, tagged};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The path of the executable in the image.
pub const COMMAND: &str = "usr/local/bin/penstock";
/// The user id of `nobody` by convention, for images without a user database.
pub const USER: &str = "65532:65532";

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Its path in the image, without the leading slash.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether it is executable, as libraries and the loader are.
    pub executable: bool,
}

/// The manifests of an image of the command, in the order in which they must be pushed.
///
/// # Errors
/// Returns an error when an executable has an unknown architecture, when it needs a loader that is not among `files`,
/// or when two have the same architecture.
pub fn package(
    executables: &[Vec<u8>],
    files: &[ImageFile],
    about: &About,
    attachments: &[Attachment],
) -> Result<Vec<ImageManifest>> {
    let mut images = Vec::new();
    for executable in executables {
        let architecture = architecture(executable)?;
        if let Some(loader) = loader(executable) {
            ensure!(
                files.iter().any(|file| file.path == loader.trim_start_matches('/')),
                "the executable is linked dynamically (its loader is {loader}), and an image has no libraries: build it for \
                 x86_64-unknown-linux-musl or aarch64-unknown-linux-musl, or add the loader and the libraries with --file"
            );
        }
        images.push((architecture, image(executable, files, architecture, about)?));
    }
    of_platforms(images, about, attachments)
}

/// Returns a single image unchanged, or several as an index, from which a container runtime selects its own; with their
/// referrers.
///
/// # Errors
/// Returns an error when two images have the same architecture.
pub fn of_platforms(
    images: Vec<(&'static str, ImageManifest)>,
    about: &About,
    attachments: &[Attachment],
) -> Result<Vec<ImageManifest>> {
    let several = images.len() > 1;
    let mut all = Vec::new();
    let mut platforms: Vec<(&str, Value)> = Vec::new();
    for (architecture, mut image) in images {
        ensure!(
            platforms.iter().all(|(known, _)| *known != architecture),
            "two files are for {architecture}: give one for each architecture"
        );
        if several {
            image.tag_suffix = None;
        }
        let mut descriptor = image.blob.descriptor();
        if let Some(descriptor) = descriptor.as_object_mut() {
            descriptor.insert("platform".to_owned(), json!({"architecture": architecture, "os": "linux"}));
        }
        platforms.push((architecture, descriptor));
        let referrers: Vec<_> = attachments.iter().map(|attachment| referrer(&image, attachment, about)).collect();
        all.push(image);
        // Only for a single image: a bill of materials describes one build.
        if !several {
            all.extend(referrers);
        }
    }
    if several {
        let manifests: Vec<Value> = platforms.into_iter().map(|(_, descriptor)| descriptor).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": manifests,
            "annotations": about.annotations(),
        });
        let index = ImageManifest {
            kind: "index",
            blob: Blob::json(INDEX, &index),
            blobs: Vec::new(),
            tag_suffix: Some(""),
            subject: None,
            listing: None,
        };
        let referrers: Vec<_> = attachments.iter().map(|attachment| referrer(&index, attachment, about)).collect();
        all.push(index);
        all.extend(referrers);
    }
    Ok(all)
}

fn image(executable: &[u8], files: &[ImageFile], architecture: &str, about: &About) -> Result<ImageManifest> {
    let mut all = files.to_vec();
    all.push(ImageFile { path: COMMAND.to_owned(), bytes: executable.to_vec(), executable: true });
    let start = json!({"User": USER, "Entrypoint": [format!("/{COMMAND}")], "WorkingDir": "/"});
    from_scratch(&all, architecture, &start, about)
}

/// An image with only these files; `start` is its entry point.
pub fn from_scratch(files: &[ImageFile], architecture: &str, start: &Value, about: &About) -> Result<ImageManifest> {
    let Layer { blob, diff_id } = layer(files, OCI_LAYER)?;
    let annotations = about.annotations();
    let mut start = start.clone();
    if let Some(start) = start.as_object_mut() {
        start.insert("Labels".to_owned(), json!(annotations));
    }
    let config = Blob::json(
        "application/vnd.oci.image.config.v1+json",
        &json!({
            "architecture": architecture,
            "os": "linux",
            "config": start,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }),
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [blob.descriptor()],
        "annotations": annotations,
    });
    Ok(tagged("image", "", &manifest, vec![config, blob]))
}

/// The media type of a layer in an OCI image.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Files as a layer of an image.
#[derive(Debug)]
pub struct Layer {
    /// The compressed archive.
    pub blob: Blob,
    /// The digest of the uncompressed archive.
    pub diff_id: String,
}

/// Packs files into a layer.
pub fn layer(files: &[ImageFile], media_type: &str) -> Result<Layer> {
    let tar = archive(files).context("cannot pack the image")?;
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(&tar)?;
    Ok(Layer { blob: Blob::new(media_type, gzip.finish()?), diff_id: digest(&tar) })
}

/// All files in a fixed order, owned by root, with a date in 1970, so that the digest is reproducible.
fn archive(files: &[ImageFile]) -> Result<Vec<u8>> {
    let mut entries: Vec<(&str, &[u8], bool)> =
        files.iter().map(|file| (file.path.as_str(), file.bytes.as_slice(), file.executable)).collect();
    entries.sort_unstable();
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes, executable) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len().try_into()?);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        archive.append_data(&mut header, path, bytes)?;
    }
    Ok(archive.into_inner()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::super::elf::tests::elf;
    use super::*;

    fn about() -> About {
        About { name: "penstock".into(), version: "1.2.3".into(), ..About::default() }
    }

    fn value(blob: &Blob) -> Value {
        serde_json::from_slice(&blob.bytes).unwrap()
    }

    #[test]
    fn one_executable_is_an_image_and_two_are_an_index_of_their_architectures() {
        let single = package(&[elf(62, None)], &[], &about(), &[]).unwrap();
        assert_eq!(single.iter().map(|manifest| manifest.kind).collect::<Vec<_>>(), ["image"]);
        assert_eq!(value(&single[0].blobs[0])["config"]["Entrypoint"][0], "/usr/local/bin/penstock");

        let both = package(&[elf(62, None), elf(183, None)], &[], &about(), &[]).unwrap();
        let tags: Vec<_> = both.iter().map(|manifest| (manifest.kind, manifest.tag_suffix)).collect();
        assert_eq!(tags, [("image", None), ("image", None), ("index", Some(""))]);
        let listed = value(&both[2].blob)["manifests"].clone();
        assert_eq!(listed[0]["platform"]["architecture"], "amd64");
        assert_eq!(listed[1]["platform"]["architecture"], "arm64");
        assert_eq!(listed[1]["digest"], both[1].blob.digest);
    }

    #[test]
    fn the_same_files_give_the_same_digest_in_any_order() {
        let file = |path: &str| ImageFile { path: path.into(), bytes: b"x".to_vec(), executable: false };
        let image =
            |files: &[ImageFile]| package(&[elf(62, None)], files, &about(), &[]).unwrap()[0].blob.digest.clone();
        assert_eq!(image(&[file("a"), file("b")]), image(&[file("b"), file("a")]));
    }

    #[test]
    fn an_executable_without_its_loader_is_refused() {
        let dynamic = elf(62, Some("/lib64/ld.so\0"));
        let error = package(std::slice::from_ref(&dynamic), &[], &about(), &[]).unwrap_err().to_string();
        assert!(error.contains("its loader is /lib64/ld.so"), "{error}");
        let loader = ImageFile { path: "lib64/ld.so".into(), bytes: Vec::new(), executable: true };
        assert!(package(&[dynamic], &[loader], &about(), &[]).is_ok());
    }

    #[test]
    fn a_file_that_is_not_an_executable_of_a_known_architecture_is_refused() {
        for (bytes, why) in [
            (b"\x7fELF".to_vec(), "not a 64-bit executable"),
            (elf(3, None), "unknown machine"),
            (vec![0; 10], "not a 64-bit executable"),
        ] {
            let error = package(&[bytes], &[], &about(), &[]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = package(&[elf(62, None), elf(62, None)], &[], &about(), &[]).unwrap_err().to_string();
        assert!(error.contains("two files are for amd64"), "{error}");
    }
}
