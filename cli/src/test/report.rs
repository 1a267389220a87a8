//! The report on a test run: human-readable, JSON, and JUnit XML.

use std::fmt::Write as _;
use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use serde::Serialize;
use serde_json::Value;

use super::judge::{Difference, TestOutcome};
use crate::output::style::{BAD, DIM, GOOD, HEAD, NAME};
use crate::words;

/// A whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestSummary {
    /// The number of tests that passed.
    pub passed: usize,
    /// The number of tests that failed.
    pub failed: usize,
    /// The number of tests that `--filter` left out.
    pub filtered_out: usize,
    /// The tests that ran, in order.
    pub tests: Vec<TestOutcome>,
}

impl TestSummary {
    /// The human-readable report with styles: a line a test, then the failures, then the totals.
    pub fn human(&self) -> String {
        let mut out = String::new();
        let mut file = "";
        for test in &self.tests {
            if test.file != file {
                file = &test.file;
                let _ = writeln!(out, "{HEAD}{file}{HEAD:#}");
            }
            let _ = match test.passed {
                true => writeln!(out, "  {GOOD}✓{GOOD:#} {}", test.name),
                false => writeln!(out, "  {BAD}✗ {}{BAD:#}", test.name),
            };
        }
        for test in self.tests.iter().filter(|test| !test.passed) {
            let _ = writeln!(out, "\n{BAD}✗ {}{BAD:#} {DIM}{}:{}{DIM:#}", test.name, test.file, test.line);
            out += &failure(test);
        }
        let failed = if self.failed == 0 { GOOD } else { BAD };
        let _ = write!(out, "\n{failed}{} passed, {} failed{failed:#}", self.passed, self.failed);
        if self.filtered_out > 0 {
            let _ = write!(out, ", {} filtered out", self.filtered_out);
        }
        out.push('\n');
        out
    }

    /// JUnit XML, which CI servers read.
    ///
    /// # Errors
    /// Returns an error when it cannot be written.
    pub fn junit(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut xml = Writer::new_with_indent(out, b' ', 2);
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let (tests, failed) = (self.tests.len().to_string(), self.failed.to_string());
        let seconds =
            |tests: &[&TestOutcome]| format!("{:.6}", tests.iter().map(|test| test.took.as_secs_f64()).sum::<f64>());
        let all: Vec<&TestOutcome> = self.tests.iter().collect();
        let whole = [("name", "penstock test"), ("tests", &*tests), ("failures", &*failed), ("time", &*seconds(&all))];
        xml.create_element("testsuites").with_attributes(whole).write_inner_content(|xml| {
            for suite in all.chunk_by(|a, b| a.file == b.file) {
                let failed = suite.iter().filter(|test| !test.passed).count().to_string();
                let (tests, time) = (suite.len().to_string(), seconds(suite));
                let file = suite.first().map_or("", |test| &test.file);
                let attributes = [("name", file), ("tests", &*tests), ("failures", &*failed), ("time", &*time)];
                xml.create_element("testsuite")
                    .with_attributes(attributes)
                    .write_inner_content(|xml| suite.iter().try_for_each(|test| test_case(test, xml)))?;
            }
            Ok(())
        })?;
        xml.get_mut().write_all(b"\n")
    }
}

fn test_case(test: &TestOutcome, xml: &mut Writer<&mut dyn io::Write>) -> io::Result<()> {
    let time = format!("{:.6}", test.took.as_secs_f64());
    let line = test.line.to_string();
    let attributes =
        [("name", &*test.name), ("classname", &*test.file), ("file", &*test.file), ("line", &*line), ("time", &*time)];
    let case = xml
        .create_element("testcase")
        .with_attributes(attributes.map(|(name, value)| (name, legal(value))).iter().map(|(n, v)| (*n, &**v)));
    if test.passed {
        return case.write_empty().map(|_| ());
    }
    let message = match test.differences.first() {
        Some(difference) => {
            format!("{} is {}, expected {}", difference.key, shown(&difference.actual), shown(&difference.expected))
        }
        None => "the policy is invalid".to_owned(),
    };
    case.write_inner_content(|xml| {
        let element = xml.create_element("failure").with_attribute(("message", &*legal(&message)));
        let details = anstream::adapter::strip_str(&failure(test)).to_string();
        element.write_text_content(BytesText::new(&legal(&details))).map(|_| ())
    })?;
    Ok(())
}

/// XML 1.0 forbids control characters, even escaped.
fn legal(text: &str) -> String {
    text.replace(
        |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{fffe}' | '\u{ffff}'),
        "\u{fffd}",
    )
}

/// The differences, with styles.
fn failure(test: &TestOutcome) -> String {
    let mut out = String::new();
    if let Some(error) = &test.error {
        for line in error.lines() {
            let _ = writeln!(out, "  {line}");
        }
        return out;
    }
    if let Some(request) = &test.request {
        let _ = write!(out, "  {request}");
        if let Some((step, time)) = test.step {
            let _ = write!(out, " {DIM}(step {step}, request {time} of it){DIM:#}");
        }
        out.push('\n');
    }
    for Difference { key, expected, actual, line, column } in &test.differences {
        let _ = writeln!(out, "  {NAME}{key}{NAME:#} {DIM}{}:{line}:{column}{DIM:#}", test.file);
        let _ = writeln!(out, "    {BAD}- expected {}{BAD:#}", shown(expected));
        let _ = writeln!(out, "    {GOOD}+ actual   {}{GOOD:#}", shown(actual));
    }
    out
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        value => words::shortened(&value.to_string(), 300),
    }
}
