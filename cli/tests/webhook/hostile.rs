//! Requests that no API server would send, but an attacker might.

use serde_json::{Value, json};

use super::{Webhook, objects, review, wasm_plugin};

#[test]
fn a_body_that_is_not_a_review_is_the_callers_error() {
    let webhook = Webhook::start(&[], |_| {});
    for body in ["", "{}", "not json", r#"{"request":{"uid":1}}"#] {
        let response = webhook.agent().post(format!("{}/validate", webhook.url)).send(body).unwrap();
        assert_eq!(response.status(), 400, "{body}");
    }
    assert_eq!(webhook.agent().get(format!("{}/healthz", webhook.url)).call().unwrap().status(), 200);
    assert!(webhook.page().contains("penstock_webhook_errors_total 4"));
}

fn message(answer: &Value) -> &str {
    assert_eq!(answer["allowed"], false, "{answer}");
    answer["status"]["message"].as_str().unwrap()
}

#[test]
fn an_object_that_cannot_be_read_is_refused_and_one_of_others_passes() {
    let webhook = Webhook::start(&[], |_| {});
    let deep = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    for (kind, is_allowed) in [("WasmPlugin", false), ("EnvoyProxy", false), ("ConfigMap", false), ("Secret", true)] {
        let body = review(kind, "CREATE", &json!("OBJECT"), None).to_string().replace("\"OBJECT\"", &deep);
        let mut response = webhook.agent().post(format!("{}/validate", webhook.url)).send(body).unwrap();
        let answer: Value = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(answer["response"]["allowed"], is_allowed, "{kind} {answer}");
    }
}

#[test]
fn texts_that_grow_when_they_are_read_are_refused() {
    let webhook = Webhook::start(&[], |_| {});
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for pair in "abcdefghijk".as_bytes().windows(2) {
        let (before, name) = (char::from(pair[0]), char::from(pair[1]));
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", "));
    }
    for text in [bomb, "[".repeat(100_000)] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "labels": {"penstock.io/policy": "true"}}, "data": {"p.yaml": text}});
        let answer = webhook.post("/validate", &review("ConfigMap", "CREATE", &map, None));
        assert!(message(&answer).contains("not YAML"), "{answer}");
    }
}

#[test]
fn an_object_without_a_name_yet_is_called_by_the_beginning_of_it() {
    let webhook = Webhook::start(&[], |_| {});
    for (kind, mut object) in objects(&json!({"routes": {"defualt": "a"}})) {
        object["metadata"]["generateName"] = json!("shop-");
        object["metadata"].as_object_mut().unwrap().remove("name");
        let mut review = review(kind, "CREATE", &object, None);
        review["request"]["name"] = json!("");
        review["request"]["dryRun"] = json!(true);
        let answer = webhook.post("/validate", &review);
        assert!(message(&answer).contains(&format!("{kind} shop/shop-…")), "{answer}");
    }
}

#[test]
fn annotations_and_labels_that_say_nothing_are_warned_of() {
    let webhook = Webhook::start(&[], |_| {});
    for (name, value, expected) in [
        ("penstock.io/modul", "suite", "unknown annotation penstock.io/modul; expected one of: penstock.io/module"),
        ("penstock.io/module", "suit", "the annotation penstock.io/module is \"suit\"; expected one of: suite"),
    ] {
        let mut plugin = wasm_plugin(&json!({"routes": {"default": "a"}}));
        plugin["metadata"]["annotations"] = json!({name: value});
        let answer = webhook.post("/validate", &review("WasmPlugin", "CREATE", &plugin, None));
        assert!(answer["warnings"][0].as_str().unwrap().starts_with(expected), "{answer}");
    }
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {"penstock.io/policy": "yes"}}});
    let answer = webhook.post("/validate", &review("ConfigMap", "CREATE", &map, None));
    assert!(answer["warnings"][0].as_str().unwrap().contains("write \"true\""), "{answer}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {"penstock.io/policy": "true"}},
        "binaryData": {"p.yaml": "cm91dGVzOiB7fQ=="}});
    assert!(
        message(&webhook.post("/validate", &review("ConfigMap", "CREATE", &map, None))).contains("binaryData.p.yaml")
    );
}

#[test]
fn the_registry_entry_of_our_library_is_checked_whatever_it_is_called() {
    let webhook = Webhook::start(&[], |_| {});
    let judge = |name: &str, source: Value| {
        let proxy = json!({"spec": {"dynamicModules": [{"name": name, "source": source}]}});
        webhook.post("/validate", &review("EnvoyProxy", "CREATE", &proxy, None))
    };
    let remote = |url: &str, sha256: &str| json!({"remote": {"url": url, "sha256": sha256}});
    let hash = "a".repeat(64);
    for (name, url) in [("penstock", "https://r.test/module.so"), ("policies", "https://r.test/v1/libpenstock.so")] {
        assert!(message(&judge(name, remote(url, "aa"))).contains("has no sha256"), "{name}");
        let answer = judge(name, remote(url, &hash));
        assert!(answer["warnings"][0].as_str().unwrap().contains("requests pass without it"), "{answer}");
    }
    assert!(message(&judge("penstock", json!({"local": {"path": "libpenstock.so"}}))).contains("write the whole path"));
    assert_eq!(judge("penstock", json!({"local": {"path": "/m/libpenstock.so"}}))["allowed"], true);
    assert_eq!(judge("waf", remote("https://r.test/waf.so", "aa"))["allowed"], true);
}
