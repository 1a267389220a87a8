//! `penstock webhook` as an API server uses it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

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

    /// A client that trusts the certificate that is in the folder now. Each call has a connection of its own.
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

#[test]
fn a_wrong_policy_of_each_kind_is_refused_with_the_line_and_a_right_one_passes() {
    let webhook = Webhook::start(&[], |_| {});
    for (kind, object) in objects(&json!({"routes": {"default": "stable"}})) {
        let answer = webhook.post("/validate", &review(kind, "CREATE", &object, None));
        assert_eq!(answer["allowed"], true, "{kind} {answer}");
    }
    for (kind, object) in objects(&json!({"routes": {"defualt": "stable"}})) {
        let answer = webhook.post("/validate", &review(kind, "CREATE", &object, None));
        assert_eq!(answer["allowed"], false, "{kind}");
        let message = answer["status"]["message"].as_str().unwrap();
        for part in ["defualt", "^^^", "did you mean `default`", &format!("{kind} shop/penstock")] {
            assert!(message.contains(part), "{kind}: {part} in {message}");
        }
        assert!(!message.contains('\u{1b}') && !message.contains("managedFields"), "{message}");
    }
    let page = webhook.page();
    for line in [
        "penstock_webhook_admissions_total{kind=\"WasmPlugin\",allowed=\"false\"} 1",
        "penstock_webhook_admissions_total{kind=\"ConfigMap\",allowed=\"true\"} 1",
        "penstock_webhook_duration_seconds_count 10",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let webhook = Webhook::start(&[], |_| {});
    let mut other = wasm_plugin(&json!({"rules": 1}));
    other["spec"]["url"] = json!("oci://r.test/waf:1");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"policy.yaml": "routes: {rule: 1}"}});
    for (kind, object) in [
        ("WasmPlugin", other),
        ("ConfigMap", map),
        ("Secret", json!({"kind": "Secret"})),
        ("EnvoyProxy", json!({"spec": {}})),
    ] {
        let answer = webhook.post("/validate", &review(kind, "UPDATE", &object, Some(&object)));
        assert_eq!(answer, json!({"uid": "705ab4f5", "allowed": true}), "{kind}");
    }
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "DELETE", &Value::Null, None))["allowed"], true);
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let webhook = Webhook::start(&[], |_| {});
    let policy = json!({"routes": {"rules": [{"name": "all", "route": "a"}, {"name": "b", "route": "b"}]}});
    let answer = webhook.post("/validate", &review("WasmPlugin", "CREATE", &wasm_plugin(&policy), None));
    assert_eq!(answer["allowed"], true);
    let warnings = answer["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|warning| warning.as_str().unwrap().starts_with("routes.rules[1]")), "{warnings:?}");
}

#[test]
fn a_loosening_needs_its_approval() {
    let webhook = Webhook::start(&["--loosening", "require-annotation"], |_| {});
    let policy = |host: &str| json!({"egress": {"rules": [{"name": "r", "to": [{"host": host}]}]}});
    let (old, new) = (wasm_plugin(&policy("a.test")), wasm_plugin(&policy("*.a.test")));
    let answer = webhook.post("/validate", &review("WasmPlugin", "UPDATE", &new, Some(&old)));
    assert_eq!(answer["allowed"], false, "{answer}");
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.contains("- egress.rules[r].to: allows *.a.test"), "{message}");
    let hash = message.split("penstock.io/approved-loosening: \"").nth(1).unwrap().split('"').next().unwrap();
    let mut approved = new.clone();
    approved["metadata"]["annotations"] = json!({"penstock.io/approved-loosening": hash});
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &approved, Some(&old)))["allowed"], true);
    // The approval is for this change only.
    let mut more = wasm_plugin(&policy("*.test.test"));
    more["metadata"]["annotations"] = approved["metadata"]["annotations"].clone();
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &more, Some(&approved)))["allowed"], false);
    // Tighter is no matter.
    let tighter = wasm_plugin(&policy("x.a.test"));
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &tighter, Some(&approved)))["allowed"], true);
    let mut open = old.clone();
    open["spec"]["failStrategy"] = json!("FAIL_OPEN");
    let answer = webhook.post("/validate", &review("WasmPlugin", "UPDATE", &open, Some(&old)));
    assert!(answer["status"]["message"].as_str().unwrap().contains("lets everything pass"), "{answer}");
    let mut gone = old.clone();
    gone["spec"]["url"] = json!("oci://r.test/waf:1");
    gone["spec"]["pluginConfig"] = json!({});
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &gone, Some(&old)))["allowed"], false);
}

#[test]
fn a_team_that_exceeds_its_ceiling_is_told_a_request_and_ceilings_are_read_again() {
    let ceiling = |host: &str| format!("egress: {{rules: [{{name: p, to: [{{host: '{host}'}}]}}]}}\n");
    let webhook = Webhook::start(&["--ceilings", "ceilings"], |folder| {
        std::fs::create_dir(folder.join("ceilings")).unwrap();
        std::fs::write(folder.join("ceilings/partners.yaml"), ceiling("*.a.test")).unwrap();
    });
    let post = |path: &str, host: &str| {
        let object = wasm_plugin(&json!({"egress": {"rules": [{"name": "r", "to": [{"host": host}]}]}}));
        webhook.post(path, &review("WasmPlugin", "CREATE", &object, None))
    };
    assert_eq!(post("/validate/ceilings/partners", "b.a.test")["allowed"], true);
    let answer = post("/validate/ceilings/partners", "b.test");
    assert_eq!(answer["allowed"], false);
    assert!(answer["status"]["message"].as_str().unwrap().contains("GET https://b.test:443/"), "{answer}");
    assert_eq!(post("/validate", "b.test")["allowed"], true);
    assert_eq!(post("/validate/ceilings/other", "b.a.test")["allowed"], false);
    // A plugin without egress leaves egress to others.
    let routes = wasm_plugin(&json!({"routes": {"default": "a"}}));
    let answer = webhook.post("/validate/ceilings/partners", &review("WasmPlugin", "CREATE", &routes, None));
    assert_eq!(answer["allowed"], true);

    std::fs::write(webhook.folder.path().join("ceilings/partners.yaml"), ceiling("b.test")).unwrap();
    let begin = Instant::now();
    while post("/validate/ceilings/partners", "b.test")["allowed"] == false {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(200));
    }
    // A broken one is not taken: the last good one stays.
    std::fs::write(webhook.folder.path().join("ceilings/partners.yaml"), "egress: {rule: 1}\n").unwrap();
    while !webhook.page().contains("penstock_webhook_reloads_total{what=\"ceilings\",outcome=\"failure\"} 1") {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(post("/validate/ceilings/partners", "b.test")["allowed"], true);
}

#[test]
fn a_new_certificate_is_presented_without_a_refused_request() {
    let webhook = Webhook::start(&[], |_| {});
    let review = review("WasmPlugin", "CREATE", &wasm_plugin(&json!({})), None);
    // A connection that is open goes on.
    let open = webhook.agent();
    let ask = |agent: &ureq::Agent| agent.post(format!("{}/validate", webhook.url)).send(review.to_string());
    assert_eq!(ask(&open).unwrap().status(), 200);
    write_certificate(webhook.folder.path());
    let begin = Instant::now();
    while ask(&webhook.agent()).is_err() {
        assert_eq!(ask(&open).unwrap().status(), 200);
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(webhook.page().contains("penstock_webhook_reloads_total{what=\"certificate\",outcome=\"success\"} 1"));
}

#[test]
fn what_is_no_review_is_an_error_of_the_caller() {
    let webhook = Webhook::start(&[], |_| {});
    for body in ["", "{}", "not json", r#"{"request":{"uid":1}}"#] {
        let response = webhook.agent().post(format!("{}/validate", webhook.url)).send(body).unwrap();
        assert_eq!(response.status(), 400, "{body}");
    }
    assert_eq!(webhook.agent().get(format!("{}/healthz", webhook.url)).call().unwrap().status(), 200);
    assert!(webhook.page().contains("penstock_webhook_errors_total 4"));
}

/// A measurement, not a check: `cargo test --release --test webhook -- --ignored --nocapture`.
#[test]
#[ignore = "measures; wants a release build and a quiet machine"]
fn how_many_admissions_a_second_and_how_long_ten_thousand_rules_take() {
    let webhook = Webhook::start(&["--ceilings", "ceilings"], |folder| {
        std::fs::create_dir(folder.join("ceilings")).unwrap();
        std::fs::write(folder.join("ceilings/c.yaml"), "egress: {rules: [{name: p, to: [{host: '*.a.test'}]}]}\n")
            .unwrap();
    });
    let rules = |count: usize| -> Vec<Value> {
        (0..count).map(|i| json!({"name": format!("r{i}"), "to": [{"host": format!("h{i}.a.test"), "ports": [443]}], "methods": ["GET"]})).collect()
    };
    let resident = || -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", webhook.child.id())).unwrap();
        text.lines().find(|line| line.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let small =
        review("WasmPlugin", "UPDATE", &wasm_plugin(&json!({"egress": {"rules": rules(10)}})), None).to_string();
    let agent = webhook.agent();
    for _ in 0..3 {
        let begin = Instant::now();
        for _ in 0..2000 {
            assert_eq!(agent.post(format!("{}/validate", webhook.url)).send(&small).unwrap().status(), 200);
        }
        println!(
            "{:.0} admissions a second, one at a time; {} KiB",
            2000.0 / begin.elapsed().as_secs_f64(),
            resident()
        );
    }
    let large =
        review("WasmPlugin", "CREATE", &wasm_plugin(&json!({"egress": {"rules": rules(10_000)}})), None).to_string();
    for path in ["/validate", "/validate/ceilings/c"] {
        for _ in 0..3 {
            let begin = Instant::now();
            assert_eq!(agent.post(format!("{}{path}", webhook.url)).send(&large).unwrap().status(), 200);
            println!("{path}: 10,000 rules in {:?}; {} KiB", begin.elapsed(), resident());
        }
    }
}
