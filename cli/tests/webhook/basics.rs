//! What is refused, what passes, the messages, and the certificate.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Webhook, objects, review, wasm_plugin, write_certificate};

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
fn a_new_certificate_is_presented_without_a_refused_request() {
    let webhook = Webhook::start(&[], |_| {});
    let review = review("WasmPlugin", "CREATE", &wasm_plugin(&json!({})), None);
    // An open connection continues.
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
