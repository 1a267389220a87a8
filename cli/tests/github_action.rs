//! The script of `deploy/github-action` in a repository with a change.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::process::Command;

#[test]
fn a_pull_request_that_loosens_fails_and_its_summary_says_what() {
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
}
