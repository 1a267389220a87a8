//! Paths: the workspace, the built modules, the Envoy binary.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder of the built modules: `$PENSTOCK_DIST`, or `dist/`, which `make build` fills.
pub fn dist() -> PathBuf {
    env::var_os("PENSTOCK_DIST").map_or_else(|| root().join("dist"), PathBuf::from)
}

/// The file of a built module, such as `suite`.
pub fn module(name: &str) -> Result<PathBuf> {
    let path = dist().join(format!("{name}.wasm"));
    ensure!(path.is_file(), "there is no module at {}: run `make build` first", path.display());
    Ok(path)
}

/// The file of the native body, `libpenstock.so`.
pub fn native_library() -> Result<PathBuf> {
    let path = dist().join("libpenstock.so");
    ensure!(path.is_file(), "there is no native module at {}: run `make build` first", path.display());
    Ok(path)
}

/// A module with the feature `trap`. It is built on demand into a separate target folder.
pub fn module_that_traps(name: &str) -> Result<PathBuf> {
    let package = format!("penstock-{name}");
    let built = build_with_trap(&package, &["--target", "wasm32-wasip1"])?;
    Ok(built.join("wasm32-wasip1/debug").join(format!("{}.wasm", package.replace('-', "_"))))
}

/// The native body with the feature `trap`: it panics when a request asks for it.
pub fn library_that_panics() -> Result<PathBuf> {
    Ok(build_with_trap("penstock-native", &[])?.join("debug/libpenstock.so"))
}

/// The folder of the built modules.
fn build_with_trap(package: &str, arguments: &[&str]) -> Result<PathBuf> {
    let arguments = [&["--package", package, "--features", "trap"], arguments].concat();
    build(&root(), root().join("target/trap"), &arguments)
}

/// The module of `examples/embed`, built on demand.
pub fn embed_example() -> Result<PathBuf> {
    let folder = root().join("examples/embed");
    let built = build(&folder, root().join("target/embed"), &["--target", "wasm32-wasip1"])?;
    Ok(built.join("wasm32-wasip1/debug/embed.wasm"))
}

/// Runs a debug build; returns the target folder.
fn build(folder: &Path, target: PathBuf, arguments: &[&str]) -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        .args(arguments)
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env_remove("RUSTFLAGS")
        .current_dir(folder)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "{} could not be built", folder.display());
    Ok(target)
}

/// The Envoy binary: `$ENVOY_BIN`, or the one that `make setup` installs into `.tools/bin/`.
pub fn envoy_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("ENVOY_BIN").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "ENVOY_BIN is {}, and there is no such file", path.display());
        return Ok(path);
    }
    let path = root().join(".tools/bin/envoy");
    ensure!(
        path.is_file(),
        "there is no Envoy at {}: run `make setup`, or set ENVOY_BIN to an Envoy binary",
        path.display()
    );
    Ok(path)
}
