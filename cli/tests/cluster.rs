//! `penstock status` and `penstock set-weight`, with a fake `kubectl` that reads files.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// A `kubectl` that prints the files of its folder and notes what it was asked.
const KUBECTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/asked"
case "$1 $2" in
"get wasmplugins.extensions.istio.io") cat "$here/list.json" ;;
"get wasmplugin") cat "$here/object.json" ;;
"patch wasmplugin") echo "wasmplugin patched" ;;
"get "*) echo 'error: the server doesn'"'"'t have a resource type "x"' >&2; exit 1 ;;
esac
"#;

fn plugin(status: Value) -> Value {
    json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": "penstock", "namespace": "shop"}, "status": status,
        "spec": {"url": "oci://r.test/penstock/suite:1", "pluginConfig": {"canaries": [
            {"name": "reviews", "variants": [{"name": "v1", "weight": 95}, {"name": "v2", "weight": 5}]}]}}})
}

fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_penstock")).args(arguments).env("PATH", path).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn folder(plugin: &Value) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("kubectl");
    std::fs::write(&script, KUBECTL).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("list.json"), json!({"items": [plugin]}).to_string()).unwrap();
    std::fs::write(folder.path().join("object.json"), plugin.to_string()).unwrap();
    folder
}

/// An admin interface that always answers with this dump.
fn admin(dump: Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let body = dump.to_string();
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    url
}

fn dump(policy: &Value) -> Value {
    json!({"configs": [{"ecds_filters": [{"ecds_filter": {"name": "extensions.istio.io/wasmplugin/shop.penstock",
        "typed_config": {"config": {"configuration": {"value": policy.to_string()}}}}}]}]})
}

#[test]
fn a_proxy_that_runs_the_clusters_policy_is_current_and_one_that_does_not_fails_the_pipeline() {
    let plugin = plugin(json!({}));
    let folder = folder(&plugin);
    let url = admin(dump(&plugin["spec"]["pluginConfig"]));
    let (status, out, err) = run(folder.path(), &["status", "--envoy", &url]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("WasmPlugin shop/penstock  suite  oci://r.test/penstock/suite:1"), "{out}");
    assert!(out.contains("WasmPlugin shop/penstock  current"), "{out}");
    let url = admin(dump(&json!({"routes": {"default": "a"}})));
    let (status, out, _) = run(folder.path(), &["status", "--from-cluster", "--envoy", &url, "-o", "json"]);
    assert_eq!(status, 1);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["proxies"][0]["policies"][0]["state"], "differs");
    assert_eq!(report["proxies"][0]["policies"][0]["object"], "WasmPlugin shop/penstock");
}

#[test]
fn istiod_reports_which_proxies_accepted_their_configuration_and_a_refusal_fails_the_pipeline() {
    let folder = folder(&plugin(json!({})));
    let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    let entry = |name: &str, sent: &str, error: &str| {
        json!({"proxy": name, "istio_version": "1.31.0",
        "resources": {kind: {"sent": sent, "acked": "a", "lastError": error}}})
    };
    let url = admin(json!([entry("b.shop", "a", ""), entry("a.shop", "a", "")]));
    let (status, out, err) = run(folder.path(), &["status", "--istiod", &url]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.contains("istiod: 2 of 2 proxies acknowledged what was sent"), "{out}");
    let url = admin(json!([entry("a.shop", "b", ""), entry("b.shop", "b", "configuration refused: routes.defualt")]));
    let (status, out, _) = run(folder.path(), &["status", "--istiod", &url]);
    assert_eq!(status, 1);
    assert!(out.contains("a.shop  pending") && out.contains("b.shop  refused: configuration refused"), "{out}");
    let (status, out, _) = run(folder.path(), &["status", "--istiod", &url, "-o", "json"]);
    assert_eq!(status, 1);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        report["controlPlanes"][0]["proxies"][0],
        json!({"proxy": "a.shop", "istioVersion": "1.31.0", "state": "pending"})
    );
    assert_eq!(
        report["controlPlanes"][0]["proxies"][1]["refused"]["TypedExtensionConfig"],
        "configuration refused: routes.defualt"
    );
    let (status, _, err) = run(folder.path(), &["status", "--istiod", &admin(json!({"configs": []}))]);
    assert_eq!(status, 2);
    assert!(err.contains("is that istiod's debug interface (port 15014)?"), "{err}");
}

#[test]
fn a_plugin_that_was_not_accepted_is_shown_with_the_reason() {
    let folder =
        folder(&plugin(json!({"conditions": [{"type": "Reconciled", "status": "False", "message": "no such image"}]})));
    let (status, out, _) = run(folder.path(), &["status"]);
    assert_eq!(status, 1);
    assert!(out.contains("not accepted: no such image"), "{out}");
}

#[test]
fn a_step_of_a_rollout_sets_the_weights() {
    let folder = folder(&plugin(json!({})));
    let step = ["set-weight", "wasmplugin", "shop/penstock", "reviews", "v2=25"];
    let (status, out, err) = run(folder.path(), &step);
    assert_eq!((status, out.as_str()), (0, "wasmplugin patched\n"), "{err}");
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    assert!(
        asked.contains(r#"{"op":"replace","path":"/spec/pluginConfig/canaries/0/variants/0/weight","value":75}"#),
        "{asked}"
    );
    let (status, _, err) = run(folder.path(), &["set-weight", "wasmplugin", "shop/penstock", "reviews", "v3=25"]);
    assert_eq!(status, 2);
    assert!(err.contains("there is no variant `v3`: there are v1, v2"), "{err}");
}

#[test]
fn the_krew_manifest_names_each_archive_with_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["penstock", "LICENSE"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sh = |script: &str| {
        let output = Command::new("bash").args(["-c", script]).current_dir(folder.path()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let krew = root.join("scripts/krew.sh");
    assert!(!sh(&format!("{} v0.1.0 .", krew.display())).0, "no archive");
    assert!(sh("tar -czf penstock-linux-amd64.tar.gz penstock LICENSE").0);
    let (fine, manifest) = sh(&format!("{} v0.1.0 .", krew.display()));
    assert!(fine);
    let digest = sh("sha256sum penstock-linux-amd64.tar.gz").1;
    assert!(manifest.contains(&format!("sha256: {}", digest.split(' ').next().unwrap())), "{manifest}");
    assert!(penstock::yaml::Located::read(&manifest).is_ok(), "{manifest}");
}
