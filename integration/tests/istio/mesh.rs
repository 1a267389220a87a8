//! The environment of the Istio tests: an API server, istiod, a registry with the modules, an ingress gateway, and
//! services.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{
    Access, Cluster, Istio, IstioProxy, Pod, Registry, Role, eventually, free_port, hosts, with_hosts,
};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Upstream, UpstreamReply, workspace};
use serde_json::json;

const NEEDS: &str = "see `make e2e-istio`";

/// A mesh with an ingress gateway, services, and a registry with the modules.
pub struct Mesh {
    pub cluster: Cluster,
    pub istio: Istio,
    pub registry: Registry,
    pub port: u16,
    _upstreams: Vec<Upstream>,
}

impl Mesh {
    pub fn start(access: &Access) -> Result<Self> {
        let cluster = Cluster::knowing(&["istio", "gateway-api"])?;
        let istio = Istio::start(&cluster).context(NEEDS)?;
        let registry = Registry::start(access)?;
        cluster.namespace("shop", &[])?;
        let port = free_port()?;
        cluster.apply(&gateway_service(port))?;
        let mut upstreams = Vec::new();
        for (host, versions) in [("shop", ["stable", "beta"]), ("reviews", ["v1", "v2"])] {
            let mut endpoints = Vec::new();
            for version in versions {
                let upstream = upstream(&format!("{host}-{version}"))?;
                endpoints.push(json!({
                    "address": "127.0.0.1",
                    "ports": {"http": upstream.address().port()},
                    "labels": {"version": version},
                }));
                upstreams.push(upstream);
            }
            cluster.apply(&service(host, &endpoints))?;
        }
        let mesh = Mesh { cluster, istio, registry, port, _upstreams: upstreams };
        for module in ["suite", "rate-limit", "egress-allowlist"] {
            mesh.push(&workspace::module(module)?.display().to_string(), &format!("{module}:0.1.0"))?;
        }
        Ok(mesh)
    }

    /// Pushes a module; returns the digest of its image.
    pub fn push(&self, module: &str, name: &str) -> Result<String> {
        let to = format!("{}/penstock/{name}", self.registry.address());
        let output = with_hosts(&hosts(self.registry.folder())?, &workspace::dist().join("penstock"))
            .args(["image", "push", module, &to])
            .env("DOCKER_CONFIG", self.registry.docker_config()?)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout)?;
        let image = printed.lines().next().and_then(|line| line.split_once('@')).context("no digest")?;
        Ok(image.1.to_owned())
    }

    /// An overlay of `istio/` with the test's registry, and with these texts replaced, each of which must occur.
    pub fn kustomization(&self, folder: &str, replacements: &[(&str, &str)]) -> Result<String> {
        let path = workspace::root().join("istio").join(folder).display().to_string();
        let mut text = self.cluster.kubectl(["kustomize", &path])?;
        let address = self.registry.address().to_string();
        for (from, to) in [("registry.example.com", address.as_str())].iter().chain(replacements) {
            ensure!(text.contains(from), "{folder} has no {from:?}");
            text = text.replace(from, to);
        }
        Ok(text)
    }

    /// Writes the Secret `registry` with the registry's credentials.
    pub fn pull_secret(&self, namespace: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "registry", "namespace": namespace},
            "stringData": {".dockerconfigjson": self.registry.docker_config_json().to_string()},
        });
        Ok(self.cluster.apply(&secret.to_string())?)
    }

    pub fn gateway(&self, name: &str) -> Result<IstioProxy> {
        Pod::new(Role::Gateway, "istio-system", name, &[("istio", "ingressgateway")])
            .variable("ISTIO_BOOTSTRAP_OVERRIDE", self.bootstrap_override()?)
            .start(&self.cluster, &self.istio)
    }

    /// The file that the injector mounts for the annotation `sidecar.istio.io/bootstrapOverride`.
    fn bootstrap_override(&self) -> Result<String> {
        let config = self.cluster.get("configmap", "istio-system", "penstock-stats-tags")?;
        let text =
            config.pointer("/data/custom_bootstrap.json").and_then(|text| text.as_str()).context("no bootstrap")?;
        let path = self.cluster.folder().join("custom_bootstrap.json");
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    pub fn ask(&self, request: &HttpRequest) -> Result<HttpResponse> {
        ask(self.port, request)
    }

    /// Repeats a request until the response is as expected.
    pub fn expect(
        &self,
        what: &str,
        request: &HttpRequest,
        holds: impl Fn(&HttpResponse) -> bool,
    ) -> Result<HttpResponse> {
        eventually(what, || {
            let response = self.ask(request)?;
            ensure!(holds(&response), "{response:?}");
            Ok(response)
        })
    }
}

pub fn ask(port: u16, request: &HttpRequest) -> Result<HttpResponse> {
    http::send(Protocol::Http1, ([127, 0, 0, 1], port).into(), request)
}

/// Responds with its name in `x-upstream` after a pause: four clients send it 200 requests a second.
pub fn upstream(name: &str) -> Result<Upstream> {
    let reply = UpstreamReply::Status(200, vec![("x-upstream".to_owned(), name.to_owned())]);
    Upstream::forgetful(move |_| UpstreamReply::After(Duration::from_millis(20), Box::new(reply.clone())))
}

pub fn gateway_service(port: u16) -> String {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "istio-ingressgateway", "namespace": "istio-system"},
        "spec": {"selector": {"istio": "ingressgateway"}, "ports": [{"name": "http", "port": 80, "targetPort": port}]},
    })
    .to_string()
}

/// A service in the namespace `shop`. It is not a Kubernetes Service, whose endpoints must not be on loopback.
pub fn service(name: &str, endpoints: &[serde_json::Value]) -> String {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "hosts": [format!("{name}.shop.svc.cluster.local")],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC", "location": "MESH_INTERNAL", "endpoints": endpoints,
        },
    })
    .to_string()
}

pub fn is_from(upstream: &str) -> impl Fn(&HttpResponse) -> bool {
    move |response: &HttpResponse| response.header("x-upstream").as_deref() == Some(upstream)
}
