//! Compares what `penstock check` reads from a bootstrap and calls valid with what Envoy reads and starts with.

use std::fs;

use anyhow::{Context, Result, ensure};
use penstock::yaml::Located;
use penstock_integration::{Bootstrap, Envoy, workspace};
use serde_json::Value;

use crate::{json, refused};

/// Values for a configuration of Envoy, each of which is put below its own field.
const VALUES: [&str; 60] = [
    "on",
    "no",
    "y",
    "Yes",
    "OFF",
    "oN",
    "tRUE",
    "True",
    "~",
    "Null",
    "NULL",
    "null",
    "0443",
    "08",
    "00",
    "-0",
    "0x1F",
    "0X1f",
    "-0x10",
    "0o17",
    "0b11",
    "1_000",
    "+5",
    "-5",
    "--1",
    "1e3",
    "100.0",
    ".5",
    "5.",
    "1.5",
    ".inf",
    ".nan",
    "nan",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "0xFFFFFFFF",
    "9007199254740993",
    "1e400",
    "0x",
    "5abc",
    "1,000",
    "12:30:45",
    "2026-01-01",
    "\"5\"",
    "'on'",
    "!!str 5",
    "!!int \"5\"",
    "! 5",
    "!x on",
    "[on, 1.0, 08]",
    "{b:1}",
    "{\"b\":1}",
    "{<<: {p: 1}}",
    "[1,]",
    "x#c",
    "\"\\x41\\u00e9\"",
    "{on: 1}",
    "'it''s'",
];

#[test]
fn check_reads_the_values_that_envoy_reads() -> Result<()> {
    let fields: String = VALUES.iter().enumerate().map(|(i, value)| format!("      v{i}: {value}\n")).collect();
    let blocks =
        "      folded: >-\n        a\n        b\n      block: |\n        on\n      anchor: &x on\n      alias: *x\n";
    let yaml = format!(
        "node:\n  id: a\n  cluster: b\n  metadata:\n    values:\n{fields}{blocks}admin: {{address: {{socket_address: {{address: \
         127.0.0.1, port_value: 0}}}}}}\nstatic_resources: {{}}\n"
    );
    let read = json(&Located::read(&yaml)?.node);
    let read = read.pointer("/node/metadata/values").and_then(Value::as_object).context("no values")?;
    let envoy = Bootstrap::text(&yaml)?.start()?;
    let shown = envoy.admin().json("/server_info")?;
    let shown = shown.pointer("/node/metadata/values").and_then(Value::as_object).context("no values")?;
    let name = |field: &str| field.strip_prefix('v').and_then(|i| VALUES.get(i.parse::<usize>().ok()?)).copied();
    let wrong: Vec<String> = shown
        .iter()
        .filter(|(field, value)| read.get(*field) != Some(value))
        .map(|(field, value)| format!("{}: Envoy {value}, check {:?}", name(field).unwrap_or(field), read.get(field)))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(shown.len() == read.len() && read.len() > VALUES.len());
    Ok(())
}

/// A bootstrap with our module, whose filter has this configuration, indented by ten spaces.
pub fn bootstrap(configuration: &str) -> Result<String> {
    let module = workspace::module("suite")?.display().to_string();
    let configuration: String = configuration.lines().map(|line| format!("                    {line}\n")).collect();
    Ok(format!(
        r#"static_resources:
  listeners:
  - name: ingress
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}]}}
          http_filters:
          - name: penstock
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: penstock
                vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: {module}}}}}}}
                configuration:
{configuration}          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    ))
}

const STRING: &str = "\"@type\": type.googleapis.com/google.protobuf.StringValue\n";

/// Values of `configuration:`.
fn configurations() -> Vec<String> {
    let mut all: Vec<String> = [
        // JSON, in every notation that YAML has.
        r#"value: '{"routes": {"default": "a"}}'"#,
        r#"value: "{\"routes\": {\"default\": \"a\"}}""#,
        "value: |\n  {\"routes\": {\n    \"default\": \"a\"}}",
        "value: >-\n  {\"routes\":\n  {\"default\": \"a\"}}",
        "value: |+\n\n  {\"routes\": {\"default\": \"a\"}}\n\n",
        "\"value\": &policy '{\"routes\": {\"default\": \"a\"}}'",
        r#"value: '{"routes": {"default": "é"}}'"#,
        r#"value: '{"routes": {"default": "\u0061"}}'"#,
        r#"value: '{"rateLimits": [{"name": "a", "key": [{"sourceAddress": {}}], "limit": {"requests": 1e2, "per": "1m"}}]}'"#,
        r#"value: '{"rateLimits": [{"name": "a", "key": [{"sourceAddress": {}}], "limit": {"requests": 100.0, "per": "1m"}}]}'"#,
        r#"value: '{"rateLimits": [{"name": "a", "key": [{"sourceAddress": {}}], "limit": {"requests": 100.5, "per": "1m"}}]}'"#,
        // Values that the module refuses.
        "value: |\n  routes:\n    default: a",
        "value: |\n  routes: {default: a}\n",
        r#"value: '{"routes": {"default": "a",}}'"#,
        "value: |\n  {\"routes\": {\"default\": \"a\"}} # why\n",
        "value: |\n  // why\n  {\"routes\": {\"default\": \"a\"}}\n",
        r#"value: "{'routes': {'default': 'a'}}""#,
        r#"value: '{"routes": {"default": "a"}'"#,
        r#"value: '{"routes": {"default": "a"}} {}'"#,
        r#"value: '{"routes": {"default": "a", "default": "b"}}'"#,
        r#"value: '{"routes": {"defualt": "a"}}'"#,
        r#"value: '{"routes": {"default": "a b"}}'"#,
        r#"value: '{"routes": {"rules": [{"name": "a", "route": "b", "timeout": 05}]}}'"#,
        r#"value: '{"rateLimits": [{"name": "a", "key": [{"sourceAddress": {}}], "limit": {"requests": 0x10, "per": "1m"}}]}'"#,
        "value: '[]'",
        "value: 'null'",
        "value: ''",
        "value: '{}'",
        "value: '{\"settings\": {}}'",
        "value: \"{\\\"routes\\\": {\\\"default\\\": \\\"a\\\"}}\\n\\n\"",
        "value: \"\\ufeff{\\\"routes\\\": {\\\"default\\\": \\\"a\\\"}}\"",
        // Values that are not strings for Envoy.
        r#"value: {"routes": {"default": "a"}}"#,
        "value: [a]",
        "value:\n  routes: {default: a}",
    ]
    .iter()
    .map(|value| format!("{STRING}{value}"))
    .collect();
    all.extend(
        [
            "\"@type\": type.googleapis.com/google.protobuf.Struct\nvalue: {routes: {default: a}}",
            "\"@type\": type.googleapis.com/google.protobuf.BytesValue\nvalue: eyJyb3V0ZXMiOiB7ImRlZmF1bHQiOiAiYSJ9fQ==",
            "\"@type\": type.googleapis.com/google.protobuf.BytesValue\nvalue: cm91dGVzOiB7fQ==",
            "\"@type\": type.googleapis.com/google.protobuf.BytesValue\nvalue: '{\"routes\": {}}'",
            "value: '{\"routes\": {\"default\": \"a\"}}'",
            "\"@type\": type.googleapis.com/google.protobuf.StringValues\nvalue: '{\"routes\": {\"default\": \"a\"}}'",
            "\"@type\": google.protobuf.StringValue\nvalue: '{\"routes\": {\"default\": \"a\"}}'",
        ]
        .map(str::to_owned),
    );
    all
}

#[test]
fn check_accepts_the_bootstraps_that_envoy_starts_with() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut disagree, mut taken, mut both) = (Vec::new(), 0, 0);
    for (i, configuration) in configurations().iter().enumerate() {
        let text = bootstrap(configuration)?;
        let path = folder.path().join(format!("{i}.yaml"));
        fs::write(&path, &text)?;
        let refused = refused("bootstrap.yaml", &text);
        match (Envoy::validate(&path), refused) {
            (Ok(()), None) => taken += 1,
            (Err(_), Some(_)) => both += 1,
            (Ok(()), Some(why)) => disagree.push(format!("only check refuses it: {why}\n{configuration}")),
            (Err(why), None) => disagree.push(format!("only Envoy refuses it: {why:#}\n{configuration}")),
        }
    }
    ensure!(disagree.is_empty(), "{} disagree:\n{}", disagree.len(), disagree.join("\n\n"));
    ensure!(taken >= 10 && both >= 20, "{taken} taken, {both} refused");
    Ok(())
}
