//! The manifests of a module for a registry. The same input gives the same bytes.
//!
//! A module has two forms, because platforms and tools differ in what they accept:
//!
//! - the **image**: an OCI image whose last layer is a `tar+gzip` with `plugin.wasm`. Istio's agent and Envoy Gateway
//!   accept it, and so does every registry and scanner that only knows container images.
//! - the **artifact**: the module without an archive around it, in exactly two layers, as the Wasm image specification
//!   requires (<https://github.com/solo-io/wasm/blob/master/spec/spec.md>). Istio and Envoy Gateway accept it, too.
//!
//! A bill of materials and a provenance statement are *referrers* of each form: separate manifests that name it as
//! their `subject` (OCI image specification 1.1), because a third layer would make both forms unreadable.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The largest module that Istio and Envoy Gateway unpack.
const LARGEST_MODULE: usize = 256 << 20;

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Bytes with their media type and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The media type.
    pub media_type: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// The content.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Makes a blob of `bytes` and computes its digest.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Blob { media_type: media_type.to_owned(), digest: digest(&bytes), bytes }
    }

    /// Makes a blob of a document as compact JSON.
    pub fn json(media_type: &str, value: &Value) -> Self {
        Blob::new(media_type, value.to_string().into_bytes())
    }

    /// The descriptor with which manifests refer to it.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// Returns `sha256:` and the hexadecimal digest of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// A manifest and the blobs that it refers to.
#[derive(Clone, Debug)]
pub struct ImageManifest {
    /// Its human-readable kind: `image`, `artifact`, `index`, `sbom`, `provenance`.
    pub kind: &'static str,
    /// The manifest itself.
    pub blob: Blob,
    /// What must be pushed before it.
    pub blobs: Vec<Blob>,
    /// The suffix for the user's tag; `None` for a referrer, which has no tag.
    pub tag_suffix: Option<&'static str>,
    /// For a referrer, the digest of its subject.
    pub subject: Option<String>,
    /// For a referrer, its entry in the list of its subject's referrers.
    pub listing: Option<Value>,
}

/// The description of a module in annotations.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The module's name, such as `suite`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit that it was built from.
    pub revision: Option<String>,
    /// Where the source is.
    pub source: String,
    /// The SPDX expression of its licence.
    pub licence: String,
}

impl About {
    /// The annotations of both forms.
    pub fn annotations(&self) -> BTreeMap<&'static str, String> {
        let mut all = BTreeMap::from([
            ("org.opencontainers.image.title", self.name.clone()),
            ("org.opencontainers.image.version", self.version.clone()),
            ("org.opencontainers.image.source", self.source.clone()),
            ("org.opencontainers.image.licenses", self.licence.clone()),
        ]);
        if let Some(revision) = &self.revision {
            all.insert("org.opencontainers.image.revision", revision.clone());
        }
        all
    }
}

/// A document about a module that is attached to it.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// `sbom` or `provenance`.
    pub kind: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// The document.
    pub document: Value,
}

/// The manifests of a module, in the order in which they must be pushed: each subject before its referrers.
///
/// # Errors
/// Returns an error when `module` is not a WebAssembly module that a proxy can load.
pub fn package(module: &[u8], about: &About, attachments: &[Attachment]) -> Result<Vec<ImageManifest>> {
    ensure!(
        module.starts_with(b"\0asm\x01\0\0\0"),
        "not a WebAssembly core module: it does not begin with `\\0asm` and version 1 (a component or a text file will not do)"
    );
    ensure!(module.len() <= LARGEST_MODULE, "larger than 256 MiB, which Istio and Envoy Gateway refuse to unpack");
    let mut all = Vec::new();
    for form in [image(module, about)?, artifact(module, about)] {
        let referrers: Vec<_> = attachments.iter().map(|attachment| referrer(&form, attachment, about)).collect();
        all.push(form);
        all.extend(referrers);
    }
    Ok(all)
}

fn image(module: &[u8], about: &About) -> Result<ImageManifest> {
    let tar = archive(module).context("cannot pack the module")?;
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(&tar)?;
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", gzip.finish()?);
    let config = Blob::json(
        "application/vnd.oci.image.config.v1+json",
        &json!({
            "architecture": "wasm",
            "os": "wasip1",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
        }),
    );
    let mut annotations = about.annotations();
    annotations.insert("module.wasm.image/variant", "compat".to_owned());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
        "annotations": annotations,
    });
    Ok(tagged("image", "", &manifest, vec![config, layer]))
}

/// An archive with `plugin.wasm` at the root, owned by root, with a date in 1970.
fn archive(module: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(module.len().try_into()?);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "plugin.wasm", module)?;
    Ok(archive.into_inner()?)
}

fn artifact(module: &[u8], about: &About) -> ImageManifest {
    let config = Blob::json(EMPTY, &json!({}));
    let runtime = Blob::json(
        "application/vnd.module.wasm.config.v1+json",
        &json!({"type": "envoy_proxy", "abiVersions": ["0.2.1"], "config": {}}),
    );
    let content = Blob::new("application/vnd.module.wasm.content.layer.v1+wasm", module.to_vec());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.module.wasm.config.v1+json",
        "config": config.descriptor(),
        "layers": [content.descriptor(), runtime.descriptor()],
        "annotations": about.annotations(),
    });
    tagged("artifact", "-artifact", &manifest, vec![config, content, runtime])
}

/// A manifest that gets the user's tag with `suffix`.
pub fn tagged(kind: &'static str, suffix: &'static str, manifest: &Value, blobs: Vec<Blob>) -> ImageManifest {
    let blob = Blob::json(MANIFEST, manifest);
    ImageManifest { kind, blob, blobs, tag_suffix: Some(suffix), subject: None, listing: None }
}

/// A separate manifest for a document, which names its subject.
pub fn referrer(subject: &ImageManifest, attachment: &Attachment, about: &About) -> ImageManifest {
    let config = Blob::json(EMPTY, &json!({}));
    let mut document = attachment.document.clone();
    if let Some(named) = document.pointer_mut("/subject/1") {
        // A provenance statement names the digest that it is attached to.
        *named = json!({
            "name": subject.kind,
            "digest": {"sha256": subject.blob.digest.trim_start_matches("sha256:")},
        });
    }
    let layer = Blob::json(attachment.media_type, &document);
    let annotations = about.annotations();
    let blob = Blob::json(
        MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": attachment.media_type,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "subject": subject.blob.descriptor(),
            "annotations": annotations,
        }),
    );
    let mut listing = blob.descriptor();
    if let Some(listing) = listing.as_object_mut() {
        listing.insert("artifactType".to_owned(), attachment.media_type.into());
        listing.insert("annotations".to_owned(), json!(annotations));
    }
    ImageManifest {
        kind: attachment.kind,
        blob,
        blobs: vec![config, layer],
        tag_suffix: None,
        subject: Some(subject.blob.digest.clone()),
        listing: Some(listing),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use std::io::Read;

    use super::*;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0and so on";

    fn about() -> About {
        About {
            name: "suite".into(),
            version: "1.2.3".into(),
            revision: Some("abc".into()),
            source: "https://example.com/penstock".into(),
            licence: "Apache-2.0".into(),
        }
    }

    fn forms() -> Vec<ImageManifest> {
        let document = json!({"subject": [{"name": "suite.wasm"}, null]});
        let attachment = Attachment { kind: "provenance", media_type: "application/vnd.in-toto+json", document };
        package(MODULE, &about(), &[attachment]).unwrap()
    }

    fn json_of(blob: &Blob) -> Value {
        serde_json::from_slice(&blob.bytes).unwrap()
    }

    #[test]
    fn the_same_module_gives_the_same_digests() {
        let digests: Vec<_> = forms().into_iter().map(|form| form.blob.digest).collect();
        assert_eq!(digests, forms().into_iter().map(|form| form.blob.digest).collect::<Vec<_>>());
        // If these digests change, every pinned digest of users changes: mention it in the release notes.
        assert_eq!(digests[0], "sha256:4d2f5c2d9fe0e038dbe1ae0e824dfe1239cf744152e624a1312326680ba20dd4");
        assert_eq!(digests[2], "sha256:f340a46410d1687459bc399e56432eb3f5f13b2013c42d50edff9004ce1d5a62");
    }

    #[test]
    fn the_image_has_the_module_in_its_last_layer_and_names_what_it_unpacks_to() {
        let image = &forms()[0];
        let layer = image.blobs.last().unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(layer.bytes.as_slice()).read_to_end(&mut tar).unwrap();
        assert_eq!(json_of(&image.blobs[0])["rootfs"]["diff_ids"][0], digest(&tar));
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert_eq!((entry.path().unwrap().to_str(), content.as_slice()), (Some("plugin.wasm"), MODULE));
        assert_eq!(json_of(&image.blob)["annotations"]["org.opencontainers.image.revision"], "abc");
    }

    #[test]
    fn the_artifact_has_exactly_the_two_layers_that_hosts_look_for() {
        let layers = json_of(&forms()[2].blob)["layers"].clone();
        let types: Vec<_> =
            layers.as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect();
        assert_eq!(
            types,
            ["application/vnd.module.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.config.v1+json"]
        );
    }

    #[test]
    fn an_attachment_names_the_form_that_it_belongs_to() {
        let forms = forms();
        for (form, attached) in [(&forms[0], &forms[1]), (&forms[2], &forms[3])] {
            assert_eq!(json_of(&attached.blob)["subject"]["digest"], form.blob.digest);
            let statement = json_of(&attached.blobs[1]);
            assert_eq!(
                format!("sha256:{}", statement["subject"][1]["digest"]["sha256"].as_str().unwrap()),
                form.blob.digest
            );
        }
    }

    #[test]
    fn what_is_not_a_core_module_is_refused() {
        for bytes in [&b""[..], b"(module)", b"\0asm\x0d\0\x01\0"] {
            let error = package(bytes, &about(), &[]).unwrap_err().to_string();
            assert!(error.contains("not a WebAssembly core module"), "{error}");
        }
    }
}
