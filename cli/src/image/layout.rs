//! Manifests as files: an OCI image layout (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>).

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::package::ImageManifest;

/// Writes all manifests and their blobs into `folder`, which may exist.
///
/// # Errors
/// Returns an error when a file cannot be written.
pub fn write(folder: &Path, manifests: &[ImageManifest]) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    for blob in manifests.iter().flat_map(|manifest| manifest.blobs.iter().chain([&manifest.blob])) {
        fs::write(blobs.join(blob.digest.trim_start_matches("sha256:")), &blob.bytes)?;
    }
    let listed: Vec<Value> = manifests.iter().map(entry).collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": listed,
    });
    fs::write(folder.join("index.json"), index.to_string())?;
    fs::write(folder.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    Ok(())
}

/// A referrer is found through its subject, all other manifests by name.
fn entry(manifest: &ImageManifest) -> Value {
    if let Some(listing) = &manifest.listing {
        return listing.clone();
    }
    let mut entry = manifest.blob.descriptor();
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".to_owned(), json!({"org.opencontainers.image.ref.name": manifest.kind}));
    }
    entry
}
