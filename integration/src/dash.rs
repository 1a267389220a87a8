//! A running `penstock dash`.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http::{self, Protocol, Request, Response};
use crate::workspace;

/// How long the dash may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command of `dist/`, on a free port. Dropping it stops it.
#[derive(Debug)]
pub struct Dash {
    child: Child,
    url: String,
    address: SocketAddr,
}

impl Dash {
    /// Starts it, unless the arguments have a `--listen` on a free port of the loopback interface.
    ///
    /// # Errors
    /// With what it printed when it refuses to start.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let binary = workspace::dist().join("penstock");
        ensure!(binary.is_file(), "there is no {}: run `make build` first", binary.display());
        let mut command = Command::new(binary);
        command.arg("dash");
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child =
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let Some(url) = line.split_whitespace().find(|word| word.contains("://")) else {
            let mut error = String::new();
            child.stderr.take().context("no errors")?.read_to_string(&mut error)?;
            child.wait()?;
            bail!("{}", error.trim());
        };
        let address = url.split("://").nth(1).and_then(|rest| rest.trim_end_matches('/').parse().ok());
        Ok(Dash { url: url.to_owned(), address: address.context("no address")?, child })
    }

    /// Where its page is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks its API, with a token or without.
    pub fn ask(&self, path: &str, token: Option<&str>) -> Result<Response> {
        let mut request = Request::new("GET", &self.address.to_string(), path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        http::send(Protocol::Http1, self.address, &request)
    }

    /// What everybody may see of a cluster.
    pub fn cluster(&self, name: &str) -> Result<Value> {
        let response = self.ask(&format!("/api/v1/clusters/{name}"), None)?;
        ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(response.json())
    }

    /// Looks at a cluster until it is as `wanted`.
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
}

impl Drop for Dash {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
