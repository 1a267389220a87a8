//! Applies every manifest of this repository to the API server of a real Kubernetes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use penstock_integration::control_plane::Cluster;
use penstock_integration::workspace;

/// The folders with manifests.
const FOLDERS: [&str; 2] = ["istio", "envoy-configs/gateway"];

/// Read by `istioctl install`, not by an API server.
const FOR_THE_INSTALLER: &str = "istio/egress/mesh/istio-operator.yaml";

/// Every manifest and kustomization below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_api_server_takes_every_manifest_and_refuses_unknown_fields() -> Result<()> {
    let cluster = Cluster::start()?;
    let plugin = |field: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: a, namespace: default}}\n\
             spec: {{{field}: file:///a}}\n"
        )
    };
    cluster.apply(&plugin("url"))?;
    let refused = cluster.apply(&plugin("urll")).map_err(|refused| refused.to_string());
    assert!(
        refused.as_ref().is_err_and(|said| said.contains(".spec.urll: field not declared in schema")),
        "{refused:?}"
    );

    for namespace in ["istio-system", "envoy-gateway-system", "shop", "payments", "kube-system"] {
        cluster.namespace(namespace, &[])?;
    }
    let mut all = Vec::new();
    for folder in FOLDERS.map(|folder| workspace::root().join(folder)).iter().filter(|folder| folder.is_dir()) {
        files(folder, &mut all)?;
    }
    for file in all.iter().filter(|file| !file.ends_with(FOR_THE_INSTALLER)) {
        if file.ends_with("kustomization.yaml") {
            let folder = file.parent().unwrap_or(file);
            cluster
                .apply_kustomization(folder)
                .map_err(|refused| anyhow::anyhow!("{}: {refused}", folder.display()))?;
        } else {
            cluster.apply_files(&[file]).map_err(|refused| anyhow::anyhow!("{}: {refused}", file.display()))?;
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_api_server_takes_what_penstock_renders() -> Result<()> {
    let cluster = Cluster::start()?;
    for namespace in ["istio-system", "shop"] {
        cluster.namespace(namespace, &[])?;
    }
    let root = workspace::root();
    let render = |target: &str, more: &[&str]| -> Result<String> {
        let output = Command::new(workspace::dist().join("penstock"))
            .args(["render", "cli/tests/policies/everything.yaml", "--for", target, "--namespace", "shop"])
            .args(["--gateway", "shop", "--host", "shop.example.com"])
            .args(["--service", "beta=shop:8080/beta", "--service-namespace", "shop"])
            .args(["--image", "registry.example.com/penstock/suite:0.1.0"])
            .args(["--egress-image", "registry.example.com/penstock/egress-allowlist:0.1.0"])
            .args(["--sha256", &"a".repeat(64)])
            .args(more)
            .current_dir(&root)
            .output()
            .context("cannot run dist/penstock")?;
        anyhow::ensure!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    for target in ["istio", "istio-trafficextension", "envoy-gateway"] {
        let manifests = render(target, &[])?;
        cluster.apply(&manifests).map_err(|refused| anyhow::anyhow!("{target}: {refused}\n{manifests}"))?;
    }
    let base = tempfile::tempdir()?;
    render("kustomize", &["--output", base.path().to_str().context("a path that is no text")?])?;
    cluster.apply_kustomization(base.path()).map_err(|refused| anyhow::anyhow!("kustomize: {refused}"))?;
    Ok(())
}
