//! Policies in their places: manifests, folders, a cluster, a running Envoy.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::penstock_in;
use serde_json::{Value, json};

fn plugin(name: &str, policy: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         url: oci://ghcr.io/penstock/suite:1\n  pluginConfig: {policy}\n"
    )
}

const ROUTES: &str = "{routes: {default: stable, rules: [{name: beta, matches: [{headers: [{name: x-group, value: beta}]}], route: beta}]}}";
const EGRESS: &str = "{egress: {rules: [{name: a, to: [{host: a.test}], methods: [GET]}]}}";
const GET: [&str; 2] = ["--url", "https://a.test/x"];

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The library refuses a policy with inputs that it lacks, and the wasm module accepts it.
#[test]
fn a_policy_that_the_native_body_cannot_know_the_facts_of_is_an_error_in_its_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let claims = "{routes: {rules: [{name: r, route: a, matches: [{claims: [{name: groups, value: b}]}]}]}}";
    let workload = "{settings: {identity: {workload: {trustDomain: cluster.local}}}, egress: {rules: []}}";
    let gateway = |policy: &str| {
        format!(
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
             targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: g}}]\n  dynamicModule:\n  - name: penstock\n    \
             filterName: suite/p\n    config: {policy}\n"
        )
    };
    let envoy = |policy: &str| {
        format!(
            "static_resources: {{listeners: [{{name: l, filter_chains: [{{filters: [{{name: manager, typed_config: {{http_filters: [\n\
             {{name: penstock, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter, \
             dynamic_module_config: {{name: penstock}}, filter_name: suite/p, \
             filter_config: {{\"@type\": type.googleapis.com/google.protobuf.Struct, value: {policy}}}}}}},\n\
             {{name: router}}]}}}}]}}]}}]}}\n"
        )
    };
    for (policy, why) in [(claims, "no claims and no metadata"), (workload, "`workload` is unknown"), (ROUTES, "")] {
        write(here, "wasm.yaml", &plugin("p", policy));
        assert_eq!(penstock_in(here, &["check", "wasm.yaml"], "").status, 0, "{policy}");
        for text in [gateway(policy), envoy(policy)] {
            write(here, "native.yaml", &text);
            let run = penstock_in(here, &["check", "native.yaml"], "");
            assert_eq!(run.status, i32::from(!why.is_empty()), "{text}\n{}{}", run.out, run.err);
            assert!((run.out + &run.err).contains(why), "{policy}");
        }
    }
}

#[test]
fn every_command_takes_a_manifest_a_file_of_several_and_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(here, "plugin.yaml", &plugin("inbound", ROUTES));
    write(here, "both.yaml", &format!("{}---\n{}", plugin("inbound", ROUTES), plugin("outbound", EGRESS)));
    write(here, "k/base/in.yaml", &plugin("inbound", ROUTES));
    write(here, "k/base/out.yaml", &plugin("outbound", EGRESS));
    write(
        here,
        "k/kustomization.yaml",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [base]\n",
    );
    write(
        here,
        "t.test.yaml",
        "policy: plugin.yaml\ntests: [{name: a, request: {method: GET, authority: a, path: /}, expect: {route: stable}}]\n",
    );

    let run = penstock_in(here, &["explain", "plugin.yaml", GET[0], GET[1], "-H", "x-group: beta"], "");
    assert_eq!(run.status, 0, "{}", run.err);
    assert!(run.out.contains("✓ routed to `beta` (rule routes/beta)"), "{}", run.out);
    for source in ["both.yaml", "k"] {
        let run = penstock_in(here, &["explain", source, GET[0], GET[1]], "");
        assert!(
            run.out.contains("WasmPlugin shop/inbound") && run.out.contains("WasmPlugin shop/outbound"),
            "{}",
            run.out
        );
        let run = penstock_in(here, &["explain", source, GET[0], GET[1], "--plugin", "outbound", "-o", "json"], "");
        let report: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(report["egress"]["outcome"], "allow", "{}", run.out);
    }
    let request = r#"{"method":"POST","authority":"a.test","path":"/"}"#;
    for (arguments, part) in [
        (&["replay", "plugin.yaml"][..], r#""route":"stable""#),
        (&["replay", "both.yaml"], "methodNotAllowed"),
        (&["replay", "both.yaml", "--at", "ingress"], r#""route":"stable""#),
        (&["replay", "both.yaml", "--plugin", "shop/inbound"], r#""route":"stable""#),
        (&["replay", "--summary", "k"], "1 requests"),
        (&["replay", "--summary", "-o", "json", "both.yaml"], r#""egress/a methodNotAllowed 403": 1"#),
    ] {
        let run = penstock_in(here, arguments, request);
        assert!(run.status == 0 && run.out.contains(part), "{arguments:?} {}{}", run.out, run.err);
    }
    assert_eq!(penstock_in(here, &["test"], "").out.lines().last(), Some("1 passed, 0 failed"));
    assert_eq!(penstock_in(here, &["test", "k"], "").status, 2);
}

#[test]
fn diff_pairs_the_plugins_of_two_manifests_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let wider = EGRESS.replace("[GET]", "[GET, POST]");
    write(here, "old.yaml", &format!("{}---\n{}", plugin("inbound", ROUTES), plugin("outbound", EGRESS)));
    write(here, "new/out.yaml", &plugin("outbound", &wider).replace("WasmPlugin", "TrafficExtension"));
    write(here, "new/in.yaml", &plugin("inbound", ROUTES));
    let run = penstock_in(here, &["diff", "old.yaml", "new", "--fail-on", "loosened"], "");
    assert_eq!(run.status, 1, "{}{}", run.out, run.err);
    assert_eq!(
        run.out,
        "loosened  TrafficExtension shop/outbound egress.rules[a].methods: allows POST\n          passes now: POST https://a.test:443/ (before: 403 methodNotAllowed)\n\n1 loosened, 0 tightened, 0 changed\n"
    );
    std::fs::remove_file(here.join("new/in.yaml")).unwrap();
    write(here, "new/third.yaml", &plugin("third", EGRESS));
    let run = penstock_in(here, &["diff", "old.yaml", "new"], "");
    assert!(run.out.contains("TrafficExtension shop/outbound egress.rules[a].methods: allows POST"), "{}", run.out);
    assert!(run.out.contains("tightened WasmPlugin shop/third egress: is new"), "{}", run.out);
    assert!(run.out.contains("changed   WasmPlugin shop/inbound routes"), "{}", run.out);
    // Compares a policy file with the plugins that were rendered from it.
    write(here, "policy.yaml", &format!("{}\n{}\n", &ROUTES[1..ROUTES.len() - 1], &wider[1..wider.len() - 1]));
    let run = penstock_in(here, &["diff", "old.yaml", "policy.yaml"], "");
    assert_eq!(run.out.lines().next(), Some("loosened  egress.rules[a].methods: allows POST"), "{}", run.err);
    let run = penstock_in(here, &["diff", "old.yaml"], "");
    assert!(run.status == 2 && run.err.contains("give two policies"), "{}", run.err);
}

#[test]
fn the_cluster_is_asked_through_kubectl() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let item = |name: &str, policy: Value| {
        json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": "shop"}, "spec": {"url": "oci://ghcr.io/penstock/suite:1", "pluginConfig": policy}})
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        item("outbound", json!({"egress": {"rules": [{"name": "a", "to": [{"host": "a.test"}], "methods": ["GET"]}]}})),
        item("other", json!({"routes": {"default": "a"}})),
    ]});
    write(here, "list.json", &list.to_string());
    // The responses of kubectl when only Istio is installed.
    write(
        here,
        "bin/kubectl",
        "#!/bin/sh\necho \"$@\" >> calls\ncase \"$*\" in\n*wasmplugins*) cat list.json;;\n*) echo \"error: the server doesn't have a resource type \\\"$2\\\"\" >&2; exit 1;;\nesac\n",
    );
    std::fs::set_permissions(here.join("bin/kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    write(here, "plugin.yaml", &plugin("outbound", &EGRESS.replace("[GET]", "[GET, POST]")));
    let penstock = |arguments: &[&str]| {
        let path = format!("{}:{}", here.join("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(arguments)
            .current_dir(here)
            .env("PATH", path)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (status, out, _) = penstock(&["check", "--from-cluster", "--context", "prod"]);
    assert_eq!(
        (status, out.as_str()),
        (
            0,
            "cluster wasmplugins (WasmPlugin shop/outbound): valid\ncluster wasmplugins (WasmPlugin shop/other): valid\n"
        )
    );
    assert!(
        std::fs::read_to_string(here.join("calls"))
            .unwrap()
            .starts_with("--context prod get wasmplugins.extensions.istio.io --output json --all-namespaces")
    );
    let (status, out, err) = penstock(&["diff", "--from-cluster", "--fail-on", "loosened", "plugin.yaml"]);
    assert_eq!(
        (status, out.lines().next()),
        (1, Some("loosened  WasmPlugin shop/outbound egress.rules[a].methods: allows POST")),
        "{out}{err}"
    );
    assert!(err.contains("not compared") && err.contains("shop/other"), "{err}");
    let (status, out, _) =
        penstock(&["explain", "--from-cluster", "--plugin", "outbound", "--exit-code", "-X", "PUT", GET[0], GET[1]]);
    assert!(status == 1 && out.contains("✗ refused with 403 (rule egress/a): methodNotAllowed"), "{out}");
    write(
        here,
        "bin/kubectl",
        "#!/bin/sh\necho 'error: the server has asked for the client to provide credentials' >&2; exit 1\n",
    );
    let (status, _, err) = penstock(&["check", "--from-cluster"]);
    assert!(status == 2 && err.contains("provide credentials"), "{err}");
}

#[test]
fn a_running_envoy_is_asked_for_its_configuration() {
    let policy = json!({"routes": {"default": "stable"}}).to_string();
    let wasm = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": {"name": "penstock",
        "vm_config": {"code": {"local": {"filename": "/etc/penstock/suite.wasm"}}},
        "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": policy}}});
    let listener = json!({"name": "l", "filter_chains": [{"filters": [{"typed_config": {"http_filters": [{"name": "penstock", "typed_config": wasm}]}}]}]});
    let dump = json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"static_resources": {"listeners": [listener]}}},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "static_listeners": [{"listener": listener}]},
    ]})
    .to_string();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /config_dump "));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", dump.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(dump.as_bytes()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "new.yaml", "routes: {default: beta}\n");
    for url in [format!("http://{address}"), format!("{address}")] {
        let run = penstock_in(folder.path(), &["check", "--from-envoy", &url], "");
        assert_eq!(
            (run.status, run.out),
            (0, format!("http://{address} (Envoy configuration dump): valid\n")),
            "{}",
            run.err
        );
    }
    let run = penstock_in(folder.path(), &["diff", "--from-envoy", &address.to_string(), "new.yaml"], "");
    assert_eq!(run.out.lines().next(), Some("changed   routes.default: \"stable\" → \"beta\""), "{}", run.err);
    let run = penstock_in(folder.path(), &["check", "--from-envoy", "http://127.0.0.1:1"], "");
    assert!(
        run.status == 2 && run.err.contains("nothing listens there") && !run.err.contains("os error"),
        "{}",
        run.err
    );
}

#[test]
fn a_policy_for_two_places_is_explained_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(here, "policy.yaml", "egress: {rules: [{name: a, to: [{host: a.test}]}]}\nroutes: {default: stable}\n");
    let url = ["--url", "https://shop.test/cart"];
    let run = penstock_in(here, &["explain", url[0], url[1]], "");
    let (ingress, egress) = run.out.split_once("where requests leave:").unwrap();
    assert!(ingress.contains("where requests come in:\n✓ routed to `stable` (routes.default)"), "{}", run.out);
    assert!(egress.contains("✗ refused with 403 (egress): hostNotAllowed"), "{}", run.out);
    let run = penstock_in(here, &["explain", url[0], url[1], "-o", "json"], "");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (&report["places"][0]["at"], &report["places"][0]["decision"]["route"]),
        (&"ingress".into(), &"stable".into())
    );
    assert_eq!(report["places"][1]["decision"]["status"], 403);
    for (at, status) in [("ingress", 0), ("egress", 1)] {
        let run = penstock_in(here, &["explain", url[0], url[1], "--at", at, "--exit-code"], "");
        assert_eq!(run.status, status, "{}", run.out);
    }
    // The output of versions before there were places.
    let run = penstock_in(here, &["explain", url[0], url[1], "--at", "2026-01-01T00:00:00Z"], "");
    assert!(run.out.starts_with("GET https://shop.test/cart at 2026-01-01T00:00:00Z"), "{}", run.out);
    let run = penstock_in(here, &["explain", url[0], url[1], "--at", "noon"], "");
    assert!(run.status == 2 && run.err.contains("write ingress or egress"), "{}", run.err);
}

#[test]
fn arguments_in_the_wrong_place_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write(here, "policy.yaml", "routes: {default: stable}\n");
    write(
        here,
        "requests.jsonl",
        "{\"method\":\"GET\",\"authority\":\"a\",\"path\":\"/\"}\n{\"method\":\"GET\",\"authority\":\"a\",\"path\":\"/\"}\n",
    );
    let run = penstock_in(here, &["replay", "requests.jsonl", "policy.yaml"], "");
    assert!(
        run.status == 2 && run.err.contains("has recorded requests, not a policy: give the policy first"),
        "{}",
        run.err
    );
    let run = penstock_in(here, &["test", "policy.yaml"], "");
    assert!(run.status == 2 && run.err.contains("is a policy, not a test file"), "{}", run.err);
}
