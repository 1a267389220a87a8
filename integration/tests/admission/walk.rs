//! Runs every command of `docs/kubernetes.md` that needs neither Docker nor Pods, against a real API server.
//!
//! There is no kubelet and no controller: [`Cluster`] only stores objects. The test does what the chart's Pods would
//! do, as described by their own objects: it runs the script of the certificate's Job, and the webhook with the mounted
//! Secret and ConfigMap.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use penstock_integration::control_plane::{Cluster, Process, eventually};
use penstock_integration::workspace;
use serde_json::{Value, json};

use super::Webhook;

/// A block that is not run starts with this comment, which gives the reason.
const NEEDS: &str = "# needs ";

/// Words that the output of a block must contain, for blocks that contain the given word. All other blocks must
/// succeed.
const REFUSED: [(&str, &[&str]); 3] = [
    ("defualt: stable", &["denied the request", "unknown field `defualt`", "^^^", "did you mean `default`"]),
    (
        "--within ceiling.yaml",
        &["lets a request pass that the platform's policy refuses", "https://other.example.com:443/"],
    ),
    (
        "name: team",
        &[
            "denied the request",
            "lets a request pass that the platform's policy refuses",
            "https://other.example.com:443/",
        ],
    ),
];

/// The fenced blocks of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let open = format!("```{language}\n");
    text.split(&open).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// Runs a block as a reader would after copying it.
fn run(folder: &Path, cluster: &Cluster, block: &str) -> Result<(bool, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", block])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HOME", folder)
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// A folder that looks like the repository, with the tools in its `PATH`.
fn checkout(folder: &Path) -> Result<()> {
    let root = workspace::root();
    let bin = folder.join("bin");
    fs::create_dir(&bin)?;
    for tool in ["kubectl", "helm"] {
        std::os::unix::fs::symlink(root.join(".tools/bin").join(tool), bin.join(tool))?;
    }
    std::os::unix::fs::symlink(workspace::dist().join("penstock"), bin.join("penstock"))?;
    std::os::unix::fs::symlink(root.join("deploy"), folder.join("deploy"))?;
    Ok(())
}

/// Does what controllers and kubelets would do with the chart's Deployment, until it is stopped.
fn run_pods(cluster: &Cluster, folder: &Path, stop: &AtomicBool) -> Result<()> {
    let pods = folder.join("pods");
    fs::create_dir(&pods)?;
    let mut webhook = None;
    let mut ended = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(300));
        let Ok(deployment) = cluster.get("deployment", "penstock", "penstock-webhook") else { continue };
        for job in cluster.list("job", "app.kubernetes.io/name=penstock")? {
            let name = job.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if ended.insert(name.clone()) {
                run_job(cluster, &folder.join(&name), &folder.join("bin"), &job)?;
            }
        }
        if ended.is_empty() {
            continue;
        }
        mount(cluster, &pods)?;
        if webhook.is_none() {
            let service = cluster.get("service", "penstock", "penstock-webhook")?;
            let address = service.pointer("/spec/clusterIP").and_then(Value::as_str).context("no address")?;
            webhook = Some(Webhook::start(&pods, &format!("{address}:443"))?);
            replicas_are_there(cluster, &deployment)?;
        }
    }
    Ok(())
}

/// Writes the ReplicaSet and the status of a Deployment whose Pods are ready.
fn replicas_are_there(cluster: &Cluster, deployment: &Value) -> Result<()> {
    let at = |pointer: &str| deployment.pointer(pointer).cloned().with_context(|| pointer.to_owned());
    let replicas = at("/spec/replicas")?;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": "penstock-webhook-1", "namespace": "penstock", "labels": at("/spec/template/metadata/labels")?,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "penstock-webhook",
                "uid": at("/metadata/uid")?, "controller": true}],
        },
        "spec": {"replicas": replicas, "selector": at("/spec/selector")?, "template": at("/spec/template")?},
    });
    cluster.apply(&set.to_string())?;
    let status = json!({"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas, "observedGeneration": 1});
    cluster.set_status("replicaset", "penstock", "penstock-webhook-1", &status)?;
    let status = json!({"replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas,
        "availableReplicas": replicas, "observedGeneration": 1});
    cluster.set_status("deployment", "penstock", "penstock-webhook", &status)
}

/// Runs the script of a Job with its environment variables in its own folder.
fn run_job(cluster: &Cluster, work: &Path, bin: &Path, job: &Value) -> Result<()> {
    let container = job.pointer("/spec/template/spec/containers/0").context("no container")?;
    let script = container.pointer("/args/0").and_then(Value::as_str).context("no script")?;
    fs::create_dir(work)?;
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(work).env("KUBECONFIG", cluster.kubeconfig());
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()));
    for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| variable.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        command.env(text("name"), text("value"));
    }
    let output = command.env("HOME", work).output()?;
    ensure!(output.status.success(), "the certificate's job: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Writes the files that the Pods mount: the certificate and the ceilings.
fn mount(cluster: &Cluster, pods: &Path) -> Result<()> {
    for file in ["tls.crt", "tls.key"] {
        let template = format!("go-template={{{{index .data \"{file}\" | base64decode}}}}");
        let text = ["get", "secret", "penstock-webhook-tls", "--namespace", "penstock", "--output", &template];
        fs::write(pods.join(file), cluster.kubectl(text)?)?;
    }
    let ceilings = pods.join("ceilings");
    fs::create_dir_all(&ceilings)?;
    let map = cluster.get("configmap", "penstock", "penstock-ceilings")?;
    for (name, text) in map.get("data").and_then(Value::as_object).into_iter().flatten() {
        fs::write(ceilings.join(name), text.as_str().unwrap_or_default())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_commands_of_the_documentation_do_what_it_says() -> Result<()> {
    let text = fs::read_to_string(workspace::root().join("docs/kubernetes.md"))?;
    let cluster = Cluster::start()?;
    let folder = tempfile::tempdir()?;
    checkout(folder.path())?;
    // The files that the page shows.
    for block in blocks(&text, "yaml") {
        if let Some(name) =
            block.lines().next().and_then(|line| line.strip_prefix("# ")).filter(|name| name.ends_with(".yaml"))
        {
            fs::write(folder.path().join(name), block)?;
        }
    }
    // A proxy for the command `status`, and the canary for `set-weight`.
    let admin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}";
    let mut envoy = Process::start_binary("envoy", &workspace::envoy_binary()?, folder.path(), |command| {
        command.args(["--config-yaml", admin, "--disable-hot-restart"]);
    })?;
    envoy.wait_for_log("starting main dispatch loop")?;
    cluster.namespace("istio-system", &[])?;
    cluster.apply(&canary().to_string())?;

    let stop = Arc::new(AtomicBool::new(false));
    let (mut ran, mut skipped) = (0, Vec::new());
    thread::scope(|scope| -> Result<()> {
        let pods = scope.spawn(|| run_pods(&cluster, folder.path(), &stop));
        let mut walk = || -> Result<()> {
            for block in blocks(&text, "sh") {
                if let Some(why) = block.strip_prefix(NEEDS) {
                    skipped.push(why.lines().next().unwrap_or_default().to_owned());
                    continue;
                }
                eprintln!("$ {block}");
                let refused = REFUSED.iter().find(|(word, _)| block.contains(word));
                // The API server applies its configuration after a moment, and the webhook its ceilings.
                eventually(block, || {
                    let (is_fine, said) = run(folder.path(), &cluster, block)?;
                    match refused {
                        None => ensure!(is_fine, "{said}"),
                        Some((_, words)) => {
                            ensure!(!is_fine, "was taken: {said}");
                            for word in *words {
                                ensure!(said.contains(word), "{word:?} is not in {said}");
                            }
                        }
                    }
                    eprintln!("{said}");
                    Ok(())
                })?;
                ran += 1;
            }
            Ok(())
        };
        let walked = walk();
        stop.store(true, Ordering::Relaxed);
        let pods = pods.join();
        walked?;
        pods.unwrap_or_else(|_| bail!("the Pods' thread panicked"))
    })?;
    eprintln!("{ran} blocks ran; not those that need {skipped:?}");
    ensure!(ran >= 9 && skipped.len() <= 3, "{ran} blocks ran; not those that need {skipped:?}");
    Ok(())
}

/// The plugin of the section on weights, pinned by digest as the admission policy requires.
fn canary() -> Value {
    let digest = "a".repeat(64);
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
        "metadata": {"name": "shop", "namespace": "istio-system"},
        "spec": {"url": format!("oci://r.test/penstock/suite@sha256:{digest}"), "pluginConfig": {"canaries": [
            {"name": "reviews", "variants": [{"name": "v1", "weight": 95}, {"name": "v2", "weight": 5}]}]}},
    })
}
