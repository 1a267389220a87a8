//! A child process whose output is logged to a file.

use std::env;
use std::fmt::Display;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::workspace;

/// The polling interval.
const TICK: Duration = Duration::from_millis(50);
/// The longest time to wait for anything: a machine that also compiles is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running program. Dropping it kills it. On Linux, the end of the thread that started it kills it, too.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program from `.tools/bin`, with its log in `folder`.
    pub fn start(tool: &str, folder: &Path, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        Self::start_binary(tool, &self::tool(tool)?, folder, prepare)
    }

    /// Starts a program under the given name.
    pub fn start_binary(name: &str, binary: &Path, folder: &Path, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        // A program that opens /dev/stdout writes at its own file offset. In append mode, its output and that of others
        // do not overwrite each other.
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        // A test that is killed cannot stop its children; the kernel can.
        let mut command = match on_path("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        prepare(&mut command);
        command.current_dir(folder).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// Runs a script of `sh` in its own mount and process namespaces. It sees other files where it has mounted them,
    /// and every process that it starts ends with it. Does not need root.
    pub fn start_contained(
        name: &str,
        folder: &Path,
        script: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        Self::start_binary(name, Path::new("unshare"), folder, |command| {
            command.args(["--mount", "--map-root-user", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
            command.args(["sh", "-c", script]);
            prepare(command);
        })
    }

    /// Everything that it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The lines of its output that are JSON, for example an access log on `/dev/stdout`.
    pub fn access_log(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` returns a value. Returns an error with the log when this takes too long or the process ends.
    pub fn wait_for<T>(&mut self, what: &str, mut ready: impl FnMut() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            // First, because the process may do its work and end after `ready` has looked.
            let ended = self.child.try_wait()?;
            let error = match ready() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if let Some(status) = ended {
                bail!("{} ended ({status}) before {what}; its log:\n{}", self.name, self.last_words());
            }
            if started.elapsed() > PATIENCE {
                bail!("{}: no {what} in {PATIENCE:?}: {error:#}; its log:\n{}", self.name, self.last_words());
            }
            thread::sleep(TICK);
        }
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&mut self, text: &str) -> Result<()> {
        let log = self.log.clone();
        self.wait_for(&format!("{text:?}"), || {
            let found = fs::read(&log).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text));
            found.then_some(()).context("not in the log")
        })
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let skip = log.lines().count().saturating_sub(40);
        log.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Folders with `bin` and `crds` of other versions than the default ones, separated as in `PATH`. The first folder that
/// has a file is used.
const VERSIONS: &str = "PENSTOCK_CONTROL_PLANES";

/// Finds a program that `make control-planes` or `make setup` installs into `.tools/bin`.
pub fn tool(name: &str) -> Result<PathBuf> {
    file_of_tools(&format!("bin/{name}"))
}

/// Finds a file below `.tools`, or in the folder of another version.
pub(super) fn file_of_tools(name: &str) -> Result<PathBuf> {
    let versions = env::var_os(VERSIONS).unwrap_or_default();
    let path = env::split_paths(&versions)
        .map(|folder| workspace::root().join(folder).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| workspace::root().join(".tools").join(name));
    ensure!(path.is_file(), "there is no {}: run `make control-planes` first", path.display());
    Ok(path)
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A port on which nothing listens, for programs that cannot choose one themselves. Each call returns a different port.
/// The range is below that of outgoing connections: otherwise, with so many processes, an outgoing connection would
/// soon use one of these ports. Until this process ends, no other process of these tests gets the same port.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // The kernel releases a lock when the process ends.
    static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let user = env::var("USER").unwrap_or_default();
    let reservations = env::temp_dir().join(format!("penstock-ports-{user}"));
    fs::create_dir_all(&reservations)?;
    // Tests in different processes start at different offsets.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(call) % COUNT)?;
        let reservation = File::create(reservations.join(port.to_string()))?;
        if reservation.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
            return Ok(port);
        }
    }
    bail!("no port from {FIRST} to {} is free", FIRST + COUNT)
}

/// Waits until a condition is true. Otherwise returns an error that says `what` was expected.
pub fn eventually<T>(what: impl Display, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    within(PATIENCE, what, attempt)
}

/// The same with the given timeout.
pub fn within<T>(patience: Duration, what: impl Display, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > patience => {
                return Err(error.context(format!("{what}: not in {patience:?}")));
            }
            Err(_) => thread::sleep(TICK),
        }
    }
}
