//! Access logs over TLS: the dash accepts them only from Envoys with a certificate of its CA.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_integration::control_plane::free_port;
use penstock_integration::{Dash, PATIENCE};
use serde_json::{Value, json};

use super::feed::{envoy_over, get, send};
use super::states::hash;

/// A certificate authority.
struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new() -> Result<Authority> {
        let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Without a name of its own, it would have the same subject as its certificates, which would look self-signed.
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "the authority");
        Ok(Authority(rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate()?)?))
    }

    /// Writes a certificate for `name` and its key to `<file>.pem` and `<file>.key`.
    fn issue(&self, folder: &Path, file: &str, name: &str) -> Result<()> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &self.0)?;
        fs::write(folder.join(format!("{file}.pem")), certificate.pem())?;
        Ok(fs::write(folder.join(format!("{file}.key")), key.serialize_pem())?)
    }
}

/// The transport socket of Envoy's cluster, as in docs/dash.md.
fn transport(folder: &Path, certificate: &str) -> Value {
    let file = |name: &str| json!({"filename": folder.join(name).display().to_string()});
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "penstock-dash",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [{"certificate_chain": file(&format!("{certificate}.pem")), "private_key": file(&format!("{certificate}.key"))}],
            "validation_context": {"trusted_ca": file("ca.pem"), "match_typed_subject_alt_names": [
                {"san_type": "DNS", "matcher": {"exact": "penstock-dash"}}]}}}})
}

#[test]
fn access_logs_come_over_tls_from_envoys_with_a_certificate_and_from_no_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    fs::write(folder.path().join("ca.pem"), authority.0.pem())?;
    authority.issue(folder.path(), "dash", "penstock-dash")?;
    authority.issue(folder.path(), "edge", "edge.example.com")?;
    stranger.issue(folder.path(), "stranger", "edge.example.com")?;
    let als = free_port()?;
    let (mut known, _upstream) = envoy_over(als, Some(transport(folder.path(), "edge")))?;
    let (mut unknown, _other) = envoy_over(als, Some(transport(folder.path(), "stranger")))?;
    let config = json!({
        "tls": {"certificate": "dash.pem", "key": "dash.key", "clientCa": "ca.pem"},
        "clusters": [{"name": "east", "als": format!("127.0.0.1:{als}")}],
        "workspaces": [{"name": "all", "clusters": ["*"], "tokens": [hash("secret")]}],
    });
    fs::write(folder.path().join("dash.yaml"), config.to_string())?;
    let dash = Dash::start(&["--config".to_owned(), folder.path().join("dash.yaml").display().to_string()])?;

    let read = |file: &str| fs::read(folder.path().join(file));
    let certificate = |file: &str| -> Result<_> { Ok(ureq::tls::Certificate::from_pem(&read(file)?)?.to_owned()) };
    let key = ureq::tls::PrivateKey::from_pem(&read("edge.key")?)?.to_owned();
    let tls = ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[certificate("ca.pem")?]))
        .client_cert(Some(ureq::tls::ClientCert::new_with_certs(&[certificate("edge.pem")?], key)))
        // The test connects to an address, for which the certificate is not valid.
        .disable_verification(true)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
    let decisions = || -> Result<Value> {
        let url = format!("{}api/v1/clusters/east/decisions", dash.url());
        let text = agent.get(url).header("authorization", "Bearer secret").call()?.body_mut().read_to_string()?;
        Ok(serde_json::from_str(&text)?)
    };
    ensure!(send(unknown.address("ingress")?, &get("unknown.example.net", "/"))? == 403);
    let started = Instant::now();
    while decisions()?["decisions"].as_array().is_none_or(Vec::is_empty) {
        let stats = || known.admin().stats("cluster.penstock-dash.ssl");
        ensure!(started.elapsed() < PATIENCE, "nothing came: {:?}", stats()?);
        ensure!(send(known.address("ingress")?, &get("known.example.net", "/"))? == 403);
        thread::sleep(Duration::from_millis(200));
    }
    // The connections of the other Envoy fail, which it counts, and none of its lines arrives.
    let started = Instant::now();
    let fails = ["ssl.connection_error", "upstream_cx_destroy_with_active_rq"];
    while !fails
        .iter()
        .any(|name| unknown.admin().stat(&format!("cluster.penstock-dash.{name}")).is_ok_and(|count| count > 0))
    {
        let stats = || unknown.admin().stats("cluster.penstock-dash");
        ensure!(started.elapsed() < PATIENCE, "the stranger is connected: {:?}", stats()?);
        ensure!(send(unknown.address("ingress")?, &get("unknown.example.net", "/"))? == 403);
        thread::sleep(Duration::from_millis(200));
    }
    let answer = decisions()?;
    let hosts: Vec<_> = answer["decisions"].as_array().into_iter().flatten().map(|one| &one["host"]).collect();
    ensure!(hosts.iter().all(|host| **host == "known.example.net"), "{hosts:?}");
    known.check_healthy()?;
    unknown.check_healthy()
}
