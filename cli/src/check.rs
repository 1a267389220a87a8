//! `penstock check`: everything that is wrong with a policy, where it stands, and what would be right.

use std::io::Write;
use std::path::{Path, PathBuf};

use annotate_snippets::Level;
use penstock_policy::{Module, Problem};
use serde::Serialize;

use crate::diagnostics::Finding;
use crate::output::{Output, count};
use crate::yaml::Located;
use crate::{lint, replay, source};

/// Say everything that is wrong with a policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock check policy.yaml\n  penstock check --format json a.yaml b.yaml\n  \
    penstock check --module header-routing - < policy.yaml")]
pub struct Args {
    /// Policy files, YAML or JSON; `-` is standard input.
    #[arg(required = true)]
    policies: Vec<PathBuf>,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// The module that will run the policy; it refuses sections of others.
    #[arg(long, value_parser = module, default_value = "suite")]
    module: Module,
}

fn module(name: &str) -> Result<Module, String> {
    let names: Vec<&str> = Module::ALL.iter().map(|module| module.name()).collect();
    let found = Module::ALL.into_iter().find(|module| module.name() == name);
    found.ok_or_else(|| format!("the modules are {}", names.join(", ")))
}

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
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

impl Args {
    /// Checks every policy and reports to `out`. `false`: at least one is invalid.
    ///
    /// # Errors
    /// When a file cannot be read or `out` not be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let mut all_valid = true;
        for path in &self.policies {
            let report = check(path, self.module)?;
            all_valid &= report.valid;
            match self.format {
                Format::Json => writeln!(out, "{}", serde_json::to_string(&report)?)?,
                Format::Human => out.human(&human(&report))?,
            }
        }
        Ok(all_valid)
    }
}

fn check(path: &Path, module: Module) -> anyhow::Result<Report> {
    let text = source::read_text(path)?;
    let (errors, warnings) = match Located::read(&text) {
        Err(error) => (vec![Finding::syntax(&error, &text)], Vec::new()),
        Ok(located) => {
            let findings = |problems: &[Problem]| problems.iter().map(|p| Finding::of(p, &located, &text)).collect();
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

/// The report for people, with styles.
fn human(report: &Report) -> String {
    let mut text = String::new();
    let errors = report.errors.iter().map(|finding| (Level::ERROR, finding));
    for (level, finding) in errors.chain(report.warnings.iter().map(|finding| (Level::WARNING, finding))) {
        text += &finding.render(level, &report.policy, &report.text);
        text += "\n\n";
    }
    text += &match (report.errors.len(), report.warnings.len()) {
        (0, 0) => format!("{}: valid\n", report.policy),
        (0, warnings) => format!("{}: valid, {}\n", report.policy, count(warnings, "warning")),
        (errors, _) => format!("{}: invalid, {}\n", report.policy, count(errors, "error")),
    };
    text
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
        anstream::adapter::strip_str(&super::human(&report(yaml))).to_string()
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
