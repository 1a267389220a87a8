//! A Kubernetes API server with etcd, used through `kubectl`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::process::{Process, file_of_tools, free_port, tool};
use crate::workspace;

/// The bearer token of the only user, who has every permission.
const TOKEN: &str = "penstock-e2e";

/// The API server's message about a manifest that it refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(String);

/// A running API server. Dropping it stops it and deletes all its objects.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    // Processes stop in this order; the folder is removed last.
    _processes: Vec<Process>,
    folder: TempDir,
}

impl Cluster {
    /// Starts an empty cluster with the custom resources of Istio, the Gateway API and Envoy Gateway.
    pub fn start() -> Result<Self> {
        Self::knowing(&["istio", "gateway-api", "envoy-gateway"])
    }

    /// The same with only some of these custom resources: registering all of them takes the API server ten seconds.
    pub fn knowing(whose: &[&str]) -> Result<Self> {
        let cluster = Self::bare()?;
        let files = whose.iter().map(|name| file_of_tools(&format!("crds/{name}.yaml"))).collect::<Result<Vec<_>>>()?;
        cluster.apply_files(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
        Ok(cluster)
    }

    /// The same without any custom resource.
    pub fn bare() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-cluster-").tempdir()?;
        let (etcd, etcd_url) = start_etcd(folder.path())?;
        let port = free_port()?;
        let mut api_server = start_api_server(folder.path(), &etcd_url, port)?;
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_text(port))?;
        let probe = |path: &str| kubectl_output(&kubeconfig, ["get", "--raw", path], None);
        api_server.wait_for("answer to /readyz", || probe("/readyz"))?;
        // A controller of the API server creates it, possibly after `/readyz` succeeds.
        api_server.wait_for("default namespace", || probe("/api/v1/namespaces/default"))?;
        Ok(Cluster { kubeconfig, _processes: vec![api_server, etcd], folder })
    }

    /// The kubeconfig file, with the server's address and credentials.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder for files that belong to this cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Server-side apply of any number of documents, whose namespaces must exist. Returns an error with the API
    /// server's message for a field that is not in the schema, a field given twice, or a value that a schema or an
    /// admission rule refuses.
    pub fn apply(&self, yaml: &str) -> Result<(), Rejected> {
        self.apply_with(&["-f", "-"], Some(yaml))
    }

    /// Applies files and folders of files.
    pub fn apply_files(&self, paths: &[&Path]) -> Result<(), Rejected> {
        let mut arguments = Vec::new();
        for path in paths {
            arguments.extend([OsStr::new("-f"), path.as_os_str()]);
        }
        self.apply_with(&arguments, None)
    }

    /// Applies a kustomization.
    pub fn apply_kustomization(&self, folder: &Path) -> Result<(), Rejected> {
        self.apply_with(&[OsStr::new("-k"), folder.as_os_str()], None)
    }

    fn apply_with<A: AsRef<OsStr>>(&self, what: &[A], input: Option<&str>) -> Result<(), Rejected> {
        let flags = ["apply", "--server-side", "--force-conflicts", "--validate=strict"];
        let arguments = flags.iter().map(OsStr::new).chain(what.iter().map(AsRef::as_ref));
        kubectl_output(&self.kubeconfig, arguments, input).map(drop).map_err(|error| Rejected(format!("{error:#}")))
    }

    /// Creates a namespace with labels such as `istio-injection=enabled`. Does nothing when it exists.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        let object = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        Ok(self.apply(&object.to_string())?)
    }

    /// Returns an object as JSON, for example `get("pods", "default", "web")`.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(["get", kind, name, "--namespace", namespace, "--output", "json"])?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Lists all objects of a kind with these labels, in every namespace.
    pub fn list(&self, kind: &str, selector: &str) -> Result<Vec<Value>> {
        let text = self.kubectl(["get", kind, "--all-namespaces", "--selector", selector, "--output", "json"])?;
        let list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Sets the status of an object, as the kubelet or a controller would.
    pub fn set_status(&self, kind: &str, namespace: &str, name: &str, status: &Value) -> Result<()> {
        let patch = serde_json::json!({"status": status}).to_string();
        let arguments =
            ["patch", kind, name, "--namespace", namespace, "--subresource=status", "--type=merge", "--patch"];
        self.kubectl(arguments.into_iter().chain([patch.as_str()])).map(drop)
    }

    /// Checks that everything the manifests of a folder select or name exists in this cluster; returns the result and
    /// the output of the script that checks.
    pub fn check_selectors(&self, folder: &str) -> Result<(bool, String)> {
        let script = workspace::root().join("scripts/check-selectors.sh");
        let output = Command::new(script).arg(folder).env("CLUSTER", &self.kubeconfig).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Creates a Pod that nothing runs.
    pub fn pod(&self, namespace: &str, name: &str, labels: &Value) -> Result<()> {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        });
        Ok(self.apply(&pod.to_string())?)
    }

    /// Runs `kubectl` and returns its output.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        kubectl_output(&self.kubeconfig, arguments, None)
    }
}

fn kubectl_output<A: AsRef<OsStr>>(
    kubeconfig: &Path,
    arguments: impl IntoIterator<Item = A>,
    input: Option<&str>,
) -> Result<String> {
    let folder = kubeconfig.parent().unwrap_or(kubeconfig);
    let mut child = Command::new(tool("kubectl")?)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        // kubectl caches what it discovers by address; a later server on the same port must not get this one's cache.
        .arg("--cache-dir")
        .arg(folder.join("kubectl-cache"))
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn start_etcd(folder: &Path) -> Result<(Process, String)> {
    let client = format!("http://127.0.0.1:{}", free_port()?);
    let peer = format!("http://127.0.0.1:{}", free_port()?);
    let mut etcd = Process::start("etcd", folder, |command| {
        command.arg("--data-dir").arg(folder.join("etcd")).args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
            // No fsync: data that a crash would lose is discarded with the test anyway.
            "--unsafe-no-fsync",
        ]);
    })?;
    etcd.wait_for_log("ready to serve client requests")?;
    Ok((etcd, client))
}

fn start_api_server(folder: &Path, etcd: &str, port: u16) -> Result<Process> {
    let tokens = folder.join("tokens.csv");
    fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n"))?;
    // Any key will do: nothing outside this folder trusts what it signs.
    let tls = workspace::root().join("integration/tests/tls");
    let (public, private) = (tls.join("gateway.crt"), tls.join("gateway.key"));
    Process::start("kube-apiserver", folder, |command| {
        command.arg("--cert-dir").arg(folder.join("certificates")).arg("--token-auth-file").arg(&tokens).args([
            &format!("--etcd-servers={etcd}"),
            &format!("--secure-port={port}"),
            "--bind-address=127.0.0.1",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={}", public.display()),
            &format!("--service-account-signing-key-file={}", private.display()),
            "--authorization-mode=RBAC",
            // Services get loopback addresses, so that every proxy reaches what a test binds there.
            "--service-cluster-ip-range=127.0.96.0/24",
            "--disable-admission-plugins=ServiceAccount",
        ]);
    })
}

fn kubeconfig_text(port: u16) -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "penstock",
        "contexts": [{"name": "penstock", "context": {"cluster": "penstock", "user": "admin"}}],
        // The API server's certificate is self-signed and was just made.
        "clusters": [{"name": "penstock", "cluster":
            {"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
    })
    .to_string()
}
