//! A Prometheus that scrapes Envoys.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control_plane::free_port;
use crate::http::{self, HttpRequest, Protocol};
use crate::wait::PATIENCE;
use crate::workspace;

/// A running Prometheus on a free loopback port. Dropping it stops it.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

/// Finds `promtool` or another of Prometheus' programs. Returns `None` and prints a line when `make setup` could not
/// install it, or an error when `CI` is set.
pub fn prometheus_tool(name: &str) -> Result<Option<PathBuf>> {
    let tool = workspace::root().join(".tools/bin").join(name);
    if tool.is_file() {
        return Ok(Some(tool));
    }
    ensure!(std::env::var_os("CI").is_none(), "there is no {}: run scripts/setup/prometheus.sh", tool.display());
    eprintln!("SKIPPED: there is no {}: run scripts/setup/prometheus.sh", tool.display());
    Ok(None)
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these admin interfaces every second, each as a job with this name, with the
    /// rules of these files, and waits until it has scraped each once. Returns `None` where Prometheus is not installed.
    pub fn start(targets: &[(&str, SocketAddr)], rules: &[&Path]) -> Result<Option<Self>> {
        let Some(binary) = prometheus_tool("prometheus")? else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("penstock-").tempdir()?;
        let scrapes: Vec<Value> = targets
            .iter()
            .map(|(job, target)| {
                json!({"job_name": job, "metrics_path": "/stats/prometheus",
                    "static_configs": [{"targets": [target.to_string()]}]})
            })
            .collect();
        // JSON is valid YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": scrapes,
        });
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, config.to_string())?;
        // Another process may take the port before the child binds it; nothing reserves it.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let log = folder.path().join("log");
        let mut child = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(fs::File::create(&log)?))
            .spawn()
            .context("cannot start prometheus")?;
        let started = Instant::now();
        while !http::send(Protocol::Http1, address, &HttpRequest::get("/-/ready"))
            .is_ok_and(|ready| ready.status == 200)
        {
            let ended = child.try_wait()?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                bail!("Prometheus did not start ({ended:?}): {}", fs::read_to_string(&log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
        let prometheus = Prometheus { child, address, _folder: folder };
        // The first scrape may come five seconds later. A counter that has increased by then has no rate.
        while prometheus.query("up")?.len() < targets.len() {
            ensure!(started.elapsed() < PATIENCE, "Prometheus does not scrape its targets");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(prometheus))
    }

    /// The address of its API.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Evaluates an expression now; returns the labels and the value of each result.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"))?;
        let results = answer.pointer("/data/result").and_then(Value::as_array).context("no result")?;
        results
            .iter()
            .map(|result| {
                let value = result.pointer("/value/1").and_then(Value::as_str).context("no value")?;
                Ok((result.get("metric").cloned().unwrap_or_default(), value.parse()?))
            })
            .collect()
    }

    /// The names of all metrics that it has stored.
    pub fn names(&self) -> Result<Vec<String>> {
        let answer = self.get("/api/v1/label/__name__/values")?;
        Ok(serde_json::from_value(answer.get("data").cloned().unwrap_or_default())?)
    }

    /// Returns a page of its API as JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let response = http::send(Protocol::Http1, self.address, &HttpRequest::get(path))?;
        let answer: Value = serde_json::from_str(&response.text())?;
        ensure!(response.status == 200, "{path}: {answer}");
        Ok(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
