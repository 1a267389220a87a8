//! Mistakes in Envoy's own fields around our filter: `penstock check` must refuse what Envoy refuses, and accept what Envoy
//! accepts.

use std::fs;

use anyhow::{Result, ensure};
use penstock_integration::Envoy;

use crate::envoy::bootstrap;
use crate::refused;

const NAME: &str = "                name: penstock\n";
const RUNTIME: &str = "runtime: envoy.wasm.runtime.v8, ";
const TYPE: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const ROUTE: &str = "direct_response: {status: 200}";
const HOST: &str = "domains: [\"*\"]";
const ROUTER: &str = "          - name: envoy.filters.http.router\n";

/// A text of the valid bootstrap, and its replacement. Envoy refuses the bootstrap with any of them.
const REFUSED: [(&str, &str); 48] = [
    // Names.
    (NAME, "                name: penstock\n                fail_opne: true\n"),
    (NAME, "                name: penstock\n                rootid: a\n"),
    (RUNTIME, "runtime: envoy.wasm.runtime.v8, vmid: a, "),
    ("local:", "locl:"),
    ("filename:", "file:"),
    (
        "typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm",
        "typed_confg:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm",
    ),
    ("          - name: penstock\n", "          - name: penstock\n            disable: true\n"),
    ("value: '", "valeu: x\n                  value: '"),
    ("              config:\n", "              confg:\n"),
    // Values.
    (NAME, "                name: penstock\n                root_id: 5\n"),
    (NAME, "                name: penstock\n                root_id: on\n"),
    (NAME, "                name: penstock\n                fail_open: 1\n"),
    (NAME, "                name: penstock\n                fail_open: \"\"\n"),
    (NAME, "                name: penstock\n                fail_open: FAIL_OPEN\n"),
    (NAME, "                name: penstock\n                failure_policy: FAIL_CLOSE\n"),
    (NAME, "                name: penstock\n                failure_policy: 9\n"),
    (NAME, "                name: penstock\n                failure_policy: on\n"),
    (NAME, "                name: penstock\n                allow_on_headers_stop_iteration: 1\n"),
    (NAME, "                name: penstock\n                reload_config: {backoff: {base_interval: 1}}\n"),
    (NAME, "                name: penstock\n                reload_config: {backoff: {base_interval: 0s}}\n"),
    (NAME, "                name: penstock\n                reload_config: {backoff: {base_interval: 1m}}\n"),
    (NAME, "                name: penstock\n                reload_config: {backoff: {}}\n"),
    (
        NAME,
        "                name: penstock\n                capability_restriction_config: {allowed_capabilities: [a]}\n",
    ),
    // The module may not read its policy.
    (
        NAME,
        "                name: penstock\n                capability_restriction_config: {allowed_capabilities: {proxy_on_configure: {}, proxy_on_context_create: {}}}\n",
    ),
    ("local: {", "local: {watched_directory: {}, "),
    (RUNTIME, "runtime: envoy.wasm.runtime.v8, vm_id: [a], "),
    (RUNTIME, "runtime: envoy.wasm.runtime.v8, nack_on_code_cache_miss: 5, "),
    (RUNTIME, "runtime: envoy.wasm.runtime.v8, environment_variables: {A: b}, "),
    (RUNTIME, "runtime: envoy.wasm.runtime.v8, environment_variables: {key_values: {A: 5}}, "),
    (RUNTIME, "runtime: envoy.wasm.runtime.v8, configuration: x, "),
    (RUNTIME, "runtime: v8, "),
    (RUNTIME, "runtime: envoy.wasm.runtime.null, "),
    // Fields that exclude each other.
    (
        NAME,
        "                name: penstock\n                fail_open: true\n                failure_policy: FAIL_CLOSED\n",
    ),
    (NAME, "                name: penstock\n                vmConfig: {}\n"),
    ("local: {", "local: {inline_string: x, "),
    (RUNTIME, "runtime: envoy.wasm.runtime.v8, environment_variables: {host_env_keys: [A], key_values: {A: b}}, "),
    // Types.
    (TYPE, "envoy.extensions.filters.http.wasm.v3.WASM"),
    (TYPE, "envoy.extensions.filters.network.wasm.v3.Wasm"),
    (TYPE, "envoy.extensions.wasm.v3.PluginConfig"),
    ("type.googleapis.com/envoy.extensions.filters.http.wasm", "envoy.extensions.filters.http.wasm"),
    // The filter's settings in routes and virtual hosts.
    (
        ROUTE,
        "direct_response: {status: 200}, typed_per_filter_config: {penstock: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {name: a}}}",
    ),
    (
        HOST,
        "domains: [\"*\"], typed_per_filter_config: {penstock: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {name: a}}}}",
    ),
    (
        ROUTE,
        "direct_response: {status: 200}, typedPerFilterConfig: {penstock: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig}}",
    ),
    (
        HOST,
        "domains: [\"*\"], typed_per_filter_config: {penstock: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: false}}",
    ),
    // The chain of filters.
    ("          - name: penstock\n            typed_config", "          - typed_config"),
    (
        ROUTER,
        "          - name: envoy.filters.http.router\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}\n          - name: envoy.filters.http.router\n",
    ),
    (
        "http_filters:\n",
        "http_filters:\n          - name: envoy.filters.http.router\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}\n",
    ),
    (ROUTER, "          - name: envoy.filters.http.cors\n"),
];

/// Replacements that Envoy accepts, all in one bootstrap. `check` only warns about those in routes.
const TAKEN: [(&str, &str); 5] = [
    (
        NAME,
        "                name: penstock\n                rootId: \"5\"\n                failOpen: \"no\"\n                failure_policy: fail_Closed\n                \
         reload_config: {backoff: {base_interval: 0.25s, maxInterval: {seconds: 2}}}\n                capability_restriction_config: {allowedCapabilities: {proxy_log: {}}}\n                \
         allow_on_headers_stop_iteration: {value: false}\n",
    ),
    (
        RUNTIME,
        "runtime: '', vm_id: 1.5, allow_precompiled: off, environment_variables: {host_env_keys: A, key_values: {B: c}}, \
         configuration: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: x}, ",
    ),
    (
        "          - name: penstock\n",
        "          - name: penstock\n            is_optional: false\n            disabled: no\n",
    ),
    (
        ROUTE,
        "direct_response: {status: 200}, typed_per_filter_config: {penstock: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}, \
         other: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}",
    ),
    (
        HOST,
        "domains: [\"*\"], typed_per_filter_config: {penstock: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, is_optional: true, \
         config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {name: a}}}}",
    ),
];

#[test]
fn check_refuses_the_fields_that_envoy_refuses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = bootstrap(
        "\"@type\": type.googleapis.com/google.protobuf.StringValue\nvalue: '{\"routes\": {\"default\": \"a\"}}'",
    )?;
    let mut disagree = Vec::new();
    let mut ask = |text: &str, expected: bool, what: &str| -> Result<()> {
        let path = folder.path().join("bootstrap.yaml");
        fs::write(&path, text)?;
        let (envoy, check) = (Envoy::validate(&path), refused("bootstrap.yaml", text));
        if envoy.is_ok() != expected || check.is_none() != expected {
            disagree.push(format!("{what}: Envoy {envoy:?}, check {check:?}"));
        }
        Ok(())
    };
    for (from, to) in REFUSED {
        ensure!(good.contains(from), "{from:?} is not in {good}");
        let text = good.replacen(from, to, 1);
        // The filter in place of the router needs its own type, so that only the missing router is wrong.
        let text = if to.contains(".cors") { text.replace("router.v3.Router", "cors.v3.Cors") } else { text };
        ask(&text, false, to)?;
    }
    let taken = TAKEN.iter().try_fold(good.clone(), |text, (from, to)| {
        ensure!(text.contains(from), "{from:?} is not in {text}");
        Ok(text.replacen(from, to, 1))
    })?;
    ask(&taken, true, &taken)?;
    ask(
        &taken.replace(
            "@type\": type.googleapis.com/envoy.extensions.filters.http.wasm",
            "@type\": x/envoy.extensions.filters.http.wasm",
        ),
        true,
        "another host of the type",
    )?;
    ensure!(disagree.is_empty(), "{} disagree:\n{}", disagree.len(), disagree.join("\n\n"));
    Ok(())
}
