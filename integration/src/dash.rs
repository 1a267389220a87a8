//! `penstock dash`, started as a user starts it.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{self, HttpRequest, HttpResponse, Protocol};
use crate::wait::PATIENCE;
use crate::workspace;

/// A running dash on a free loopback port. Dropping it stops it.
#[derive(Debug)]
pub struct Dash {
    child: Child,
    url: String,
    address: SocketAddr,
    folder: TempDir,
}

impl Dash {
    /// Starts the `penstock` in `dist/` with these arguments.
    pub fn start(arguments: &[impl AsRef<OsStr>]) -> Result<Self> {
        Self::at("127.0.0.1:0", arguments)
    }

    /// The same on the given address.
    pub fn at(listen: &str, arguments: &[impl AsRef<OsStr>]) -> Result<Self> {
        let binary = workspace::dist().join("penstock");
        ensure!(binary.is_file(), "there is no {}: run `make build` first", binary.display());
        let folder = tempfile::Builder::new().prefix("penstock-").tempdir()?;
        let log = folder.path().join("log");
        let file = fs::File::create(&log)?;
        let mut child = Command::new(binary)
            .args(["dash", "--listen", listen])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file))
            .spawn()
            .context("cannot start penstock dash")?;
        let started = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if let Some((url, address)) = said.lines().find_map(page) {
                return Ok(Dash { child, url, address, folder });
            }
            let ended = child.try_wait()?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                bail!("penstock dash did not start ({ended:?}): {said}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The page's URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Sends a GET for this path with this token and returns the response.
    pub fn get(&self, path: &str, token: Option<&str>) -> Result<HttpResponse> {
        let request = HttpRequest::new("GET", &self.address.to_string(), path);
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        http::send(Protocol::Http1, self.address, &request)
    }

    /// Returns the cluster state that the dash shows to every visitor.
    pub fn cluster(&self, name: &str) -> Result<Value> {
        let response = self.get(&format!("/api/v1/clusters/{name}"), None)?;
        ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(response.json())
    }

    /// Polls a cluster's state until `wanted` accepts it.
    pub fn wait_for(&self, cluster: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let started = Instant::now();
        loop {
            let snapshot = self.cluster(cluster)?;
            if wanted(&snapshot) {
                return Ok(snapshot);
            }
            ensure!(started.elapsed() < PATIENCE, "the dash does not show it: {snapshot:#}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The refusals that the proxies of a cluster have sent in their access logs, newest first.
    pub fn refusals(&self, cluster: &str) -> Result<Vec<Value>> {
        let answer = self.get(&format!("/api/v1/clusters/{cluster}/decisions?outcome=refusals"), None)?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        let answer = answer.json();
        answer.get("decisions").and_then(Value::as_array).cloned().context("no list of decisions")
    }

    /// The process id, for measurements.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Stops it before it is dropped.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds the URL and its address in the line that announces the page.
fn page(line: &str) -> Option<(String, SocketAddr)> {
    let url = line.strip_prefix("Dashboard: ")?.split_whitespace().next()?;
    let (_, rest) = url.split_once("://")?;
    Some((url.to_owned(), rest.trim_end_matches('/').parse().ok()?))
}

impl Drop for Dash {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        self.stop();
    }
}
