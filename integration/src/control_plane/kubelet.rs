//! Runs Deployments and Services: starts Pods for Deployments, and writes endpoints and addresses for Services. In a
//! real cluster, the controllers, the kubelet and a load balancer do this; here, containers are processes in a
//! [`PodNetwork`].
//!
//! It supports two images: the Envoy of Envoy Gateway's Deployments, and the echo server of the Gateway API's
//! conformance suite.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api::ApiServer;
use super::cluster::Cluster;
use super::envoy_gateway;
use super::pod_network::{PodAddress, PodNetwork};
use super::process::{Process, tool};
use crate::http::{self, HttpRequest, Protocol};

/// The port and path at which an Envoy of Envoy Gateway serves its counters.
const METRICS: (u16, &str) = (19001, "/stats/prometheus");

/// The name of the node that all Pods run on. No such object exists.
const NODE: &str = "kubelet";

/// Runs the Deployments of a cluster. Dropping it ends their processes.
#[derive(Debug)]
pub struct Kubelet {
    api: ApiServer,
    network: PodNetwork,
    // The Pods by the UID of their Deployment.
    deployments: BTreeMap<String, RunningDeployment>,
    // What was last written for each Service, by namespace and name.
    services: BTreeMap<(String, String), Value>,
    // The last page of counters of each Envoy that has ended.
    counters: Vec<String>,
}

#[derive(Debug)]
struct RunningDeployment {
    // The fields whose change means that the Pods must be restarted.
    containers: Value,
    template: Value,
    pods: Vec<RunningPod>,
    status: Value,
}

#[derive(Debug)]
struct RunningPod {
    namespace: String,
    name: String,
    labels: Value,
    envoy: bool,
    ready: bool,
    // Dropped before its network and its files are removed.
    _process: Process,
    address: PodAddress,
    _folder: TempDir,
}

impl Kubelet {
    /// A kubelet for this cluster. It does nothing until [`Kubelet::tick`] is called.
    pub fn new(cluster: &Cluster, network: PodNetwork) -> Result<Self> {
        Ok(Kubelet {
            api: ApiServer::start(cluster)?,
            network,
            deployments: BTreeMap::new(),
            services: BTreeMap::new(),
            counters: Vec::new(),
        })
    }

    /// Compares the cluster's objects with the running processes, and starts, stops and writes what differs.
    pub fn tick(&mut self, cluster: &Cluster) -> Result<()> {
        let wanted = self.api.list("/apis/apps/v1/deployments")?;
        let uids: Vec<_> = wanted.iter().map(|it| text(it, "/metadata/uid")).collect();
        let gone: Vec<_> = self.deployments.keys().filter(|uid| !uids.contains(uid)).cloned().collect();
        for uid in gone {
            if let Some(deployment) = self.deployments.remove(&uid) {
                self.stop(deployment)?;
            }
        }
        for (uid, object) in uids.into_iter().zip(&wanted) {
            self.run(cluster, uid, object)?;
        }
        self.serve()
    }

    /// The page of counters of every Envoy: the last one of those that have ended, the current one of the others.
    pub fn counters(&self) -> Vec<String> {
        let running = self.deployments.values().flat_map(|it| &it.pods).filter_map(RunningPod::counters);
        self.counters.iter().cloned().chain(running).collect()
    }

    /// Stops all Pods and returns the network, for use with another cluster.
    pub fn into_network(self) -> PodNetwork {
        self.network
    }

    fn stop(&mut self, deployment: RunningDeployment) -> Result<()> {
        for pod in deployment.pods {
            self.counters.extend(pod.counters());
            self.api.delete(&pod.path())?;
        }
        Ok(())
    }

    fn run(&mut self, cluster: &Cluster, uid: String, object: &Value) -> Result<()> {
        let template = object.pointer("/spec/template").cloned().unwrap_or_default();
        // Labels and ports may change without a restart, which avoids most restarts when a Gateway changes.
        let containers = containers(&template)
            .iter()
            .map(|it| json!([it.get("image"), it.get("args"), it.get("env")]))
            .collect::<Value>();
        let known = self.deployments.remove(&uid);
        let mut deployment = match known {
            Some(known) if known.containers == containers => known,
            other => {
                if let Some(old) = other {
                    self.stop(old)?;
                }
                let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
                let pods = (1..=replicas).map(|number| self.start(cluster, object, number)).collect::<Result<_>>()?;
                RunningDeployment { containers, template: Value::Null, pods, status: Value::Null }
            }
        };
        for pod in &mut deployment.pods {
            pod.ready = pod.ready || pod.is_ready(&template);
            pod.labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
        }
        let ready = deployment.pods.iter().filter(|pod| pod.ready).count();
        let status = deployment_status(object, ready, deployment.pods.len());
        if deployment.template != template || deployment.status != status {
            for pod in &deployment.pods {
                pod.write(&self.api, &template)?;
            }
            let path = format!("/apis/apps/v1/{}", place("deployments", object));
            self.api.set_status(&path, &status)?;
            (deployment.template, deployment.status) = (template, status);
        }
        self.deployments.insert(uid, deployment);
        Ok(())
    }

    fn start(&mut self, cluster: &Cluster, object: &Value, number: u64) -> Result<RunningPod> {
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        // The Deployment's name with two suffixes, like the names that a ReplicaSet gives to Pods.
        let name = format!("{name}-pod-{number}");
        let address = self.network.pod()?;
        let folder = tempfile::Builder::new().prefix("penstock-pod-").tempdir()?;
        let template = object.pointer("/spec/template").context("a Deployment without a template")?;
        let all = containers(template);
        let envoy = all.iter().any(|it| it.get("name") == Some(&"envoy".into()));
        let process = if envoy {
            envoy_gateway::start_in_pod(cluster, object, &name, folder.path(), &address)?
        } else {
            let container = all.first().context("a Pod without containers")?;
            start_echo(cluster, &namespace, &name, template, container, folder.path(), &address)?
        };
        let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
        Ok(RunningPod { namespace, name, labels, envoy, ready: false, _process: process, address, _folder: folder })
    }

    /// Writes endpoints and addresses for the Services that have a selector.
    fn serve(&mut self) -> Result<()> {
        for service in self.api.list("/api/v1/services")? {
            let Some(selector) = service.pointer("/spec/selector").and_then(Value::as_object) else { continue };
            let (namespace, name) = (text(&service, "/metadata/namespace"), text(&service, "/metadata/name"));
            let selected = |pod: &&RunningPod| {
                pod.namespace == namespace && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
            };
            let pods: Vec<_> = self.deployments.values().flat_map(|it| &it.pods).filter(selected).collect();
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("{name}-pods"), "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "kubelet"}},
                "ports": ports(&service),
                "endpoints": pods.iter().map(|pod| pod.endpoint()).collect::<Vec<_>>(),
            });
            let addresses: Vec<_> =
                pods.iter().filter(|pod| pod.ready).map(|pod| json!({"ip": pod.address.ip, "ipMode": "VIP"})).collect();
            let balanced = service.pointer("/spec/type") == Some(&"LoadBalancer".into()) && !addresses.is_empty();
            let written = json!([slice, addresses, service.pointer("/metadata/uid")]);
            let key = (namespace, name);
            if self.services.get(&key) == Some(&written) {
                continue;
            }
            let (namespace, name) = &key;
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}-pods");
            self.api.apply(&path, &slice)?;
            if balanced {
                let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
                self.api.set_status(&path, &json!({"loadBalancer": {"ingress": addresses}}))?;
            }
            self.services.insert(key, written);
        }
        Ok(())
    }
}

impl RunningPod {
    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }

    fn get(&self, port: u16, path: &str) -> Option<String> {
        let address = SocketAddr::from((self.address.ip, port));
        let response = http::send(Protocol::Http1, address, &HttpRequest::get(path)).ok()?;
        (response.status == 200).then(|| response.text())
    }

    /// Runs the readiness probe of the Pod's template.
    fn is_ready(&self, template: &Value) -> bool {
        containers(template).iter().filter_map(|it| it.pointer("/readinessProbe/httpGet")).all(|probe| {
            let port = probe.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
            // Skips the probe of a sidecar that is not run here.
            !self.envoy || port != Some(19003) || self.get(19003, &text(probe, "/path")).is_some()
        })
    }

    fn counters(&self) -> Option<String> {
        self.envoy.then(|| self.get(METRICS.0, METRICS.1)).flatten()
    }

    fn write(&self, api: &ApiServer, template: &Value) -> Result<()> {
        let mut pod = template.clone();
        let metadata = json!({
            "name": self.name, "namespace": self.namespace, "labels": self.labels,
            "annotations": template.pointer("/metadata/annotations"),
        });
        if let Some(pod) = pod.as_object_mut() {
            pod.insert("apiVersion".to_owned(), "v1".into());
            pod.insert("kind".to_owned(), "Pod".into());
            pod.insert("metadata".to_owned(), metadata);
            if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
                spec.insert("nodeName".to_owned(), NODE.into());
            }
        }
        api.apply(&self.path(), &pod)?;
        let is = if self.ready { "True" } else { "False" };
        let conditions: Vec<_> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|kind| json!({"type": kind, "status": is}))
            .into_iter()
            .collect();
        let ip = self.address.ip;
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions});
        api.set_status(&self.path(), &status)
    }

    fn endpoint(&self) -> Value {
        json!({
            "addresses": [self.address.ip],
            "conditions": {"ready": self.ready, "serving": self.ready, "terminating": false},
            "targetRef": {"kind": "Pod", "name": self.name, "namespace": self.namespace},
        })
    }
}

/// Starts the echo server with the environment variables and secrets of its container.
fn start_echo(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    template: &Value,
    container: &Value,
    folder: &Path,
    address: &PodAddress,
) -> Result<Process> {
    let list = |pointer: &str| container.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let volumes = template.pointer("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut mounted = Vec::new();
    for mount in list("/volumeMounts") {
        let volume = volumes.iter().find(|it| it.get("name") == mount.get("name"));
        let Some(secret) = volume.and_then(|it| it.get("secret")) else { continue };
        let place = folder.join(text(&mount, "/name"));
        write_secret(cluster, namespace, secret, &place)?;
        mounted.push((text(&mount, "/mountPath"), place.display().to_string()));
    }
    let value = |variable: &Value| match text(variable, "/valueFrom/fieldRef/fieldPath").as_str() {
        "metadata.name" => name.to_owned(),
        "metadata.namespace" => namespace.to_owned(),
        "status.podIP" => address.ip.to_string(),
        _ => mounted.iter().fold(text(variable, "/value"), |text, (from, to)| text.replace(from, to)),
    };
    Process::start_binary("echo-basic", Path::new("ip"), folder, |command| {
        command.args(["netns", "exec", &address.namespace]);
        if let Ok(echo) = tool("echo-basic") {
            command.arg(echo);
        }
        command.envs(list("/env").iter().map(|variable| (text(variable, "/name"), value(variable))));
    })
}

fn write_secret(cluster: &Cluster, namespace: &str, volume: &Value, folder: &Path) -> Result<()> {
    let name = text(volume, "/secretName");
    // The Secret may be created after the Deployment that mounts it.
    let secret = super::eventually("a Secret to mount", || cluster.get("secret", namespace, &name))?;
    fs::create_dir_all(folder)?;
    for item in volume.get("items").and_then(Value::as_array).into_iter().flatten() {
        let data = secret.get("data").and_then(|data| data.get(text(item, "/key"))).and_then(Value::as_str);
        fs::write(folder.join(text(item, "/path")), STANDARD.decode(data.unwrap_or_default())?)?;
    }
    Ok(())
}

fn deployment_status(object: &Value, ready: usize, all: usize) -> Value {
    let available = if ready == all { "True" } else { "False" };
    json!({
        "observedGeneration": object.pointer("/metadata/generation"),
        "replicas": all, "updatedReplicas": all, "readyReplicas": ready, "availableReplicas": ready,
        "conditions": [{"type": "Available", "status": available, "reason": "Kubelet", "message": ""}],
    })
}

/// Maps the ports of a Service to those of its Pods.
fn ports(service: &Value) -> Vec<Value> {
    let all = service.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    all.iter()
        .map(|port| {
            let target = port.get("targetPort").filter(|target| target.is_number()).or_else(|| port.get("port"));
            let mut made = json!({
                "name": text(port, "/name"), "port": target,
                "protocol": port.get("protocol").cloned().unwrap_or_else(|| "TCP".into()),
            });
            if let (Some(made), Some(protocol)) = (made.as_object_mut(), port.get("appProtocol")) {
                made.insert("appProtocol".to_owned(), protocol.clone());
            }
            made
        })
        .collect()
}

fn containers(template: &Value) -> Vec<Value> {
    template.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Returns `namespaces/NAMESPACE/KIND/NAME` for an object.
fn place(kind: &str, object: &Value) -> String {
    format!("namespaces/{}/{kind}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
