//! Runs the steps of `deploy/github-action` in a repository with a change, as a runner does.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use penstock::yaml::Located;
use penstock_policy::document::Node;

#[test]
fn a_pull_request_that_loosens_fails_and_its_summary_names_the_loosening() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let git = |arguments: &[&str]| {
        let name = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let output = Command::new("git").args(name).args(arguments).current_dir(here).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let policy =
        |methods: &str| format!("egress: {{rules: [{{name: a, to: [{{host: a.test}}], methods: [{methods}]}}]}}\n");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/github-action/diff.sh");
    let run = |base: &str, fail_on: &str| {
        for file in ["output", "summary"] {
            let _ = std::fs::remove_file(here.join(file));
        }
        let mut command = Command::new("bash");
        command
            .arg(&script)
            .current_dir(here)
            .env("PENSTOCK", env!("CARGO_BIN_EXE_penstock"))
            .env("PENSTOCK_PATH", "policies");
        command.env("BASE", base).env("FAIL_ON", fail_on);
        command.env("GITHUB_OUTPUT", here.join("output")).env("GITHUB_STEP_SUMMARY", here.join("summary"));
        let output = command.output().unwrap();
        let read = |file: &str| std::fs::read_to_string(here.join(file)).unwrap_or_default();
        (output.status.code().unwrap(), read("output"), read("summary"), String::from_utf8(output.stderr).unwrap())
    };
    git(&["init", "--quiet"]);
    std::fs::write(here.join("README"), "x").unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "a"]);
    let empty = git(&["rev-parse", "HEAD"]);
    std::fs::create_dir(here.join("policies")).unwrap();
    std::fs::write(here.join("policies/p.yaml"), policy("GET")).unwrap();
    git(&["add", "policies"]);
    git(&["commit", "--quiet", "-m", "b"]);
    let base = git(&["rev-parse", "HEAD"]);
    std::fs::write(here.join("policies/p.yaml"), policy("GET, POST")).unwrap();

    let (status, output, summary, errors) = run(&base, "loosened");
    assert_eq!((status, output.as_str()), (1, "loosened=1\n"), "{errors}");
    assert!(summary.contains("loosened  egress.rules[a].methods: allows POST"), "{summary}");
    assert_eq!(run(&base, "nothing").0, 0);
    let (status, output, ..) = run(&empty, "loosened");
    assert_eq!((status, output.as_str()), (0, "loosened=0\n"));
    // A shallow checkout lacks the base, which must not make the check succeed.
    let (status, _, _, errors) = run(&"0".repeat(40), "loosened");
    assert!(status == 2 && errors.contains("fetch-depth: 0"), "{errors}");
    // A folder that contained other files.
    std::fs::create_dir(here.join("more")).unwrap();
    std::fs::write(here.join("more/service.yaml"), "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n").unwrap();
    git(&["add", "more"]);
    git(&["commit", "--quiet", "-m", "c"]);
    let base = git(&["rev-parse", "HEAD"]);
    std::fs::write(here.join("more/p.yaml"), policy("GET")).unwrap();
    let (status, inputs) = action(here, &[("path", "more"), ("base", &base)]);
    assert_eq!((status, inputs.as_str()), (0, "loosened=0\n"));

    // The steps of the action.
    let (status, output) = action(here, &[("path", "policies"), ("base", &base)]);
    assert_eq!((status, output.as_str()), (1, "loosened=1\n"));
    let (status, output) = action(here, &[("path", "policies"), ("base", &base), ("fail-on", "nothing")]);
    assert_eq!((status, output.as_str()), (0, "loosened=1\n"));
    // A push has no base, so nothing is compared.
    assert_eq!(action(here, &[("path", "policies"), ("base", "")]), (0, String::new()));
    std::fs::write(here.join("policies/q.yaml"), "routes: {rules: [{name: all, route: a}, {name: never, route: b}]}\n")
        .unwrap();
    assert_eq!(action(here, &[("path", "policies"), ("base", "")]).0, 0);
    assert_eq!(action(here, &[("path", "policies"), ("base", ""), ("deny-warnings", "true")]).0, 1);
    std::fs::write(here.join("policies/q.yaml"), "egres: {}\n").unwrap();
    assert_eq!(action(here, &[("path", "policies"), ("base", &base)]).0, 1);
}

/// Runs the steps of `action.yml` with these inputs until one fails, as the runner of a composite action does. Returns
/// its exit status and the outputs of the steps.
fn action(here: &Path, given: &[(&str, &str)]) -> (i32, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/github-action");
    let text = std::fs::read_to_string(folder.join("action.yml")).unwrap();
    let action = Located::read(&text).unwrap().node;
    let text_of = |node: Option<&Node>| match node {
        Some(Node::String(text)) => text.clone(),
        other => panic!("{other:?} is no text"),
    };
    let inputs = action.get("inputs").unwrap();
    let input = |name: &str| {
        let declared = inputs.get(name).unwrap_or_else(|| panic!("there is no input `{name}`"));
        let given = given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        given.unwrap_or_else(|| match name {
            "binary" => env!("CARGO_BIN_EXE_penstock").to_owned(),
            _ => text_of(declared.get("default")),
        })
    };
    assert!(given.iter().all(|(name, _)| inputs.get(name).is_some()));
    for file in ["output", "summary"] {
        std::fs::write(here.join(file), "").unwrap();
    }
    let Some(Node::List(steps)) = action.get("runs").unwrap().get("steps") else { panic!("no steps") };
    let mut status = 0;
    for step in steps {
        if let Some(condition) = step.get("if") {
            assert_eq!(text_of(Some(condition)), "inputs.base != ''");
            if input("base").is_empty() {
                continue;
            }
        }
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &text_of(step.get("run"))]).current_dir(here);
        let Some(Node::Map(environment)) = step.get("env") else { panic!("no environment") };
        for (name, value) in environment {
            let value = text_of(Some(value));
            let named = value.strip_prefix("${{ inputs.").and_then(|rest| rest.strip_suffix(" }}")).unwrap();
            command.env(name, input(named));
        }
        command.env("GITHUB_ACTION_PATH", &folder);
        command.env("GITHUB_OUTPUT", here.join("output")).env("GITHUB_STEP_SUMMARY", here.join("summary"));
        status = command.output().unwrap().status.code().unwrap();
        if status != 0 {
            break;
        }
    }
    (status, std::fs::read_to_string(here.join("output")).unwrap())
}
