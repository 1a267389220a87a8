//! Common mistakes of users, and the messages: where, what, and how to correct it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::fmt::Write as _;
use std::path::Path;

use common::penstock_in;

const GOOD: &str = "routes:\n  default: stable\n  rules:\n  - {name: beta, matches: [{headers: [{name: x-group, value: beta}]}], route: beta}\n";

/// The files that the commands find.
const FILES: [(&str, &str); 40] = [
    ("good.yaml", GOOD),
    ("half.json", "{\"routes\": {\"default\": \"a\"}\n"),
    ("comment.json", "{\"routes\": {\"default\": \"a\"}} // why\n"),
    ("module.wasm", "\0asm\u{1}\0\0\0"),
    ("page.html.yaml", "<html><body>404</body></html>\n"),
    ("list.yaml", "- name: beta\n  route: beta\n"),
    ("two.yaml", "routes: {default: a}\n---\nroutes: {default: b}\n"),
    ("quote.yaml", "routes:\n  default: 'stable\n  rules: []\n"),
    ("colon.yaml", "routes:\n  default: stable: beta\n"),
    ("percent.yaml", "canaries:\n- {name: a, variants: [{name: v1, weight: 90%}, {name: v2, weight: 10%}]}\n"),
    ("unit.yaml", "rateLimits:\n- {name: a, key: [{sourceAddress: {}}], limit: {requests: 5, per: 1 minute}}\n"),
    ("url.yaml", "egress:\n  rules:\n  - {name: a, to: [{host: https://api.example.com/v1}]}\n"),
    ("port.yaml", "egress:\n  rules:\n  - {name: a, to: [{host: api.example.com, ports: [\"443\"]}]}\n"),
    (
        "regex.yaml",
        "routes:\n  default: a\n  rules:\n  - {name: b, matches: [{path: {type: RegularExpression, value: \"/a(?=b)\"}}], route: b}\n",
    ),
    ("istio.yaml", "routes:\n  default: a\n  rules:\n  - {name: b, matches: [{uri: {prefix: /a}}], route: b}\n"),
    (
        "annotation.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a, annotations: {penstock.io/module: sute}}\nspec: {url: oci://r.test/edge:1, pluginConfig: {routes: {default: a}}}\n",
    ),
    (
        "empty-plugin.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\nspec: {url: oci://r.test/penstock/suite:1, pluginConfig: {}}\n",
    ),
    (
        "a.test.yaml",
        "policy: gone.yaml\ntests:\n- {name: a, request: {method: GET, authority: a, path: /}, expect: {route: beta}}\n",
    ),
    ("junk.log", "hello world\n"),
    ("slash.yaml", "rateLimits:\n- {name: a, key: [{sourceAddress: {}}], limit: 5/m}\n"),
    ("path.yaml", "routes:\n  rules:\n  - {name: a, matches: [{path: /foo}], route: b}\n"),
    ("header-map.yaml", "routes:\n  rules:\n  - {name: a, matches: [{headers: {x-group: beta}}], route: b}\n"),
    ("method.yaml", "egress:\n  rules:\n  - {name: a, to: [{host: a.test}], methods: GET}\n"),
    ("host-port.yaml", "egress:\n  rules:\n  - {name: a, to: [{host: \"a.test:443\"}]}\n"),
    ("snake.yaml", "rate_limits:\n- {name: a, key: [{sourceAddress: {}}], limit: {requests: 5, per: 1m}}\n"),
    (
        "canary.yaml",
        "routes:\n  rules:\n  - {name: a, canary: revews}\ncanaries:\n- {name: reviews, variants: [{name: v1, weight: 1}]}\n",
    ),
    (
        "config.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\nspec:\n  url: oci://r.test/penstock/suite:1\n  config: {routes: {default: a}}\n",
    ),
    (
        "string.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\nspec:\n  url: oci://r.test/penstock/suite:1\n  pluginConfig: |\n    routes: {default: a}\n",
    ),
    (
        "kind.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: wasmPlugin\nmetadata: {name: a}\nspec: {url: oci://r.test/penstock/suite:1, pluginConfig: {routes: {default: a}}}\n",
    ),
    (
        "no-kind.yaml",
        "metadata: {name: a}\nspec: {url: oci://r.test/penstock/suite:1, pluginConfig: {routes: {default: a}}}\n",
    ),
    (
        "twice.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\nspec:\n  url: oci://r.test/penstock/suite:1\n  pluginConfig: {routes: {default: a}}\n  pluginConfig: {routes: {default: b}}\n",
    ),
    ("service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"),
    (
        "pairs.test.yaml",
        "policy: good.yaml\ntests:\n- name: a\n  request: {method: GET, authority: a, path: /, headers: {x-group: beta}}\n  expect: {route: beta}\n",
    ),
    ("no-target.yaml", "egress:\n  rules:\n  - {name: a, to: [{ports: [443]}]}\n"),
    ("no-condition.yaml", "canaries:\n- name: c\n  variants: [{name: v1, weight: 1}]\n  overrides:\n  - variant: v1\n"),
    ("no-route.yaml", "routes:\n  rules:\n  - name: a\n    matches: [{path: {value: /a}}]\n"),
    ("requests.jsonl", "{\"method\":\"GET\",\"authority\":\"a.test\",\"path\":\"/\"}\n"),
    ("pretty.json", "{\n  \"method\": \"GET\"\n}\n"),
    ("list.json", "[{\"method\":\"GET\",\"authority\":\"a.test\",\"path\":\"/\"}]\n"),
    ("nothing.log", ""),
];

/// What people type, with the exit status.
const COMMANDS: [(&[&str], i32); 79] = [
    (&["chekc", "good.yaml"], 2),
    (&["check", "nope.yaml"], 2),
    (&["check", "z*.yaml"], 2),
    (&["check", "half.json"], 1),
    (&["check", "comment.json"], 1),
    (&["check", "module.wasm"], 2),
    (&["check", "page.html.yaml"], 1),
    (&["check", "list.yaml"], 1),
    (&["replay", "two.yaml", "junk.log"], 2),
    (&["check", "quote.yaml"], 1),
    (&["check", "colon.yaml"], 1),
    (&["check", "percent.yaml"], 1),
    (&["check", "unit.yaml"], 1),
    (&["check", "url.yaml"], 1),
    (&["check", "port.yaml"], 1),
    (&["check", "regex.yaml"], 1),
    (&["check", "istio.yaml"], 1),
    (&["check", "--deny", "warnings", "annotation.yaml"], 1),
    (&["check", "empty-plugin.yaml"], 1),
    (&["check", "--from-envoy", "127.0.0.1:1"], 2),
    (&["explain", "good.yaml", "--url", "shop.example.com/cart"], 2),
    (&["explain", "good.yaml", "--url", "https://shop.example.com/a b"], 2),
    (&["explain", "good.yaml", "--url", "https://a.test/", "-H", "x-group beta"], 2),
    (&["explain", "good.yaml", "--curl", "wget https://a.test/"], 2),
    (&["test", "a.test.yaml"], 2),
    (&["test", "good.yaml"], 2),
    (&["diff", "good.yaml"], 2),
    (&["replay", "good.yaml", "junk.log"], 2),
    (&["replay", "good.yaml", "--log-format", "%REQ(:METHOD", "junk.log"], 2),
    (&["render", "good.yaml", "--for", "istio"], 2),
    (&["render", "good.yaml", "--for", "envoy", "--service", "betta=127.0.0.1:1"], 2),
    (&["import", "good.yaml"], 2),
    (&["dash", "--envoy", "east"], 2),
    (&["check", "slash.yaml"], 1),
    (&["check", "path.yaml"], 1),
    (&["check", "header-map.yaml"], 1),
    (&["check", "method.yaml"], 1),
    (&["check", "host-port.yaml"], 1),
    (&["check", "snake.yaml"], 1),
    (&["check", "canary.yaml"], 1),
    (&["check", "config.yaml"], 1),
    (&["check", "string.yaml"], 1),
    (&["check", "kind.yaml"], 1),
    (&["check", "no-kind.yaml"], 1),
    (&["check", "twice.yaml"], 0),
    (&["check", "service.yaml"], 2),
    (&["explain", "service.yaml", "--url", "https://a.test/"], 2),
    (&["test", "pairs.test.yaml"], 2),
    (&["diff", "good.yaml", "requests.jsonl"], 2),
    (&["replay", "requests.jsonl", "good.yaml"], 2),
    (&["replay", "good.yaml", "good.yaml"], 2),
    (&["replay", "good.yaml", "pretty.json"], 2),
    (&["replay", "good.yaml", "list.json"], 2),
    (&["replay", "good.yaml", "nothing.log"], 0),
    (&["replay", "good.yaml", "."], 2),
    (&["explain", "good.yaml", "--curl", "curl https://a.test/ -H \"authorization: Bearer $TOKEN\""], 2),
    (&["explain", "good.yaml", "--curl", "Invoke-WebRequest -Uri https://a.test/"], 2),
    (&["explain", "good.yaml", "--curl", "curl --hedaer x:y https://a.test/"], 2),
    (&["explain", "good.yaml", "--url", "https://bücher.test/"], 2),
    (&["explain", "good.yaml", "--url", "https://a.test/", "--source-address", "10.0.0.1:443"], 2),
    (&["explain", "good.yaml", "--url", "https://a.test/", "--claims", "[1]"], 2),
    (&["explain", "good.yaml", "--request", "{\"method\":\"GET\""], 2),
    (&["check", "--watch", "-"], 2),
    (&["check", "--from-envoy", "ftp://a.test"], 2),
    (&["replay", "--seed", "x", "good.yaml", "nothing.log"], 2),
    (&["replay", "--seed", "-1", "good.yaml", "nothing.log"], 2),
    (&["explain", "good.yaml", "--url", "https://a.test/", "--misses", "1.5"], 2),
    (&["explain", "good.yaml", "--har", "list.json", "--entry", "0"], 2),
    (&["diff", "good.yaml", "good.yaml", "--examples", "many"], 2),
    (&["test", "--coverage", "--min", "101", "a.test.yaml"], 2),
    (&["learn", "--min-days", "0", "nothing.log"], 2),
    (&["learn", "--port", "99999", "nothing.log"], 2),
    (&["learn", "limits", "--key", "source", "--percentile", "most", "nothing.log"], 2),
    (&["dash", "--envoy", "127.0.0.1:9901", "--listen", "9911"], 2),
    (&["status", "--admin-port", "http"], 2),
    (&["check", "no-target.yaml"], 1),
    (&["check", "no-condition.yaml"], 1),
    (&["check", "no-route.yaml"], 1),
    (&["replay", "--summary", "--coverage", "--output", "lcov", "good.yaml", "nothing.log"], 2),
];

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn told(folder: &Path, arguments: &[&str], expected: i32) -> String {
    let run = penstock_in(folder, arguments, "");
    let said = format!("{}{}", run.out, run.err);
    assert_eq!(run.status, expected, "{arguments:?}\n{said}");
    assert!(!said.contains("os error") && !said.contains("panicked"), "{arguments:?}\n{said}");
    said
}

#[test]
fn mistakes_are_told_with_their_place_and_what_would_be_right() {
    let folder = folder();
    let mut all = String::new();
    for (arguments, status) in COMMANDS {
        let told = told(folder.path(), arguments, status);
        writeln!(all, "$ penstock {}\n{}\n", arguments.join(" "), told.trim_end()).unwrap();
    }
    insta::assert_snapshot!(all);
}
