//! Runs the binary as a user would.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// The folder of the policies and requests that the tests use.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies")
}

/// Runs `penstock` in `folder`, without a terminal.
pub fn penstock_in(folder: &Path, arguments: &[&str], input: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(arguments).current_dir(folder).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // In a thread: the command may write before it has read everything. One that does not read its input closes it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Run {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `penstock` among the tests' policies.
pub fn penstock(arguments: &[&str], input: &str) -> Run {
    penstock_in(&folder(), arguments, input)
}

/// The documents of `policies/invalid.yaml` with their names.
pub fn invalid_documents() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("invalid.yaml")).unwrap();
    let documents = text.split("--- # ").skip(1).map(|document| {
        let (name, text) = document.split_once('\n').unwrap();
        (name.to_owned(), text.to_owned())
    });
    documents.collect()
}

/// Runs a command to its end. Returns its output, and its CPU time, because other work of the machine makes the time by the clock
/// longer; where there is no `/proc`, the time by the clock.
pub fn timed(command: &mut Command) -> (Output, Duration) {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut errors = child.stderr.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| errors.read_to_end(&mut stderr).unwrap());
        child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    });
    // It has closed its output, but its entry in `/proc` stays until it is waited for.
    let took = cpu_time(child.id()).unwrap_or_else(|| start.elapsed());
    (Output { status: child.wait().unwrap(), stdout, stderr }, took)
}

/// The CPU time that a process has used, where `/proc` has it.
pub fn cpu_time(process: u32) -> Option<Duration> {
    /// Ticks a second: 100 on every architecture.
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // User and system time are the 14th and 15th field; the second is the name in parentheses.
    let ticks = text.rsplit(") ").next()?.split(' ').skip(11).take(2);
    Some(TICK * ticks.map(|count| count.parse::<u32>().unwrap()).sum::<u32>())
}

/// Asserts that four times as much takes about four times as long. `times` are those of the small and of the large input.
/// Other work of the machine makes them longer, so they are measured `again` a few times.
#[track_caller]
pub fn assert_linear(what: &str, mut times: [Duration; 2], again: impl Fn() -> [Duration; 2]) {
    let is_linear = |[small, large]: [Duration; 2]| large < small * 9 + Duration::from_millis(500);
    for _ in 0..4 {
        if is_linear(times) {
            return;
        }
        let more = again();
        times = [times[0].min(more[0]), times[1].min(more[1])];
    }
    assert!(is_linear(times), "{what}: {:?}, four times as large {:?}", times[0], times[1]);
}
