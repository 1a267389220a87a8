//! A running Envoy process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::mem;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::admin::Admin;
use crate::bootstrap::Bootstrap;
use crate::discovery::{Feed, Reload};
use crate::wait::{PATIENCE, wait_until};
use crate::wasm::{Configuration, WasmFilter};
use crate::workspace;

/// The polling interval.
const TICK: Duration = Duration::from_millis(10);

/// A running Envoy, a child of this process. Dropping it stops it.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    admin: Admin,
    listeners: BTreeMap<String, SocketAddr>,
    feeds: Vec<Feed>,
    /// The command-line arguments of each of its processes.
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    family: Option<Family>,
    folder: TempDir,
}

/// Identifies processes that replace each other by hot restart.
#[derive(Debug)]
struct Family {
    base_id: String,
    epoch: u32,
    parent: Option<Child>,
}

impl Bootstrap {
    /// Starts Envoy and waits until it serves. When Envoy refuses its configuration, the error contains its log.
    pub fn start(self) -> Result<Envoy> {
        let (name, config) = self.file();
        let Bootstrap {
            folder, feeds, listeners, concurrency, log_level, environment, hot_restart, may_refuse, ..
        } = self;
        let path = folder.path().join(name);
        fs::write(&path, config)?;
        let mut levels = log_level.split(',');
        let mut arguments: Vec<OsString> = vec!["-c".into(), path.into()];
        arguments.extend(["--concurrency".into(), concurrency.to_string().into()]);
        // Access logs in files are there after a fifth of a second, not after ten.
        arguments.extend(["--file-flush-interval-msec", "200"].map(OsString::from));
        arguments.extend(["--log-level".into(), levels.next().unwrap_or("warning").into()]);
        arguments.extend(["--component-log-level".into(), levels.collect::<Vec<_>>().join(",").into()]);
        if hot_restart {
            // The old process asks its clients to leave at once and ends soon after. Envoy's default of 15 minutes is
            // too long for a test.
            arguments.extend(["--drain-strategy", "immediate", "--drain-time-s", "2"].map(OsString::from));
            arguments.extend(["--parent-shutdown-time-s", "3"].map(OsString::from));
        }
        let base_id = folder.path().join("base-id");
        let role: [&OsStr; 3] = ["--use-dynamic-base-id".as_ref(), "--base-id-path".as_ref(), base_id.as_ref()];
        // Without shared memory and base id, any number of Envoys can run side by side.
        let role = if hot_restart { &role[..] } else { &["--disable-hot-restart".as_ref()] };
        let (child, admin) = spawn(folder.path(), &arguments, role, &environment, "admin-address")?;
        let mut envoy =
            Envoy { child, admin, listeners: BTreeMap::new(), feeds, arguments, environment, family: None, folder };
        if hot_restart {
            let base_id = fs::read_to_string(base_id)?.trim().to_owned();
            envoy.family = Some(Family { base_id, epoch: 0, parent: None });
        }
        envoy.listeners = envoy.bound_listeners()?;
        for listener in &listeners {
            envoy.address(listener.name())?;
        }
        envoy.wait_until_configured(may_refuse)?;
        Ok(envoy)
    }
}

impl Envoy {
    /// Starts the next process, which takes over the listeners, and waits until it serves. The process before it drains
    /// and ends some seconds later: see [`Envoy::outlive_parent`].
    pub fn hot_restart(&mut self) -> Result<()> {
        self.outlive_parent()?;
        let family = self.family.as_mut().context("this Envoy was not started for hot restarts")?;
        let epoch = family.epoch + 1;
        let number = epoch.to_string();
        let role: [&OsStr; 4] =
            ["--restart-epoch".as_ref(), number.as_ref(), "--base-id".as_ref(), family.base_id.as_ref()];
        let address_file = format!("admin-address-{epoch}");
        let (child, admin) = spawn(self.folder.path(), &self.arguments, &role, &self.environment, &address_file)?;
        family.parent = Some(mem::replace(&mut self.child, child));
        family.epoch = epoch;
        self.admin = admin;
        self.wait_until_configured(false)
    }

    /// The log lines of breakers so far, without Envoy's prefix.
    pub fn transitions(&self) -> Result<Vec<String>> {
        let log = self.log()?;
        let told = log.lines().filter_map(|line| line.rsplit_once("penstock: ")).map(|(_, line)| line.to_owned());
        Ok(told.filter(|line| line.starts_with("rule ") || line.starts_with("canary ")).collect())
    }

    /// Waits until the previous process has ended by itself.
    pub fn outlive_parent(&mut self) -> Result<()> {
        let Some(mut parent) = self.family.as_mut().and_then(|family| family.parent.take()) else { return Ok(()) };
        let started = Instant::now();
        while parent.try_wait()?.is_none() {
            if started.elapsed() > PATIENCE {
                stop(&mut parent);
                bail!("the process before did not end in {PATIENCE:?}");
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// The resident memory of the process (`VmRSS`), in KiB.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// The memory that Envoy's allocator has allocated (`/memory`), in KiB. Excludes the memory of wasm VMs.
    pub fn allocated(&self) -> Result<u64> {
        let page = self.admin.json("/memory")?;
        let bytes = page.get("allocated").and_then(Value::as_str).context("no `allocated` in /memory")?;
        Ok(bytes.parse::<u64>()? / 1024)
    }

    /// The address of a listener.
    pub fn address(&self, listener: &str) -> Result<SocketAddr> {
        self.listeners.get(listener).copied().with_context(|| format!("Envoy has no listener {listener:?}"))
    }

    /// The address of the listener `ingress`.
    pub fn ingress(&self) -> Result<SocketAddr> {
        self.address("ingress")
    }

    /// The admin interface.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that Envoy has logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(log_path(self.folder.path()))?).into_owned())
    }

    /// The folder with its files: `envoy.json` (or `.yaml`), `envoy.log`, `ecds/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the policy of the discovered filter `name`, and waits until every worker uses it or Envoy has refused
    /// it.
    pub fn reload(&mut self, name: &str, policy: impl Into<Configuration>) -> Result<Reload> {
        let filter = self.feed(name)?.filter().clone();
        self.replace(name, filter.with(policy))
    }

    fn feed(&mut self, name: &str) -> Result<&mut Feed> {
        let feed = self.feeds.iter_mut().find(|feed| feed.name() == name);
        feed.with_context(|| format!("no filter {name:?} is discovered"))
    }

    /// Replaces both the module and the policy of the discovered filter `name`.
    pub fn replace(&mut self, name: &str, filter: WasmFilter) -> Result<Reload> {
        let prefix = format!("extension_config_discovery.http_filter.{name}.");
        let admin = self.admin.clone();
        let read = || -> Result<BTreeMap<String, u64>> {
            let stats = admin.stats(&prefix)?;
            Ok(stats.into_iter().map(|(stat, value)| (stat.replacen(&prefix, "", 1), value)).collect())
        };
        let before = read()?;
        let logged = fs::metadata(log_path(self.folder.path()))?.len();
        self.feed(name)?.replace(filter.named(name))?;
        let started = Instant::now();
        loop {
            let now = read()?;
            let moved = |stat: &str| now.get(stat) > before.get(stat);
            if moved("update_rejected") || moved("update_failure") {
                // Reads bytes, because the log may have ended inside a UTF-8 character.
                let log = fs::read(log_path(self.folder.path()))?;
                let new = log.get(usize::try_from(logged)?..).unwrap_or_default();
                return Ok(Reload::Refused(String::from_utf8_lossy(new).into_owned()));
            }
            // `update_success` counts acceptance by the main thread, `config_reload` by the last worker.
            if moved("update_success") && moved("config_reload") {
                return Ok(Reload::Taken);
            }
            ensure!(started.elapsed() < PATIENCE, "Envoy did not look at the new policy in {PATIENCE:?}: {now:?}");
            thread::sleep(TICK);
        }
    }

    /// The same, with an error unless the policy was accepted.
    pub fn must_reload(&mut self, name: &str, policy: impl Into<Configuration>) -> Result<()> {
        match self.reload(name, policy)? {
            Reload::Taken => Ok(()),
            Reload::Refused(log) => bail!("Envoy refused the policy:\n{log}"),
        }
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Returns an error when a VM of this Envoy has trapped, or when Envoy has ended.
    pub fn check_healthy(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("Envoy is gone ({status}); its log:\n{}", self.log()?);
        }
        let log = self.log()?;
        for sign in
            ["panicked", "penstock: bug", "wasm trap", "Function: proxy_on_", "Plugin failed", "Uncaught RuntimeError"]
        {
            ensure!(!log.contains(sign), "Envoy's log has {sign:?}:\n{log}");
        }
        Ok(())
    }

    /// Asks Envoy to end, and waits for that. On drop it is killed, and then it does nothing more, such as writing a
    /// profile.
    pub fn end(mut self) -> Result<()> {
        self.admin.post("/quitquitquit")?;
        wait_until("Envoy has ended", || Ok(!self.is_running()?))
    }

    /// Runs Envoy with `--mode validate`. The error contains its output.
    pub fn validate(config: &Path) -> Result<()> {
        let output = Command::new(workspace::envoy_binary()?)
            .arg("-c")
            .arg(config)
            .args(["--mode", "validate", "--log-level", "warning", "--disable-hot-restart"])
            .stdin(Stdio::null())
            .output()
            .context("cannot start Envoy")?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        Ok(())
    }

    /// Envoy is ready when the main thread is; the workers get discovered filters a moment later.
    fn wait_until_configured(&self, may_refuse: bool) -> Result<()> {
        let started = Instant::now();
        for feed in &self.feeds {
            let stat =
                |what| self.admin.stat(&format!("extension_config_discovery.http_filter.{}.{what}", feed.name()));
            while stat("config_reload")? == 0 && !(may_refuse && stat("update_rejected")? > 0) {
                ensure!(started.elapsed() < PATIENCE, "the workers have no {} in {PATIENCE:?}", feed.name());
                thread::sleep(TICK);
            }
        }
        Ok(())
    }

    fn bound_listeners(&self) -> Result<BTreeMap<String, SocketAddr>> {
        let page = self.admin.json("/listeners?format=json")?;
        let listeners = page.get("listener_statuses").and_then(Value::as_array);
        listeners.into_iter().flatten().map(listener_address).collect()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        stop(&mut self.child);
        if let Some(family) = &mut self.family {
            if let Some(parent) = &mut family.parent {
                stop(parent);
            }
            // Removes the shared memory that Envoy leaves for the next process. Its name contains ten times the base id
            // that was passed.
            let number = family.base_id.parse().unwrap_or(0_u64) * 10;
            let _ = fs::remove_file(format!("/dev/shm/envoy_shared_memory_{number}"));
        }
    }
}

/// Starts a process that logs into the folder, and waits until it serves.
fn spawn(
    folder: &Path,
    arguments: &[OsString],
    role: &[&OsStr],
    environment: &[(OsString, OsString)],
    address_file: &str,
) -> Result<(Child, Admin)> {
    let log = File::options().create(true).append(true).open(log_path(folder))?;
    let admin_file = folder.join(address_file);
    let mut child = Command::new(workspace::envoy_binary()?)
        .args(arguments)
        .arg("--admin-address-path")
        .arg(&admin_file)
        .args(role)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()
        .context("cannot start Envoy")?;
    match wait_until_live(&mut child, &admin_file) {
        Ok(admin) => Ok((child, admin)),
        Err(error) => {
            stop(&mut child);
            let log = fs::read_to_string(log_path(folder)).unwrap_or_default();
            Err(anyhow!("{error}; its log:\n{log}"))
        }
    }
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("envoy.log")
}

fn stop(child: &mut Child) {
    // An error means that the process has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for the file with the admin address, then until `/ready` succeeds.
fn wait_until_live(child: &mut Child, admin_file: &Path) -> Result<Admin> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("Envoy ended ({status}) before it served");
        }
        let address = fs::read_to_string(admin_file).ok().and_then(|text| text.trim().parse::<SocketAddr>().ok());
        if let Some(address) = address {
            let admin = Admin::new(address);
            if admin.get("/ready").is_ok_and(|page| page.contains("LIVE")) {
                return Ok(admin);
            }
        }
        ensure!(started.elapsed() < PATIENCE, "Envoy was not ready in {PATIENCE:?}");
        thread::sleep(TICK);
    }
}

fn listener_address(status: &Value) -> Result<(String, SocketAddr)> {
    let name = status.get("name").and_then(Value::as_str);
    let socket = status.pointer("/local_address/socket_address");
    let field = |name| socket.and_then(|socket: &Value| socket.get(name));
    let address = field("address").and_then(Value::as_str);
    let port = field("port_value").and_then(Value::as_u64);
    match (name, address, port) {
        (Some(name), Some(address), Some(port)) => {
            Ok((name.to_owned(), SocketAddr::new(address.parse()?, u16::try_from(port)?)))
        }
        _ => bail!("Envoy describes a listener in a way that is not understood: {status}"),
    }
}
