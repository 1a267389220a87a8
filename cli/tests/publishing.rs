//! What the project publishes or uses beside a release: its crate, and its container base image.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn base_images_are_pinned_by_digest_and_kept_up_to_date() {
    let text = fs::read_to_string(root().join("deploy/image/Dockerfile")).unwrap();
    let image = text.lines().find_map(|line| line.strip_prefix("FROM ")).unwrap();
    let digest = image.split_once("@sha256:").map(|(_, digest)| digest).unwrap_or_default();
    assert!(digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()), "{image}");
    let updates = fs::read_to_string(root().join(".github/dependabot.yml")).unwrap();
    for ecosystem in ["cargo, directory: /,", "github-actions, directory: /,", "docker, directory: /deploy/image,"] {
        assert!(updates.contains(&format!("package-ecosystem: {ecosystem}")), "{ecosystem}");
    }
}

/// What `scripts/check-semver.sh` does in a repository with these tags.
fn checked_with(tags: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let scripts = folder.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    for script in ["check-semver.sh", "common.sh"] {
        fs::copy(root().join("scripts").join(script), scripts.join(script)).unwrap();
    }
    let stub = scripts.join("cargo-semver-checks");
    fs::write(&stub, "#!/bin/sh\necho \"$@\"\n").unwrap();
    fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |program: &Path, arguments: &[&str]| {
        let path = format!("{}:{}", scripts.display(), std::env::var("PATH").unwrap());
        let output =
            Command::new(program).args(arguments).current_dir(folder.path()).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let git = Path::new("git");
    run(git, &["init", "--quiet"]);
    let author = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
    run(git, &[&author[..], &["commit", "--quiet", "--allow-empty", "--message", "first"]].concat());
    for tag in tags {
        run(git, &["tag", tag]);
    }
    run(&scripts.join("check-semver.sh"), &[])
}

#[test]
fn the_crate_is_compared_with_the_newest_release() {
    assert!(checked_with(&[]).contains("there is no release yet"));
    assert!(checked_with(&["v0.2.0-rc.1", "values"]).contains("there is no release yet"));
    let said = checked_with(&["v0.9.0", "v0.10.0", "v0.10.0-rc.1", "v0.11.0-rc.1"]);
    assert_eq!(said, "semver-checks --package penstock-policy --baseline-rev v0.10.0\n");
}
