//! Envoy Gateway and the Envoys that it deploys, which are started from the Deployments that it writes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::cluster::Cluster;
use super::pod_network::{PodAddress, PodNetwork};
use super::process::{Process, eventually, free_port, tool};
use super::tokens;
use crate::admin::Admin;
use crate::workspace;

const NAMESPACE: &str = "envoy-gateway-system";
/// A host outside of the cluster whose address the Envoys of Gateways know.
pub const OUTSIDE: (&str, [u8; 4]) = ("outside.example.com", [127, 0, 96, 21]);
const CONFIG: &str = "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyGateway\n\
    gateway: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}\n\
    provider: {type: Kubernetes, kubernetes: {leaderElection: {disable: true}}}\n\
    extensionApis: {enableBackend: true, enableEnvoyPatchPolicy: true}\nlogging: {level: {default: info}}\n";

/// A running Envoy Gateway. Only one can run on a machine at a time, because its ports are fixed. Dropping it stops it.
#[derive(Debug)]
pub struct EnvoyGateway {
    process: Process,
    _folder: TempDir,
}

impl EnvoyGateway {
    /// Starts it with this cluster and creates a GatewayClass `eg`, whose Gateways route to the cluster address of a
    /// Service.
    pub fn start(cluster: &Cluster, docker_config: &Path) -> Result<Self> {
        // The test's upstreams listen on the cluster addresses: without a kubelet there are no endpoints.
        Self::with_proxies(cluster, docker_config, "{routingType: Service}")
    }

    /// The same for Gateways whose Pods a [`Kubelet`](super::Kubelet) runs.
    pub fn with_pods(cluster: &Cluster, docker_config: &Path) -> Result<Self> {
        let ports = "{type: Kubernetes, kubernetes: {useListenerPortAsContainerPort: true}}";
        Self::with_proxies(cluster, docker_config, &format!("{{provider: {ports}}}"))
    }

    /// `proxies` is the `spec` of the EnvoyProxy resource that the Gateways use.
    fn with_proxies(cluster: &Cluster, docker_config: &Path, proxies: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-gateway-").tempdir()?;
        cluster.namespace(NAMESPACE, &[])?;
        cluster.apply(&CLASS.replace("PROXIES", proxies))?;
        let mut certgen = Process::start("envoy-gateway", folder.path(), |command| {
            command.args(["certgen", "--disable-topology-injector"]);
            command.env("KUBECONFIG", cluster.kubeconfig()).env("ENVOY_GATEWAY_NAMESPACE", NAMESPACE);
        })?;
        certgen.wait_for("certificates", || cluster.get("secret", NAMESPACE, "envoy-oidc-hmac").map(drop))?;
        drop(certgen);

        let root = folder.path().join("root");
        write_secret(cluster, "envoy-gateway", &root.join("certs"))?;
        let config = folder.path().join("config.yaml");
        fs::write(&config, CONFIG)?;
        fs::rename(tokens::hosts(folder.path())?, folder.path().join("root.hosts"))?;
        let mut process = isolated("envoy-gateway-server", &[], &root, folder.path(), |command| {
            command.arg(tool("envoy-gateway")?).args(["server", "--config-path"]).arg(&config);
            command
                .env("KUBECONFIG", cluster.kubeconfig())
                .env("ENVOY_GATEWAY_NAMESPACE", NAMESPACE)
                .env("DOCKER_CONFIG", docker_config)
                // The folder in which it caches modules.
                .env("HOME", folder.path())
                .env("TMPDIR", folder.path());
            Ok(())
        })?;
        process.wait_for("accepted class", || {
            let class = cluster.get("gatewayclass", "default", "eg")?;
            let accepted = class.pointer("/status/conditions").and_then(Value::as_array);
            ensure!(
                accepted.is_some_and(|all| all
                    .iter()
                    .any(|it| it.get("type") == Some(&"Accepted".into()) && it.get("status") == Some(&"True".into()))),
                "{class}"
            );
            Ok(())
        })?;
        Ok(EnvoyGateway { process, _folder: folder })
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Starts the Envoy of a Gateway as its Deployment says, and waits until it listens on `port`.
    pub fn proxy(&self, cluster: &Cluster, namespace: &str, gateway: &str, port: u16) -> Result<GatewayProxy> {
        let selector = format!(
            "gateway.envoyproxy.io/owning-gateway-name={gateway},gateway.envoyproxy.io/owning-gateway-namespace={namespace}"
        );
        let deployment = eventually("a Deployment", || {
            cluster.list("deployment", &selector)?.into_iter().next().context("there is none")
        })?;
        let folder = tempfile::Builder::new().prefix("penstock-gateway-proxy-").tempdir()?;
        let root = root_of_proxy(cluster, &selector, folder.path(), Ipv4Addr::LOCALHOST)?;

        let admin = free_port()?;
        // Envoy Gateway identifies a proxy by its Pod's name, so the Envoys of two Gateways need different names.
        let pod = format!("envoy-{gateway}");
        let arguments = arguments_on_one_machine(&deployment, &pod, admin)?;
        let process = isolated("envoy", &[], &root, folder.path(), |command| {
            command.arg(workspace::envoy_binary()?).args(&arguments).arg("--disable-hot-restart");
            command.env("ENVOY_POD_NAME", &pod).env("ENVOY_POD_NAMESPACE", NAMESPACE);
            Ok(())
        })?;
        let admin = Admin::new(SocketAddr::from((Ipv4Addr::LOCALHOST, admin)));
        let mut proxy = GatewayProxy { process, admin, _folder: folder };
        proxy.wait_for_listener(port)?;
        Ok(proxy)
    }
}

const CLASS: &str = r#"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: proxies, namespace: envoy-gateway-system}
spec: PROXIES
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: eg}
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
  parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: proxies, namespace: envoy-gateway-system}
"#;

/// A running Envoy of a Gateway. Dropping it stops it.
#[derive(Debug)]
pub struct GatewayProxy {
    process: Process,
    admin: Admin,
    _folder: TempDir,
}

impl GatewayProxy {
    /// Its admin interface.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The lines of its access log in JSON. Envoy flushes it every ten seconds.
    pub fn access_log(&self) -> Vec<Value> {
        self.process.access_log()
    }

    /// Waits until its log contains this text.
    pub fn wait_for_log(&mut self, text: &str) -> Result<()> {
        self.process.wait_for_log(text)
    }

    fn wait_for_listener(&mut self, port: u16) -> Result<()> {
        let admin = self.admin.clone();
        self.process.wait_for(&format!("listener on port {port}"), || {
            let page = admin.get("/listeners")?;
            page.lines().any(|line| line.ends_with(&format!(":{port}"))).then_some(()).context(page)
        })
    }
}

/// Starts the Envoy of a Deployment, as its Pod would.
pub(super) fn start_in_pod(
    cluster: &Cluster,
    deployment: &Value,
    pod: &str,
    folder: &Path,
    address: &PodAddress,
) -> Result<Process> {
    let label = |name: &str| {
        let label = format!("gateway.envoyproxy.io/owning-gateway-{name}");
        let value = deployment.pointer("/metadata/labels").and_then(|labels| labels.get(&label));
        format!("{label}={}", value.and_then(Value::as_str).unwrap_or_default())
    };
    let selector = format!("{},{}", label("name"), label("namespace"));
    let root = root_of_proxy(cluster, &selector, folder, PodNetwork::OUTSIDE)?;
    isolated("envoy", &["ip", "netns", "exec", &address.namespace], &root, folder, |command| {
        command.arg(workspace::envoy_binary()?).args(arguments(deployment, pod)?).arg("--disable-hot-restart");
        command.env("ENVOY_POD_NAME", pod).env("ENVOY_POD_NAMESPACE", NAMESPACE);
        Ok(())
    })
}

/// Makes a folder with the files that the Pod of a Gateway's Envoy mounts, and a hosts file with the address of Envoy
/// Gateway.
fn root_of_proxy(cluster: &Cluster, selector: &str, folder: &Path, gateway: Ipv4Addr) -> Result<PathBuf> {
    let maps = cluster.list("configmap", selector)?;
    let root = folder.join("root");
    write_secret(cluster, "envoy", &root.join("certs"))?;
    let sds = maps.first().and_then(|map| map.get("data")).and_then(Value::as_object).context("no ConfigMap")?;
    fs::create_dir_all(root.join("sds"))?;
    for (name, text) in sds {
        fs::write(root.join("sds").join(name), text.as_str().unwrap_or_default())?;
    }
    // Stands in for the DNS of a cluster.
    let (outside, address) = OUTSIDE;
    let hosts = format!(
        "127.0.0.1 localhost\n{gateway} envoy-gateway.{NAMESPACE}.svc.cluster.local\n{address} {outside}\n",
        address = Ipv4Addr::from(address)
    );
    fs::write(folder.join("root.hosts"), hosts)?;
    Ok(root)
}

/// The arguments of the Deployment's Envoy container.
fn arguments(deployment: &Value, pod: &str) -> Result<Vec<String>> {
    let containers = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let envoy =
        containers.into_iter().flatten().find(|it| it.get("name") == Some(&"envoy".into())).context("no Envoy")?;
    let all = envoy.get("args").and_then(Value::as_array).context("no arguments")?;
    Ok(all
        .iter()
        .filter_map(Value::as_str)
        // Removes the trailing dot, because names in a hosts file have none.
        .map(|it| it.replace("$(ENVOY_POD_NAME)", pod).replace(".svc.cluster.local.", ".svc.cluster.local"))
        .collect())
}

/// Replaces ports of the Pod with ports that are free on this machine, so that several Envoys can run side by side.
fn arguments_on_one_machine(deployment: &Value, pod: &str, admin: u16) -> Result<Vec<String>> {
    let (metrics, ready) = (free_port()?, free_port()?);
    let moved = [(19000, admin), (19001, metrics), (19003, ready)];
    let port = |port: u16| format!("port_value: {port}");
    Ok(arguments(deployment, pod)?
        .into_iter()
        .map(|argument| moved.iter().fold(argument, |text, (from, to)| text.replace(&port(*from), &port(*to))))
        .collect())
}

fn write_secret(cluster: &Cluster, name: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    // Secrets are base64-encoded in Kubernetes; kubectl's template decodes them.
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        let template = format!("go-template={{{{index .data \"{file}\" | base64decode}}}}");
        let text = cluster.kubectl(["get", "secret", name, "--namespace", NAMESPACE, "--output", &template])?;
        fs::write(folder.join(file), text)?;
    }
    Ok(())
}

/// Starts a program that sees the files of `root` in `/`. The command `within` enters its namespaces first.
fn isolated(
    name: &str,
    within: &[&str],
    root: &Path,
    folder: &Path,
    prepare: impl FnOnce(&mut std::process::Command) -> Result<()>,
) -> Result<Process> {
    let script = workspace::root().join("integration/src/control_plane/isolate.sh");
    let mut prepared = Ok(());
    let mut words = within.iter().copied().chain(["unshare"]);
    let program = Path::new(words.next().unwrap_or("unshare"));
    let process = Process::start_binary(name, program, folder, |command| {
        command.args(words).args(["--mount", "--map-root-user", "sh"]).arg(&script).arg(root);
        prepared = prepare(command);
    })?;
    prepared.map(|()| process)
}
