//! When a test is killed, no process of its proxies survives.

use std::env;
use std::fs;
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{Process, eventually};

/// This variable is set in the test process that is to be killed.
const VICTIM: &str = "PENSTOCK_VICTIM";

/// The number of processes whose command line contains this text.
fn count(marker: &str) -> Result<usize> {
    let folders = fs::read_dir("/proc")?.map_while(Result::ok);
    let lines = folders.filter_map(|folder| fs::read(folder.path().join("cmdline")).ok());
    Ok(lines.filter(|line| String::from_utf8_lossy(line).split('\0').any(|part| part == marker)).count())
}

/// A program with a child process, like an agent with its Envoy.
fn start(folder: &std::path::Path, marker: &str) -> Result<Process> {
    Process::start_contained("family", folder, "sleep \"$0\" & wait", |command| {
        command.arg(marker);
    })
}

fn appears(marker: &str) -> Result<()> {
    eventually("a child", || {
        let count = count(marker)?;
        // The child, the shell and `unshare`.
        ensure!(count > 2, "{count} processes");
        Ok(())
    })
}

fn is_gone(marker: &str) -> Result<()> {
    eventually("the end of the child", || {
        let count = count(marker)?;
        ensure!(count == 0, "{count} processes");
        Ok(())
    })
}

#[test]
#[ignore = "needs namespaces; `make e2e` runs it"]
fn the_children_of_a_program_end_with_a_test_that_panics() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let marker = format!("7{}", std::process::id());
    let (place, name) = (folder.path().to_path_buf(), marker.clone());
    let test = thread::spawn(move || {
        let _family = start(&place, &name);
        let seen = appears(&name);
        // Unwinds as a failed assertion does.
        std::panic::resume_unwind(Box::new(seen.is_ok()));
    });
    let panicked: Result<(), _> = test.join();
    let seen = panicked.err().and_then(|seen| seen.downcast::<bool>().ok()).context("it did not panic")?;
    ensure!(*seen, "there was no child");
    is_gone(&marker)
}

#[test]
#[ignore = "needs namespaces; `make e2e` runs it"]
fn the_children_of_a_program_end_with_a_test_that_is_killed() -> Result<()> {
    let marker = format!("8{}", std::process::id());
    let mut test: Child = Command::new(env::current_exe()?)
        .args(["--ignored", "--exact", "processes::victim"])
        .env(VICTIM, &marker)
        .spawn()?;
    let seen = appears(&marker);
    test.kill()?;
    test.wait()?;
    seen?;
    is_gone(&marker)
}

#[test]
#[ignore = "the test above starts it"]
fn victim() -> Result<()> {
    let Ok(marker) = env::var(VICTIM) else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut family = start(folder.path(), &marker)?;
    family.wait_for("the end", || -> Result<()> { Err(anyhow::anyhow!("waits to be killed")) })
}
