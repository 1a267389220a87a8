//! Unpacks images as container runtimes do, layer by layer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;

use super::super::elf::tests::{elf, library};
use super::super::layout;
use super::*;

fn about() -> About {
    About { name: "libpenstock".into(), version: "1.2.3".into(), ..About::default() }
}

fn value(blob: &Blob) -> Value {
    serde_json::from_slice(&blob.bytes).unwrap()
}

/// The files of an image with their modes, and its configuration; verifies the digests.
fn unpacked(image: &ImageManifest) -> (BTreeMap<String, (Vec<u8>, u32)>, Value) {
    let find = |digest: &Value| image.blobs.iter().find(|blob| Some(blob.digest.as_str()) == digest.as_str()).unwrap();
    let manifest = value(&image.blob);
    let config = value(find(&manifest["config"]["digest"]));
    let mut files = BTreeMap::new();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), config["rootfs"]["diff_ids"].as_array().unwrap().len());
    for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
        let mut tar = Vec::new();
        GzDecoder::new(find(&layer["digest"]).bytes.as_slice()).read_to_end(&mut tar).unwrap();
        assert_eq!(diff_id, &json!(digest(&tar)));
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let path = entry.path().unwrap().display().to_string();
            files.insert(path, (bytes, entry.header().mode().unwrap()));
        }
    }
    (files, config)
}

fn paths(files: &BTreeMap<String, (Vec<u8>, u32)>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

#[test]
fn an_image_for_a_volume_has_the_library_and_nothing_to_run() {
    let images = package(&[library(62)], &LibraryForm::Volume, &about(), &[]).unwrap();
    let (files, config) = unpacked(&images[0]);
    assert_eq!((images.len(), paths(&files)), (1, vec!["libpenstock.so"]));
    assert_eq!(files["libpenstock.so"], (library(62), 0o644));
    assert_eq!((&config["architecture"], config["config"].get("Entrypoint")), (&json!("amd64"), None));

    let both = package(&[library(62), library(183)], &LibraryForm::Volume, &about(), &[]).unwrap();
    assert_eq!(both.iter().map(|image| image.kind).collect::<Vec<_>>(), ["image", "image", "index"]);
    assert_eq!(value(&both[2].blob)["manifests"][1]["platform"]["architecture"], "arm64");
    assert_eq!(unpacked(&both[1]).0["libpenstock.so"].0, library(183));
    assert!(package(&[library(62), library(62)], &LibraryForm::Volume, &about(), &[]).is_err());
}

#[test]
fn an_image_for_an_init_container_copies_the_library_with_the_command_of_its_architecture() {
    let commands = [elf(183, None), elf(62, None)];
    let images = package(&[library(62)], &LibraryForm::Init(&commands), &about(), &[]).unwrap();
    let (files, config) = unpacked(&images[0]);
    assert_eq!(paths(&files), ["libpenstock.so", "usr/local/bin/penstock"]);
    assert_eq!(files["usr/local/bin/penstock"], (elf(62, None), 0o755));
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/local/bin/penstock", "image", "place", "/libpenstock.so"]));
    assert_eq!(
        (&config["config"]["Cmd"], &config["config"]["User"]),
        (&json!(["/etc/penstock"]), &json!("65532:65532"))
    );

    let error = |commands: &[Vec<u8>]| {
        package(&[library(62)], &LibraryForm::Init(commands), &about(), &[]).unwrap_err().to_string()
    };
    assert_eq!(error(&[elf(183, None)]), "no command of --init is for amd64");
    assert!(error(&[elf(62, Some("/lib64/ld.so"))]).contains("linked dynamically"));
}

/// A base image for each architecture, as `crane pull --format=oci` writes it, with Docker's media types.
fn base(folder: &Path, docker: bool) {
    let (manifest_type, layer_type) = if docker {
        ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
    } else {
        (MANIFEST, OCI_LAYER)
    };
    let images = [("amd64", 62), ("arm64", 183)].map(|(architecture, machine)| {
        let envoy = ImageFile { path: "usr/local/bin/envoy".into(), bytes: elf(machine, None), executable: true };
        let layer = layer(&[envoy], layer_type).unwrap();
        let config = Blob::json("application/vnd.oci.image.config.v1+json", &json!({
            "architecture": architecture, "os": "linux", "history": [{"created_by": "them"}],
            "config": {"Entrypoint": ["/docker-entrypoint.sh"], "Env": ["PATH=/usr/bin"], "User": "envoy"},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        }));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor(), "layers": [layer.blob.descriptor()],
        });
        let blob = Blob::json(manifest_type, &manifest);
        (architecture, ImageManifest { kind: "image", blob, blobs: vec![config, layer.blob], tag_suffix: None, subject: None, listing: None })
    });
    layout::write(folder, &of_platforms(images.into(), &about(), &[]).unwrap()).unwrap();
}

#[test]
fn an_image_of_envoy_stays_as_it_is_under_the_library() {
    for docker in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        base(folder.path(), docker);
        for (machine, architecture) in [(62, "amd64"), (183, "arm64")] {
            let form = LibraryForm::OnTopOf(folder.path());
            let images = package(&[library(machine)], &form, &about(), &[]).unwrap();
            let (files, config) = unpacked(&images[0]);
            assert_eq!(paths(&files), ["etc/penstock/libpenstock.so", "usr/local/bin/envoy"]);
            assert_eq!(files["usr/local/bin/envoy"], (elf(machine, None), 0o755));
            assert_eq!(config["architecture"], architecture);
            assert_eq!(config["config"]["Entrypoint"], json!(["/docker-entrypoint.sh"]));
            assert_eq!(config["config"]["User"], "envoy");
            assert_eq!(
                config["config"]["Env"],
                json!(["PATH=/usr/bin", "ENVOY_DYNAMIC_MODULES_SEARCH_PATH=/etc/penstock"])
            );
            assert_eq!(config["history"].as_array().unwrap().len(), 2);
            let of_docker = value(&images[0].blob)["mediaType"].as_str().unwrap().contains("docker");
            assert_eq!(of_docker, docker);
        }
    }
}

#[test]
fn an_invalid_or_damaged_base_image_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let error = |library: Vec<u8>| {
        let error = package(&[library], &LibraryForm::OnTopOf(folder.path()), &about(), &[]).unwrap_err();
        format!("{error:#}")
    };
    assert!(error(library(62)).contains("is it an OCI image layout?"));
    base(folder.path(), false);
    let blobs = folder.path().join("blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(b' ');
        fs::write(&path, bytes).unwrap();
    }
    assert!(error(library(62)).contains("does not have this digest"));
    fs::write(
        folder.path().join("index.json"),
        json!({"manifests": [{"digest": "sha256:../../etc/passwd"}]}).to_string(),
    )
    .unwrap();
    assert!(error(library(62)).contains("not a SHA-256 digest"));
    fs::write(folder.path().join("index.json"), json!({"manifests": []}).to_string()).unwrap();
    assert!(error(library(62)).contains("no image for amd64"));
}

#[test]
fn a_library_is_put_into_its_place_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("libpenstock.so"), folder.path().join("to"));
    fs::create_dir(&to).unwrap();
    fs::write(&from, "new").unwrap();
    fs::write(to.join("libpenstock.so"), "old").unwrap();
    let old = fs::File::open(to.join("libpenstock.so")).unwrap();
    place(&from, &to).unwrap();
    assert_eq!(fs::read_to_string(to.join("libpenstock.so")).unwrap(), "new");
    // A process that has the old file open keeps it.
    assert_eq!(std::io::read_to_string(old).unwrap(), "old");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
    assert!(place(&from, &folder.path().join("none")).unwrap_err().to_string().contains("cannot write"));
}
