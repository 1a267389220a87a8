//! The machine-readable reports of `penstock check`.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::report::CheckResult;
use crate::diagnostics::Finding;

/// Workflow commands of GitHub Actions: one line each, shown as an annotation at a line of a pull request.
pub fn github(report: &CheckResult) -> String {
    let mut text = String::new();
    for (level, finding) in findings(report) {
        let (end_line, end_column) = end(report, &finding);
        let level = if level == "note" { "notice" } else { level };
        let mut message = title(&finding);
        if let Some(help) = &finding.help {
            message = format!("{message}\n{help}");
        }
        text += &format!(
            "::{level} file={},line={},col={},endLine={end_line},endColumn={end_column},title={}::{}\n",
            property(&report.file),
            finding.line,
            finding.column,
            property("penstock check"),
            data(&message),
        );
    }
    text
}

/// Escapes characters that have a meaning in a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// SARIF 2.1.0 (OASIS): one run with the results of all policies.
pub fn sarif(reports: &[CheckResult]) -> Value {
    let results: Vec<Value> = reports
        .iter()
        .flat_map(|report| findings(report).map(move |(level, finding)| result(report, level, &finding)))
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "penstock",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": [
                    {
                        "id": "invalid-policy",
                        "shortDescription": {"text": "The policy is not valid: a proxy would refuse it."},
                        "defaultConfiguration": {"level": "error"},
                    },
                    {
                        "id": "doubtful-policy",
                        "shortDescription": {"text": "The policy is valid, but probably does not do what was intended."},
                        "defaultConfiguration": {"level": "warning"},
                    },
                ],
            }},
            // Columns count characters, not UTF-16 units.
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(report: &CheckResult, level: &str, finding: &Finding) -> Value {
    let (end_line, end_column) = end(report, finding);
    let mut text = title(finding);
    if let Some(help) = &finding.help {
        text = format!("{text}. {help}");
    }
    let mut location = json!({
        "physicalLocation": {
            "artifactLocation": {"uri": uri(&report.file)},
            "region": {
                "startLine": finding.line,
                "startColumn": finding.column,
                "endLine": end_line,
                "endColumn": end_column,
            },
        },
    });
    if !finding.path.is_empty()
        && let Value::Object(location) = &mut location
    {
        let named = json!([{"fullyQualifiedName": finding.path}]);
        location.insert("logicalLocations".to_owned(), named);
    }
    let rule = if level == "error" { (0, "invalid-policy") } else { (1, "doubtful-policy") };
    json!({"ruleId": rule.1, "ruleIndex": rule.0, "level": level, "message": {"text": text}, "locations": [location]})
}

/// A relative URI reference.
fn uri(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn findings(report: &CheckResult) -> impl Iterator<Item = (&'static str, Cow<'_, Finding>)> {
    let errors = report.errors.with_rest("error").map(|finding| ("error", finding));
    let warnings = report.warnings.with_rest("warning").map(|finding| ("warning", finding));
    errors.chain(warnings).chain(report.notes.iter().map(|finding| ("note", Cow::Borrowed(finding))))
}

/// The problem in one line.
fn title(finding: &Finding) -> String {
    let parts = [Some(&finding.path), finding.value.as_ref(), Some(&finding.message)];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

/// The line and column of the problem, or of the document's start.
fn end(report: &CheckResult, finding: &Finding) -> (usize, usize) {
    let shown = report.text.get(finding.span.clone()).unwrap_or_default();
    (finding.line, finding.column + shown.lines().next().unwrap_or_default().chars().count())
}
