//! `penstock render`: stable output that the platforms' own schemas accept.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{penstock, penstock_in};
use penstock::yaml::Located;
use penstock::yaml_text;
use serde_json::Value;

const TARGETS: [&str; 4] = ["envoy", "istio", "istio-trafficextension", "envoy-gateway"];

fn render(target: &str, more: &[&str]) -> String {
    render_file("everything.yaml", "", target, more)
}

/// Renders the policy in `file`, or for `-` the one in `text`.
fn render_file(file: &str, text: &str, target: &str, more: &[&str]) -> String {
    let mut arguments = vec![
        "render",
        file,
        "--for",
        target,
        "--namespace",
        "shop",
        "--gateway",
        "shop",
        "--host",
        "shop.example.com",
        "--image",
        "ghcr.io/penstock/suite:0.1.0",
        "--egress-image",
        "ghcr.io/penstock/egress-allowlist:0.1.0",
        "--service-namespace",
        "shop",
        "--service",
        "beta=shop:8080/beta",
        "--sha256",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    arguments.extend(more);
    let run = penstock(&arguments, text);
    let assumed = |line: &str| line.starts_with("penstock: assumed: route `");
    assert!(run.status == 0 && run.err.lines().all(assumed), "{}{}", run.out, run.err);
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
    let image = ["--image", "ghcr.io/penstock/suite:1"];
    let run = penstock(&["render", "everything.yaml", "--for", "kustomize", image[0], image[1]], "");
    assert!(run.status == 2 && run.err.contains("--output"), "{}", run.err);
}

/// Renders everything for the native body, which does not know the workload, so callers are identified by certificate.
fn render_native(target: &str) -> String {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies");
    let policy = std::fs::read_to_string(policies.join("everything.yaml")).unwrap();
    let policy = policy.replace("workload: {trustDomain: cluster.local}", "peerCertificate: {}");
    render_file("-", &policy, target, &["--native"])
}

#[test]
fn the_native_body_is_rendered_for_the_platforms_that_load_libraries() {
    for target in ["envoy", "envoy-gateway"] {
        let text = render_native(target);
        assert!(text.contains("/etc/penstock/libpenstock.so") && !text.contains("wasm.v3"), "{text}");
        assert!(text.contains("suite/penstock") && text.contains("egress-allowlist/penstock-egress"), "{text}");
        let run = penstock(&["check", "-"], &text);
        assert!(run.status == 0 && !run.out.contains("for which the platform"), "{}", run.out);
    }
    let run = penstock(&["render", "everything.yaml", "--for", "envoy", "--native"], "");
    assert!(run.status != 0 && run.err.contains("`workload` is unknown"), "{}", run.err);
    let run = penstock(&["render", "everything.yaml", "--for", "istio", "--namespace", "shop", "--native"], "");
    assert!(run.status != 0 && run.err.contains("--native is for envoy and envoy-gateway"), "{}", run.err);
}

#[test]
fn the_native_body_gets_the_metadata_that_the_policy_goes_by() {
    let policy = "{settings: {claims: {namespace: my.jwt, path: []}}, routes: {default: beta, rules: [{name: r, route: beta, matches: [\
        {claims: [{name: tier, value: pro}], metadata: [{namespace: other, path: [team], value: b}]}]}]}}";
    let text = render_file("-", policy, "envoy", &["--native"]);
    for namespace in ["my.jwt", "other"] {
        assert!(text.contains(&format!("object_key: penstock.metadata.{namespace}\n")), "{text}");
        assert!(text.contains(&format!("inline_string: \"%DYNAMIC_METADATA({namespace})%\"")), "{text}");
    }
    let run = penstock(&["check", "-"], &text);
    assert!(run.status == 0 && !run.out.contains("for which the platform"), "{}", run.out);
    assert!(
        !render_file("-", policy, "envoy", &[]).contains("DYNAMIC_METADATA"),
        "the wasm modules read it themselves"
    );
    let run = penstock(&["render", "-", "--for", "envoy-gateway", "--native"], policy);
    assert!(run.status != 0 && run.err.contains("Envoy Gateway has no filter that shows it"), "{}", run.err);
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
            let image = ["--image", "ghcr.io/penstock/suite:1"];
            let run = penstock(&["render", "-", "--for", target, image[0], image[1]], &policy(port));
            assert_eq!(run.status, 0, "{}", run.err);
            let said = ["defaultPort: ", "\"defaultPort\": "].map(|field| format!("{field}{number}"));
            assert!(said.iter().any(|field| run.out.contains(field)), "{target} {port}: {}", run.out);
            assert_eq!(run.out.contains(has_tls), tls, "{target} {port}: {}", run.out);
        }
        let image = ["--image", "ghcr.io/penstock/suite:1"];
        let run = penstock(&["render", "-", "--for", target, image[0], image[1]], &policy("defaultPort: 8443, "));
        assert!(run.status != 0 && run.err.contains("443 (with TLS) or 80"), "{}", run.err);
    }
    let istio = ["--image", "ghcr.io/penstock/suite:1", "--namespace", "istio-system"];
    let run = penstock(&[&["render", "-", "--for", "istio"], &istio[..]].concat(), &policy(""));
    assert!(run.out.contains("defaultPort: 443"), "{}", run.out);
}

#[test]
fn mistakes_are_reported_before_anything_is_written() {
    let with = |more: &[&'static str]| {
        let whole = ["render", "shop.yaml", "--for", "istio", "--namespace", "istio-system", "--gateway", "shop"];
        let rest = ["--image", "ghcr.io/penstock/suite:1", "--host", "shop.example.com", "--service-namespace", "shop"];
        let known: Vec<&str> = whole.into_iter().chain(rest).collect();
        let without = |name: &str| {
            let at = known.iter().position(|argument| *argument == name).unwrap();
            [&known[..at], &known[at + 2..]].concat()
        };
        match more {
            ["without", name] => without(name),
            more => [&known[..], more].concat(),
        }
    };
    for (arguments, message) in [
        (vec!["render", "invalid.yaml", "--for", "istio"], "unknown field `route`"),
        (vec!["render", "-", "--for", "istio"], "nothing to render"),
        (with(&["--service", "beta"]), "ROUTE=HOST:PORT"),
        (with(&["--service", "betta=shop:80"]), "the policy names no route `betta`; it names gold, beta"),
        (with(&["--service", "betta=shop:80"]), "did you mean `beta`?"),
        (with(&["--service", "beta=shop:80", "--service", "beta=other:80"]), "it is given twice"),
        (with(&["--service", "beta=shop:80/-v1"]), "is no subset"),
        (with(&["--service", "beta=shop:80/V1"]), "is no subset"),
        (with(&["--service", "beta=localhost:8080"]), "the gateway's own pod"),
        (with(&["--service", "beta=127.0.0.1:8080"]), "--service beta=NAME.NAMESPACE:PORT"),
        (with(&["--service", "beta=10.0.0.1:8080"]), "declare the address in a ServiceEntry"),
        (with(&["--name", "Shop_1"]), "lowercase letters, digits and `-`"),
        (with(&["--name", "a-name-that-is-so-long-that-nothing-can-be-put-behind-it"]), "write at most 50"),
        (
            vec!["render", "shop.yaml", "--for", "istio", "--service-namespace", "a.b"],
            "lowercase letters, digits and `-`",
        ),
        (with(&["--host", "https://shop.example.com/"]), "is a URL, not a host name"),
        (with(&["--host", "shop.*.com"]), "shop.*.com"),
        (with(&["--sha256", "abc"]), "64 hexadecimal digits"),
        (with(&["--egress-image", "foo bar"]), "does not begin with a registry"),
        (with(&["--egress-image", "ghcr.io/Penstock/suite:1"]), "is not a repository"),
        (with(&["--report", "shop.yaml"]), "is not a report of `penstock import`"),
        (with(&["without", "--image"]), "set the image that runs the policy: --image oci://REGISTRY/penstock/suite:"),
        (with(&["without", "--host"]), "set the hosts of the routes"),
        (with(&["without", "--namespace"]), "--namespace istio-system"),
        (with(&["without", "--gateway"]), "set the Gateway"),
        (with(&["without", "--service-namespace"]), "in which namespace is the service"),
    ] {
        let run = penstock(&arguments, "{}");
        assert!(run.status != 0 && run.out.is_empty() && run.err.contains(message), "{arguments:?}: {}", run.err);
    }
    // The image of a module without egress cannot run it.
    let folder = tempfile::tempdir().unwrap();
    let render = |policy: &str, more: &[&str]| {
        std::fs::write(folder.path().join("p.yaml"), policy).unwrap();
        let arguments = ["render", "p.yaml", "--for", "envoy-gateway", "--gateway", "g", "--host", "a.test"];
        penstock_in(folder.path(), &[&arguments[..], more].concat(), "")
    };
    let both = "egress: {rules: []}\nroutes: {rules: [{name: a, route: a}]}\n";
    // Requests that an import leaves to the platform must not fall to a rendered catch-all route.
    let imported = "routes: {default: a, rules: [{name: waf, matches: [{path: {value: /x}}], route: unrouted}]}\n";
    let run = render(imported, &["--image", "ghcr.io/penstock/suite:1"]);
    assert!(run.status == 2 && run.err.contains("--service unrouted=HOST:PORT"), "{}", run.err);
    let said = ["--image", "ghcr.io/penstock/suite:1", "--service", "unrouted=waf:80"];
    assert_eq!(render(imported, &said).status, 0);
    // An Ingress uses port names, and so does its report.
    std::fs::write(
        folder.path().join("r.json"),
        r#"{"routes": [{"route": "a", "to": "web namespace shop port http"}]}"#,
    )
    .unwrap();
    let named = ["--image", "ghcr.io/penstock/suite:1", "--report", "r.json"];
    let run = render("routes: {default: a, rules: [{name: a, route: a}]}\n", &named);
    assert!(run.status == 2 && run.err.contains("--service a=web.shop:NUMBER"), "{}", run.err);
    let run = render(both, &["--image", "ghcr.io/penstock/header-routing:1", "--service", "default=a:80"]);
    assert!(run.status == 2 && run.err.contains("--egress-image"), "{}", run.err);
    let run = render(both, &["--image", "ghcr.io/penstock/suite:1"]);
    assert!(run.status == 2 && run.err.contains("--service default=HOST:PORT"), "{}", run.err);
    let run = render(both, &["--image", "ghcr.io/penstock/suite:1", "--service", "default=api.stripe.com:443"]);
    assert!(run.status == 2 && run.err.contains("no Service of the cluster"), "{}", run.err);
    // A policy with only limits needs no route.
    let run = render(
        "rateLimits: [{name: a, key: [], limit: {requests: 1, per: 1m}}]\n",
        &["--image", "ghcr.io/penstock/suite:1"],
    );
    assert!(run.status == 0 && !run.out.contains("HTTPRoute\n"), "{}{}", run.out, run.err);
}

#[test]
fn every_object_and_every_part_of_one_has_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let long = "a".repeat(70);
    let names = ["default", "default-route", "penstock-outside", "Beta", "beta", "a/b", "a.b", "!", "404", &long];
    let names = names.map(str::to_owned).into_iter().chain([format!("{long}b"), format!("{}-2", "a".repeat(61))]);
    let rules: Vec<String> = names
        .enumerate()
        .map(|(i, name)| format!("{{name: r{i}, matches: [{{path: {{value: /{i}}}}}], route: {name:?}}}"))
        .collect();
    let egress = "egress: {rules: [{name: r, to: [{host: a.test}, {host: '*.a.test'}]}]}";
    let policy = format!("routes: {{default: default, rules: [{}]}}\n{egress}\n", rules.join(", "));
    std::fs::write(folder.path().join("p.yaml"), policy).unwrap();
    for target in TARGETS {
        let arguments = ["render", "p.yaml", "--for", target, "--gateway", "g", "--image", "ghcr.io/penstock/suite:1"];
        let places = ["--namespace", "n", "--service-namespace", "n", "--name", &"n".repeat(50)];
        let hosts: Vec<String> = (0..20).map(|i| format!("--host=h{}.test", i % 17)).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let run = penstock_in(folder.path(), &[&arguments[..], &places, &hosts].concat(), "");
        assert_eq!(run.status, 0, "{}", run.err);
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut count = |kind: String, name: &Value| {
            let name = name.as_str().unwrap();
            let is_label =
                name.len() < 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(is_label || kind.contains("cluster") || kind.contains("http"), "{kind} {name}");
            *known.entry(format!("{kind} {name}")).or_default() += 1;
        };
        for located in Located::read_all(&run.out).unwrap() {
            let object = yaml_text::value(&located.node);
            let kind = object["kind"].as_str().unwrap_or("Envoy").to_owned();
            let spec = &object["spec"];
            if kind != "Envoy" {
                count(format!("{kind} {}", object["metadata"]["namespace"]), &object["metadata"]["name"]);
            }
            // A part is named in its object; an HTTPRoute for other hosts has the same rules.
            let of = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
            assert!(of("hostnames").len() <= 16 && of("rules").len() <= 16);
            for rule in of("rules").iter().filter(|_| kind == "HTTPRoute" && of("hostnames").len() == 16) {
                if rule["name"].is_string() {
                    count("rule".to_owned(), &rule["name"]);
                }
            }
            of("http").iter().for_each(|rule| count("http".to_owned(), &rule["name"]));
            for cluster in object["static_resources"]["clusters"].as_array().into_iter().flatten() {
                count("cluster".to_owned(), &cluster["name"]);
            }
        }
        assert!(known.len() > 10, "{known:?}");
        let twice: Vec<_> = known.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{target}: {twice:?}");
    }
}

#[test]
fn many_routes_are_several_http_routes_and_other_namespaces_are_granted() {
    let folder = tempfile::tempdir().unwrap();
    let rules: Vec<String> =
        (0..40).map(|i| format!("{{name: r{i}, matches: [{{path: {{value: /{i}}}}}], route: r{i}}}")).collect();
    std::fs::write(folder.path().join("p.yaml"), format!("routes: {{default: r0, rules: [{}]}}\n", rules.join(", ")))
        .unwrap();
    let routes: Vec<Value> = (0..40)
        .map(|i| serde_json::json!({"route": format!("r{i}"), "to": format!("web namespace n{} port 8080", i % 2)}))
        .collect();
    std::fs::write(
        folder.path().join("report.json"),
        serde_json::json!({"routes": routes, "notImported": []}).to_string(),
    )
    .unwrap();
    let arguments = [
        "render",
        "p.yaml",
        "--for",
        "envoy-gateway",
        "--gateway",
        "g",
        "--host",
        "a.test",
        "--image",
        "ghcr.io/penstock/suite:1",
    ];
    let run =
        penstock_in(folder.path(), &[&arguments[..], &["--namespace", "n0", "--report", "report.json"]].concat(), "");
    assert_eq!((run.status, run.err.as_str()), (0, ""));
    let objects: Vec<Value> =
        Located::read_all(&run.out).unwrap().iter().map(|located| yaml_text::value(&located.node)).collect();
    let routes: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "HTTPRoute").collect();
    let counts: Vec<usize> = routes.iter().map(|route| route["spec"]["rules"].as_array().unwrap().len()).collect();
    assert_eq!(counts, [16, 16, 9]);
    assert_eq!(routes[2]["spec"]["rules"][8]["name"], "default-route");
    assert_eq!(
        routes[0]["spec"]["rules"][1]["backendRefs"][0],
        serde_json::json!({"name": "web", "namespace": "n1", "port": 8080})
    );
    assert_eq!(routes[0]["spec"]["rules"][0]["backendRefs"][0], serde_json::json!({"name": "web", "port": 8080}));
    let grants: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "ReferenceGrant").collect();
    assert_eq!((grants.len(), &grants[0]["metadata"]["namespace"]), (1, &"n1".into()));
}

/// The folder of Go's module cache, if Go is installed.
fn go_modules() -> Option<PathBuf> {
    let output = Command::new("go").args(["env", "GOMODCACHE"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_dir().then_some(path)
}

/// Every file below `folder` whose name contains `part`.
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

/// With `--validate=strict`, Kubernetes refuses fields that a schema lacks; JSON Schema needs an explicit setting.
fn closed(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if map.get("properties").is_some_and(Value::is_object) && !open {
                map.insert("additionalProperties".to_owned(), false.into());
            }
            // Keywords of Kubernetes, and integer formats.
            map.remove("format");
            if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                map.remove("anyOf");
            }
            for (name, value) in map.iter_mut() {
                // The branches refer to fields in `properties` above them.
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
    let wasm = TARGETS.into_iter().filter(|target| *target != "envoy").map(|target| render(target, &[]));
    for text in wasm.chain([render_native("envoy-gateway")]) {
        for located in Located::read_all(&text).unwrap() {
            let object = yaml_text::value(&located.node);
            let kind = format!("{} {}", object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
            let schema = schemas.get(&kind).unwrap_or_else(|| panic!("no definition of {kind}"));
            let validator = jsonschema::draft202012::new(schema).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&object).map(|e| format!("{kind}{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{errors:#?}");
            // The check itself can fail.
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
