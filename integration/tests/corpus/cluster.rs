//! Compares what `penstock check` reads from manifests with what the API server stores.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use penstock::manifests::ManifestFile;
use penstock::text::SourceText;
use penstock_integration::control_plane::Cluster;
use penstock_integration::workspace;
use serde_json::Value;

use crate::kubernetes_yaml::{MANIFESTS, POLICIES};
use crate::{json, refused};

/// The kinds that contain policies, and the path of the policy in each.
const KINDS: [(&str, &str, &str, &str); 4] = [
    (
        "WasmPlugin",
        "extensions.istio.io/v1alpha1",
        "spec:\n  url: oci://r.test/penstock/suite:1\n  pluginConfig:\n",
        "/spec/pluginConfig",
    ),
    (
        "TrafficExtension",
        "extensions.istio.io/v1alpha1",
        "spec:\n  wasm:\n    url: oci://r.test/penstock/suite:1\n    pluginConfig:\n",
        "/spec/wasm/pluginConfig",
    ),
    (
        "EnvoyExtensionPolicy",
        "gateway.envoyproxy.io/v1alpha1",
        "spec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]\n  wasm:\n  - name: penstock\n    code: {type: \
         Image, image: {url: r.test/penstock/suite:1}}\n    config:\n",
        "/spec/wasm/0/config",
    ),
    (
        "EnvoyExtensionPolicy",
        "gateway.envoyproxy.io/v1alpha1",
        "spec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]\n  dynamicModule:\n  - name: penstock\n    \
         config:\n",
        "/spec/dynamicModule/0/config",
    ),
];

/// A plugin that Istio inserts where it never runs.
const IN_AN_ENVOY_FILTER: &str = r#"apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: in-envoy, namespace: shop}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_AFTER
      value:
        name: penstock
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
          config:
            name: penstock
            vm_config: {runtime: envoy.wasm.runtime.v8, code: {local: {filename: /etc/penstock/suite.wasm}}}
            configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: '{"routes": {"default": "in-envoy"}}'}
"#;

/// An object with this policy.
fn manifest(kind: usize, name: &str, policy: &str) -> String {
    let (kind, version, spec, _) = KINDS[kind % KINDS.len()];
    // A tab is not indented, because it must stay at the start of its line.
    let policy: String = policy.split('\n').map(|line| format!("      {line}\n")).collect();
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n{spec}{policy}")
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn check_reads_what_the_api_server_stores() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop", &[])?;
    let mut disagree = Vec::new();
    let mut counts = BTreeMap::new();
    for (i, policy) in POLICIES.iter().enumerate() {
        for kind in [i, i + 1] {
            let name = format!("p{i}-{}", kind % KINDS.len());
            let (resource, _, _, pointer) = KINDS[kind % KINDS.len()];
            let text = manifest(kind, &name, policy);
            let refused = refused("manifest.yaml", &text);
            let read =
                ManifestFile::read(SourceText::new(&text)).ok().and_then(|file| file.policies.into_iter().next());
            let verdict = match (cluster.apply(&text), refused) {
                (Err(_), Some(_)) => "both refuse it",
                (Err(said), None) => {
                    disagree.push(format!("check takes what the API server refuses: {said}\n{text}"));
                    continue;
                }
                // `check` refuses what parsers disagree about, but still shows what the object contains.
                (Ok(()), Some(_)) => "only check refuses it",
                (Ok(()), None) => {
                    let stored = cluster.get(resource, "shop", &name)?;
                    let stored = stored.pointer(pointer).cloned().unwrap_or(Value::Null);
                    let read = json(&read.context("a policy that is not found")?.node);
                    if read != stored {
                        disagree.push(format!("check reads {read}, the API server {stored}\n{text}"));
                    }
                    "both take it"
                }
            };
            *counts.entry(verdict).or_insert(0) += 1;
        }
    }
    for (file, text) in MANIFESTS {
        let name = file.replace('.', "-");
        let text = text.replace("NAME", &name);
        let path = cluster.folder().join(file);
        fs::write(&path, &text)?;
        let applied = cluster.apply_files(&[&path]);
        let read = ManifestFile::read_as(file, SourceText::new(&text), false)
            .ok()
            .and_then(|file| file.policies.into_iter().next());
        match (applied, read) {
            (Ok(()), Some(read)) => {
                let stored = cluster.get("WasmPlugin", "shop", &name)?;
                let stored = stored.pointer("/spec/pluginConfig").cloned().unwrap_or(Value::Null);
                if json(&read.node) != stored {
                    disagree.push(format!("{file}: check reads {}, the API server {stored}", json(&read.node)));
                }
            }
            (Err(_), None) => {}
            // kubectl accepts a comma after the last field of a JSON file; `check` refuses it, as other JSON parsers
            // do.
            (Ok(()), None) if file == "comma.json" => {}
            (applied, read) => disagree
                .push(format!("{file}: the API server {applied:?}, check {:?}", read.map(|read| json(&read.node)))),
        }
    }
    eprintln!("- {counts:?}");
    ensure!(disagree.is_empty(), "{} disagree:\n{}", disagree.len(), disagree.join("\n"));
    ensure!(counts.values().all(|count| *count > 10), "{counts:?}");
    Ok(())
}

/// The manifests of this repository that contain policies.
fn ours() -> Result<Vec<(String, String)>> {
    let mut folders: Vec<PathBuf> =
        ["istio", "envoy-configs/gateway"].map(|folder| workspace::root().join(folder)).into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.push((path.display().to_string(), fs::read_to_string(&path)?));
            }
        }
    }
    Ok(files)
}

/// The output of `penstock`, with the cluster as kubectl's current one.
fn penstock(cluster: &Cluster, arguments: &[&str]) -> Result<(bool, String, String)> {
    let kubectl = penstock_integration::control_plane::tool("kubectl")?;
    let folder = kubectl.parent().context("kubectl stands nowhere")?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new(workspace::dist().join("penstock"))
        .args(arguments)
        .current_dir(cluster.folder())
        .env("PATH", path)
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .context("cannot run dist/penstock")?;
    let text = |bytes| String::from_utf8(bytes).context("not UTF-8");
    Ok((output.status.success(), text(output.stdout)?, text(output.stderr)?))
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn what_the_cluster_has_is_what_our_manifests_say_and_what_the_commands_read() -> Result<()> {
    let cluster = Cluster::start()?;
    for namespace in ["istio-system", "envoy-gateway-system", "shop", "payments", "kube-system"] {
        cluster.namespace(namespace, &[])?;
    }
    let mut count = 0;
    for (name, text) in ours()? {
        let file = ManifestFile::read(SourceText::new(&text)).with_context(|| name.clone())?;
        if file.policies.is_empty() {
            continue;
        }
        cluster.apply(&text).map_err(|said| anyhow::anyhow!("{name}: {said}"))?;
        count += file.policies.len();
        for policy in &file.policies {
            let resource = policy.resource.clone().context("a manifest without an object")?;
            let (kind, object) = resource.split_once(' ').context("no kind")?;
            let (namespace, object) = object.split_once('/').unwrap_or(("default", object));
            let stored = cluster.get(kind, namespace, object.split(',').next().unwrap_or(object))?;
            let stored = KINDS.iter().filter(|known| known.0 == kind).find_map(|known| stored.pointer(known.3));
            ensure!(stored == Some(&json(&policy.node)), "{name}: {resource}: {stored:?}");
        }
    }
    ensure!(count >= 6, "only {count} policies");
    for kind in 0..KINDS.len() {
        cluster.apply(&manifest(
            kind,
            &format!("made-{kind}"),
            "egress:\n  rules:\n  - {name: a, to: [{host: a.test}], methods: [GET]}",
        ))?;
    }

    cluster.apply(IN_AN_ENVOY_FILTER)?;
    let on_a_route = manifest(2, "on-a-route", "routes: {default: a}").replace(
        "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]",
        "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]",
    );
    cluster.apply(&on_a_route)?;

    let (is_valid, out, err) = penstock(&cluster, &["check", "--from-cluster"])?;
    ensure!(is_valid && out.matches(": valid").count() >= KINDS.len() + 2, "{out}{err}");
    for part in [
        "(EnvoyFilter shop/in-envoy): valid",
        "`INSERT_AFTER` puts the filter behind the router",
        "(EnvoyExtensionPolicy shop/on-a-route): valid",
        "is attached to a route (HTTPRoute)",
    ] {
        ensure!(out.contains(part), "{part}: {out}{err}");
    }
    let explain = ["explain", "--from-cluster", "--plugin", "shop/in-envoy", "--url", "https://a.test/"];
    let (_, explained, err) = penstock(&cluster, &explain)?;
    ensure!(explained.contains("routed to `in-envoy`"), "{explained}{err}");
    for (kind, word) in
        [(0, "WasmPlugin"), (1, "TrafficExtension"), (2, "EnvoyExtensionPolicy"), (3, "EnvoyExtensionPolicy")]
    {
        ensure!(out.contains(&format!("({word} shop/made-{kind})")), "{word}: {out}");
        let next = manifest(
            kind,
            &format!("made-{kind}"),
            "egress:\n  rules:\n  - {name: a, to: [{host: a.test}], methods: [GET, PUT]}",
        );
        let file = cluster.folder().join("next.yaml");
        fs::write(&file, next)?;
        let (is_fine, out, err) = penstock(
            &cluster,
            &["diff", "--from-cluster", "--cluster-namespace", "shop", "--fail-on", "loosened", "next.yaml"],
        )?;
        let expected = format!("loosened  {word} shop/made-{kind} egress.rules[a].methods: allows PUT\n");
        ensure!(!is_fine && out.starts_with(&expected), "{out}{err}");
        let explain =
            ["explain", "--from-cluster", "--plugin", &format!("shop/made-{kind}"), "--exit-code", "-X", "PUT"];
        let (passes, out, err) = penstock(&cluster, &[&explain[..], &["--url", "https://a.test/"]].concat())?;
        ensure!(!passes && out.contains("methodNotAllowed"), "{out}{err}");
    }
    Ok(())
}
