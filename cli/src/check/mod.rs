//! `penstock check`: everything that is wrong with a policy, where it stands, and what would be right.

use std::io::Write;
use std::path::{Path, PathBuf};

use annotate_snippets::Level;
use penstock_policy::{Module, Problem, Settings};
use serde::Serialize;

mod formats;

use crate::diagnostics::Finding;
use crate::documents::Documents;
use crate::manifests::{File, Found, HostRoutes};
use crate::output::{Output, count};
use crate::{lint, replay, source};

/// Say everything that is wrong with policies, and what is doubtful.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock check policy.yaml\n  penstock check --format json a.yaml b.yaml\n  \
    penstock check --module header-routing - < policy.yaml\n\n\
    Kubernetes manifests and Envoy configurations are read too: the policies of our plugins in them are checked, and\n\
    their routes are compared with the routes that the policies name:\n  \
    penstock check wasm-plugin.yaml virtual-service.yaml\n\n\
    In CI:\n  penstock check --format github policies/*.yaml\n  \
    penstock check --format sarif policies/*.yaml > penstock.sarif")]
pub struct Args {
    /// Policies, Kubernetes manifests or Envoy configurations, YAML or JSON; `-` is standard input.
    #[arg(required = true)]
    policies: Vec<PathBuf>,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// The module that will run the policy; it refuses sections of others [default: what a manifest loads, else the
    /// suite].
    #[arg(long, value_parser = module)]
    module: Option<Module>,
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
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Annotations of a GitHub Actions workflow.
    Github,
}

/// One policy's result.
#[derive(Debug, Serialize)]
struct Report {
    /// The file, and the object in it that holds the policy.
    policy: String,
    valid: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    #[serde(skip)]
    file: String,
    #[serde(skip)]
    text: String,
}

impl Args {
    /// Checks every policy and reports to `out`. `false`: at least one is invalid.
    ///
    /// # Errors
    /// When a file cannot be read, no policy is in any, or `out` cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let reports = check(&self.policies, self.module)?;
        match self.format {
            Format::Json => {
                for report in &reports {
                    writeln!(out, "{}", serde_json::to_string(report)?)?;
                }
            }
            Format::Human => {
                for report in &reports {
                    out.human(&human(report))?;
                }
            }
            Format::Github => {
                for report in &reports {
                    out.write_all(formats::github(report).as_bytes())?;
                }
            }
            Format::Sarif => writeln!(out, "{:#}", formats::sarif(&reports))?,
        }
        Ok(reports.iter().all(|report| report.valid))
    }
}

/// The reports of all policies in all files, in order.
fn check(paths: &[PathBuf], module: Option<Module>) -> anyhow::Result<Vec<Report>> {
    let mut files = Vec::new();
    for path in paths {
        let text = source::read_text(path)?;
        files.push((path, File::read(text.clone()).map_err(|error| (Finding::syntax(&error, &text), text))));
    }
    let configs: Vec<_> =
        files.iter().filter_map(|(_, file)| file.as_ref().ok()).flat_map(File::host_configs).collect();
    let host = |header: &str| {
        let mut routes = HostRoutes::default();
        configs.iter().for_each(|node| routes.add(node, header));
        routes
    };
    let mut reports = Vec::new();
    for (path, file) in &files {
        match file {
            Err((finding, text)) => {
                let finding = Finding { path: String::new(), ..finding.clone() };
                reports.push(Report::new(path, None, text, vec![finding], Vec::new()));
            }
            Ok(file) => {
                let broken = file.broken.iter();
                reports.extend(broken.map(|(resource, finding)| {
                    Report::new(path, Some(resource), file.text(), vec![finding.clone()], Vec::new())
                }));
                reports.extend(file.policies.iter().map(|found| check_one(path, file, found, module, &host)));
            }
        }
    }
    if reports.is_empty() {
        let files: Vec<String> = paths.iter().map(|path| source::display(path)).collect();
        anyhow::bail!(
            "no policy in {}: give a policy, or a manifest whose plugin has one in `pluginConfig`, `config` or \
             `configuration`",
            files.join(", ")
        );
    }
    Ok(reports)
}

fn check_one(
    path: &Path,
    file: &File,
    found: &Found,
    module: Option<Module>,
    host: &impl Fn(&str) -> HostRoutes,
) -> Report {
    let module = module.or(found.module).unwrap_or(Module::Suite);
    let findings = |problems: &[Problem]| problems.iter().map(|problem| file.finding(found, problem)).collect();
    let (errors, warnings) = match penstock_policy::check(&found.node, module) {
        Err(problems) => (findings(problems.as_slice()), Vec::new()),
        Ok(mut warnings) => {
            let unreached = lint::routing(&found.node);
            let is_new = |problem: &Problem| !warnings.iter().any(|warning| warning.path == problem.path);
            let unreached: Vec<Problem> = unreached.into_iter().filter(is_new).collect();
            warnings.extend(unreached);
            warnings.extend(lint::egress(&found.node, replay::now()));
            let settings: Settings = Documents::of(&found.node).settings;
            let host = host(&settings.route_header.0);
            if host.any {
                warnings.extend(lint::missing(&found.node, &host));
            }
            (Vec::new(), findings(&warnings))
        }
    };
    Report::new(path, found.resource.as_deref(), file.text(), errors, warnings)
}

impl Report {
    fn new(path: &Path, resource: Option<&str>, text: &str, errors: Vec<Finding>, warnings: Vec<Finding>) -> Report {
        let file = source::display(path);
        let policy = resource.map_or_else(|| file.clone(), |resource| format!("{file} ({resource})"));
        Report { policy, valid: errors.is_empty(), errors, warnings, file, text: text.to_owned() }
    }
}

/// The report for people, with styles.
fn human(report: &Report) -> String {
    let mut text = String::new();
    let errors = report.errors.iter().map(|finding| (Level::ERROR, finding));
    for (level, finding) in errors.chain(report.warnings.iter().map(|finding| (Level::WARNING, finding))) {
        text += &finding.render(level, &report.file, &report.text);
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
        let mut report = check(&[file.path().to_owned()], None).unwrap().remove(0);
        report.policy = "policy.yaml".into();
        report.file = "policy.yaml".into();
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
        assert!(human("").contains("the document is empty"));
        assert!(human("routes: {").contains("not YAML"));
    }
}
