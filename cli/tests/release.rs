//! The parts of a release, without GitHub: the scripts that its workflow calls, `install.sh` with a file server, and
//! the container image of the command, which is unpacked and run.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PENSTOCK: &str = env!("CARGO_BIN_EXE_penstock");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const MODULES: [&str; 5] = ["header-routing", "canary", "rate-limit", "egress-allowlist", "suite"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn script(name: &str, arguments: &[&str]) -> Output {
    Command::new(root().join("scripts").join(name)).args(arguments).output().unwrap()
}

/// The output of a script in `scripts/`, which must succeed.
fn printed(name: &str, arguments: &[&str]) -> String {
    let output = script(name, arguments);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The error output of a script, which must fail.
fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The lines of targets.txt, split into words.
fn targets() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("scripts/release/targets.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// A release for every platform with a command that only prints its version, and with fake modules, so that the test is
/// fast.
fn release() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().to_str().unwrap();
    let command = folder.path().join("command");
    fs::write(&command, format!("#!/bin/sh\necho penstock {VERSION}\n")).unwrap();
    make_executable(&command);
    for target in targets() {
        printed("release/archive.sh", &[command.to_str().unwrap(), &target[1], &target[2], here]);
    }
    fs::remove_file(&command).unwrap();
    let dist = folder.path().join("dist");
    fs::create_dir(&dist).unwrap();
    for module in MODULES {
        fs::write(dist.join(format!("{module}.wasm")), format!("\0asm\x01\0\0\0{module}")).unwrap();
    }
    printed("release/modules.sh", &[dist.to_str().unwrap(), here]);
    fs::remove_dir_all(&dist).unwrap();
    printed("release/checksums.sh", &[here]);
    folder
}

fn make_executable(file: &Path) {
    assert!(Command::new("chmod").arg("+x").arg(file).status().unwrap().success());
}

/// Serves the files of a folder as a release of this version and as the latest one until the test ends; returns the
/// address.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/releases", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &folder);
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap()?;
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let path = first.split(' ').nth(1).unwrap_or_default();
    let name = ["/releases/latest/download/", &format!("/releases/download/v{VERSION}/")]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix));
    match name.and_then(|name| fs::read(folder.join(name)).ok()) {
        Some(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
            stream.write_all(&body)
        }
        None => write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
    }
}

/// Runs install.sh for a user with the home folder `home`.
fn install(home: &Path, releases: &str, variables: &[(&str, &str)]) -> Output {
    install_by(&root().join("install.sh"), home, releases, variables)
}

/// Runs the given `install.sh`.
fn install_by(script: &Path, home: &Path, releases: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new("sh");
    command.arg(script).env("HOME", home).env("PENSTOCK_RELEASES", releases);
    for variable in ["PENSTOCK_VERSION", "PENSTOCK_BIN", "PENSTOCK_SHARE"] {
        command.env_remove(variable);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn the_installer_brings_a_command_that_runs_and_the_modules() {
    let (release, home) = (release(), tempfile::tempdir().unwrap());
    let releases = serve(release.path());
    for variables in
        [&[][..], &[("PENSTOCK_VERSION", VERSION)], &[("PENSTOCK_VERSION", concat!("v", env!("CARGO_PKG_VERSION")))]]
    {
        let output = install(home.path(), &releases, variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&format!("penstock {VERSION} is in ")), "{said}");
        assert!(said.contains("add the folder to your PATH"), "{said}");
    }
    let command = home.path().join(".local/bin/penstock");
    let version = Command::new(command).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("penstock {VERSION}\n"));
    for module in MODULES {
        let content = fs::read(home.path().join(format!(".local/share/penstock/{module}.wasm"))).unwrap();
        assert!(content.ends_with(module.as_bytes()));
    }
    assert!(home.path().join(".local/share/penstock/quickstart.yaml").is_file());
    let leftovers = fs::read_dir(home.path().join(".local/bin")).unwrap().count();
    assert_eq!(leftovers, 1);
}

#[test]
fn the_installer_says_what_it_takes_and_refuses_arguments() {
    let home = tempfile::tempdir().unwrap();
    let run = |argument: &str| {
        let script = root().join("install.sh");
        let mut command = Command::new("sh");
        command.arg(script).arg(argument).env("HOME", home.path()).env("PENSTOCK_RELEASES", "http://127.0.0.1:9");
        command.output().unwrap()
    };
    let help = run("--help");
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success() && text.contains("PENSTOCK_VERSION   a version such as "), "{text}");
    for argument in ["0.2.0", "--version"] {
        let error = refused(&run(argument));
        assert!(
            error.contains(&format!("unknown argument {argument}")) && error.contains("PENSTOCK_VERSION="),
            "{error}"
        );
    }
}

#[test]
fn the_installer_installs_nothing_that_has_another_checksum() {
    let home = tempfile::tempdir().unwrap();
    for damaged in ["penstock-modules.tar.gz", &format!("penstock-linux-{}.tar.gz", architecture())] {
        let release = release();
        let file = release.path().join(damaged);
        let mut bytes = fs::read(&file).unwrap();
        bytes.push(0);
        fs::write(&file, bytes).unwrap();
        let error = refused(&install(home.path(), &serve(release.path()), &[]));
        assert!(error.contains(&format!("{damaged} has the checksum ")), "{error}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "something was installed");
    }
}

#[test]
fn an_installer_whose_download_broke_off_does_nothing() {
    let (release, folder) = (release(), tempfile::tempdir().unwrap());
    let (releases, home, part) = (serve(release.path()), folder.path().join("home"), folder.path().join("install.sh"));
    fs::create_dir(&home).unwrap();
    let script = fs::read_to_string(root().join("install.sh")).unwrap();
    let lines: Vec<&str> = script.split_inclusive('\n').collect();
    for end in 0..lines.len() {
        fs::write(&part, lines[..end].concat()).unwrap();
        let output = install_by(&part, &home, &releases, &[]);
        assert!(output.stdout.is_empty(), "{end}: {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0, "something was installed by the first {end} lines");
    }
    fs::write(&part, lines.concat()).unwrap();
    assert!(install_by(&part, &home, &releases, &[]).status.success());
}

#[test]
fn the_installer_says_what_is_missing() {
    let (release, home) = (release(), tempfile::tempdir().unwrap());
    let releases = serve(release.path());
    let error = refused(&install(home.path(), &releases, &[("PENSTOCK_VERSION", "9.9.9")]));
    assert!(error.contains("cannot download ") && error.contains("/download/v9.9.9/SHA256SUMS"), "{error}");

    let sums = release.path().join("SHA256SUMS");
    let without: Vec<String> = fs::read_to_string(&sums)
        .unwrap()
        .lines()
        .filter(|line| !line.contains("modules"))
        .map(str::to_owned)
        .collect();
    fs::write(&sums, without.join("\n")).unwrap();
    let error = refused(&install(home.path(), &releases, &[]));
    assert!(error.contains("has no penstock-modules.tar.gz"), "{error}");

    // Simulates another machine with a fake `uname`.
    let tools = tempfile::tempdir().unwrap();
    let uname = tools.path().join("uname");
    for (system, machine, why) in
        [("SunOS", "x86_64", "do not support SunOS"), ("Linux", "riscv64", "the processor riscv64")]
    {
        fs::write(&uname, format!("#!/bin/sh\nif [ \"$1\" = -s ]; then echo {system}; else echo {machine}; fi\n"))
            .unwrap();
        make_executable(&uname);
        let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
        let error = refused(&install(home.path(), &releases, &[("PATH", &path)]));
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "something was installed");
}

/// A folder with only these programs, for a `PATH`.
fn programs(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap();
        let program = String::from_utf8(found.stdout).unwrap();
        std::os::unix::fs::symlink(program.trim(), folder.path().join(name)).unwrap();
    }
    folder
}

/// What `install.sh` needs, without a program to download with.
const NEEDED: [&str; 16] = [
    "sh",
    "uname",
    "sha256sum",
    "cut",
    "awk",
    "mktemp",
    "tar",
    "gzip",
    "dirname",
    "basename",
    "mkdir",
    "chmod",
    "cp",
    "mv",
    "rm",
    "sed",
];

#[test]
fn the_installer_needs_only_wget_and_replaces_what_is_there_in_folders_with_spaces() {
    let (release, home) = (release(), tempfile::tempdir().unwrap());
    let releases = serve(release.path());
    let home = home.path().join("a home");
    let (bin, share) = (home.join("my bin"), home.join("my share"));
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("penstock"), "old").unwrap();
    let programs = programs(&[&NEEDED[..], &["wget"]].concat());
    let path = programs.path().to_str().unwrap();
    let folders = [("PENSTOCK_BIN", bin.to_str().unwrap()), ("PENSTOCK_SHARE", share.to_str().unwrap())];
    let output = install(&home, &releases, &[&folders[..], &[("PATH", path)]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("export PATH=\"{}:$PATH\"", bin.display())), "{said}");
    let version = Command::new(bin.join("penstock")).output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("penstock {VERSION}\n"));
    assert!(share.join("suite.wasm").is_file() && share.join("quickstart.yaml").is_file());
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
}

#[test]
fn the_installer_says_why_it_cannot_install_and_what_to_do_before_it_changes_anything() {
    let (release, folder) = (release(), tempfile::tempdir().unwrap());
    let releases = serve(release.path());
    let home = folder.path().join("home");
    fs::create_dir_all(home.join("taken/penstock")).unwrap();
    fs::write(home.join("file"), "").unwrap();
    let (taken, file) = (home.join("taken"), home.join("file/bin"));
    let without_downloads = programs(&NEEDED);
    let without_sums = programs(&[&NEEDED[..2], &["curl"]].concat());
    let path = |folder: &tempfile::TempDir| folder.path().to_str().unwrap().to_owned();
    // Nothing listens on a port that was just free.
    // Nothing listens there.
    let closed = "http://127.0.0.1:1";
    for (variable, value, said) in [
        (
            "PENSTOCK_BIN",
            file.to_str().unwrap().to_owned(),
            "file is not a folder\n       choose another folder with PENSTOCK_BIN",
        ),
        ("PENSTOCK_SHARE", file.to_str().unwrap().to_owned(), "choose another folder with PENSTOCK_SHARE"),
        ("PENSTOCK_BIN", taken.to_str().unwrap().to_owned(), "taken/penstock is a folder\n       remove it"),
        ("PENSTOCK_BIN", "/proc/none".to_owned(), "/proc/none"),
        ("PATH", path(&without_downloads), "curl or wget is needed"),
        ("PATH", path(&without_sums), "sha256sum or shasum is needed"),
        ("PENSTOCK_RELEASES", closed.to_owned(), "/SHA256SUMS\n       check the network connection"),
    ] {
        let error = refused(&install(&home, &releases, &[(variable, &value)]));
        assert!(error.contains(said), "{variable}={value}: {error}");
        assert!(!home.join(".local/bin/penstock").exists(), "{variable}={value}: something was installed");
    }
    // The page of a proxy instead of the file.
    fs::write(release.path().join("SHA256SUMS"), "<html>please sign in</html>\n").unwrap();
    let error = refused(&install(&home, &releases, &[]));
    assert!(error.contains("look at what the server sends for http://"), "{error}");
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[test]
fn every_list_of_platforms_is_made_of_one() {
    let matrix: serde_json::Value = serde_json::from_str(&printed("release/matrix.sh", &[])).unwrap();
    let included = matrix["include"].as_array().unwrap();
    let release = release();
    let here = release.path().to_str().unwrap();
    let formula = printed("release/formula.sh", &[VERSION, here]);
    let krew = printed("krew.sh", &[&format!("v{VERSION}"), here]);
    let installer = fs::read_to_string(root().join("install.sh")).unwrap();
    let sums = fs::read_to_string(release.path().join("SHA256SUMS")).unwrap();
    assert_eq!(included.len(), targets().len());
    for (target, entry) in targets().iter().zip(included) {
        assert_eq!(entry["target"], target[0].as_str());
        assert_eq!(entry["runner"], target[3].as_str());
        let archive = format!("penstock-{}-{}.tar.gz", target[1], target[2]);
        let sum = sums.lines().find(|line| line.ends_with(&archive)).unwrap().split(' ').next().unwrap();
        let url = format!("https://github.com/penstock-proxy/penstock/releases/download/v{VERSION}/{archive}");
        for text in [&formula, &krew] {
            assert!(text.contains(&url) && text.contains(sum), "{text}");
        }
        assert!(installer.contains(&format!("os={}", target[1])) && installer.contains(&format!("arch={}", target[2])));
    }
    let manifest = fs::read_to_string(root().join("cli/Cargo.toml")).unwrap();
    let metadata = printed("release/binstall.sh", &[]);
    assert!(
        manifest.contains(&metadata),
        "cli/Cargo.toml has not what scripts/release/binstall.sh prints:\n{metadata}"
    );
}

#[test]
fn the_formula_is_committed_to_the_tap_once() {
    let release = release();
    let here = release.path().to_str().unwrap();
    let formula = release.path().join("penstock.rb");
    fs::write(&formula, printed("release/formula.sh", &[VERSION, here])).unwrap();
    let tap = tempfile::tempdir().unwrap();
    let arguments = [formula.to_str().unwrap(), tap.path().to_str().unwrap()];
    let error = refused(&script("release/tap.sh", &arguments));
    assert!(error.contains("is not a checkout of the tap"), "{error}");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(tap.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet"]);
    assert!(printed("release/tap.sh", &arguments).contains(&format!("penstock {VERSION} is committed")));
    assert!(printed("release/tap.sh", &arguments).contains(&format!("penstock {VERSION} is there already")));
    assert_eq!(git(&["log", "--format=%s"]), format!("penstock {VERSION}\n"));
    assert_eq!(git(&["show", "HEAD:Formula/penstock.rb"]), fs::read_to_string(&formula).unwrap());
}

#[test]
fn archives_are_the_same_bytes_for_the_same_files() {
    let (first, second) = (release(), release());
    let sums = |folder: &tempfile::TempDir| fs::read_to_string(folder.path().join("SHA256SUMS")).unwrap();
    assert_eq!(sums(&first), sums(&second));
    let check = Command::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(first.path())
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn a_tag_must_equal_the_version_in_every_file() {
    let error = refused(&script("release/check.sh", &["v9.9.9"]));
    assert!(error.contains(&format!("the tag is v9.9.9, but Cargo.toml has version {VERSION}")), "{error}");
    assert!(!error.contains("Chart.yaml"), "the chart has another version than Cargo.toml: {error}");
}

#[test]
fn the_notes_are_the_section_of_the_changelog() {
    let folder = tempfile::tempdir().unwrap();
    let changelog = folder.path().join("CHANGELOG.md");
    fs::write(&changelog, "# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-01-01)\n\n- new\n\n## [1.2.2]\n\n- old\n")
        .unwrap();
    let notes = |version: &str| {
        let mut command = Command::new(root().join("scripts/release/notes.sh"));
        command.arg(version).env("CHANGELOG", &changelog).output().unwrap()
    };
    assert_eq!(String::from_utf8(notes("v1.2.3").stdout).unwrap(), "- new\n");
    assert_eq!(String::from_utf8(notes("1.2.2").stdout).unwrap(), "- old\n");
    for missing in ["1.2", "2.0.0", "Unreleased"] {
        assert!(refused(&notes(missing)).contains(&format!("says nothing about {missing}")));
    }
}

/// Runs vex.mjs on a folder with these files.
fn vex(files: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let mut command = Command::new("node");
    command.arg(root().join("scripts/release/vex.mjs")).arg(folder.path()).arg("1.2.3").output().unwrap()
}

#[test]
fn a_release_says_which_advisories_concern_it() {
    let page = fs::read_to_string(root().join("vex/README.md")).unwrap();
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let other =
        r#"{"vulnerability": {"name": "RUSTSEC-2026-0002"}, "timestamp": "2026-12-01T00:00:00Z", "status": "fixed"}"#;
    let output = vex(&[("RUSTSEC-2026-0001.json", example), ("RUSTSEC-2026-0002.json", other), ("README.md", "#")]);
    assert!(output.status.success(), "{output:?}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["@context"], "https://openvex.dev/ns/v0.2.0");
    assert_eq!(document["timestamp"], "2026-12-01T00:00:00Z");
    let product = &document["statements"][0]["products"][0];
    assert_eq!(product["@id"], "pkg:cargo/penstock@1.2.3");
    assert_eq!(product["subcomponents"][0]["@id"], "pkg:cargo/example@1.2.3");
    assert_eq!(document["statements"][0]["status"], "not_affected");
    // A statement without products applies to all files of a release.
    assert_eq!(document["statements"][1]["products"].as_array().unwrap().len(), MODULES.len() + 2);
    assert_eq!(vex(&[]).stdout, b"", "a document without statements is none");

    for (from, to, said) in [
        ("not_affected", "fine", "status: expected one of: not_affected, affected,"),
        ("vulnerable_code_not_in_execute_path", "luck", "justification: expected one of: component_not_present,"),
        ("\"not_affected\"", "\"affected\"", "status affected needs action_statement"),
        ("\"penstock\"", "\"penstok\"", "products: expected one of: penstock, penstock-native,"),
        ("pkg:cargo/", "", "subcomponents: expected package URLs"),
        ("timestamp", "time", "unknown field `time`"),
        ("\"name\"", "\"id\"", "vulnerability.name is missing"),
        ("2026-11-27T", "27.11.2026 ", "timestamp: expected a time in UTC"),
        ("{", "[", "not JSON"),
    ] {
        let error = refused(&vex(&[("a.json", &example.replacen(from, to, 1))]));
        assert!(error.contains("a.json: ") && error.contains(said), "{from} {to}: {error}");
    }
}

#[test]
fn every_advisory_that_is_ignored_has_a_statement() {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let advisories = text.split("[advisories]").nth(1).unwrap();
    for id in advisories.split('"').filter(|word| word.starts_with("RUSTSEC-")) {
        assert!(root().join(format!("vex/{id}.json")).is_file(), "deny.toml ignores {id}, and vex/ has no statement");
    }
}

#[test]
fn workflows_pin_every_action_by_digest_and_may_only_read_unless_a_job_says_why() {
    let mut count = 0;
    for entry in fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.display();
        assert!(text.contains("\npermissions:\n  contents: read\n\n"), "{name}: what all jobs may do is to read");
        for line in text.lines().filter(|line| line.contains(": write") || line.contains("write-all")) {
            assert!(line.starts_with("      ") && line.contains("  # "), "{name}: {line}: no reason beside it");
        }
        // What others wrote must not become part of a script: it goes into a variable.
        let scripts = text.split("run: ").skip(1).filter_map(|rest| rest.split("\n    - ").next());
        for script in scripts {
            let untrusted = ["github.event.", "github.head_ref", "inputs."];
            assert!(!untrusted.iter().any(|value| script.contains(&format!("${{{{ {value}"))), "{name}: {script}");
        }
        assert!(!text.contains("pull_request_target"), "{name}: runs code of a fork with the rights of the project");
        // Without `pipefail`, a step whose pipe fails at its beginning passes.
        assert!(!text.contains("- run: ") || text.contains("\n  run: {shell: bash}\n"), "{name}: no `shell: bash`");
        // A downloaded program could use the permissions of its job.
        let jobs = text.split("\n\n  ").filter(|job| job.contains(": write"));
        assert!(!jobs.into_iter().any(|job| job.contains("scripts/setup/")), "{name}: set-up in a job that may write");
        for line in text.lines() {
            let Some((_, used)) = line.split_once("uses: ") else { continue };
            let (action, version) =
                used.split_once("  # v").unwrap_or_else(|| panic!("{name}: {used}: no version beside it"));
            let (_, digest) = action.split_once('@').unwrap();
            assert!(digest.len() == 40 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()), "{name}: {used}");
            assert!(version.split('.').count() == 3, "{name}: {used}");
            count += 1;
        }
        for word in text.split([' ', '\n', '(']).filter(|word| word.starts_with("scripts/")) {
            let file = word.trim_end_matches(['.', ',', ':', ')', '"']);
            assert!(root().join(file).is_file(), "{name}: {file}");
        }
        for target in text.split("make ").skip(1).map(|rest| rest.split([' ', '\n', '`']).next().unwrap()) {
            let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
            let is_target =
                |line: &str| line.split_once(':').is_some_and(|(names, _)| names.split(' ').any(|name| name == target));
            assert!(makefile.lines().any(is_target), "{name}: make {target}");
        }
    }
    assert!(count > 10);
}

/// The files that a dynamically linked command needs, as `PATH=FILE`; none for a static one.
fn libraries(command: &str) -> Vec<String> {
    let output = Command::new("ldd").arg(command).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(|path| format!("{path}={path}")).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn the_image_of_the_command_runs_where_there_is_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("image");
    // Without debug information, like a release.
    let stripped = folder.path().join("penstock");
    assert!(Command::new("strip").arg("-o").arg(&stripped).arg(PENSTOCK).status().unwrap().success());
    let mut command = Command::new(PENSTOCK);
    command.args(["image", "build"]).arg(&stripped).arg("--output").arg(&layout);
    for library in libraries(PENSTOCK) {
        command.args(["--file", &library]);
    }
    let built = command.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        layout.join("blobs/sha256").join(digest)
    };
    let read = |path: PathBuf| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = read(layout.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]));
    let config = read(blob(&manifest["config"]));
    assert_eq!(config["architecture"], architecture());
    assert_eq!(config["config"]["User"], "65532:65532");

    // Unpacks the layers into a folder, which becomes the root, as a container runtime does.
    let system = folder.path().join("system");
    fs::create_dir(&system).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let unpacked = Command::new("tar").arg("-xzf").arg(blob(layer)).arg("-C").arg(&system).status().unwrap();
        assert!(unpacked.success());
    }
    let entry = config["config"]["Entrypoint"][0].as_str().unwrap();
    let inside = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "chroot"]).arg(&system).arg(entry);
        command.args(arguments).output().unwrap()
    };
    let version = inside(&["--version"]);
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("penstock {VERSION}\n"), "{:?}", version.stderr);
    fs::write(system.join("policy.yaml"), "routes: {default: stable}\n").unwrap();
    assert_eq!(String::from_utf8(inside(&["check", "/policy.yaml"]).stdout).unwrap(), "/policy.yaml: valid\n");
    // The build folder is not mounted: nothing of this machine is visible.
    assert!(!inside(&["check", root().join("README.md").to_str().unwrap()]).status.success());
}

#[test]
fn a_bill_of_materials_lists_the_commands_dependencies() {
    let metadata = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    fs::write(metadata.path(), output.stdout).unwrap();
    let sbom =
        |arguments: &[&str]| Command::new(PENSTOCK).args(["image", "sbom", PENSTOCK]).args(arguments).output().unwrap();
    let file = metadata.path().to_str().unwrap();
    let bill: serde_json::Value = serde_json::from_slice(&sbom(&["--cargo-metadata", file]).stdout).unwrap();
    let names: Vec<_> =
        bill["components"].as_array().unwrap().iter().filter_map(|part| part["name"].as_str()).collect();
    assert!(names.contains(&"penstock-policy") && names.contains(&"rustls"), "{names:?}");
    assert!(!names.contains(&"proptest") && !names.contains(&"wasmi"), "{names:?}");
    assert!(refused(&sbom(&[])).contains("needs --cargo-metadata FILE"));
    assert!(refused(&sbom(&["--cargo-metadata", file, "--name", "other"])).contains("penstock-other"));
}
