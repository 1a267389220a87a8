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

/// Report errors and warnings in policies, manifests and Envoy configurations.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock check policy.yaml\n  penstock check --output json a.yaml b.yaml\n  \
    penstock check --module header-routing - < policy.yaml\n\n\
    In Kubernetes manifests and Envoy configurations, `check` reads the policies of Penstock's plugins, and compares the\n\
    routes of the platform with those that the policies name:\n  \
    penstock check wasm-plugin.yaml virtual-service.yaml\n  penstock check manifests/\n  \
    kubectl kustomize overlays/prod | penstock check -\n  penstock check --from-cluster\n  \
    penstock check --from-envoy http://127.0.0.1:9901\n\n\
    To check that a team's policy is within the ceiling of the platform team:\n  \
    penstock check --within platform.yaml team.yaml\n\n\
    In CI:\n  penstock check --deny warnings --output github policies/\n  \
    penstock check --output sarif policies/ > penstock.sarif")]
pub struct Args {
    /// Files, folders or globs with policies, Kubernetes manifests or Envoy configurations, in YAML or JSON; `-` is
    /// standard input [default: policy.yaml].
    policies: Vec<PathBuf>,
    #[command(flatten)]
    running: RunningInputs,
    /// The format of the report.
    #[arg(long, short, visible_alias = "format", value_enum, default_value = "human")]
    output: CheckFormat,
    /// Exit with status 1 for warnings, too.
    #[arg(long, value_enum, value_name = "WHAT")]
    deny: Option<Deny>,
    /// The module that will run the policies; sections that it does not run are errors [default: the module that a
    /// manifest loads, or suite]. With this option, plugins with an unknown image are checked, too.
    #[arg(long, value_parser = module)]
    module: Option<Module>,
    /// A ceiling: the policies may not let any request pass that this policy refuses. Each excess is reported with such
    /// a request (`witness` in --output json).
    #[arg(long, value_name = "PLATFORM")]
    within: Option<PathBuf>,
    /// Check again when a file changes.
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
    /// Text: the line, a mark below the place, and the correct form.
    Human,
    /// One JSON object for each policy, one on each line.
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
                anstream::eprintln!("penstock: skipped {}: it is a template; check the rendered file", input.name);
            }
            Err(error) => files.push((input, Err(Finding::syntax(&error, &input.text)))),
        }
    }
    let mut read: Vec<_> =
        files.iter_mut().filter_map(|(input, file)| Some((input.name.as_str(), file.as_mut().ok()?))).collect();
    manifests::same_names(&mut read);
    manifests::find_copies(&mut read);
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
                        "penstock: not checked: {} ({resource}): {what} is not one of Penstock's modules; {how}",
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
    errors.extend(&found.uncopied, |uncopied| uncopied.finding.clone());
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

    /// The warnings about names, for files of these texts.
    fn of_names(files: &[&str]) -> Vec<String> {
        let input = |(i, text): (usize, &&str)| InputFile {
            name: format!("{i}.yaml"),
            text: SourceText::new(*text),
            is_found: false,
        };
        let inputs: Vec<InputFile> = files.iter().enumerate().map(input).collect();
        let reports = check(&inputs, &CheckContext::default()).unwrap();
        let warnings = reports.iter().flat_map(|report| {
            report.warnings.shown.iter().map(|finding| format!("{}:{}: {}", report.file, finding.line, finding.message))
        });
        warnings.filter(|warning| warning.contains(" name")).collect()
    }

    #[test]
    fn plugins_of_one_name_are_noticed_in_several_files_unless_they_run_in_different_proxies() {
        let filter = |object: &str, route: &str| {
            format!(
                "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{{object}}}\nspec:\n  configPatches:\n  - applyTo: HTTP_FILTER\n    \
                 match: {{context: GATEWAY}}\n    patch:\n      operation: INSERT_BEFORE\n      value:\n        name: penstock\n        typed_config:\n          \
                 \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n          config:\n            name: penstock\n            \
                 vm_config: {{vm_id: v, runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: /x/penstock/suite.wasm}}}}}}\n            \
                 configuration: {{\"@type\": type.googleapis.com/google.protobuf.StringValue, value: '{{\"routes\": {{\"default\": \"{route}\"}}}}'}}\n"
            )
        };
        let (one, two) = (filter("name: a, namespace: x", "r"), filter("name: b, namespace: x", "s"));
        let found = of_names(&[&one, &two]);
        assert_eq!(found.len(), 1, "{found:?}");
        let part = "a plugin of 0.yaml (EnvoyFilter x/a) is called `penstock` too: they share limits";
        assert!(found[0].starts_with("1.yaml:15: ") && found[0].contains(part), "{found:?}");
        // In one file, as two documents or a list, as in the output of kubectl.
        assert_eq!(of_names(&[&format!("{one}---\n{two}")]).len(), 1);
        let item = |text: &str| format!("- {}", text.trim_end().replace('\n', "\n  "));
        let list = format!("apiVersion: v1\nkind: List\nitems:\n{}\n{}\n", item(&one), item(&two));
        assert_eq!(of_names(&[&list]).len(), 1);
        let elsewhere = filter("name: b, namespace: z", "s");
        for files in [
            vec![one.as_str(), &elsewhere],
            vec![&list.replacen("namespace: x", "namespace: z", 1)],
            // The same object in two environments, and the same policy in two objects.
            vec![&one, &filter("name: a, namespace: x", "s")],
            vec![&one, &filter("name: b, namespace: x", "r")],
        ] {
            assert_eq!(of_names(&files), [] as [&str; 0], "{files:?}");
        }
    }

    #[test]
    fn an_object_that_istio_runs_as_two_kinds_is_noticed_in_several_files() {
        let object = |kind: &str, name: &str| {
            let inside = |text: &str| match kind {
                "WasmPlugin" => format!("  {text}"),
                _ => format!("  wasm:\n    {}", text.replace('\n', "\n  ")),
            };
            let spec = inside("url: oci://r.test/penstock/suite:1@sha256:0\n  pluginConfig: {routes: {default: a}}\n");
            format!(
                "apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: x}}\nspec:\n{spec}"
            )
        };
        let found = of_names(&[&object("WasmPlugin", "p"), &object("TrafficExtension", "p")]);
        assert!(found.len() == 1 && found[0].contains("a WasmPlugin of the same name is in 0.yaml"), "{found:?}");
        assert_eq!(of_names(&[&object("WasmPlugin", "p"), &object("TrafficExtension", "q")]), [] as [&str; 0]);
        assert_eq!(of_names(&[&object("WasmPlugin", "p"), &object("WasmPlugin", "p")]), [] as [&str; 0]);
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
