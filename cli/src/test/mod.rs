//! `penstock test`: unit tests of a policy.

mod file;
mod judge;
mod report;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::diagnostics::Finding;
use crate::output::Output;
use crate::policy_file::Invalid;
use crate::{replay, source};
use file::TestFile;
use judge::Judge;
use report::Summary;

/// Run a policy's unit tests: requests and the decisions that they must get.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock test policy.test.yaml\n  penstock test --filter canary --junit report.xml tests/*.yaml\n\n\
    A test file:\n  policy: policy.yaml\n  tests:\n  - name: beta users go to beta\n    \
    request: {method: GET, authority: shop.example.com, path: /, headers: [[x-user-group, beta]]}\n    expect: {route: beta}"
)]
pub struct Args {
    /// Test files, YAML, or the contract's cases as JSON lines (.jsonl); `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Only tests whose name has this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Also writes JUnit's XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// JUnit's XML.
    Junit,
    /// One JSON object.
    Json,
}

impl Args {
    /// Runs the tests. `false`: some failed.
    ///
    /// # Errors
    /// When a file cannot be read or is no test file.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let mut judge = Judge::default();
        let now = replay::now();
        let mut summary = Summary { passed: 0, failed: 0, filtered_out: 0, tests: Vec::new() };
        for path in &self.files {
            let file = read(path)?;
            for test in &file.tests {
                if self.filter.as_ref().is_some_and(|text| !test.name.contains(text)) {
                    summary.filtered_out += 1;
                    continue;
                }
                let outcome = judge.run(path, test, now)?;
                *(if outcome.passed { &mut summary.passed } else { &mut summary.failed }) += 1;
                summary.tests.push(outcome);
            }
        }
        if let Some(path) = &self.junit {
            let place = || format!("cannot write {}", path.display());
            let mut file = BufWriter::new(File::create(path).with_context(place)?);
            summary.junit(&mut file).and_then(|()| file.flush()).with_context(place)?;
        }
        match self.format {
            Format::Human => out.human(&summary.human())?,
            Format::Junit => summary.junit(out)?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?,
        }
        Ok(summary.failed == 0)
    }
}

fn read(path: &Path) -> anyhow::Result<TestFile> {
    let text = source::read_text(path)?;
    let text = text.trim_start_matches('\u{feff}');
    let by_name = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    // Flow-style YAML begins with a brace too, but its first line is no whole JSON object with a request.
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let is_case = |value: serde_json::Value| value.get("tests").is_none() && value.is_object();
    let file = match by_name || serde_json::from_str(first).is_ok_and(is_case) {
        true => TestFile::read_lines(text),
        false => TestFile::read_yaml(text),
    };
    match file {
        Ok(file) if file.tests.is_empty() => Err(anyhow!("{} has no tests", source::display(path))),
        Ok(file) => Ok(file),
        Err(findings) => Err(unreadable(path, text, &findings)),
    }
}

/// A file that is no test file: exit status 2, with the same report as for a policy.
fn unreadable(path: &Path, text: &str, findings: &[Finding]) -> anyhow::Error {
    anyhow!("not a test file\n{}", Invalid::new(&source::display(path), text, findings))
}
