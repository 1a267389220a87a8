//! `--watch`: run again whenever a file changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use crate::inputs;
use crate::output::Output;

/// Seconds between two polls of the files.
const INTERVAL: Duration = Duration::from_millis(300);

/// Runs `command` now and after each change below `paths`, until it is interrupted or nobody reads its output.
///
/// # Errors
/// When the output cannot be written.
pub fn run(
    paths: &[PathBuf],
    out: &mut Output<'_>,
    mut command: impl FnMut(&mut Output<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    use std::io::Write;
    loop {
        let before = stamps(paths);
        if let Err(error) = command(out) {
            anstream::eprintln!("penstock: {error:#}");
        }
        writeln!(out, "\nwatching {} for changes; Ctrl-C stops", named(paths))?;
        out.flush()?;
        while stamps(paths) == before {
            if out.reader_is_gone() {
                return Ok(true);
            }
            sleep(INTERVAL);
        }
        out.human("\u{1b}[2J\u{1b}[H")?;
    }
}

fn named(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// When each file was last written.
fn stamps(paths: &[PathBuf]) -> BTreeMap<PathBuf, Option<SystemTime>> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => inputs::below(path, &mut files),
            false => files.push(path.clone()),
        }
    }
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    files.into_iter().map(|path| (path.clone(), modified(&path))).collect()
}
