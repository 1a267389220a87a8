//! `penstock webhook` as an API server uses it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

mod basics;
mod ceilings;
#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod measure;
mod updates;

/// A running webhook, with a certificate for `localhost`.
struct Webhook {
    child: Child,
    url: String,
    metrics: String,
    folder: tempfile::TempDir,
}

impl Webhook {
    fn start(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Webhook {
        let folder = tempfile::tempdir().unwrap();
        write_certificate(folder.path());
        prepare(folder.path());
        let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(["webhook", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--no-api-server"])
            .args(["--certificate", "tls.crt", "--key", "tls.key"])
            .args(arguments)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = |line: String| line.split("127.0.0.1:").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let (https, http) = (port(lines.next().unwrap().unwrap()), port(lines.next().unwrap().unwrap()));
        let url = format!("https://localhost:{https}");
        Webhook { child, url, metrics: format!("http://127.0.0.1:{http}/metrics"), folder }
    }

    /// A client that trusts the certificate that is in the folder now. Each call uses a new connection.
    fn agent(&self) -> ureq::Agent {
        let pem = std::fs::read(self.folder.path().join("tls.crt")).unwrap();
        let roots = RootCerts::new_with_certs(&[Certificate::from_pem(&pem).unwrap()]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
        ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false).build().into()
    }

    fn post(&self, path: &str, review: &Value) -> Value {
        let mut response = self.agent().post(format!("{}{path}", self.url)).send(review.to_string()).unwrap();
        assert_eq!(response.status(), 200);
        let mut text = String::new();
        response.body_mut().as_reader().read_to_string(&mut text).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].clone()
    }

    /// The CPU time that it has used.
    fn cpu(&self) -> Duration {
        common::cpu_time(self.child.id()).unwrap()
    }

    /// Its memory in KiB.
    fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        text.lines().find(|line| line.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn page(&self) -> String {
        ureq::get(&self.metrics).call().unwrap().body_mut().read_to_string().unwrap()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_certificate(folder: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
}

fn review(kind: &str, operation: &str, object: &Value, old: Option<&Value>) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5", "kind": {"group": "g", "version": "v1", "kind": kind}, "namespace": "shop", "name": "penstock",
        "operation": operation, "userInfo": {"username": "kim"}, "object": object, "oldObject": old}})
}

fn wasm_plugin(policy: &Value) -> Value {
    json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": "penstock", "namespace": "shop", "managedFields": [{"manager": "kubectl"}]},
        "spec": {"url": "oci://r.test/penstock/suite:1", "failStrategy": "FAIL_CLOSE", "pluginConfig": policy}})
}

fn objects(policy: &Value) -> Vec<(&'static str, Value)> {
    let meta = json!({"name": "penstock", "namespace": "shop"});
    vec![
        ("WasmPlugin", wasm_plugin(policy)),
        (
            "TrafficExtension",
            json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "TrafficExtension", "metadata": meta,
            "spec": {"wasm": {"url": "oci://r.test/penstock/suite:1", "pluginConfig": policy}}}),
        ),
        (
            "EnvoyExtensionPolicy",
            json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyExtensionPolicy", "metadata": meta,
            "spec": {"wasm": [{"name": "p", "code": {"type": "Image", "image": {"url": "oci://r.test/penstock/suite:1"}}, "config": policy}]}}),
        ),
        (
            "EnvoyExtensionPolicy",
            json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyExtensionPolicy", "metadata": meta,
            "spec": {"dynamicModule": [{"name": "penstock", "filterName": "suite", "config": policy}]}}),
        ),
        (
            "ConfigMap",
            json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "penstock", "namespace": "shop", "labels": {"penstock.io/policy": "true"}},
            "data": {"policy.yaml": policy.to_string()}}),
        ),
    ]
}
