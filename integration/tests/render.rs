//! The output of `penstock render --for envoy` in a real Envoy.

use std::fs;

use anyhow::Result;
use clap::Parser;
use penstock::output::Output;
use penstock::render;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, RENDERED_POLICY, Upstream, workspace};

/// Makes [`RENDERED_POLICY`] a policy with all four sections.
const EGRESS: &str = "\
egress:
  rules:
  - {name: shop, to: [{host: shop.example.com}]}
";

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: render::Args,
}

/// The bootstrap for a target: the output itself, or the file in it that Envoy reads.
fn rendered(target: &str, services: &[(&str, &Upstream)]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, [EGRESS, RENDERED_POLICY].concat())?;
    let services: Vec<String> =
        services.iter().map(|(route, upstream)| format!("--service={route}={}", upstream.address())).collect();
    let policy = policy.display().to_string();
    let base = folder.path().join("base");
    let output = base.display().to_string();
    let for_target = match target {
        "kustomize" => vec!["--image", "127.0.0.1:5000/penstock/suite:0.1.0", "--output", output.as_str()],
        _ => Vec::new(),
    };
    let arguments = ["render", &policy, "--for", target].into_iter().chain(for_target);
    let arguments = arguments.chain(services.iter().map(String::as_str));
    let mut text = Vec::new();
    let mut out = Output::plain(&mut text);
    Command::try_parse_from(arguments)?.args.run(&mut out)?;
    drop(out);
    match target {
        "kustomize" => Ok(fs::read_to_string(base.join("envoy.yaml"))?),
        _ => Ok(String::from_utf8(text)?),
    }
}

#[test]
fn the_rendered_bootstrap_is_valid_and_does_what_the_policy_says() -> Result<()> {
    does_what_the_policy_says("envoy")
}

#[test]
fn the_bootstrap_of_the_rendered_kustomize_base_is_valid_and_does_what_the_policy_says() -> Result<()> {
    does_what_the_policy_says("kustomize")
}

fn does_what_the_policy_says(target: &str) -> Result<()> {
    let (stable, beta, v1, v2) = (Upstream::echo()?, Upstream::echo()?, Upstream::echo()?, Upstream::echo()?);
    let mut yaml = rendered(target, &[("stable", &stable), ("beta", &beta), ("v1", &v1), ("v2", &v2)])?;
    let mounted = if target == "kustomize" { "/plugin.wasm" } else { ".wasm" };
    let (suite, allowlist) =
        ["suite", "egress-allowlist"].map(|module| format!("/etc/penstock/{module}{mounted}")).into();
    for (from, to) in [
        (suite.as_str(), workspace::module("suite")?.display().to_string()),
        (allowlist.as_str(), workspace::module("egress-allowlist")?.display().to_string()),
        ("port_value: 9901", "port_value: 0".to_owned()),
        ("address: 0.0.0.0, port_value: 10000", "address: 127.0.0.1, port_value: 0".to_owned()),
        ("address: 0.0.0.0, port_value: 15443", "address: 127.0.0.1, port_value: 0".to_owned()),
    ] {
        assert!(yaml.contains(from), "there is no {from:?} in\n{yaml}");
        yaml = yaml.replace(from, &to);
    }
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    fs::write(file.path(), &yaml)?;
    Envoy::validate(file.path())?;

    let mut envoy = Bootstrap::text(&yaml)?.start()?;
    for protocol in Protocol::ALL {
        let counts = || [&stable, &beta, &v1, &v2].map(Upstream::requests);
        let before = counts();
        let ask = |request: &HttpRequest| http::send(protocol, envoy.ingress()?, request);
        assert_eq!(ask(&HttpRequest::get("/"))?.status, 200);
        assert_eq!(ask(&HttpRequest::get("/").header("x-user-group", "beta"))?.status, 200);
        assert_eq!(ask(&HttpRequest::get("/").header("x-penstock-route", "beta"))?.status, 200);
        assert_eq!(ask(&HttpRequest::get("/reviews"))?.status, 200);
        let limited = HttpRequest::get("/limited").header("x-user", protocol.to_string());
        assert_eq!((ask(&limited)?.status, ask(&limited)?.status), (200, 429));
        let after = counts();
        let more: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(more, [3, 1, 0, 1], "{protocol}");

        let outside = http::send(protocol, envoy.address("egress")?, &HttpRequest::get("/").at("evil.test"))?;
        assert_eq!(outside.status, 403, "{protocol}");
    }
    envoy.check_healthy()
}
