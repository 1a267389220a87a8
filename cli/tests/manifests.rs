//! Policies in their places: manifests, folders, a cluster, a running Envoy.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

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
    let copied = |state: &str, format: &str| {
        let copy = format!(
            "{{name: copy, typed_config: {{on_request_headers: [{{object_key: '{state}', factory_key: envoy.string, \
             format_string: {{text_format_source: {{inline_string: '{format}'}}}}}}]}}}},\n{{name: penstock,"
        );
        envoy(claims).replace("{name: penstock,", &copy)
    };
    const STATE: &str = "penstock.metadata.envoy.filters.http.jwt_authn";
    const FORMAT: &str = "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%";
    let late = |text: String| {
        let (copy, rest) = text.split_once("{name: copy").and_then(|(_, rest)| rest.split_once("}]}},\n")).unwrap();
        let copy = format!("{{name: copy{copy}}}]}}}},\n");
        envoy(claims).replace("{name: router}", &format!("{copy}{{name: router}}")) + &rest[..0]
    };
    for policy in [claims, workload, ROUTES] {
        write(here, "wasm.yaml", &plugin("p", policy));
        assert_eq!(penstock_in(here, &["check", "wasm.yaml"], "").status, 0, "{policy}");
    }
    let colon =
        "{routes: {rules: [{name: r, route: a, matches: [{metadata: [{namespace: 'a:b', path: [c], value: d}]}]}]}}";
    for (text, why) in [
        (gateway(claims), "no EnvoyPatchPolicy here copies"),
        (gateway(workload), "`workload` is unknown"),
        (gateway(ROUTES), ""),
        (envoy(claims), "`envoy.filters.http.jwt_authn`, which no earlier filter copies"),
        (copied(STATE, FORMAT), ""),
        (late(copied(STATE, FORMAT)), "no earlier filter copies"),
        (copied("other", FORMAT), "no earlier filter copies"),
        (copied(STATE, "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload)%"), "no earlier filter copies"),
        (envoy(colon), "cannot name a namespace with `:`"),
        (envoy(workload), "`workload` is unknown"),
        (envoy(ROUTES), ""),
    ] {
        write(here, "native.yaml", &text);
        let run = penstock_in(here, &["check", "native.yaml"], "");
        assert_eq!(run.status, i32::from(!why.is_empty()), "{text}\n{}{}", run.out, run.err);
        assert!((run.out + &run.err).contains(why), "{text}");
    }
}

/// The example of docs/native.md, which `integration/tests/gateway/native.rs` tries with a real Envoy Gateway.
#[test]
fn claims_reach_the_native_body_under_envoy_gateway_if_a_patch_copies_them_before_its_filter() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let page = include_str!("../../docs/native.md");
    let patch =
        page.split("```").find(|block| block.contains("kind: EnvoyPatchPolicy")).unwrap().trim_start_matches("yaml");
    let policy = "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {name: penstock, namespace: shop}\nspec:\n  \
                  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: shop}]\n  dynamicModule:\n  - name: penstock\n    \
                  filterName: suite/penstock\n    \
                  config: {routes: {rules: [{name: r, route: a, matches: [{claims: [{name: groups, value: b}]}]}]}}\n";
    let list = |objects: &[&str]| {
        let items = objects.iter().map(|object| format!("- {}\n", object.trim().replace('\n', "\n  ")));
        format!("apiVersion: v1\nkind: List\nitems:\n{}", items.collect::<String>())
    };
    for (policy, patch, is_copied) in [
        (policy.to_owned(), patch.to_owned(), true),
        (policy.replace(", namespace: shop", ""), patch.to_owned(), true),
        (policy.replace("name: penstock, n", "name: other, n"), patch.to_owned(), false),
        (policy.replace("namespace: shop", "namespace: other"), patch.to_owned(), false),
        (policy.to_owned(), patch.replace("module/0'", "module/1'"), false),
        (policy.to_owned(), patch.replace("penstock.metadata.envoy.filters.http.jwt_authn", "other"), false),
        (policy.to_owned(), patch.replace("op: add", "op: replace"), false),
        (policy.to_owned(), patch.replace("      value:\n", "      path: /typed_config\n      value:\n"), false),
        (policy.to_owned(), patch.replace("dynamic-module/0')]", "dynamic-module/0')].typed_config"), false),
    ] {
        write(here, "separate/policy.yaml", &policy);
        write(here, "separate/patch.yaml", &patch);
        write(here, "both.yaml", &format!("{policy}---\n{patch}"));
        write(here, "list.yaml", &list(&[&policy, &patch]));
        for input in ["separate", "both.yaml", "list.yaml"] {
            let run = penstock_in(here, &["check", input], "");
            assert_eq!(run.status, i32::from(!is_copied), "{input}: {policy}{patch}{}{}", run.out, run.err);
            assert_eq!((run.out + &run.err).contains("no EnvoyPatchPolicy here copies"), !is_copied, "{input}");
        }
    }
    let run = penstock_in(here, &["check", "separate/policy.yaml"], "");
    assert_eq!(run.status, 1, "the patch is not among the files");
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
    assert!(run.status == 2 && run.err.contains("pass two policies"), "{}", run.err);
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
        run.status == 2 && run.err.contains("contains recorded requests, not a policy: pass the policy first"),
        "{}",
        run.err
    );
    let run = penstock_in(here, &["test", "policy.yaml"], "");
    assert!(run.status == 2 && run.err.contains("is a policy, not a test file"), "{}", run.err);
}

const WASM_TYPE: &str = "\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const NATIVE_TYPE: &str =
    "\"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter";
const STRING: &str = "\"@type\": type.googleapis.com/google.protobuf.StringValue";
const POLICY: &str =
    "'{\"rateLimits\": [{\"name\": \"a\", \"key\": [], \"limit\": {\"requests\": 1, \"per\": \"1m\"}}]}'";

/// A bootstrap with these filters, and more fields of its route.
fn bootstrap(filters: &[String], route: &str) -> String {
    let filters: String = filters.iter().map(|filter| format!("          - {filter}\n")).collect();
    format!(
        "static_resources:\n  listeners:\n  - name: a\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 18080}}}}\n    \
         filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: a\n          \
         route_config: {{name: a, virtual_hosts: [{{name: a, domains: [\"*\"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}{route}}}]}}]}}\n          \
         http_filters:\n{filters}          \
         - {{name: envoy.filters.http.router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}\n"
    )
}

fn wasm(name: &str, configuration: &str) -> String {
    format!(
        "{{name: {name}, typed_config: {{{WASM_TYPE}, config: {{name: {name}, vm_config: {{runtime: envoy.wasm.runtime.v8, \
         code: {{local: {{filename: /x/penstock/suite.wasm}}}}}}, configuration: {configuration}}}}}}}"
    )
}

fn native(module: &str, rest: &str) -> String {
    format!("{{name: penstock, typed_config: {{{NATIVE_TYPE}, dynamic_module_config: {module}, {rest}}}}}")
}

#[test]
fn a_filter_of_ours_that_is_not_complete_is_told_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let given = format!("filter_config: {{{STRING}, value: {POLICY}}}");
    let empty = format!("{{{STRING}, value: ''}}");
    for (filter, part) in [
        (native("{}", &format!("filter_name: suite, {given}")), "names no library"),
        (native("~", &format!("filter_name: suite, {given}")), "`dynamic_module_config` is missing"),
        (native("penstock", &format!("filter_name: suite, {given}")), "must be an object (DynamicModuleConfig)"),
        (native("{module: {}}", &format!("filter_name: suite, {given}")), "needs one of `local`, `remote`"),
        (native("{name: penstock}", "filter_name: suite, filter_config: '{}'"), "must be an object with `@type`"),
        (
            native("{name: penstock}", &format!("filter_name: suite, filter_config: {empty}")),
            "the filter has no policy",
        ),
        (native("{}", "filter_name: suite/a").replace("name: penstock", "name: edge"), "names no library"),
        (wasm("penstock", &empty), "the filter has no policy"),
        (wasm("penstock", &format!("{{{STRING}, value: '  '}}")), "the filter has no policy"),
        (wasm("penstock", "'{}'"), "must be an object with `@type`"),
        (format!("{{name: penstock, typed_config: {{{WASM_TYPE}}}}}"), "`config` is missing"),
        (format!("{{name: penstock, typed_config: {{{WASM_TYPE}, config: x}}}}"), "must be an object (PluginConfig)"),
    ] {
        write(folder.path(), "envoy.yaml", &bootstrap(std::slice::from_ref(&filter), ""));
        let run = penstock_in(folder.path(), &["check", "envoy.yaml"], "");
        assert_eq!(run.status, 1, "{filter}\n{}{}", run.out, run.err);
        assert!(run.out.contains(part) && run.out.contains("envoy.yaml:13:"), "{part}: {}", run.out);
    }
    // One of another vendor.
    let other = native("{}", "filter_name: waf").replace("name: penstock", "name: waf");
    write(folder.path(), "envoy.yaml", &bootstrap(&[other], ""));
    assert_eq!(penstock_in(folder.path(), &["check", "envoy.yaml"], "").status, 2);
}

#[test]
fn a_route_that_configures_our_filter_is_an_error_and_one_that_turns_it_off_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let filter = wasm("penstock", &format!("{{{STRING}, value: {POLICY}}}"));
    let per_route = |config: &str| format!(", typed_per_filter_config: {{penstock: {config}}}");
    let filter_config = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let config = filter.split_once("typed_config: ").unwrap().1;
    let off = filter.replacen("penstock,", "penstock, disabled: true,", 1);
    for (filter, route, status, part) in [
        (&filter, per_route(&config[..config.len() - 1]), 1, "takes no configuration of a route"),
        (&filter, per_route(&format!("{{{filter_config}, disabled: true}}")), 0, "pass without the filter"),
        (&filter, per_route(&format!("{{{filter_config}, config: {{}}}}")), 0, ": valid\n"),
        (&off, String::new(), 0, "no route here turns it on"),
        (&off, per_route(&format!("{{{filter_config}, config: {{}}}}")), 0, ": valid\n"),
    ] {
        write(folder.path(), "envoy.yaml", &bootstrap(std::slice::from_ref(filter), &route));
        let run = penstock_in(folder.path(), &["check", "envoy.yaml"], "");
        assert_eq!(run.status, status, "{route}\n{}{}", run.out, run.err);
        assert!(run.out.contains(part), "{part}: {}", run.out);
    }
}

#[test]
fn our_module_in_another_place_than_a_filter_of_http_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let filter = wasm("penstock", &format!("{{{STRING}, value: {POLICY}}}"));
    let plugin = filter.split_once("config: {name").unwrap().1;
    let plugin = format!("config: {{name{}", &plugin[..plugin.len() - 2]);
    let service = format!(
        "bootstrap_extensions:\n- name: envoy.bootstrap.wasm\n  typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.wasm.v3.WasmService, \
         singleton: true, {plugin}}}\nstatic_resources: {{}}\n"
    );
    write(folder.path(), "envoy.yaml", &service);
    let run = penstock_in(folder.path(), &["check", "envoy.yaml"], "");
    assert!(run.status == 0 && run.out.contains("a WasmService sees no requests"), "{}{}", run.out, run.err);
}

#[test]
fn plugins_and_objects_of_one_name_are_told_what_they_share() {
    let folder = tempfile::tempdir().unwrap();
    let filter = wasm("penstock", &format!("{{{STRING}, value: {POLICY}}}"));
    write(folder.path(), "envoy.yaml", &bootstrap(&[filter.clone(), filter], ""));
    let run = penstock_in(folder.path(), &["check", "envoy.yaml"], "");
    assert!(run.status == 0 && run.out.contains("counts twice in limits of one name and key"), "{}", run.out);
    write(folder.path(), "twice.yaml", &format!("{}---\n{}", plugin("a", ROUTES), plugin("a", EGRESS)));
    let run = penstock_in(folder.path(), &["check", "twice.yaml"], "");
    assert!(run.out.contains("`kubectl apply` keeps the last"), "{}", run.out);
    let run = penstock_in(folder.path(), &["diff", "twice.yaml", "twice.yaml"], "");
    assert!(run.status == 2 && run.err.contains("occurs 2 times on the old side"), "{}", run.err);
    // Of two kinds, each is compared with its own.
    let both = plugin("a", ROUTES) + "---\n" + &plugin("a", EGRESS).replace("WasmPlugin", "TrafficExtension");
    write(folder.path(), "both.yaml", &both);
    assert_eq!(penstock_in(folder.path(), &["diff", "both.yaml", "both.yaml"], "").status, 0);
}

#[test]
fn a_bootstrap_in_a_config_map_or_secret_is_read() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().unwrap();
    let wrong =
        bootstrap(&[wasm("penstock", &format!("{{{STRING}, value: '{{\"routes\": {{\"defaul\": \"a\"}}}}'}}"))], "");
    let block: String = wrong.lines().map(|line| format!("    {line}\n")).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(&wrong);
    let object = |kind: &str, data: &str| format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: e}}\n{data}");
    for (text, place) in [
        // Of a block, each line is found.
        (object("ConfigMap", &format!("data:\n  envoy.yaml: |\n{block}")), "m.yaml:18:"),
        (object("ConfigMap", &format!("data: {{envoy.yaml: {}}}\n", json!(wrong))), "m.yaml:4:"),
        (object("Secret", &format!("stringData:\n  envoy.yaml: |\n{block}")), "m.yaml:18:"),
        (object("Secret", &format!("data:\n  envoy.yaml: {encoded}\n")), "m.yaml:5:"),
        (
            format!(
                "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {{name: e}}\n  data: {{envoy.yaml: {}}}\n",
                json!(wrong)
            ),
            "m.yaml:7:",
        ),
    ] {
        write(folder.path(), "m.yaml", &text);
        let run = penstock_in(folder.path(), &["check", "m.yaml"], "");
        assert_eq!(run.status, 1, "{text}\n{}{}", run.out, run.err);
        for part in ["unknown field `defaul`", place, "(Envoy bootstrap in ", " e, envoy.yaml)"] {
            assert!(run.out.contains(part), "{part} in {}\n{text}", run.out);
        }
    }
    // A policy, where the object says that it is one.
    let map = object("ConfigMap", "data: {policy.yaml: '{routes: {defaul: a}}', other: b}\n");
    write(folder.path(), "m.yaml", &map);
    assert_eq!(penstock_in(folder.path(), &["check", "m.yaml"], "").status, 2);
    write(folder.path(), "m.yaml", &map.replace("name: e", "name: e, annotations: {penstock.io/module: suite}"));
    for mark in ["annotations: {penstock.io/module: suite}", "labels: {penstock.io/policy: 'true'}"] {
        write(folder.path(), "m.yaml", &map.replace("name: e", &format!("name: e, {mark}")));
        let run = penstock_in(folder.path(), &["check", "m.yaml"], "");
        assert!(
            run.status == 1 && run.out.contains("m.yaml:4:") && run.out.contains("(ConfigMap e, policy.yaml)"),
            "{}",
            run.out
        );
    }
}
