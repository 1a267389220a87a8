//! Access to the API server over plain HTTP, for callers that poll it several times a second. `kubectl proxy` adds the
//! credentials.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::cluster::Cluster;
use super::process::{Process, free_port};
use crate::http::{self, HttpRequest, HttpResponse, Protocol};

/// A connection to the API server.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    _proxy: Process,
}

impl ApiServer {
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut proxy = Process::start("kubectl", cluster.folder(), |command| {
            command.arg("--kubeconfig").arg(cluster.kubeconfig());
            command.args(["proxy", "--port", &address.port().to_string()]);
        })?;
        proxy.wait_for("answer", || http::send(Protocol::Http1, address, &HttpRequest::get("/version")))?;
        Ok(ApiServer { address, _proxy: proxy })
    }

    /// Lists the objects at a path such as `/api/v1/services`.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        let response = self.send(&HttpRequest::new("GET", &self.address.to_string(), path))?;
        ensure!(response.status == 200, "{path}: {}", response.text());
        Ok(response.json().get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Server-side apply. Skips an object whose namespace is being deleted.
    pub fn apply(&self, path: &str, object: &Value) -> Result<()> {
        let path = format!("{path}?fieldManager=kubelet&force=true");
        self.change("PATCH", &path, "application/apply-patch+yaml", &object.to_string())
    }

    /// Sets the status of an object. Does nothing when the object has been deleted meanwhile.
    pub fn set_status(&self, path: &str, status: &Value) -> Result<()> {
        let body = serde_json::json!({"status": status}).to_string();
        self.change("PATCH", &format!("{path}/status"), "application/merge-patch+json", &body)
    }

    /// Deletes an object without a grace period.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.change("DELETE", &format!("{path}?gracePeriodSeconds=0"), "application/json", "")
    }

    fn change(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<()> {
        let request = HttpRequest::new(method, &self.address.to_string(), path).header("content-type", kind).body(body);
        let response = self.send(&request)?;
        let gone = response.status == 404 || response.status == 403 && response.text().contains("being terminated");
        ensure!(gone || response.status < 300, "{method} {path}: {}\n{body}", response.text());
        Ok(())
    }

    fn send(&self, request: &HttpRequest) -> Result<HttpResponse> {
        http::send(Protocol::Http1, self.address, request)
    }
}
