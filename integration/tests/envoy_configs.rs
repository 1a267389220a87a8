//! The bootstraps in `envoy-configs/`, unchanged except for addresses and file paths.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, RateLimitService, Route, Upstream, wait_until, workspace};
use tempfile::TempDir;

/// Reads a file of `envoy-configs/` and replaces each of these texts, every one of which must occur.
fn read(name: &str, replacements: &[(&str, &str)]) -> Result<String> {
    let path = workspace::root().join("envoy-configs").join(name);
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (from, to) in replacements {
        assert!(text.contains(from), "{name} has no {from:?}");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// Starts two upstreams, and Envoy with the bootstrap `name` in front of them.
struct Setting {
    stable: Upstream,
    beta: Upstream,
    folder: TempDir,
}

impl Setting {
    fn new() -> Result<Self> {
        Ok(Setting { stable: Upstream::echo()?, beta: Upstream::echo()?, folder: tempfile::tempdir()? })
    }

    fn bootstrap(&self, name: &str, places: &[(&str, &str)]) -> Result<String> {
        let ports = [8081, 8082].map(|port| format!("port_value: {port}"));
        let free = [&self.stable, &self.beta].map(|upstream| format!("port_value: {}", upstream.address().port()));
        let mut replacements = vec![
            ("port_value: 9901", "port_value: 0"),
            ("address: 0.0.0.0, port_value: 10000", "address: 127.0.0.1, port_value: 0"),
        ];
        replacements.extend(ports.iter().map(String::as_str).zip(free.iter().map(String::as_str)));
        replacements.extend(places);
        read(name, &replacements)
    }

    /// Writes the file that `ecds.yaml` discovers.
    fn write_filter(&self, replacements: &[(&str, &str)]) -> Result<()> {
        let module = workspace::module("suite")?.display().to_string();
        let mut all = vec![("/etc/penstock/suite.wasm", module.as_str())];
        all.extend(replacements);
        let next = self.folder.path().join("next");
        fs::write(&next, read("ecds/penstock.yaml", &all)?)?;
        Ok(fs::rename(next, self.filter())?)
    }

    fn filter(&self) -> std::path::PathBuf {
        self.folder.path().join("penstock.yaml")
    }

    /// Checks that the policy of the files works as described.
    fn check(&self, envoy: &mut Envoy) -> Result<()> {
        for protocol in Protocol::ALL {
            let (stable, beta) = (self.stable.requests(), self.beta.requests());
            let ask = |request: &HttpRequest| http::send(protocol, envoy.ingress()?, request);
            assert_eq!(ask(&HttpRequest::get("/a//b/../c"))?.status, 200);
            assert_eq!(ask(&HttpRequest::get("/").header("x-user-group", "beta"))?.status, 200);
            assert_eq!(ask(&HttpRequest::get("/").header("x-penstock-route", "beta"))?.status, 200);
            assert_eq!((self.stable.requests(), self.beta.requests()), (stable + 2, beta + 1), "{protocol}");
            assert!(self.stable.all().iter().any(|request| request.path() == "/a/c"), "{:?}", self.stable.all());
            // Over HTTP/2 this resets the stream.
            let underscore = ask(&HttpRequest::get("/").header("x_user_group", "beta"));
            assert!(underscore.as_ref().map_or(true, |response| response.status == 400), "{protocol}: {underscore:?}");
        }
        envoy.check_healthy()
    }
}

fn validate(yaml: &str) -> Result<()> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    fs::write(file.path(), yaml)?;
    Envoy::validate(file.path())
}

#[test]
fn the_static_bootstrap_is_valid_and_routes_as_its_policy_says() -> Result<()> {
    let setting = Setting::new()?;
    let module = workspace::module("suite")?.display().to_string();
    let yaml = setting.bootstrap("static.yaml", &[("/etc/penstock/suite.wasm", &module)])?;
    validate(&yaml)?;
    setting.check(&mut Bootstrap::text(&yaml)?.start()?)
}

#[test]
fn with_a_mistake_in_the_policy_the_static_bootstrap_is_refused_with_the_messages_that_the_page_quotes() -> Result<()> {
    let module = workspace::module("suite")?.display().to_string();
    let places = [("/etc/penstock/suite.wasm", module.as_str()), ("\"matches\"", "\"mathces\"")];
    let log = match validate(&Setting::new()?.bootstrap("static.yaml", &places)?) {
        Err(error) => error.to_string(),
        Ok(()) => String::new(),
    };
    let page = fs::read_to_string(workspace::root().join("docs/envoy.md"))?;
    for message in ["configuration refused: routes.rules[0].mathces: ", "Unable to create Wasm plugin penstock"] {
        ensure!(page.contains(message) && log.contains(message), "{message}: {log}");
    }
    Ok(())
}

/// The example for plain Envoy in the README.
#[test]
fn the_bootstrap_for_a_first_try_answers_by_itself() -> Result<()> {
    let module = format!("filename: {}", workspace::module("suite")?.display());
    let places = [
        ("port_value: 9901", "port_value: 0"),
        ("address: 127.0.0.1, port_value: 10000", "address: 127.0.0.1, port_value: 0"),
        ("filename: suite.wasm", module.as_str()),
    ];
    let yaml = read("quickstart.yaml", &places)?;
    validate(&yaml)?;
    let mut envoy = Bootstrap::text(&yaml)?.start()?;
    let ask = |request: &HttpRequest| http::send(Protocol::Http1, envoy.ingress()?, request);
    let stable = ask(&HttpRequest::get("/"))?;
    assert_eq!((stable.status, stable.body.as_slice()), (200, &b"stable\n"[..]));
    let beta = ask(&HttpRequest::get("/").header("x-user-group", "beta"))?;
    assert_eq!((beta.status, beta.body.as_slice()), (200, &b"beta\n"[..]));
    let statuses: Vec<u16> =
        (0..7).map(|_| Ok(ask(&HttpRequest::get("/").header("x-api-key", "a"))?.status)).collect::<Result<_>>()?;
    assert_eq!(statuses.first(), Some(&200));
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    envoy.check_healthy()
}

/// A release of what was built, served on this machine: the commands of the quick start, from an empty home folder.
#[test]
fn a_newcomer_gets_the_answers_that_the_readme_shows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let release = folder.path().to_str().context("a path")?;
    let dist = workspace::module("suite")?.parent().context("no folder")?.to_owned();
    let (dist, penstock) = (dist.display().to_string(), dist.join("penstock").display().to_string());
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    fs::copy(workspace::root().join("install.sh"), folder.path().join("install.sh"))?;
    for arguments in [
        &["archive.sh", &penstock, "linux", arch, release][..],
        &["modules.sh", &dist, release],
        &["checksums.sh", release],
        &["try.sh", release],
    ] {
        let mut command = Command::new(workspace::root().join("scripts/release").join(arguments[0]));
        let output = command.args(&arguments[1..]).env("ENVOY_BIN", workspace::envoy_binary()?).output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

#[test]
fn the_bootstrap_of_the_native_body_is_valid_and_routes_as_its_policy_says() -> Result<()> {
    let setting = Setting::new()?;
    let library = workspace::native_library()?.display().to_string();
    let yaml = setting.bootstrap("native.yaml", &[("/etc/penstock/libpenstock.so", &library)])?;
    validate(&yaml)?;
    setting.check(&mut Bootstrap::text(&yaml)?.start()?)
}

#[test]
fn the_bootstrap_with_discovery_is_valid_and_routes_as_its_policy_says() -> Result<()> {
    let setting = Setting::new()?;
    setting.write_filter(&[])?;
    let yaml = setting
        .bootstrap("ecds.yaml", &[("path: /etc/penstock/ecds/penstock.yaml", &path_field(&setting.filter()))])?;
    validate(&yaml)?;
    let mut envoy = Bootstrap::text(&yaml)?.start()?;
    setting.check(&mut envoy)?;

    let stat = |name: &str| envoy.admin().stat(&format!("extension_config_discovery.http_filter.penstock.{name}"));
    setting.write_filter(&[("version_info: \"1\"", "version_info: \"2\""), ("\"matches\"", "\"mathces\"")])?;
    wait_until("the filter is refused", || Ok(stat("config_fail")? == 1))?;
    setting.write_filter(&[
        ("version_info: \"1\"", "version_info: \"3\""),
        ("\"value\": \"beta\"", "\"value\": \"test\""),
    ])?;
    wait_until("the filter is accepted", || Ok(stat("update_success")? == 2))?;
    wait_until("the new policy decides", || {
        let request = HttpRequest::get("/").header("x-user-group", "test");
        let before = setting.beta.requests();
        http::send(Protocol::Http1, envoy.ingress()?, &request)?;
        Ok(setting.beta.requests() > before)
    })
}

#[test]
fn without_a_valid_first_policy_the_bootstrap_with_discovery_forwards_nothing() -> Result<()> {
    let setting = Setting::new()?;
    setting.write_filter(&[("\"matches\"", "\"mathces\"")])?;
    let yaml = setting
        .bootstrap("ecds.yaml", &[("path: /etc/penstock/ecds/penstock.yaml", &path_field(&setting.filter()))])?;
    let envoy = Bootstrap::text(&yaml)?.start()?;
    assert!(envoy.log()?.contains("routes.rules[0].mathces"), "{}", envoy.log()?);
    assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/"))?.status, 500);
    assert_eq!(setting.stable.requests() + setting.beta.requests(), 0);
    setting.write_filter(&[("version_info: \"1\"", "version_info: \"2\"")])?;
    let serves = || Ok(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/"))?.status == 200);
    wait_until("the filter serves", serves)
}

fn path_field(path: &Path) -> String {
    format!("path: {}", path.display())
}

#[test]
fn the_rate_limit_service_is_called_for_requests_that_the_local_limit_passes() -> Result<()> {
    let Some(service) = RateLimitService::start(&["domain: shop\ndescriptors: []\n"])? else { return Ok(()) };
    let shop = Upstream::echo()?;
    let module = workspace::module("rate-limit")?.display().to_string();
    let port = |address: std::net::SocketAddr| format!("port_value: {}", address.port());
    let yaml = read(
        "rate-limit.yaml",
        &[
            ("port_value: 9901", "port_value: 0"),
            ("address: 0.0.0.0, port_value: 10000", "address: 127.0.0.1, port_value: 0"),
            ("/etc/penstock/rate-limit.wasm", &module),
            ("port_value: 8080", &port(shop.address())),
            ("port_value: 8081", &port(service.address())),
            // The limit must not refill during the test, even on a busy machine.
            ("\"timeout\": \"20ms\"", "\"timeout\": \"5s\""),
            ("\"requests\": 20, \"per\": \"1s\"", "\"requests\": 20, \"per\": \"24h\""),
            ("\"requests\": 1000, \"per\": \"1h\"", "\"requests\": 15, \"per\": \"24h\""),
        ],
    )?;
    validate(&yaml)?;
    let mut envoy = Bootstrap::text(&yaml)?.start()?;
    let mut statuses = Vec::new();
    let request = HttpRequest::get("/").header("x-api-key", "k-1");
    for protocol in Protocol::ALL.into_iter().cycle().take(60) {
        let response = http::send(protocol, envoy.ingress()?, &request)?;
        assert!(response.status == 429 || response.header("ratelimit").is_some(), "{response:?}");
        statuses.push(response.status);
    }
    // A flood of 60 requests makes 20 calls; the service allows 15 of them.
    let passed = statuses.iter().filter(|&&status| status == 200).count();
    assert_eq!((passed, shop.requests()), (15, 15), "{statuses:?}");
    assert_eq!(envoy.admin().stat("cluster.ratelimit.upstream_rq_total")?, 20);
    envoy.check_healthy()
}

#[test]
fn the_egress_gateway_is_valid_and_identifies_callers_by_certificate() -> Result<()> {
    let module = workspace::module("egress-allowlist")?.display().to_string();
    let tls = |file: &str| workspace::root().join("integration/tests/tls").join(file).display().to_string();
    let (certificate, key) = (tls("gateway.crt"), tls("gateway.key"));
    let gateway = |caller: &str| {
        read(
            "egress-gateway.yaml",
            &[
                ("port_value: 9901", "port_value: 0"),
                ("address: 0.0.0.0, port_value: 15443", "address: 127.0.0.1, port_value: 0"),
                ("/etc/penstock/egress-allowlist.wasm", &module),
                ("/etc/penstock/tls/gateway.crt", &certificate),
                ("/etc/penstock/tls/gateway.key", &key),
                ("/etc/penstock/tls/ca.crt", &certificate),
                ("/etc/ssl/certs/ca-certificates.crt", &certificate),
                ("sa/checkout\"", caller),
            ],
        )
    };
    for (caller, expected) in [("sa/checkout\"", None), ("sa/web\"", Some("callerNotAllowed"))] {
        let yaml = gateway(caller)?;
        validate(&yaml)?;
        let mut egress = Bootstrap::text(&yaml)?.start()?;
        // The workload's proxy: another Envoy with the certificate of spiffe://cluster.local/ns/payments/sa/checkout.
        let transport = serde_json::json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"tls_certificates": [{
                "certificate_chain": {"filename": certificate}, "private_key": {"filename": key},
            }]},
        }});
        let address = egress.address("egress")?;
        let sidecar = Bootstrap::new()?
            .any_cluster(serde_json::json!({
                "name": "gateway", "type": "STATIC", "connect_timeout": "1s", "transport_socket": transport,
                "load_assignment": {"cluster_name": "gateway", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                    {"socket_address": {"address": "127.0.0.1", "port_value": address.port()}}}}]}]},
            }))
            .listener(Listener::new("workload").route(Route::any().to("gateway")))
            .start()?;
        let ask = |authority: &str, path: &str| {
            http::send(Protocol::Http1, sidecar.address("workload")?, &HttpRequest::new("POST", authority, path))
        };
        // When the module allows the request, Envoy tries to resolve the host; its response is no longer the module's.
        let listed = ask("api.stripe.com:443", "/v1/charges")?;
        assert_eq!(listed.json().get("reason").and_then(|reason| reason.as_str()), expected, "{}", listed.text());
        let other = ask("evil.test:443", "/")?;
        assert_eq!((other.status, other.json().get("reason").cloned()), (403, Some("hostNotAllowed".into())));
        assert_eq!(ask("evil.test,api.stripe.com", "/")?.status, 400);
        egress.check_healthy()?;
    }
    Ok(())
}
