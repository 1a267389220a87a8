//! `penstock test`: unit tests of a policy.

mod file;
mod judge;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, ensure};

use crate::diagnostics::Findings;
use crate::manifests::has_section;
use crate::numbers::whole;
use crate::output::Output;
use crate::output::style::BAD;
use crate::policy_file::Invalid;
use crate::text::SourceText;
use crate::yaml::Located;
use crate::{coverage, inputs, replay, source, watch};
use file::TestFile;
use judge::TestJudge;
use report::TestSummary;

/// Run the tests of a policy: requests and their expected decisions.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock test policy.test.yaml\n  penstock test --filter canary --junit report.xml tests/*.yaml\n\n\
    A test file:\n  policy: policy.yaml\n  tests:\n  - name: beta users go to beta\n    \
    request: {method: GET, authority: shop.example.com, path: /, headers: [[x-user-group, beta]]}\n    expect: {route: beta}"
)]
pub struct Args {
    /// Test files in YAML, or test cases as JSON lines (.jsonl); folders or globs; `-` is standard input [default:
    /// every *.test.yaml in this folder and below].
    files: Vec<PathBuf>,
    /// Only run tests whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The format of the report.
    #[arg(long, short, visible_alias = "format", value_enum, default_value = "human")]
    output: TestFormat,
    /// Run again when a test file or a file in this folder changes.
    #[arg(long)]
    watch: bool,
    /// Report which rules, conditions, limits, variants, overrides and deny entries no test uses.
    #[arg(long)]
    coverage: bool,
    /// Exit with status 1 if the coverage is below this percentage.
    #[arg(long, value_name = "PERCENT", requires = "coverage", allow_negative_numbers = true, value_parser = whole::<u8>(0, 100))]
    min: Option<u8>,
    /// Also write JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TestFormat {
    /// Text.
    Human,
    /// JUnit XML.
    Junit,
    /// One JSON object.
    Json,
    /// LCOV, for tools that show coverage line by line; needs --coverage.
    Lcov,
}

impl Args {
    /// Runs the tests. Returns `false` when some failed.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read or is not a test file.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        match self.watch {
            true => {
                let here = PathBuf::from(".");
                let watched: Vec<PathBuf> = std::iter::once(&here).chain(&self.files).cloned().collect();
                watch::run(&watched, out, |out| self.once(out))
            }
            false => self.once(out),
        }
    }

    /// The test files to run.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let here = [PathBuf::from(".")];
        let given = if self.files.is_empty() { &here[..] } else { &self.files };
        let mut files = Vec::new();
        for path in given {
            match path.is_dir() {
                true => {
                    let found = inputs::tests(path);
                    ensure!(
                        !found.is_empty(),
                        "no *.test.yaml below {}: `penstock init` writes one",
                        if path == Path::new(".") { "this folder".to_owned() } else { path.display().to_string() }
                    );
                    files.extend(found);
                }
                false => files.extend(inputs::matching(path)?),
            }
        }
        Ok(files)
    }

    fn once(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        ensure!(self.coverage || self.output != TestFormat::Lcov, "--format lcov needs --coverage");
        let mut judge = TestJudge::new(self.coverage);
        let now = replay::now();
        let mut summary = TestSummary { passed: 0, failed: 0, filtered_out: 0, tests: Vec::new() };
        for path in &self.files()? {
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
            let mut text = Vec::new();
            summary.junit(&mut text)?;
            source::write(path, text)?;
        }
        let coverage = self.coverage.then(|| judge.coverage());
        let is_enough = match (&coverage, self.min) {
            (Some(files), Some(min)) => min == 0 || (!files.is_empty() && coverage::total(files) >= f64::from(min)),
            _ => true,
        };
        match (self.output, &coverage) {
            (TestFormat::Human, coverage) => {
                out.human(&summary.human())?;
                if let Some(files) = coverage {
                    out.human(&coverage::human(files, "no test decides by"))?;
                    let said = if files.is_empty() { "\nno valid policy was tested\n" } else { "" };
                    out.human(said)?;
                }
                if let Some(min) = self.min.filter(|_| !is_enough) {
                    out.human(&format!("\n{BAD}coverage is below {min} %{BAD:#}\n"))?;
                }
            }
            (TestFormat::Junit, _) => summary.junit(out)?,
            (TestFormat::Json, coverage) => {
                let mut report = serde_json::to_value(&summary)?;
                if let (Some(files), serde_json::Value::Object(report)) = (coverage, &mut report) {
                    report.insert("coverage".to_owned(), coverage::json(files));
                }
                writeln!(out, "{report:#}")?;
            }
            (TestFormat::Lcov, coverage) => {
                out.write_all(coverage::lcov(coverage.as_deref().unwrap_or_default()).as_bytes())?;
            }
        }
        Ok(summary.failed == 0 && is_enough)
    }
}

fn read(path: &Path) -> anyhow::Result<TestFile> {
    let text = source::read_text(path)?;
    let text = SourceText::new(text.trim_start_matches('\u{feff}'));
    let by_name = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    // Flow-style YAML starts with a brace, too, but its first line is not a complete JSON object with a request.
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let is_case = |value: serde_json::Value| value.get("tests").is_none() && value.is_object();
    let file = match by_name || serde_json::from_str(first).is_ok_and(is_case) {
        true => TestFile::read_lines(&text),
        false => TestFile::read_yaml(&text),
    };
    match file {
        Ok(file) if file.tests.is_empty() => Err(anyhow!("{} has no tests", source::display(path))),
        Ok(file) => Ok(file),
        Err(findings) => Err(unreadable(path, &text, &findings)),
    }
}

/// A file that is not a test file gives exit status 2, with the same report as for a policy.
fn unreadable(path: &Path, text: &SourceText, findings: &Findings) -> anyhow::Error {
    let name = source::display(path);
    if Located::read(text).is_ok_and(|located| located.node.get("tests").is_none() && has_section(&located.node)) {
        return anyhow!(
            "{name} is a policy, not a test file: a test file names it as `policy: {name}` and has `tests`"
        );
    }
    anyhow!("{name} is not a valid test file\n{}", Invalid::new(&name, text, findings))
}
