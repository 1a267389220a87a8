//! `penstock image` with a real registry, and its images as other clients pull them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{Access, Registry, Tokens, hosts, tool, with_hosts};
use penstock_integration::workspace;
use serde_json::Value;

/// The command under test, as built by `make build`.
fn penstock() -> Result<PathBuf> {
    let path = workspace::module("suite")?.with_file_name("penstock");
    ensure!(path.is_file(), "there is no {}: run `make build` first", path.display());
    Ok(path)
}

/// Runs a command and returns its output; on failure, the error contains its message. `docker` is the folder of
/// Docker's configuration.
fn output(program: &Path, docker: &Path, arguments: &[&str]) -> Result<String> {
    output_of(Command::new(program), docker, arguments)
}

fn output_of(mut command: Command, docker: &Path, arguments: &[&str]) -> Result<String> {
    let output = command.args(arguments).env("DOCKER_CONFIG", docker).output().context("cannot start it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// The output of `cargo metadata` for this workspace, in a file.
fn metadata(folder: &Path) -> Result<String> {
    let arguments = ["metadata", "--format-version=1", "--locked", "--filter-platform=wasm32-wasip1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(workspace::root()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = folder.join("metadata.json");
    fs::write(&path, output.stdout)?;
    Ok(path.display().to_string())
}

/// Pushes the suite, and returns the kind and name in each line of the output.
fn push(registry: &Registry, docker: &Path, flags: &[&str]) -> Result<Vec<(String, String)>> {
    let module = workspace::module("suite")?.display().to_string();
    let to = format!("{}/team/suite:1.0.0", registry.address());
    let printed = output(&penstock()?, docker, &[&["image", "push", &module, &to], flags].concat())?;
    let lines = printed.lines().filter_map(|line| line.split_once(' '));
    Ok(lines.map(|(kind, name)| (kind.to_owned(), name.trim().to_owned())).collect())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn an_independent_client_pulls_what_was_pushed_and_finds_what_refers_to_it() -> Result<()> {
    let registry = Registry::start(&Access::Open)?;
    let nowhere = registry.folder().join("no-docker-config");
    let metadata = metadata(registry.folder())?;
    let flags = ["--cargo-metadata", &metadata, "--revision", "0123456789abcdef0123456789abcdef01234567"];
    let pushed = push(&registry, &nowhere, &flags)?;
    let kinds: Vec<&str> = pushed.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["image", "sbom", "provenance", "artifact", "sbom", "provenance"]);
    assert_eq!(push(&registry, &nowhere, &flags)?, pushed, "the second push made something else");

    let crane = tool("crane")?;
    let crane = |arguments: &[&str]| output(&crane, &nowhere, arguments);
    let module = fs::read(workspace::module("suite")?)?;
    let tar = registry.folder().join("image.tar");
    crane(&["export", pushed.first().map_or("", |(_, name)| name), &tar.display().to_string()])?;
    assert!(fs::read(&tar)?.windows(module.len()).any(|window| window == module), "the image has another module");
    crane(&["validate", "--remote", pushed.first().map_or("", |(_, name)| name)])?;

    let artifact: Value = serde_json::from_str(&crane(&["manifest", pushed.get(3).map_or("", |(_, name)| name)])?)?;
    let layer = artifact.pointer("/layers/0/digest").and_then(Value::as_str).context("no layer")?;
    let name = format!("{}/team/suite@{layer}", registry.address());
    let blob = Command::new(tool("crane")?).args(["blob", &name]).output()?;
    assert!(blob.stdout == module, "the artifact has another module");

    // This registry has no referrers API, so a tag lists the referrers. A second push adds nothing.
    for (at, kinds) in [(0, 2), (3, 2)] {
        let (_, digest) = pushed.get(at).and_then(|(_, name)| name.split_once('@')).context("no digest")?;
        let index = registry.manifest("team/suite", &digest.replacen(':', "-", 1))?;
        let listed = index.get("manifests").and_then(Value::as_array).context("no index")?;
        let types: Vec<_> = listed.iter().filter_map(|entry| entry.get("artifactType")?.as_str()).collect();
        assert_eq!(types, ["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]);
        assert_eq!(listed.len(), kinds);
        for entry in listed {
            let digest = entry.get("digest").and_then(Value::as_str).context("no digest")?;
            crane(&["validate", "--remote", &format!("{}/team/suite@{digest}", registry.address())])?;
        }
    }
    // The SBOM lists the dependencies of the module, and none that only tests use.
    let (_, digest) = pushed.get(1).and_then(|(_, name)| name.split_once('@')).context("no digest")?;
    let bill = registry.manifest("team/suite", digest)?;
    let layer = bill.pointer("/layers/0/digest").and_then(Value::as_str).context("no layer")?;
    let bill: Value = serde_json::from_str(&crane(&["blob", &format!("{}/team/suite@{layer}", registry.address())])?)?;
    let components = bill.get("components").and_then(Value::as_array).context("no components")?;
    let names: Vec<_> = components.iter().filter_map(|component| component.get("name")?.as_str()).collect();
    assert!(names.contains(&"hashbrown") && names.contains(&"penstock-wasm"), "{names:?}");
    assert!(!names.contains(&"proptest") && !names.contains(&"clap"), "{names:?}");
    Ok(())
}

/// The steps of .github/workflows/release.yml, with this machine's command and its libraries, because it is not linked
/// statically.
#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_script_of_a_release_pushes_modules_and_the_command_s_container() -> Result<()> {
    let registry = Registry::start(&Access::Open)?;
    let nowhere = registry.folder().join("no-docker-config");
    let dist = penstock()?.parent().context("no folder")?.to_owned();
    let release = registry.folder().join("release");
    let script = |name: &str| {
        let mut command = Command::new(workspace::root().join("scripts/release").join(name));
        command.env("PENSTOCK", dist.join("penstock"));
        command
    };
    let (dist_name, release_name) = (dist.display().to_string(), release.display().to_string());
    let command = dist.join("penstock").display().to_string();
    output_of(script("archive.sh"), &nowhere, &[&command, "linux", "amd64", &release_name])?;
    output_of(script("modules.sh"), &nowhere, &[&dist_name, &release_name])?;

    let linked = Command::new("ldd").arg(&command).output()?;
    let linked = String::from_utf8(linked.stdout)?;
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/')).map(|path| format!("{path}={path}"));
    let certificates = registry.folder().join("authorities.pem");
    fs::write(&certificates, "none")?;
    let mut images = script("images.sh");
    images.env("FILES", libraries.collect::<Vec<_>>().join(" ")).env("CERTIFICATES", &certificates);
    let name = format!("{}/penstock-proxy", registry.address());
    let printed = output_of(images, &nowhere, &[&name, &release_name])?;
    for module in ["header-routing", "canary", "rate-limit", "egress-allowlist", "suite", "penstock"] {
        let prefix = format!("{name}/{module}:");
        let line = printed.lines().find(|line| line.starts_with("image ") && line.contains(&prefix));
        let image =
            line.and_then(|line| line.split_whitespace().nth(1)).with_context(|| format!("{module}: {printed}"))?;
        output(&tool("crane")?, &nowhere, &["validate", "--remote", image])?;
    }
    let files = registry.folder().join("command.tar");
    output(
        &tool("crane")?,
        &nowhere,
        &["export", &format!("{name}/penstock:{}", env!("CARGO_PKG_VERSION")), &files.display().to_string()],
    )?;
    let listed = output(Path::new("tar"), &nowhere, &["-tf", &files.display().to_string()])?;
    for file in ["usr/local/bin/penstock", "etc/ssl/certs/ca-certificates.crt"] {
        ensure!(listed.lines().any(|line| line == file), "{file} is not in the image: {listed}");
    }
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn a_registry_that_wants_a_password_gets_the_one_of_docker_login_and_says_what_to_do_without() -> Result<()> {
    let registry = Registry::start(&Access::Password)?;
    let refused = push(&registry, &registry.folder().join("none"), &[]).map_err(|error| error.to_string());
    assert!(refused.as_ref().is_err_and(|why| why.contains("run `docker login 127.0.0.1:")), "{refused:?}");
    let pushed = push(&registry, &registry.docker_config()?, &[])?;
    let (_, name) = pushed.first().context("nothing was pushed")?;
    output(&tool("crane")?, &registry.docker_config()?, &["validate", "--remote", name])?;
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn a_registry_with_a_server_of_tokens_gets_one_for_exactly_what_a_push_needs() -> Result<()> {
    let tokens = Tokens::start()?;
    let registry = Registry::start(&tokens.access())?;
    let hosts = hosts(registry.folder())?;
    let module = workspace::module("suite")?.display().to_string();
    let to = format!("{}/team/suite:1.0.0", registry.address());
    let push = |docker: &Path| output_of(with_hosts(&hosts, &penstock()?), docker, &["image", "push", &module, &to]);

    let refused = push(&registry.folder().join("none")).map_err(|error| format!("{error:#}"));
    assert!(refused.as_ref().is_err_and(|why| why.contains("gives no token for no credentials")), "{refused:?}");
    assert!(refused.is_err_and(|why| why.contains(&format!("`docker login {}`", registry.address()))));

    let pushed = push(&registry.docker_config()?)?;
    let asked: Vec<_> = tokens.requests().iter().map(|request| request.path()).collect();
    assert!(asked.iter().all(|path| path.contains("scope=repository%3Ateam%2Fsuite%3Apull%2Cpush")), "{asked:?}");
    let (_, name) = pushed.lines().next().and_then(|line| line.split_once(' ')).context("nothing was pushed")?;
    let crane =
        |docker: &Path| output_of(with_hosts(&hosts, &tool("crane")?), docker, &["validate", "--remote", name.trim()]);
    crane(&registry.docker_config()?)?;
    assert!(crane(&registry.folder().join("none")).is_err(), "anybody may pull");
    Ok(())
}

/// As documented in docs/distribution.md, without a public transparency log and without any network except the
/// registry.
#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn cosign_signs_what_was_pushed_and_tells_it_from_what_was_not() -> Result<()> {
    let registry = Registry::start(&Access::Open)?;
    let nowhere = registry.folder().join("none");
    let metadata = metadata(registry.folder())?;
    let flags = ["--cargo-metadata", &metadata];
    let pushed = push(&registry, &nowhere, &flags)?;
    let named =
        |kind: &str| pushed.iter().find(|(found, _)| found == kind).map(|(_, name)| name.as_str()).context("none");
    let (image, artifact) = (named("image")?, named("artifact")?);

    let cosign = |arguments: &[&str]| -> Result<String> {
        let mut command = Command::new(tool("cosign")?);
        command.current_dir(registry.folder()).env("HOME", registry.folder()).env("COSIGN_PASSWORD", "");
        output_of(command, &nowhere, arguments)
    };
    for key in ["cosign", "other"] {
        cosign(&["generate-key-pair", "--output-key-prefix", key])?;
    }
    cosign(&["sign", "--key=cosign.key", "--tlog-upload=false", "--use-signing-config=false", "-y", image])?;
    let verify = |key: &str, what: &str| cosign(&["verify", "--key", key, "--insecure-ignore-tlog=true", what]);
    let (_, digest) = image.split_once('@').context("no digest")?;
    assert!(verify("cosign.pub", image)?.contains(digest));
    assert!(verify("other.pub", image).is_err(), "signed by a key that signed nothing");
    assert!(verify("cosign.pub", artifact).is_err(), "what was not signed is");

    // The signature refers to the image, like SBOM and provenance, and another push of the same image keeps it.
    let referrers = || -> Result<usize> {
        let index = registry.manifest("team/suite", &digest.replacen(':', "-", 1))?;
        Ok(index.get("manifests").and_then(Value::as_array).map_or(0, Vec::len))
    };
    assert_eq!(referrers()?, 3);
    push(&registry, &nowhere, &flags)?;
    assert_eq!(referrers()?, 3);
    verify("cosign.pub", image)?;
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn a_push_waits_for_a_registry_that_is_just_starting() -> Result<()> {
    let mut registry = Registry::start(&Access::Open)?;
    registry.down();
    let none = registry.folder().join("none");
    let module = workspace::module("suite")?.display().to_string();
    let to = format!("{}/team/suite:1.0.0", registry.address());
    let push = Command::new(penstock()?)
        .args(["image", "push", &module, &to])
        .env("DOCKER_CONFIG", none)
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    registry.up()?;
    ensure!(push.wait_with_output()?.status.success(), "it gave up");
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_folder_that_build_writes_has_the_digests_that_push_prints() -> Result<()> {
    let registry = Registry::start(&Access::Open)?;
    let none = registry.folder().join("none");
    let module = workspace::module("suite")?.display().to_string();
    let layout = registry.folder().join("layout").display().to_string();
    let built = output(&penstock()?, &none, &["image", "build", &module, "--output", &layout])?;
    let pushed = push(&registry, &none, &[])?;
    let digests: Vec<&str> =
        pushed.iter().filter_map(|(_, name)| name.split_once('@').map(|(_, digest)| digest)).collect();
    assert_eq!(built.lines().filter_map(|line| line.split_whitespace().nth(1)).collect::<Vec<_>>(), digests);
    let index: Value = serde_json::from_slice(&fs::read(Path::new(&layout).join("index.json"))?)?;
    assert_eq!(index.get("manifests").and_then(Value::as_array).map(Vec::len), Some(digests.len()));
    Ok(())
}
