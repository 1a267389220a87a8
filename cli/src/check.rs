//! `penstock check`: everything that is wrong with a policy, where it stands, and what would be right.

use std::io::Write;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use penstock_policy::{Module, Problem};
use serde::Serialize;

use crate::yaml::{Located, NotYaml};
use crate::{lint, replay, source};

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: the line, a caret, the remedy.
    Human,
    /// One JSON object a policy and line.
    Json,
}

/// One policy's result.
#[derive(Debug, Serialize)]
struct Report {
    policy: String,
    valid: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    #[serde(skip)]
    text: String,
}

/// One problem with its place in the file.
#[derive(Debug, Serialize)]
struct Finding {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    #[serde(skip)]
    span: std::ops::Range<usize>,
}

/// Checks every policy for `module` and reports to `out`. `false`: at least one is invalid.
///
/// # Errors
/// When a file cannot be read or `out` not be written.
pub fn run(
    policies: &[PathBuf],
    module: Module,
    format: Format,
    color: bool,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let mut all_valid = true;
    for path in policies {
        let report = check(path, module)?;
        all_valid &= report.valid;
        match format {
            Format::Json => writeln!(out, "{}", serde_json::to_string(&report)?)?,
            Format::Human => write_human(&report, color, out)?,
        }
    }
    Ok(all_valid)
}

fn check(path: &Path, module: Module) -> anyhow::Result<Report> {
    let text = source::read_text(path)?;
    let (errors, warnings) = match Located::read(&text) {
        Err(error) => (vec![syntax(&error, &text)], Vec::new()),
        Ok(located) => {
            let findings = |problems: &[Problem]| problems.iter().map(|p| locate(p, &located, &text)).collect();
            match penstock_policy::check(&located.node, module) {
                Err(problems) => (findings(problems.as_slice()), Vec::new()),
                Ok(mut warnings) => {
                    warnings.extend(lint::egress(&located.node, replay::now()));
                    (Vec::new(), findings(&warnings))
                }
            }
        }
    };
    Ok(Report { policy: source::display(path), valid: errors.is_empty(), errors, warnings, text })
}

fn syntax(error: &NotYaml, text: &str) -> Finding {
    let (line, column) = position(text, error.at);
    let end = text.get(error.at..).and_then(|rest| rest.chars().next()).map_or(error.at, |c| error.at + c.len_utf8());
    Finding {
        path: String::new(),
        value: None,
        message: format!("not YAML: {}", error.message),
        help: None,
        line,
        column,
        span: error.at..end,
    }
}

fn locate(problem: &Problem, located: &Located, text: &str) -> Finding {
    let span = located.span(&problem.path, problem.value.is_none());
    let (line, column) = position(text, span.start);
    Finding {
        path: problem.path.clone(),
        value: problem.value.clone(),
        message: problem.message.clone(),
        help: problem.help.clone(),
        line,
        column,
        span,
    }
}

/// Line and column of a byte offset, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before.get(line_start..).unwrap_or_default().chars().count() + 1)
}

fn write_human(report: &Report, color: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    for (level, finding) in findings(report) {
        let group = group(level, finding, report);
        writeln!(out, "{}\n", renderer.render(&[group]))?;
    }
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (report.errors.len(), report.warnings.len()) {
        (0, 0) => writeln!(out, "{}: valid", report.policy)?,
        (0, warnings) => writeln!(out, "{}: valid, {}", report.policy, count(warnings, "warning"))?,
        (errors, _) => writeln!(out, "{}: invalid, {}", report.policy, count(errors, "error"))?,
    }
    Ok(())
}

fn findings(report: &Report) -> impl Iterator<Item = (Level<'static>, &Finding)> {
    let errors = report.errors.iter().map(|finding| (Level::ERROR, finding));
    errors.chain(report.warnings.iter().map(|finding| (Level::WARNING, finding)))
}

fn group<'a>(level: Level<'a>, finding: &'a Finding, report: &'a Report) -> Group<'a> {
    let mut title = String::new();
    for part in [Some(&finding.path), finding.value.as_ref()].into_iter().flatten().filter(|part| !part.is_empty()) {
        title.push_str(part);
        title.push_str(": ");
    }
    title.push_str(&finding.message);
    // A place of several lines is shown by its first.
    let first_line = report.text.get(finding.span.clone()).unwrap_or_default().lines().next().unwrap_or_default().len();
    let span = finding.span.start..finding.span.start + first_line;
    let snippet = Snippet::source(report.text.as_str())
        .path(report.policy.as_str())
        .annotation(AnnotationKind::Primary.span(span));
    let group = level.primary_title(title).element(snippet);
    match &finding.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(yaml: &str) -> Report {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let mut report = check(file.path(), Module::Suite).unwrap();
        report.policy = "policy.yaml".into();
        report
    }

    fn human(yaml: &str) -> String {
        let mut out = Vec::new();
        write_human(&report(yaml), false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_typo_is_shown_in_its_line_with_the_right_word() {
        let text = human("routes:\n  rules:\n  - name: beta\n    route: beta\n    matchs: []\n");
        for part in
            ["policy.yaml:5:5", "matchs: []", "^^^^^^", "did you mean `matches`?", "policy.yaml: invalid, 1 error"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_value_is_shown_with_the_form_that_would_be_right() {
        let text = human("routes:\n  rules:\n  - {name: beta, route: beta, timeout: 2x}\n");
        assert!(text.contains("policy.yaml:3:40") && text.contains("250ms"), "{text}");
    }

    #[test]
    fn the_json_report_has_every_error_with_its_place() {
        let report = report("routes:\n  default: a b\n  rule: []\n");
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["valid"], false);
        assert_eq!(json["errors"].as_array().unwrap().len(), 2);
        assert_eq!((&json["errors"][0]["line"], &json["errors"][0]["column"]), (&3.into(), &3.into()));
        assert_eq!(json["errors"][1]["path"], "routes.default");
    }

    #[test]
    fn an_unreachable_rule_is_a_warning() {
        let text = human("routes:\n  rules:\n  - {name: all, route: a}\n  - {name: beta, route: b}\n");
        assert!(text.contains("warning: routes.rules[1]") && text.contains("valid, 1 warning"), "{text}");
    }

    #[test]
    fn broken_yaml_is_invalid_and_not_a_crash() {
        assert!(human("a: [1,\nb: }").contains("not YAML"));
        assert!(human("").contains("is null"));
        assert!(human("routes: {").contains("not YAML"));
    }
}
