//! `penstock render`: stable output that the hosts' own schemas take.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::penstock;
use penstock::yaml::Located;
use penstock::yaml_text;
use serde_json::Value;

const TARGETS: [&str; 4] = ["envoy", "istio", "istio-trafficextension", "envoy-gateway"];

fn render(target: &str, more: &[&str]) -> String {
    let mut arguments = vec![
        "render",
        "everything.yaml",
        "--for",
        target,
        "--namespace",
        "shop",
        "--gateway",
        "shop",
        "--service",
        "beta=shop:8080/beta",
        "--sha256",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    arguments.extend(more);
    let run = penstock(&arguments, "");
    assert_eq!((run.status, run.err.as_str()), (0, ""), "{}", run.out);
    run.out
}

#[test]
fn manifests_are_always_the_same() {
    for target in TARGETS {
        insta::assert_snapshot!(target, render(target, &[]));
    }
}

#[test]
fn a_kustomize_base_is_a_folder_of_files() {
    let base = tempfile::tempdir().unwrap();
    render("kustomize", &["--output", base.path().to_str().unwrap()]);
    let mut text = String::new();
    for file in ["kustomization.yaml", "deployment.yaml", "service.yaml"] {
        text += &format!("# {file}\n{}", std::fs::read_to_string(base.path().join(file)).unwrap());
    }
    assert!(base.path().join("envoy.yaml").exists());
    insta::assert_snapshot!(text);
    let run = penstock(&["render", "everything.yaml", "--for", "kustomize"], "");
    assert!(run.status == 2 && run.err.contains("--output"), "{}", run.err);
}

#[test]
fn what_is_rendered_passes_our_own_check() {
    for target in TARGETS {
        let run = penstock(&["check", "-"], &render(target, &[]));
        assert_eq!(run.status, 0, "{}", run.out);
        assert!(!run.out.contains("for which the platform"), "{}", run.out);
    }
}

#[test]
fn what_leaves_without_a_port_goes_to_the_port_that_the_policy_means() {
    let policy =
        |port: &str| format!("egress: {{{port}rules: [{{name: r, to: [{{host: a.test, ports: [443, 80]}}]}}]}}");
    for (target, has_tls) in [("envoy", "UpstreamTlsContext"), ("envoy-gateway", "wellKnownCACertificates: System")] {
        for (port, number, tls) in
            [("", 443, true), ("defaultPort: 443, ", 443, true), ("defaultPort: 80, ", 80, false)]
        {
            let run = penstock(&["render", "-", "--for", target], &policy(port));
            assert_eq!(run.status, 0, "{}", run.err);
            let said = ["defaultPort: ", "\"defaultPort\": "].map(|field| format!("{field}{number}"));
            assert!(said.iter().any(|field| run.out.contains(field)), "{target} {port}: {}", run.out);
            assert_eq!(run.out.contains(has_tls), tls, "{target} {port}: {}", run.out);
        }
        let run = penstock(&["render", "-", "--for", target], &policy("defaultPort: 8443, "));
        assert!(run.status != 0 && run.err.contains("443 (with TLS) or 80"), "{}", run.err);
    }
    let run = penstock(&["render", "-", "--for", "istio"], &policy(""));
    assert!(run.out.contains("defaultPort: 443"), "{}", run.out);
}

#[test]
fn mistakes_are_said_before_anything_is_written() {
    for (arguments, message) in [
        (&["render", "invalid.yaml", "--for", "istio"][..], "unknown field `route`"),
        (&["render", "shop.yaml", "--for", "istio", "--service", "beta"], "ROUTE=HOST:PORT"),
        (&["render", "shop.yaml", "--for", "istio", "--sha256", "abc"], "64 hexadecimal digits"),
        (&["render", "-", "--for", "istio"], "nothing to render"),
    ] {
        let run = penstock(arguments, "{}");
        assert!(run.status != 0 && run.out.is_empty() && run.err.contains(message), "{arguments:?}: {}", run.err);
    }
}

/// Where Go keeps the modules that it has downloaded, when there is a Go.
fn go_modules() -> Option<PathBuf> {
    let output = Command::new("go").args(["env", "GOMODCACHE"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_dir().then_some(path)
}

/// Every file below `folder` whose name has `part`.
fn find(folder: &Path, part: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, part, found);
        } else if path.to_string_lossy().contains(part) {
            found.push(path);
        }
    }
}

/// Kubernetes refuses fields that a schema does not have, under `--validate=strict`; JSON Schema must be told.
fn closed(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if map.get("properties").is_some_and(Value::is_object) && !open {
                map.insert("additionalProperties".to_owned(), false.into());
            }
            // Kubernetes-only words, and formats of integers.
            map.remove("format");
            if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                map.remove("anyOf");
            }
            for (name, value) in map.iter_mut() {
                // The branches speak of fields that `properties` above them have.
                if !matches!(name.as_str(), "anyOf" | "oneOf" | "allOf" | "not" | "default" | "enum") {
                    closed(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(closed),
        _ => {}
    }
}

/// The schemas of custom resources by group/version/kind.
fn custom_resources() -> Option<BTreeMap<String, Value>> {
    let modules = go_modules()?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(modules.join("istio.io")).ok()?.flatten() {
        find(&entry.path().join("manifests/charts/base/files"), "crd-all.gen.yaml", &mut files);
    }
    for entry in std::fs::read_dir(modules.join("github.com/envoyproxy")).ok()?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("gateway@") {
            find(&entry.path().join("charts/gateway-helm/charts/crds/crds"), ".yaml", &mut files);
        }
    }
    let mut schemas = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for located in Located::read_all(&text).unwrap() {
            let crd = yaml_text::value(&located.node);
            let (group, kind) = (&crd["spec"]["group"], &crd["spec"]["names"]["kind"]);
            for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
                let mut schema = version["schema"]["openAPIV3Schema"].clone();
                schema["properties"]["metadata"] = serde_json::json!({"type": "object"});
                for name in ["apiVersion", "kind"] {
                    schema["properties"][name] = serde_json::json!({"type": "string"});
                }
                closed(&mut schema);
                let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let key = format!("{}/{} {}", string(group), string(&version["name"]), string(kind));
                schemas.insert(key, schema);
            }
        }
    }
    schemas.contains_key("gateway.envoyproxy.io/v1alpha1 EnvoyExtensionPolicy").then_some(schemas)
}

#[test]
fn the_custom_resource_definitions_take_every_object() {
    let Some(schemas) = custom_resources() else {
        eprintln!("SKIPPED: the modules of Istio and Envoy Gateway are not in Go's module cache");
        return;
    };
    let mut kinds = Vec::new();
    for target in TARGETS.into_iter().filter(|target| *target != "envoy") {
        let text = render(target, &[]);
        for located in Located::read_all(&text).unwrap() {
            let object = yaml_text::value(&located.node);
            let kind = format!("{} {}", object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
            let schema = schemas.get(&kind).unwrap_or_else(|| panic!("no definition of {kind}"));
            let validator = jsonschema::draft202012::new(schema).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&object).map(|e| format!("{kind}{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{errors:#?}");
            // The check can fail.
            let mut wrong = object.clone();
            wrong["spec"]["surprise"] = true.into();
            assert!(!validator.is_valid(&wrong), "{kind}");
            kinds.push(kind);
        }
    }
    kinds.sort();
    kinds.dedup();
    assert!(kinds.len() >= 10, "{kinds:?}");
}
