//! Ceilings.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Webhook, review, wasm_plugin};

#[test]
fn a_team_that_exceeds_its_ceiling_gets_an_example_and_ceilings_are_reloaded() {
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
    // A plugin without egress leaves egress to other plugins.
    let routes = wasm_plugin(&json!({"routes": {"default": "a"}}));
    let answer = webhook.post("/validate/ceilings/partners", &review("WasmPlugin", "CREATE", &routes, None));
    assert_eq!(answer["allowed"], true);

    std::fs::write(webhook.folder.path().join("ceilings/partners.yaml"), ceiling("b.test")).unwrap();
    let begin = Instant::now();
    while post("/validate/ceilings/partners", "b.test")["allowed"] == false {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(200));
    }
    // An invalid ceiling is not loaded: the previous one stays in use.
    std::fs::write(webhook.folder.path().join("ceilings/partners.yaml"), "egress: {rule: 1}\n").unwrap();
    while !webhook.page().contains("penstock_webhook_reloads_total{what=\"ceilings\",outcome=\"failure\"} 1") {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(post("/validate/ceilings/partners", "b.test")["allowed"], true);
}

#[test]
fn a_plugin_that_fails_open_exceeds_every_ceiling_that_refuses_something() {
    let webhook = Webhook::start(&["--ceilings", "ceilings"], |folder| {
        std::fs::create_dir(folder.join("ceilings")).unwrap();
        for (name, policy) in
            [("egress", "egress: {rules: [{name: p, to: [{host: a.test}]}]}\n"), ("routes", "routes: {default: a}\n")]
        {
            std::fs::write(folder.join(format!("ceilings/{name}.yaml")), policy).unwrap();
        }
    });
    let mut plugin = wasm_plugin(&json!({"egress": {"rules": [{"name": "r", "to": [{"host": "a.test"}]}]}}));
    for (strategy, is_within) in [("FAIL_CLOSE", true), ("FAIL_OPEN", false)] {
        plugin["spec"]["failStrategy"] = json!(strategy);
        let review = review("WasmPlugin", "CREATE", &plugin, None);
        // A namespace may have several ceilings: each has its own webhook, and all must agree.
        let answer = webhook.post("/validate/ceilings/egress", &review);
        assert_eq!(answer["allowed"], is_within, "{answer}");
        if !is_within {
            let message = answer["status"]["message"].as_str().unwrap();
            assert!(message.contains("failStrategy: FAIL_OPEN") && message.contains("^^^"), "{message}");
        }
        assert_eq!(webhook.post("/validate/ceilings/routes", &review)["allowed"], true);
    }
}
