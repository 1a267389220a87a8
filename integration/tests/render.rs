//! What `penstock render --for envoy` prints, in a real Envoy.

use std::fs;

use anyhow::Result;
use clap::Parser;
use penstock::output::Output;
use penstock::render;
use penstock_integration::http::{self, Protocol, Request};
use penstock_integration::{Bootstrap, Envoy, Upstream, workspace};

/// A policy with all four sections.
const POLICY: &str = r#"
egress:
  rules:
  - {name: shop, to: [{host: shop.example.com}]}
rateLimits:
- {name: per-user, matches: [{path: {value: /limited}}], key: [{header: x-user}], limit: {requests: 1, per: 1h}}
routes:
  default: stable
  rules:
  - {name: beta-users, matches: [{headers: [{name: x-user-group, value: beta}]}], route: beta}
canaries:
- {name: reviews, matches: [{path: {value: /reviews}}], variants: [{name: v1, weight: 0}, {name: v2, weight: 1}]}
"#;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: render::Args,
}

fn rendered(services: &[(&str, &Upstream)]) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, POLICY)?;
    let services: Vec<String> =
        services.iter().map(|(route, upstream)| format!("--service={route}={}", upstream.address())).collect();
    let policy = policy.display().to_string();
    let arguments = ["render", &policy, "--for", "envoy"].into_iter().chain(services.iter().map(String::as_str));
    let mut text = Vec::new();
    let mut out = Output::plain(&mut text);
    Command::try_parse_from(arguments)?.args.run(&mut out)?;
    drop(out);
    Ok(String::from_utf8(text)?)
}

#[test]
fn the_rendered_bootstrap_is_valid_and_does_what_the_policy_says() -> Result<()> {
    let (stable, beta, v1, v2) = (Upstream::echo()?, Upstream::echo()?, Upstream::echo()?, Upstream::echo()?);
    let mut yaml = rendered(&[("stable", &stable), ("beta", &beta), ("v1", &v1), ("v2", &v2)])?;
    for (from, to) in [
        ("/etc/penstock/suite.wasm", workspace::module("suite")?.display().to_string()),
        ("/etc/penstock/egress-allowlist.wasm", workspace::module("egress-allowlist")?.display().to_string()),
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
        let ask = |request: &Request| http::send(protocol, envoy.ingress()?, request);
        assert_eq!(ask(&Request::get("/"))?.status, 200);
        assert_eq!(ask(&Request::get("/").header("x-user-group", "beta"))?.status, 200);
        assert_eq!(ask(&Request::get("/").header("x-penstock-route", "beta"))?.status, 200);
        assert_eq!(ask(&Request::get("/reviews"))?.status, 200);
        let limited = Request::get("/limited").header("x-user", protocol.to_string());
        assert_eq!((ask(&limited)?.status, ask(&limited)?.status), (200, 429));
        let after = counts();
        let more: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(more, [3, 1, 0, 1], "{protocol}");

        let outside = http::send(protocol, envoy.address("egress")?, &Request::get("/").at("evil.test"))?;
        assert_eq!(outside.status, 403, "{protocol}");
    }
    envoy.check_healthy()
}
