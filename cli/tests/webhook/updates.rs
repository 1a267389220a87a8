//! Updates: which ones loosen a policy, and which ones change nothing.

use serde_json::{Value, json};

use super::{Webhook, review, wasm_plugin};

#[test]
fn a_loosening_needs_its_approval() {
    let webhook = Webhook::start(&["--loosening", "require-annotation"], |_| {});
    let policy = |host: &str| json!({"egress": {"rules": [{"name": "r", "to": [{"host": host}]}]}});
    let (old, new) = (wasm_plugin(&policy("a.test")), wasm_plugin(&policy("*.a.test")));
    let answer = webhook.post("/validate", &review("WasmPlugin", "UPDATE", &new, Some(&old)));
    assert_eq!(answer["allowed"], false, "{answer}");
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.contains("- egress.rules[r].to: allows *.a.test"), "{message}");
    // One request that the update allows, and the answer to it so far.
    let line = message.lines().find(|line| line.contains("egress.rules[r].to")).unwrap();
    assert!(line.contains("; passes now: GET ") && line.ends_with("(before: 403 hostNotAllowed)"), "{line}");
    let hash = message.split("penstock.io/approved-loosening: \"").nth(1).unwrap().split('"').next().unwrap();
    let mut approved = new.clone();
    approved["metadata"]["annotations"] = json!({"penstock.io/approved-loosening": hash});
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &approved, Some(&old)))["allowed"], true);
    // The approval is only for this change.
    let mut more = wasm_plugin(&policy("*.test.test"));
    more["metadata"]["annotations"] = approved["metadata"]["annotations"].clone();
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &more, Some(&approved)))["allowed"], false);
    // A tightening needs no approval.
    let tighter = wasm_plugin(&policy("x.a.test"));
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &tighter, Some(&approved)))["allowed"], true);
    let mut open = old.clone();
    open["spec"]["failStrategy"] = json!("FAIL_OPEN");
    let answer = webhook.post("/validate", &review("WasmPlugin", "UPDATE", &open, Some(&old)));
    assert!(answer["status"]["message"].as_str().unwrap().contains("lets all requests pass"), "{answer}");
    let mut gone = old.clone();
    gone["spec"]["url"] = json!("oci://r.test/waf:1");
    gone["spec"]["pluginConfig"] = json!({});
    assert_eq!(webhook.post("/validate", &review("WasmPlugin", "UPDATE", &gone, Some(&old)))["allowed"], false);
}

/// Responses of a webhook that requires approvals.
fn judge(webhook: &Webhook, kind: &str, old: &Value, new: &Value) -> Value {
    webhook.post("/validate", &review(kind, "UPDATE", new, Some(old)))
}

#[test]
fn an_update_that_lets_nothing_new_pass_needs_no_approval() {
    let webhook = Webhook::start(&["--loosening", "require-annotation"], |_| {});
    let rule = |name: &str, methods: &Value| json!({"name": name, "to": [{"host": "a.test"}], "methods": methods});
    let policy = |rules: &Value| wasm_plugin(&json!({"egress": {"rules": rules}}));
    // The second rule gets what the first allows already.
    let first = rule("first", &json!(["GET", "POST"]));
    let old = policy(&json!([first, rule("second", &json!(["GET"]))]));
    let new = policy(&json!([first, rule("second", &json!(["GET", "POST"]))]));
    let answer = judge(&webhook, "WasmPlugin", &old, &new);
    assert_eq!(answer["allowed"], true, "{answer}");
    let wider = policy(&json!([first, rule("second", &json!(["GET", "PUT"]))]));
    assert_eq!(judge(&webhook, "WasmPlugin", &old, &wider)["allowed"], false);
}

fn egress(host: &str) -> Value {
    json!({"egress": {"rules": [{"name": "r", "to": [{"host": host}]}]}})
}

#[test]
fn what_is_wrong_already_may_have_its_metadata_changed_and_its_finalizers_removed() {
    let webhook = Webhook::start(&["--ceilings", "ceilings"], |folder| {
        std::fs::create_dir(folder.join("ceilings")).unwrap();
        std::fs::write(folder.join("ceilings/c.yaml"), egress("b.test").to_string()).unwrap();
    });
    let wrong = wasm_plugin(&json!({"routes": {"defualt": "a"}}));
    let mut relabelled = wrong.clone();
    relabelled["metadata"]["labels"] = json!({"team": "shop"});
    let answer = judge(&webhook, "WasmPlugin", &wrong, &relabelled);
    assert_eq!(answer["allowed"], true, "{answer}");
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("will be refused when it changes: error: routes.defualt: unknown field"), "{warning}");
    // The ceiling may have become stricter meanwhile.
    let beyond = wasm_plugin(&egress("a.test"));
    let mut relabelled = beyond.clone();
    relabelled["metadata"]["labels"] = json!({"team": "shop"});
    let path = "/validate/ceilings/c";
    let answer = webhook.post(path, &review("WasmPlugin", "UPDATE", &relabelled, Some(&beyond)));
    assert_eq!(answer["allowed"], true, "{answer}");
    assert_eq!(webhook.post(path, &review("WasmPlugin", "CREATE", &beyond, None))["allowed"], false);
    // An object that is being deleted may change in any way.
    let mut leaving = wrong.clone();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-06-01T00:00:00Z");
    leaving["spec"]["phase"] = json!("AUTHN");
    assert_eq!(judge(&webhook, "WasmPlugin", &wrong, &leaving), json!({"uid": "705ab4f5", "allowed": true}));
    let map = |sha256: &str| json!({"spec": {"dynamicModules": [{"name": "penstock", "source": {"remote": {"url": "https://r.test/p.so", "sha256": sha256}}}]}});
    assert_eq!(judge(&webhook, "EnvoyProxy", &map("x"), &map("x"))["allowed"], true);
    assert_eq!(judge(&webhook, "EnvoyProxy", &map("x"), &map("y"))["allowed"], false);
}

#[test]
fn removing_a_policy_from_checks_is_a_loosening() {
    let webhook = Webhook::start(&["--loosening", "require-annotation"], |_| {});
    let plugin = wasm_plugin(&egress("a.test"));
    let mut others = plugin.clone();
    others["metadata"]["annotations"] = json!({"penstock.io/module": "none"});
    let answer = judge(&webhook, "WasmPlugin", &plugin, &others);
    assert!(answer["status"]["message"].as_str().unwrap().contains("no longer checked"), "{answer}");
    assert_eq!(judge(&webhook, "WasmPlugin", &others, &plugin)["allowed"], true);
    let map = |label: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "penstock", "labels": {"penstock.io/policy": label}}, "data": {"p.json": egress("a.test").to_string()}})
    };
    for label in ["false", "yes"] {
        assert_eq!(judge(&webhook, "ConfigMap", &map("true"), &map(label))["allowed"], false, "{label}");
        assert_eq!(judge(&webhook, "ConfigMap", &map(label), &map("true"))["allowed"], true, "{label}");
    }
}

#[test]
fn an_approval_of_another_update_is_named_as_such() {
    let webhook = Webhook::start(&["--loosening", "require-annotation"], |_| {});
    let (old, mut new) = (wasm_plugin(&egress("a.test")), wasm_plugin(&egress("*.a.test")));
    new["metadata"]["annotations"] = json!({"penstock.io/approved-loosening": "0123456789abcdef"});
    let answer = judge(&webhook, "WasmPlugin", &old, &new);
    assert!(answer["status"]["message"].as_str().unwrap().contains("approves another update"), "{answer}");
}

#[test]
fn many_loosenings_are_counted() {
    let webhook = Webhook::start(&["--loosening", "require-annotation"], |_| {});
    let rules = |star: &str| -> Vec<Value> {
        (0..200).map(|i| json!({"name": format!("r{i}"), "to": [{"host": format!("{star}h{i}.test")}]})).collect()
    };
    let plugin = |star: &str| wasm_plugin(&json!({"egress": {"rules": rules(star)}}));
    let answer = judge(&webhook, "WasmPlugin", &plugin(""), &plugin("*."));
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(message.contains("- and 150 more: see penstock diff") && message.lines().count() < 60, "{message}");
}
