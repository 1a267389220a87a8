//! Istio: `istiod`, and proxies as in a Pod: `pilot-agent` with Envoy as its child process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::Cluster;
use super::process::{Process, eventually, free_port, tool};
use super::tokens;
use crate::admin::Admin;
use crate::demo::json as yaml;
use crate::http::{self, HttpRequest, Protocol};
use crate::workspace;

/// The mesh configuration. It turns off what needs Istio's own filters, which a stock Envoy lacks, and sets the path
/// normalisation of `istio/egress/mesh`, so that the tests cover it.
const MESH: &str = "enableAutoMtls: false\nenablePrometheusMerge: false\nrootNamespace: istio-system\n\
                    pathNormalization: {normalization: NONE}\n\
                    ingressControllerMode: \"OFF\"\ndefaultProviders: {metrics: [], accessLogging: []}\n";

/// The DNS name in istiod's own certificate.
const ISTIOD: &str = "istiod.istio-system.svc";

/// A running istiod. Dropping it stops it.
#[derive(Debug)]
pub struct Istio {
    process: Process,
    port: u16,
    monitoring: SocketAddr,
    _folder: TempDir,
}

impl Istio {
    /// Starts it with this cluster and waits until it serves.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-istiod-").tempdir()?;
        // istiod elects its leaders in this namespace.
        cluster.namespace("istio-system", &[])?;
        let mesh = folder.path().join("mesh.yaml");
        fs::write(&mesh, format!("{MESH}extensionProviders: {}\n", shipped_providers()?))?;
        let [port, plain, http, monitoring] = [free_port()?, free_port()?, free_port()?, free_port()?];
        let mut process = Process::start("pilot-discovery", folder.path(), |command| {
            command.arg("discovery").arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--meshConfig").arg(&mesh).args(
                [
                    &format!("--grpcAddr=127.0.0.1:{plain}"),
                    &format!("--secureGRPCAddr=127.0.0.1:{port}"),
                    "--httpsAddr=",
                    &format!("--httpAddr=127.0.0.1:{http}"),
                    &format!("--monitoringAddr=127.0.0.1:{monitoring}"),
                    "--ctrlz_port=0",
                ],
            );
            command.envs([
                ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
                ("PILOT_ENABLE_ALPN_FILTER", "false"),
                ("PILOT_ENABLE_AMBIENT", "true"),
                ("POD_NAMESPACE", "istio-system"),
                ("POD_NAME", "istiod"),
            ]);
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http));
        process.wait_for("answer to /ready", || {
            let answer = http::send(Protocol::Http1, address, &HttpRequest::get("/ready"))?;
            ensure!(answer.status == 200, "it answers {}", answer.status);
            Ok(())
        })?;
        let monitoring = SocketAddr::from((Ipv4Addr::LOCALHOST, monitoring));
        Ok(Istio { process, port, monitoring, _folder: folder })
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The address of its own metrics, for Prometheus.
    pub fn metrics(&self) -> Result<String> {
        Ok(http::send(Protocol::Http1, self.monitoring, &HttpRequest::get("/metrics"))?.text())
    }
}

/// The access logs of `observability/istio-mesh.yaml` and `istio-decisions.yaml`, as JSON. `Telemetry` resources enable
/// them.
fn shipped_providers() -> Result<Value> {
    let mut all = Vec::new();
    for file in ["istio-mesh.yaml", "istio-decisions.yaml"] {
        let text = fs::read_to_string(workspace::root().join("observability").join(file))?;
        let operator: Value = serde_json::from_str(&yaml::of_yaml(&text)?)?;
        let providers = operator.pointer("/spec/meshConfig/extensionProviders").and_then(Value::as_array);
        all.extend(providers.with_context(|| format!("{file} has no extensionProviders"))?.iter().cloned());
    }
    Ok(all.into())
}

/// The role of a proxy in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A gateway (`router`).
    Gateway,
    /// The sidecar of a workload. No traffic is redirected into it: give it a `Sidecar` resource with `captureMode:
    /// NONE`.
    Sidecar,
    /// The waypoint proxy of a namespace in the ambient mesh.
    Waypoint,
}

/// Describes a Pod with a proxy before it starts.
#[derive(Debug)]
pub struct Pod<'a> {
    name: &'a str,
    namespace: &'a str,
    labels: &'a [(&'a str, &'a str)],
    role: Role,
    account: &'a str,
    address: Ipv4Addr,
    environment: Vec<(String, String)>,
}

impl<'a> Pod<'a> {
    /// A Pod with this name and these labels.
    pub fn new(role: Role, namespace: &'a str, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> Self {
        Pod { name, namespace, labels, role, account: "proxy", address: Ipv4Addr::LOCALHOST, environment: Vec::new() }
    }

    /// Sets its service account, which is in its certificate: `spiffe://cluster.local/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn account(mut self, name: &'a str) -> Self {
        self.account = name;
        self
    }

    /// Sets its address in 127.0.0.0/8. Each Pod needs its own, because istiod identifies Pods by address.
    #[must_use]
    pub fn address(mut self, address: Ipv4Addr) -> Self {
        self.address = address;
        self
    }

    /// Sets a variable of the agent's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Creates the Pod and starts its proxy. Does not wait for listeners.
    pub fn start(self, cluster: &Cluster, istio: &Istio) -> Result<IstioProxy> {
        let folder = tempfile::Builder::new().prefix("penstock-proxy-").tempdir()?;
        let labels: serde_json::Map<_, _> =
            self.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": labels},
            "spec": {"serviceAccountName": self.account, "containers": [{"name": "istio-proxy", "image": "auto"}]},
        });
        cluster.apply(&pod.to_string())?;
        cluster.set_status(
            "pod",
            self.namespace,
            self.name,
            &json!({
                "phase": "Running",
                "podIP": self.address,
                "podIPs": [{"ip": self.address}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }),
        )?;
        // Makes the files that the kubelet would mount.
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": self.account, "namespace": self.namespace},
        });
        cluster.apply(&account.to_string())?;
        let namespace = format!("--namespace={}", self.namespace);
        let token = cluster.kubectl(["create", "token", self.account, &namespace, "--audience=istio-ca"])?;
        let secrets = folder.path().join("var/run/secrets");
        fs::create_dir_all(secrets.join("tokens"))?;
        fs::write(secrets.join("tokens/istio-token"), token.trim())?;
        // istiod writes this ConfigMap into every namespace.
        let authority = eventually("istiod's certificate", || {
            let map = cluster.get("configmap", self.namespace, "istio-ca-root-cert")?;
            map.pointer("/data/root-cert.pem")
                .and_then(|text| text.as_str())
                .map(str::to_owned)
                .context("not there yet")
        })?;
        fs::create_dir_all(secrets.join("istio"))?;
        fs::write(secrets.join("istio/root-cert.pem"), authority)?;
        let admin = free_port()?;
        let process = self.agent(folder.path(), istio, admin, &json!(labels).to_string())?;
        let mut proxy =
            IstioProxy { process, admin: Admin::new(SocketAddr::from((Ipv4Addr::LOCALHOST, admin))), folder };
        let admin = proxy.admin.clone();
        proxy.process.wait_for("answer of Envoy's admin interface", || admin.get("/server_info"))?;
        Ok(proxy)
    }

    fn agent(&self, folder: &Path, istio: &Istio, admin: u16, labels: &str) -> Result<Process> {
        let [status, health, prometheus] = [free_port()?, free_port()?, free_port()?];
        let config = json!({
            "discoveryAddress": format!("127.0.0.1:{}", istio.port),
            "binaryPath": workspace::envoy_binary()?,
            "proxyAdminPort": admin,
            "statusPort": status,
            "concurrency": 2,
        });
        let hosts = tokens::hosts(folder)?;
        // The folder in which the agent caches modules cannot be configured; a mount gives each agent its own, as in a
        // Pod.
        let data = folder.join("var-lib");
        fs::create_dir_all(data.join("istio/data"))?;
        let role = match self.role {
            Role::Gateway => "router",
            Role::Sidecar => "sidecar",
            Role::Waypoint => "waypoint",
        };
        let agent = tool("pilot-agent")?;
        // Removes an extension that only Istio's build of Envoy has and that no setting removes from a waypoint.
        let template = folder.join("envoy_bootstrap.json");
        let text = fs::read_to_string(tool("envoy_bootstrap.json")?)?.replace("if .metadata_discovery", "if false");
        fs::write(&template, text)?;
        let script = "mount --bind \"$0\" /etc/hosts && mount --bind \"$1\" /var/lib && shift && exec \"$@\"";
        Process::start_contained("pilot-agent", folder, script, |command| {
            command.arg(&hosts).arg(&data).arg(&agent).args(["proxy", role]);
            command.args(["--domain", &format!("{}.svc.cluster.local", self.namespace)]);
            command.arg("--templateFile").arg(&template);
            command.args(["--proxyLogLevel=warning", "--proxyComponentLogLevel=wasm:info"]);
            command.envs([
                ("POD_NAME", self.name),
                ("SERVICE_ACCOUNT", self.account),
                ("ISTIOD_SAN", ISTIOD),
                ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
                // No traffic is redirected into it.
                ("ISTIO_META_INTERCEPTION_MODE", "NONE"),
                ("POD_NAMESPACE", self.namespace),
                ("INSTANCE_IP", &self.address.to_string()),
                ("ISTIO_METAJSON_LABELS", labels),
                ("PROXY_CONFIG", &config.to_string()),
                ("ENVOY_STATUS_PORT", &health.to_string()),
                ("ENVOY_PROMETHEUS_PORT", &prometheus.to_string()),
                ("TERMINATION_DRAIN_DURATION_SECONDS", "0"),
            ]);
            command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        })
    }
}

/// A running agent with its Envoy. Dropping it kills both.
#[derive(Debug)]
pub struct IstioProxy {
    process: Process,
    admin: Admin,
    folder: TempDir,
}

impl IstioProxy {
    /// Envoy's admin interface.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The lines of its access log in JSON. Envoy flushes it every ten seconds.
    pub fn access_log(&self) -> Vec<Value> {
        self.process.access_log()
    }

    /// Everything that the agent and Envoy have logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The working directory of both.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Waits until Envoy listens on a port.
    pub fn wait_for_listener(&mut self, port: u16) -> Result<SocketAddr> {
        let admin = self.admin.clone();
        self.process.wait_for(&format!("listener on port {port}"), || {
            let page = admin.get("/listeners")?;
            page.lines().any(|line| line.ends_with(&format!(":{port}"))).then_some(()).context(page)
        })?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Waits until the log of the agent and Envoy contains this text.
    pub fn wait_for_log(&mut self, text: &str) -> Result<()> {
        self.process.wait_for_log(text)
    }
}
