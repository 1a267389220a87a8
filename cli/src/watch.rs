//! `--watch`: run again whenever a file changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::ensure;

use crate::output::Output;
use crate::policy_file::Invalid;
use crate::{inputs, source};

/// Seconds between two polls of the files.
const INTERVAL: Duration = Duration::from_millis(300);

/// Runs `command` now and after each change below `paths`, until it is interrupted or its output is closed.
///
/// # Errors
/// Returns an error when there is no file or folder, or the output cannot be written.
pub fn run(
    paths: &[PathBuf],
    out: &mut Output<'_>,
    mut command: impl FnMut(&mut Output<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    use std::io::Write;
    let stdin = Path::new(source::STDIN);
    ensure!(
        !paths.is_empty() && paths.iter().all(|path| path != stdin),
        "--watch is for files and folders: standard input, a cluster and a running Envoy are read once"
    );
    loop {
        let before = stamps(paths);
        if let Err(error) = command(out) {
            match error.downcast_ref::<Invalid>() {
                Some(report) => anstream::eprintln!("{report}"),
                None => anstream::eprintln!("penstock: {error:#}"),
            }
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

/// The modification time of each file.
fn stamps(paths: &[PathBuf]) -> BTreeMap<PathBuf, Option<SystemTime>> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => inputs::below(path, &mut files),
            // A glob may match new files.
            false => files.extend(inputs::matching(path).unwrap_or_default()),
        }
    }
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    files.into_iter().map(|path| (path.clone(), modified(&path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_of_a_folder_or_glob_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), "a").unwrap();
        write("a.yaml");
        let paths = [folder.path().join("*.yaml"), folder.path().join("b.json")];
        let before = stamps(&paths);
        assert_eq!(before.len(), 2, "{before:?}");
        write("c.yaml");
        let more = stamps(&paths);
        assert!(more != before && stamps(&[folder.path().to_owned()]).len() == 2);
        write("b.json");
        assert_ne!(stamps(&paths), more);
    }
}
