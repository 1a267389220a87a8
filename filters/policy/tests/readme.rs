//! The package is complete and can be published: its README's examples run as documentation tests, its manifest says what a registry asks for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

/// The README, whose examples `cargo test --doc` runs where they are documentation.
const README: &str = include_str!("../README.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

#[test]
fn the_readme_names_every_feature_and_the_minimum_rust_version() {
    let features = MANIFEST.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
    let names = features.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    for (name, _) in names {
        assert!(README.contains(&format!("| `{name}` |")), "README.md says nothing of the feature {name}");
    }
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(
        README.contains(&format!("minimum Rust version is {version}.")),
        "README.md names another Rust than {version}"
    );
}

#[test]
fn the_manifest_has_what_a_registry_asks_for() {
    for field in ["description", "license", "repository", "readme", "keywords", "categories", "rust-version"] {
        let there =
            |line: &str| line.starts_with(&format!("{field} =")) || line.starts_with(&format!("{field}.workspace"));
        assert!(MANIFEST.lines().any(there), "Cargo.toml has no {field}");
    }
    assert!(!MANIFEST.contains("publish.workspace"), "the workspace does not publish; this crate does");
}
