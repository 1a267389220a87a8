//! `penstock check` as users and their tools see it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{invalid_documents, penstock, penstock_in};
use serde_json::Value;

/// Review these snapshots as a user: does the message say how to correct the document?
#[test]
fn every_invalid_document_says_where_it_is_wrong_and_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let mut reports = String::new();
    for (name, text) in invalid_documents() {
        std::fs::write(folder.path().join("policy.yaml"), text).unwrap();
        let run = penstock_in(folder.path(), &["check", "policy.yaml"], "");
        assert_eq!(run.status, 1, "{name}: {}", run.out);
        assert!(run.out.contains("--> policy.yaml:") || name == "an empty document", "{name}: {}", run.out);
        reports += &format!("# {name}\n{}\n", run.out.trim_end());
    }
    for line in include_str!("../../filters/policy/tests/contract/load-cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        if case["expect"]["valid"] == false {
            let run = penstock(&["check", "-"], &case["policy"].to_string());
            assert_eq!(run.status, 1, "{line}");
            reports += &format!("# contract: {}: {}\n{}\n", case["name"], case["why"], run.out.trim_end());
        }
    }
    insta::assert_snapshot!(reports);
}

#[test]
fn manifests_are_checked_with_the_hosts_routes() {
    let run = penstock(&["check", "manifests.yaml"], "");
    assert_eq!(run.status, 1);
    insta::assert_snapshot!(run.out);
}

#[test]
fn ci_servers_get_annotations() {
    let run = penstock(&["check", "--format", "github", "manifests.yaml"], "");
    assert_eq!(run.status, 1);
    insta::assert_snapshot!(run.out);
}

#[test]
fn code_scanning_gets_sarif() {
    let run = penstock(&["check", "--format", "sarif", "manifests.yaml", "shop.yaml"], "");
    assert_eq!(run.status, 1);
    let log: serde_sarif::sarif::Sarif = serde_json::from_str(&run.out).unwrap();
    let results = log.runs[0].results.as_ref().unwrap();
    let region = results[0].locations.as_ref().unwrap()[0].physical_location.as_ref().unwrap().region.as_ref().unwrap();
    assert!(region.start_line.unwrap() > 1 && region.end_column > region.start_column);
    // All fields were read: the standard's types serialize to the same document.
    let again: Value = serde_json::to_value(&log).unwrap();
    assert_eq!(again, serde_json::from_str::<Value>(&run.out).unwrap());
}

#[test]
fn everything_in_this_repository_is_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let run = penstock_in(
        &root,
        &[
            "check",
            "envoy-configs/static.yaml",
            "envoy-configs/ecds/penstock.yaml",
            "envoy-configs/egress-gateway.yaml",
            "envoy-configs/rate-limit.yaml",
        ],
        "",
    );
    assert_eq!(
        run.out,
        "envoy-configs/static.yaml (Envoy bootstrap): valid\n\
         envoy-configs/ecds/penstock.yaml (Envoy discovery file): valid\n\
         envoy-configs/egress-gateway.yaml (Envoy bootstrap): valid\n\
         envoy-configs/rate-limit.yaml (Envoy bootstrap): valid\n"
    );
}

/// A bootstrap whose plugin has this file and this `configuration`.
fn bootstrap(file: &str, configuration: &str) -> String {
    format!(
        "static_resources:\n  listeners:\n  - name: l\n    filter_chains:\n    - filters:\n      - name: hcm\n        typed_config:\n          \
         http_filters:\n          - name: a\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n              \
         config:\n                name: a\n                vm_config: {{code: {{local: {{filename: {file}}}}}}}\n                \
         configuration: {configuration}\n          - name: envoy.filters.http.router\n"
    )
}

const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";

#[test]
fn what_a_plugin_is_configured_with_is_read_as_its_platform_reads_it() {
    let string = |text: &str| format!("{{\"@type\": {STRING}, value: {}}}", Value::from(text));
    let typed =
        |kind: &str, value: &str| format!("{{\"@type\": type.googleapis.com/google.protobuf.{kind}, value: {value}}}");
    let ours = "/etc/penstock/suite.wasm";
    let plugin = |config: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: p, namespace: i}}\nspec:\n  \
         url: oci://ghcr.io/penstock/suite:1\n  {config}\n"
        )
    };
    for (text, status, part) in [
        (bootstrap(ours, &string(r#"{"routes":{"default":"a"}}"#)), 0, "valid"),
        (bootstrap(ours, &string("routes: {default: a}")), 1, "the module reads JSON, and this is YAML"),
        (bootstrap(ours, &string(r#"{"routes":{"default":"a",}}"#)), 1, "trailing comma"),
        (bootstrap(ours, &string("{\"routes\":{} # none\n}")), 1, "JSON has no comments"),
        (
            bootstrap(ours, &string(r#"{"egress":{"rules":[{"name":"a","to":[{"host":"a.test","ports":[0443]}]}]}}"#)),
            1,
            "not JSON: invalid number",
        ),
        (bootstrap(ours, &string("")), 1, "the filter has no policy"),
        (bootstrap(ours, &typed("Struct", "{routes: {default: a}}")), 1, "a Struct to the module as protobuf bytes"),
        (bootstrap(ours, &typed("BytesValue", "eyJyb3V0ZXMiOnsiZGVmYXVsdCI6ImEifX0=")), 0, "valid"),
        (bootstrap(ours, &typed("BytesValue", "eyJyb3V0ZXMiOnsicnVsZXoiOltdfX0=")), 1, "rulez"),
        (bootstrap(ours, "{value: '{\"routes\":{}}'}"), 1, "no `@type`"),
        (
            bootstrap(ours, &string(r#"{"routes":{"rulez":[]}}"#))
                .replace("static_resources", "staticResources")
                .replace("http_filters", "httpFilters")
                .replace("typed_config", "typedConfig")
                .replace("vm_config", "vmConfig"),
            1,
            "rulez",
        ),
        (bootstrap("/etc/acme/auth.wasm", &string("rules: 1")), 2, ""),
        (bootstrap("/etc/acme/auth.wasm", &string(r#"{"routes":[1]}"#)), 0, ""),
        (
            plugin(
                "pluginConfig: {routes: {rules: [{name: a, matches: [{headers: [{name: x, value: NO}]}], route: a}]}}",
            ),
            1,
            "Kubernetes reads the bare word `NO` as a boolean",
        ),
        (
            plugin("pluginConfig: {routes: {rules: [{name: a, route: a, retries: {attempts: 1, on: [\"5xx\"]}}]}}"),
            1,
            "Kubernetes reads the bare word `on` as `true`: write `retryOn`",
        ),
        (
            plugin("pluginConfig: {egress: {rules: [{name: a, to: [{host: a.test, ports: [0443]}]}]}}"),
            1,
            "octal number, 291",
        ),
        (
            plugin(
                "pluginConfig: {rateLimits: [{name: a, key: [], limit: {requests: 1e3, per: 1m}}, {name: b, key: [], limit: {requests: 100.0, per: 1m}}]}",
            ),
            0,
            "valid",
        ),
        (plugin("pluginConfig: {\n  \"routes\": {\n  \"default\": \"a\"\n}\n  }"), 0, "valid"),
        (plugin("pluginConfig:\n\troutes: {}"), 1, "a tab"),
        (
            plugin("failStrategy: FAIL_OPEN\n  pluginConfig: {routes: {default: a}}"),
            0,
            "every request passes without the filter",
        ),
        (plugin("phase: AUTHN"), 1, "the plugin has no policy"),
        (plugin("phase: AUTHN").replace("ghcr.io/penstock/suite", "ghcr.io/acme/waf"), 2, ""),
        (
            plugin("pluginConfig: {settings: {a: 1}, routes: []}")
                .replace("ghcr.io/penstock/suite", "ghcr.io/acme/waf"),
            0,
            "",
        ),
        (
            plugin("pluginConfig: {routes: []}")
                .replace("ghcr.io/penstock/suite", "ghcr.io/acme/x")
                .replace("{name: p,", "{name: p, annotations: {penstock.io/module: canary},"),
            1,
            "routes",
        ),
        (
            plugin("pluginConfig: {routes: {default: a}}").replace("ghcr.io", "registry.example.com"),
            0,
            "is a placeholder",
        ),
        (
            format!(
                "apiVersion: v1\nkind: List\nitems:\n- {}",
                plugin("pluginConfig: {routes: {rulez: []}}").trim_end().replace('\n', "\n  ")
            ),
            1,
            "WasmPlugin i/p): invalid",
        ),
        (format!("{{\"configs\": [{{\"bootstrap\": {}}}]}}", Value::from(1)), 2, ""),
        ("egress: {rules: [{name: a, to: [{host: a.test, ports: [0443]}]}]}".to_owned(), 1, "octal number, 291"),
        ("egress: {rules: []}\nroutes: {default: a}".to_owned(), 0, "note: egress: runs where requests leave"),
        ("".to_owned(), 1, "is empty"),
    ] {
        let run = penstock(&["check", "-"], &text);
        assert_eq!(run.status, status, "{text}\n{}{}", run.out, run.err);
        assert!(run.out.contains(part), "{text}\n{}", run.out);
    }
}

#[test]
fn files_of_json_are_strict_json_and_folders_are_searched() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("a.json", "{\"routes\": {\"default\": \"a\",}}");
    let run = penstock_in(folder.path(), &["check", "a.json"], "");
    assert!(run.status == 1 && run.out.contains("trailing comma"), "{}", run.out);
    write("a.json", "{\"routes\": {\"default\": \"a\"}}");
    write("deep/b.yaml", "routes: {rules: [{name: a, route: a}, {name: b, route: b}]}");
    write("deep/values.yaml", "image: x");
    write("deep/b.test.yaml", "policy: b.yaml\ntests: []");
    write("templates/x.yaml", "{{- if .Values.x }}\na: {{ .Values.y }}\n{{- end }}");
    write("node_modules/c.yaml", "routes: {rulez: []}");
    let run = penstock_in(folder.path(), &["check", "."], "");
    assert_eq!(run.status, 0, "{}{}", run.out, run.err);
    assert_eq!(run.out.lines().filter(|line| line.contains(": valid")).count(), 2, "{}", run.out);
    assert!(run.err.contains("skipped ./templates/x.yaml"), "{}", run.err);
    assert_eq!(penstock_in(folder.path(), &["check", "--deny", "warnings", "."], "").status, 1);
    assert_eq!(
        penstock_in(folder.path(), &["validate", "deep/*.yaml", "-o", "json"], "").status,
        1,
        "values.yaml was named"
    );
    assert_eq!(penstock_in(folder.path(), &["lint", "--format", "json", "*.json"], "").status, 0);
    assert_eq!(penstock_in(folder.path(), &["check"], "").status, 2);
    write("policy.yaml", "routes: {}");
    assert_eq!(penstock_in(folder.path(), &["check"], "").out, "policy.yaml: valid\n");
}

#[test]
fn the_order_of_filters_that_breaks_a_promise_is_a_warning_and_that_envoy_refuses_an_error() {
    let chain = |filters: &[&str]| {
        let config = r#"{"@type": type.googleapis.com/google.protobuf.StringValue, value: '{"egress":{"rules":[]},"settings":{}}'}"#;
        let ours = format!(
            "typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {{vm_config: {{code: {{local: {{filename: /penstock/suite.wasm}}}}}}, configuration: {config}}}}}"
        );
        let filters: Vec<String> = filters
            .iter()
            .map(|name| if *name == "ours" { format!("- name: ours\n    {ours}") } else { format!("- name: {name}") })
            .collect();
        format!("\"@type\": x\nhttp_filters:\n  {}\n", filters.join("\n  "))
    };
    let router = "envoy.filters.http.router";
    for (filters, part) in [
        (&["ours", router][..], ": valid\n"),
        (&["envoy.filters.http.lua", "ours", router], ": valid\n"),
        (
            &["ours", "envoy.filters.http.lua", router],
            "`envoy.filters.http.lua` is between the egress rules and the router",
        ),
    ] {
        let run = penstock(&["check", "-"], &chain(filters));
        assert!(run.status == 0 && run.out.contains(part), "{filters:?} {}{}", run.out, run.err);
    }
    for (filters, part) in [
        (&[router, "ours"][..], "is before other filters"),
        (&["ours"], "no router comes after it"),
        (&["ours", "envoy.filters.http.lua"], "no router comes after it"),
    ] {
        let run = penstock(&["check", "-"], &chain(filters));
        assert!(run.status == 1 && run.out.contains(part), "{filters:?} {}{}", run.out, run.err);
    }
}

#[test]
fn a_file_without_a_policy_is_a_mistake_in_the_command() {
    let run = penstock(&["check", "-"], "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n");
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    assert!(run.err.contains("no policy in standard input"), "{}", run.err);
}
