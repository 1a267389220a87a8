//! `penstock check`: reports every problem of a policy, with its place and the correct form.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use annotate_snippets::Level;
use penstock_policy::document::Node;
use penstock_policy::{Module, Problem, Settings};

mod formats;
mod report;

use crate::diagnostics::{Finding, Findings};
use crate::documents::Documents;
use crate::inputs::{self, InputFile, RunningInputs};
use crate::manifests::{self, FoundPolicy, HostRoutes, ManifestFile};
use crate::output::{Output, count};
use crate::policy_file::Invalid;
use crate::text::SourceText;
use crate::within::Ceiling;
use crate::{lint, replay, source, watch};
pub use report::CheckResult;

/// Validate policies, manifests and Envoy configurations: errors and warnings.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock check policy.yaml\n  penstock check --output json a.yaml b.yaml\n  \
    penstock check --module header-routing - < policy.yaml\n\n\
    Kubernetes manifests and Envoy configurations are read as the platform reads them: the policies of our plugins in\n\
    them are checked, and the routes of the platform are compared with those that the policies name:\n  \
    penstock check wasm-plugin.yaml virtual-service.yaml\n  penstock check manifests/\n  \
    kubectl kustomize overlays/prod | penstock check -\n  penstock check --from-cluster\n  \
    penstock check --from-envoy http://127.0.0.1:9901\n\n\
    Whether a team's policy is within the platform's:\n  \
    penstock check --within platform.yaml team.yaml\n\n\
    In CI:\n  penstock check --deny warnings --output github policies/\n  \
    penstock check --output sarif policies/ > penstock.sarif")]
pub struct Args {
    /// Policies, Kubernetes manifests or Envoy configurations, YAML or JSON; folders, globs; `-` is standard input
    /// [default: policy.yaml].
    policies: Vec<PathBuf>,
    #[command(flatten)]
    running: RunningInputs,
    /// The form of the report.
    #[arg(long, short, visible_alias = "format", value_enum, default_value = "human")]
    output: CheckFormat,
    /// Warnings make the exit status 1 too.
    #[arg(long, value_enum, value_name = "WHAT")]
    deny: Option<Deny>,
    /// The module that will run the policies; it refuses sections of others [default: what a manifest loads, else the
    /// suite]. Plugins whose image is not known as ours are checked too.
    #[arg(long, value_parser = module)]
    module: Option<Module>,
    /// A policy that the others must be within: whatever they let pass it must let pass too. Where it does not, a request
    /// shows it: `witness` of --output json.
    #[arg(long, value_name = "PLATFORM")]
    within: Option<PathBuf>,
    /// Check again whenever a file changes.
    #[arg(long)]
    watch: bool,
}

/// What more than errors makes the answer no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Deny {
    /// Any warning.
    Warnings,
}

fn module(name: &str) -> Result<Module, String> {
    let names: Vec<&str> = Module::ALL.iter().map(|module| module.name()).collect();
    let found = Module::ALL.into_iter().find(|module| module.name() == name);
    found.ok_or_else(|| format!("the modules are {}", names.join(", ")))
}

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CheckFormat {
    /// For people: the line, a caret, the remedy.
    Human,
    /// One JSON object a policy and line.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Annotations of a GitHub Actions workflow.
    Github,
}

impl Args {
    /// Checks every policy and writes the report to `out`. Returns `false` when a policy is invalid, or has a warning
    /// under `--deny`.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read, no file contains a policy, or `out` cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let mut paths = self.policies.clone();
        if paths.is_empty() && !self.running.is_any() {
            paths.push(inputs::default_policy()?);
        }
        match self.watch {
            true => {
                let watched: Vec<PathBuf> = paths.iter().chain(&self.within).cloned().collect();
                watch::run(&watched, out, |out| self.once(&paths, out))
            }
            false => self.once(&paths, out),
        }
    }

    fn once(&self, paths: &[PathBuf], out: &mut Output<'_>) -> anyhow::Result<bool> {
        let mut inputs = inputs::read(paths)?;
        inputs.extend(self.running.read()?);
        let ceiling = self.within.as_deref().map(ceiling).transpose()?;
        let reports = check(&inputs, &CheckContext { module: self.module, ceiling: ceiling.as_ref(), routes: &[] })?;
        match self.output {
            CheckFormat::Json => {
                for report in &reports {
                    out.json_line(report)?;
                }
            }
            CheckFormat::Human => {
                for report in &reports {
                    out.human(&human(report))?;
                }
            }
            CheckFormat::Github => {
                for report in &reports {
                    out.write_all(formats::github(report).as_bytes())?;
                }
            }
            CheckFormat::Sarif => writeln!(out, "{:#}", formats::sarif(&reports))?,
        }
        let denied = |report: &CheckResult| self.deny.is_some() && !report.warnings.is_empty();
        Ok(reports.iter().all(|report| report.valid && !denied(report)))
    }
}

/// The only policy of a file.
fn ceiling(path: &Path) -> anyhow::Result<Ceiling> {
    let name = source::display(path);
    let text = SourceText::new(source::read_text(path)?);
    let file = ManifestFile::read_as(&name, text.clone(), false)
        .map_err(|error| Invalid::new(&name, &text, &Findings::one(Finding::syntax(&error, &text))))?;
    let [found] = file.policies.as_slice() else {
        anyhow::bail!("{name} has {} policies: give --within a file with one", file.policies.len());
    };
    if let Err(problems) = penstock_policy::check(&found.node, found.module.unwrap_or(Module::Suite)) {
        let findings = Findings::of(&problems, |problem| file.finding(found, problem));
        return Err(Invalid::new(&name, file.text(), &findings).into());
    }
    Ok(Ceiling::new(found.node.clone()))
}

/// What each policy is checked against.
#[derive(Clone, Copy, Default)]
pub struct CheckContext<'o> {
    /// The module that will run the policies; `None` for the one that the manifest loads, or the suite.
    pub module: Option<Module>,
    /// The policy that the others must be within.
    pub ceiling: Option<&'o Ceiling>,
    /// Objects of the platform with routes, in addition to those of the inputs.
    pub routes: &'o [Node],
}

/// Reports on all policies of all files, in order.
///
/// # Errors
/// Returns an error when there is no policy at all.
pub fn check(inputs: &[InputFile], options: &CheckContext<'_>) -> anyhow::Result<Vec<CheckResult>> {
    let module = options.module;
    let mut files = Vec::new();
    for input in inputs.iter().filter(|input| !(input.is_found && inputs::is_test(&input.name))) {
        match ManifestFile::read_as(&input.name, input.text.clone(), module.is_some()) {
            Ok(file) => files.push((input, Ok(file))),
            Err(_) if input.is_found && input.text.contains("{{") => {
                anstream::eprintln!("penstock: passed over {}: a template; check what it renders to", input.name);
            }
            Err(error) => files.push((input, Err(Finding::syntax(&error, &input.text)))),
        }
    }
    let configs: Vec<_> = files
        .iter()
        .filter_map(|(_, file)| file.as_ref().ok())
        .flat_map(ManifestFile::host_configs)
        .chain(options.routes)
        .collect();
    let mut by_header: HashMap<String, Rc<HostRoutes>> = HashMap::new();
    let mut host = |header: &str| {
        let routes = by_header.entry(header.to_owned()).or_insert_with(|| {
            let mut routes = HostRoutes::default();
            configs.iter().for_each(|node| routes.add(node, header));
            Rc::new(routes)
        });
        routes.clone()
    };
    let mut reports = Vec::new();
    let mut left_alone = 0;
    for (input, file) in &files {
        match file {
            Err(finding) => {
                let finding = Finding { path: String::new(), ..finding.clone() };
                let errors = Findings::one(finding);
                reports.push(CheckResult::new(&input.name, None, &input.text, errors, Findings::default()));
            }
            Ok(file) => {
                let broken = file.broken.iter();
                reports.extend(broken.map(|(resource, finding)| {
                    let errors = Findings::one(finding.clone());
                    CheckResult::new(&input.name, Some(resource), file.text(), errors, Findings::default())
                }));
                reports.extend(file.remarks.iter().map(|(resource, finding)| {
                    let warnings = Findings::one(finding.clone());
                    CheckResult::new(&input.name, Some(resource), file.text(), Findings::default(), warnings)
                }));
                let is_meant = |found: &&FoundPolicy| {
                    !input.is_found || found.resource.is_some() || manifests::has_section(&found.node)
                };
                let found = file.policies.iter().filter(is_meant);
                reports.extend(found.map(|found| check_one(&input.name, file, found, options, &mut host)));
                for (resource, what) in &file.left_alone {
                    left_alone += 1;
                    let how = manifests::how_to_claim();
                    anstream::eprintln!(
                        "penstock: left alone: {} ({resource}): {what} is not a module of ours; {how}",
                        input.name
                    );
                }
            }
        }
    }
    if reports.is_empty() && left_alone == 0 {
        return Err(inputs::no_policy(inputs));
    }
    Ok(reports)
}

/// Reports on the policies of a file.
pub fn check_file(name: &str, file: &ManifestFile, options: &CheckContext<'_>) -> Vec<CheckResult> {
    let mut host = |header: &str| {
        let mut routes = HostRoutes::default();
        options.routes.iter().for_each(|node| routes.add(node, header));
        Rc::new(routes)
    };
    let broken = file.broken.iter().map(|(resource, finding)| {
        CheckResult::new(name, Some(resource), file.text(), Findings::one(finding.clone()), Findings::default())
    });
    let checked = file.policies.iter().map(|found| check_one(name, file, found, options, &mut host));
    broken.chain(checked).collect()
}

fn check_one(
    name: &str,
    file: &ManifestFile,
    found: &FoundPolicy,
    options: &CheckContext<'_>,
    host: &mut impl FnMut(&str) -> Rc<HostRoutes>,
) -> CheckResult {
    let module = options.module.or(found.module).unwrap_or(Module::Suite);
    let find = |problem: &Problem| file.finding(found, problem);
    let mut notes = Vec::new();
    let mut within = None;
    let (mut errors, mut warnings) = (Findings::default(), Findings::default());
    match penstock_policy::check(&found.node, module) {
        Err(problems) => errors = Findings::of(&problems, find),
        Ok(mut problems) => {
            let known: HashSet<String> = problems.iter().map(|problem| problem.path.clone()).collect();
            problems.extend(lint::routing(&found.node).into_iter().filter(|problem| !known.contains(&problem.path)));
            problems.extend(lint::egress(&found.node, replay::now()));
            problems.extend(lint::metrics(&found.node));
            let settings: Settings = Documents::of(&found.node).settings;
            let host = host(&settings.route_header.0);
            if host.any {
                problems.extend(lint::missing(&found.node, &host));
            }
            if found.resource.is_none() {
                notes = lint::two_places(&found.node).iter().map(find).collect();
            }
            let excesses = options.ceiling.map(|ceiling| ceiling.excesses(&found.node, replay::now()));
            within = excesses.as_ref().map(Vec::is_empty);
            errors.extend(excesses.into_iter().flatten(), |excess| {
                let (problem, witness) = excess.into_problem();
                Finding { witness, ..file.finding(found, &problem) }
            });
            warnings.extend(&problems, find);
        }
    }
    let known: HashSet<String> = errors.shown.iter().map(|finding| finding.path.clone()).collect();
    let misread = file.misreadings(found).filter(|(path, _)| !known.contains(*path));
    errors.extend(misread, |(path, text)| file.misreading(found, path, text));
    errors.extend(&found.faults, Finding::clone);
    warnings.extend(&found.doubts, Finding::clone);
    CheckResult { notes, within, ..CheckResult::new(name, found.resource.as_deref(), file.text(), errors, warnings) }
}

/// The human-readable report, with styles.
pub fn human(report: &CheckResult) -> String {
    let mut text = report.errors.render(Level::ERROR, "error", &report.file, &report.text);
    text += &report.warnings.render(Level::WARNING, "warning", &report.file, &report.text);
    for finding in &report.notes {
        text += &finding.render(Level::NOTE, &report.file, &report.text);
        text += "\n\n";
    }
    text += &match (report.errors.len(), report.warnings.len()) {
        (errors, _) if report.within == Some(false) => {
            format!("{}: exceeds the platform's policy, {}\n", report.policy, count(errors, "error"))
        }
        (0, 0) => format!("{}: valid\n", report.policy),
        (0, warnings) => format!("{}: valid, {}\n", report.policy, count(warnings, "warning")),
        (errors, _) => format!("{}: invalid, {}\n", report.policy, count(errors, "error")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(yaml: &str) -> CheckResult {
        let input = InputFile { name: "policy.yaml".to_owned(), text: yaml.into(), is_found: false };
        check(&[input], &CheckContext::default()).unwrap().remove(0)
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
