//! An image registry.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Process, free_port};
use crate::http::{self, HttpRequest, Protocol};

/// The htpasswd entry for the user `penstock` with the password `secret`.
const HTPASSWD: &str = "penstock:$2b$04$gBuRN0WDJCG5iaQb7YdCMeYay5Ya034nTwA1u/Q0rbTMw9ocPRMVO\n";

/// Who may pull and push.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody.
    Open,
    /// Only the user `penstock` with the password `secret`.
    Password,
    /// Only users with a token. The value is `auth.token` in the registry's configuration, which names the token
    /// server.
    Token(Value),
}

/// A running `docker-registry`. Dropping it stops it and removes its images.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    process: Option<Process>,
    folder: TempDir,
}

impl Registry {
    /// Starts an empty registry.
    pub fn start(access: &Access) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-registry-").tempdir()?;
        let port = free_port()?;
        let htpasswd = folder.path().join("htpasswd");
        fs::write(&htpasswd, HTPASSWD)?;
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": false}},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}, "delete": {"enabled": true}},
            "http": {"addr": format!("127.0.0.1:{port}")},
        });
        let auth = match access {
            Access::Open => None,
            // The realm is a URL although basic authentication does not need one: Istio's agent refuses other values
            // (see docs/istio.md).
            Access::Password => Some(json!({"htpasswd": {"realm": "https://registry.example.com", "path": htpasswd}})),
            Access::Token(token) => Some(json!({"token": token})),
        };
        if let (Some(auth), Some(config)) = (auth, config.as_object_mut()) {
            config.insert("auth".to_owned(), auth);
        }
        // JSON is valid YAML.
        fs::write(folder.path().join("config.yml"), config.to_string())?;
        let mut registry = Registry { port, process: None, folder };
        registry.up()?;
        Ok(registry)
    }

    /// Its host and port, which image names start with.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Stops the registry. Its images stay.
    pub fn down(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port.
    pub fn up(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let mut process = Process::start("docker-registry", folder, |command| {
            command.arg("serve").arg(folder.join("config.yml"));
        })?;
        let address = self.address();
        process.wait_for("answer to /v2/", || {
            http::send(Protocol::Http1, address, &HttpRequest::new("GET", &address.to_string(), "/v2/"))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Everything that it has logged since its last start, including a line for each request.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// A folder for `DOCKER_CONFIG` with the credentials of `penstock` for this registry.
    pub fn docker_config(&self) -> Result<PathBuf> {
        let folder = self.folder.path().join("docker");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("config.json"), self.docker_config_json().to_string())?;
        Ok(folder)
    }

    /// The content of the configuration file in that folder, which is also the content of a pull secret.
    pub fn docker_config_json(&self) -> Value {
        // Base64 of "penstock:secret".
        json!({"auths": {self.address().to_string(): {"auth": "cGVuc3RvY2s6c2VjcmV0"}}})
    }

    /// The folder with its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Fetches a manifest without credentials.
    pub fn manifest(&self, repository: &str, tag: &str) -> Result<Value> {
        let request =
            HttpRequest::new("GET", &self.address().to_string(), &format!("/v2/{repository}/manifests/{tag}")).header(
                "accept",
                "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json",
            );
        let response = http::send(Protocol::Http1, self.address(), &request)?;
        serde_json::from_slice(&response.body).context("the manifest is not JSON")
    }
}
