//! The rate-limit service that users run: envoyproxy/ratelimit with Redis, on free loopback ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
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

/// A running service. Dropping it stops it.
#[derive(Debug)]
pub struct RateLimitService {
    redis: Child,
    service: Child,
    grpc: SocketAddr,
    _folder: TempDir,
}

impl RateLimitService {
    /// Starts a service with these domains, given as configuration files of envoyproxy/ratelimit. Returns `None` and
    /// prints a line when `make setup` could not install its programs, or an error when `CI` is set.
    pub fn start(domains: &[&str]) -> Result<Option<Self>> {
        let tools = tools();
        if let Some(missing) = missing() {
            ensure!(
                std::env::var_os("CI").is_none(),
                "there is no {}: run scripts/setup/ratelimit.sh",
                missing.display()
            );
            eprintln!("SKIPPED: there is no {}: run scripts/setup/ratelimit.sh", missing.display());
            return Ok(None);
        }
        let [ratelimit, redis] = tools;
        Self::run(&ratelimit, &redis, domains).map(Some)
    }

    /// Whether the programs that [`start`](Self::start) needs are installed.
    #[must_use]
    pub fn is_there() -> bool {
        missing().is_none()
    }

    fn run(ratelimit: &Path, redis: &Path, domains: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-").tempdir()?;
        let config = folder.path().join("config");
        fs::create_dir(&config)?;
        for (number, domain) in domains.iter().enumerate() {
            fs::write(config.join(format!("{number}.yaml")), domain)?;
        }
        let [redis_port, grpc, http, debug] = [free_port()?, free_port()?, free_port()?, free_port()?];
        let log = |name: &str| -> Result<Stdio> { Ok(fs::File::create(folder.path().join(name))?.into()) };
        let mut redis = Command::new(redis)
            .args(["--bind", "127.0.0.1", "--port", &redis_port.to_string(), "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(log("redis.log")?)
            .spawn()
            .context("cannot start redis-server")?;
        wait_for(&mut redis, folder.path(), || TcpStream::connect((Ipv4Addr::LOCALHOST, redis_port)).is_ok())?;
        let loopback = "127.0.0.1";
        let mut service = Command::new(ratelimit)
            .env_clear()
            .envs([("HOST", loopback), ("GRPC_HOST", loopback), ("DEBUG_HOST", loopback)])
            .envs([("PORT", http.to_string()), ("GRPC_PORT", grpc.to_string()), ("DEBUG_PORT", debug.to_string())])
            .envs([("REDIS_SOCKET_TYPE", "tcp".to_owned()), ("REDIS_URL", format!("127.0.0.1:{redis_port}"))])
            .envs([("USE_STATSD", "false"), ("LOG_LEVEL", "warn"), ("RUNTIME_SUBDIRECTORY", "")])
            .envs([("RUNTIME_WATCH_ROOT", "false"), ("LIMIT_RESPONSE_HEADERS_ENABLED", "true")])
            .env("RUNTIME_ROOT", folder.path())
            .stdin(Stdio::null())
            .stdout(log("ratelimit.log")?)
            .stderr(log("ratelimit.err")?)
            .spawn()
            .context("cannot start ratelimit")?;
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let healthy = || {
            let request = HttpRequest::new("GET", "localhost", "/healthcheck");
            http::send(Protocol::Http1, address(http), &request).is_ok_and(|response| response.status == 200)
        };
        if let Err(error) = wait_for(&mut service, folder.path(), healthy) {
            stop(&mut redis);
            return Err(error);
        }
        Ok(RateLimitService { redis, service, grpc: address(grpc), _folder: folder })
    }

    /// The address of its gRPC port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.grpc
    }

    /// The Envoy cluster for this service.
    pub fn cluster(&self, name: &str) -> Value {
        grpc_cluster(name, self.grpc)
    }

    /// Kills it, like a crash.
    pub fn kill(&mut self) {
        stop(&mut self.service);
    }

    /// Pauses it: connections stay open, but it does not respond.
    pub fn hang(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Resumes it.
    pub fn wake(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args([format!("-{name}"), self.service.id().to_string()]).status()?;
        ensure!(status.success(), "kill -{name}: {status}");
        Ok(())
    }
}

impl Drop for RateLimitService {
    fn drop(&mut self) {
        stop(&mut self.service);
        stop(&mut self.redis);
    }
}

/// Starts Redis and the service.
fn tools() -> [PathBuf; 2] {
    ["ratelimit", "redis-server"].map(|name| workspace::root().join(".tools/bin").join(name))
}

fn missing() -> Option<PathBuf> {
    tools().into_iter().find(|tool| !tool.is_file())
}

/// An Envoy cluster with one endpoint that speaks HTTP/2.
pub fn grpc_cluster(name: &str, endpoint: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                "address": endpoint.ip().to_string(),
                "port_value": endpoint.port(),
            }}}}]}],
        },
    })
}

fn wait_for(child: &mut Child, folder: &Path, ready: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    let log = |name: &str| fs::read_to_string(PathBuf::from(folder).join(name)).unwrap_or_default();
    loop {
        if ready() {
            return Ok(());
        }
        let ended = child.try_wait()?;
        if ended.is_some() || started.elapsed() > PATIENCE {
            stop(child);
            let logs = ["redis.log", "ratelimit.log", "ratelimit.err"].map(log).concat();
            bail!("the rate-limit service did not start (ended: {ended:?}); its log:\n{logs}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn stop(child: &mut Child) {
    // An error means that the process has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
