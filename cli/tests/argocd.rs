//! Runs the health checks of `deploy/argocd` as Argo CD does: Lua 5.1, the object in `obj`, a table as the result.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use mlua::{Lua, LuaSerdeExt as _, Table};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/argocd")
}

/// The status and message for an object.
fn health(check: &str, object: &Value) -> (String, String) {
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let text = std::fs::read_to_string(folder().join(format!("health/{check}.lua"))).unwrap();
    let answer: Table = lua.load(text).eval().unwrap();
    (answer.get("status").unwrap(), answer.get("message").unwrap())
}

#[test]
fn a_plugin_of_istio_is_what_its_status_says() {
    let plugin = |generation: u64, status: Value| json!({"kind": "WasmPlugin", "metadata": {"generation": generation}, "status": status});
    let condition = |status: &str| json!({"type": "Reconciled", "status": status, "message": "stale resource"});
    for (object, expected) in [
        (json!({"kind": "WasmPlugin", "metadata": {"generation": 3}}), "Healthy"),
        (plugin(1, json!({})), "Healthy"),
        (plugin(1, json!({"conditions": [condition("True")]})), "Healthy"),
        (plugin(2, json!({"observedGeneration": "1", "conditions": []})), "Progressing"),
        (plugin(1, json!({"observedGeneration": "1", "conditions": [condition("False")]})), "Degraded"),
        (
            plugin(
                1,
                json!({"validationMessages": [{"level": "ERROR", "type": {"name": "ReferencedResourceNotFound"}}]}),
            ),
            "Degraded",
        ),
        (plugin(1, json!({"validationMessages": [{"level": "INFO", "type": {"name": "x"}}]})), "Healthy"),
    ] {
        assert_eq!(health("istio-plugin", &object).0, expected, "{object}");
    }
    let degraded = health("istio-plugin", &plugin(1, json!({"conditions": [condition("False")]})));
    assert_eq!(degraded.1, "stale resource");
}

#[test]
fn a_policy_of_envoy_gateway_is_what_its_ancestors_say() {
    let policy = |ancestors: Value| json!({"metadata": {"generation": 2}, "status": {"ancestors": ancestors}});
    let ancestor = |status: &str, generation: u64| {
        json!({"conditions": [
        {"type": "Accepted", "status": status, "observedGeneration": generation, "message": "Wasm: failed to get module"}]})
    };
    for (object, expected) in [
        (json!({"metadata": {"generation": 1}}), "Progressing"),
        (policy(json!([])), "Progressing"),
        (policy(json!([ancestor("True", 2)])), "Healthy"),
        (policy(json!([ancestor("True", 1)])), "Progressing"),
        (policy(json!([ancestor("True", 2), ancestor("False", 2)])), "Degraded"),
        (policy(json!([{"conditions": []}])), "Progressing"),
    ] {
        assert_eq!(health("envoy-extension-policy", &object).0, expected, "{object}");
    }
}

#[test]
fn the_config_map_has_the_checks_as_they_are() {
    let text = std::fs::read_to_string(folder().join("argocd-cm.yaml")).unwrap();
    for (kind, check) in [
        ("extensions.istio.io_WasmPlugin", "istio-plugin"),
        ("extensions.istio.io_TrafficExtension", "istio-plugin"),
        ("gateway.envoyproxy.io_EnvoyExtensionPolicy", "envoy-extension-policy"),
    ] {
        let lua = std::fs::read_to_string(folder().join(format!("health/{check}.lua"))).unwrap();
        let indented: String = lua.lines().map(|line| format!("    {line}\n").replace("    \n", "\n")).collect();
        assert!(text.contains(&format!("  resource.customizations.health.{kind}: |\n{indented}")), "{kind}");
    }
}
