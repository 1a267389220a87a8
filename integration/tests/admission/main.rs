//! The admission webhook, the ceilings, the chart and the admission policy with a real API server: tests check the
//! responses to `kubectl apply`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_integration::control_plane::{Cluster, eventually};
use penstock_integration::workspace;

mod chart;
mod walk;

/// The certificate of a CA, and a certificate for names on this machine that it has signed.
struct Certificates {
    authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    fn new(names: &[String]) -> Result<Self> {
        let authority_key = rcgen::KeyPair::generate()?;
        let mut authority = rcgen::CertificateParams::new(Vec::new())?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(names.to_vec())?.signed_by(&key, &issuer)?;
        Ok(Certificates { authority: authority_pem, certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        fs::write(folder.join("tls.crt"), &self.certificate)?;
        Ok(fs::write(folder.join("tls.key"), &self.key)?)
    }
}

/// A running webhook. Dropping it stops it.
struct Webhook {
    child: Child,
    port: u16,
}

impl Webhook {
    /// Starts it on `address` with the files in `folder`.
    fn start(folder: &Path, address: &str) -> Result<Self> {
        let mut child = Command::new(workspace::dist().join("penstock"))
            .args(["webhook", "--listen", address, "--certificate", "tls.crt", "--key", "tls.key", "--no-api-server"])
            .args(["--ceilings", "ceilings", "--loosening", "require-annotation"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run dist/penstock")?;
        let out = child.stdout.take().context("no output")?;
        let line = BufReader::new(out).lines().next().context("the webhook said nothing")??;
        let port = line.split(':').nth(2).and_then(|rest| rest.split('/').next()).context("no port")?.parse()?;
        Ok(Webhook { child, port })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The API server's response to a manifest: `Ok` with its warnings, or the reason of the refusal.
fn apply(cluster: &Cluster, yaml: &str) -> Result<(), String> {
    cluster.apply(yaml).map_err(|refused| refused.to_string())
}

/// An object of each kind with this policy, in JSON.
fn objects(policy: &str) -> Vec<(&'static str, String)> {
    let meta = "metadata: {name: shop, namespace: shop}";
    vec![
        (
            "WasmPlugin",
            format!(
                "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n{meta}\nspec: {{url: 'oci://r.test/penstock/suite:1', failStrategy: FAIL_CLOSE, pluginConfig: {policy}}}\n"
            ),
        ),
        (
            "TrafficExtension",
            format!(
                "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\n{meta}\nspec: {{wasm: {{url: 'oci://r.test/penstock/suite:1', failStrategy: FAIL_CLOSE, pluginConfig: {policy}}}}}\n"
            ),
        ),
        (
            "EnvoyExtensionPolicy",
            format!(
                "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\n{meta}\nspec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: g}}], wasm: [{{name: p, code: {{type: Image, image: {{url: 'oci://r.test/penstock/suite:1'}}}}, config: {policy}}}]}}\n"
            ),
        ),
        (
            "ConfigMap",
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: shop, namespace: shop, labels: {{penstock.io/policy: \"true\"}}}}\ndata: {{policy.json: '{policy}'}}\n"
            ),
        ),
    ]
}

/// The configuration that the chart renders, changed to call the webhook at a port of this machine.
fn configuration(port: u16, authority: &str, ceiling: bool) -> String {
    let bundle = STANDARD.encode(authority);
    let hook = |name: &str, path: &str, selector: &str| {
        format!(
            "- name: {name}\n  clientConfig: {{url: 'https://localhost:{port}{path}', caBundle: {bundle}}}\n  \
             admissionReviewVersions: [v1]\n  sideEffects: None\n  failurePolicy: Fail\n  timeoutSeconds: 5\n  \
             namespaceSelector: {selector}\n  rules:\n  \
             - {{apiGroups: [extensions.istio.io], apiVersions: ['*'], resources: [wasmplugins, trafficextensions], operations: [CREATE, UPDATE]}}\n  \
             - {{apiGroups: [gateway.envoyproxy.io], apiVersions: ['*'], resources: [envoyextensionpolicies], operations: [CREATE, UPDATE]}}\n  \
             - {{apiGroups: [''], apiVersions: [v1], resources: [configmaps], operations: [CREATE, UPDATE]}}\n  \
             matchConditions:\n  - name: could-be-ours\n    expression: \"object.kind != 'ConfigMap' || (has(object.metadata.labels) && 'penstock.io/policy' in object.metadata.labels)\"\n"
        )
    };
    let mut all = hook("policies.penstock.io", "/validate", "{}");
    if ceiling {
        all +=
            &hook("partners.ceilings.penstock.io", "/validate/ceilings/partners", "{matchLabels: {ceiling: partners}}");
    }
    format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: penstock}}\nwebhooks:\n{all}"
    )
}

fn egress(host: &str) -> String {
    format!(r#"{{"egress":{{"rules":[{{"name":"r","to":[{{"host":"{host}","ports":[443]}}]}}]}}}}"#)
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_api_server_refuses_what_the_webhook_refuses() -> Result<()> {
    let cluster = Cluster::start()?;
    let folder = tempfile::tempdir()?;
    let names = ["localhost".to_owned()];
    let certificates = Certificates::new(&names)?;
    certificates.write(folder.path())?;
    fs::create_dir(folder.path().join("ceilings"))?;
    fs::write(folder.path().join("ceilings/partners.yaml"), egress("*.partner.example.com"))?;
    let webhook = Webhook::start(folder.path(), "127.0.0.1:0")?;
    cluster.namespace("shop", &[])?;
    cluster.namespace("team", &[("ceiling", "partners")])?;
    cluster.apply(&configuration(webhook.port, &certificates.authority, true))?;
    // The API server applies a change of its own configuration after a moment.
    let (_, first) = objects(r#"{"routes":{"defualt":"a"}}"#).remove(0);
    eventually("a refusal", || {
        ensure!(apply(&cluster, &first.replace("name: shop,", "name: probe,")).is_err(), "not refused yet");
        Ok(())
    })?;

    for (kind, object) in objects(r#"{"routes":{"defualt":"a"}}"#) {
        let said = apply(&cluster, &object).err().with_context(|| format!("{kind} was taken"))?;
        for part in ["denied the request", "defualt", "^^^", "did you mean `default`"] {
            ensure!(said.contains(part), "{kind}: {part:?} is not in {said}");
        }
    }
    for (kind, object) in objects(r#"{"routes":{"default":"a"}}"#) {
        apply(&cluster, &object).map_err(|said| anyhow::anyhow!("{kind}: {said}"))?;
    }

    // A change that loosens a policy needs an approval.
    let plugin = |policy: &str| objects(policy).remove(0).1;
    apply(&cluster, &plugin(&egress("a.test"))).map_err(anyhow::Error::msg)?;
    let looser = plugin(&egress("*.a.test"));
    let said = apply(&cluster, &looser).err().context("a loosening was taken")?;
    ensure!(said.contains("loosens the policy") && said.contains("egress.rules[r].to"), "{said}");
    let hash =
        said.split("approved-loosening: \"").nth(1).and_then(|rest| rest.split('"').next()).context("no hash")?;
    let approved = looser.replace(
        "namespace: shop}",
        &format!("namespace: shop, annotations: {{penstock.io/approved-loosening: \"{hash}\"}}}}"),
    );
    apply(&cluster, &approved).map_err(anyhow::Error::msg)?;

    // A team that exceeds its ceiling gets an example request.
    let in_team = |host: &str| plugin(&egress(host)).replace("namespace: shop", "namespace: team");
    apply(&cluster, &in_team("api.partner.example.com")).map_err(anyhow::Error::msg)?;
    let other = in_team("other.example.com").replace("name: shop,", "name: other,");
    let said = apply(&cluster, &other).err().context("an excess was taken")?;
    ensure!(said.contains("GET https://other.example.com:443/"), "{said}");

    // While a certificate of a second CA is trusted beside the old one, no request is refused.
    let renewed = Certificates::new(&names)?;
    cluster.apply(&configuration(webhook.port, &format!("{}{}", renewed.authority, certificates.authority), true))?;
    let (_, map) = objects(r#"{"routes":{"default":"b"}}"#).pop().context("no object")?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    renewed.write(folder.path())?;
    for _ in 0..40 {
        apply(&cluster, &map).map_err(anyhow::Error::msg)?;
        std::thread::sleep(std::time::Duration::from_millis(250));
    }

    // Without the webhook, only our kinds are refused.
    drop(webhook);
    ensure!(apply(&cluster, &plugin(&egress("a.test"))).is_err(), "our kind was taken without a webhook");
    let others = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop}\ndata: {a: b}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\n";
    apply(&cluster, others).map_err(anyhow::Error::msg)?;
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_admission_policy_refuses_what_fails_open_or_is_not_pinned() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop", &[])?;
    cluster.apply_files(&[&workspace::root().join("deploy/admission-policy/admission-policy.yaml")])?;
    let digest = format!("sha256:{}", "a".repeat(64));
    let policy = r#"{"routes":{"default":"a"}}"#;
    eventually("a refusal", || {
        ensure!(
            apply(&cluster, &objects(policy).remove(0).1.replace("name: shop,", "name: probe,")).is_err(),
            "not refused yet"
        );
        Ok(())
    })?;
    for (kind, object) in objects(policy).into_iter().filter(|(kind, _)| *kind != "ConfigMap") {
        let refused = |object: &str, why: &str| -> Result<()> {
            let said = apply(&cluster, object).err().with_context(|| format!("{kind} was taken: {object}"))?;
            ensure!(said.contains(why), "{kind}: {why:?} is not in {said}");
            Ok(())
        };
        refused(&object, "not pinned by digest")?;
        let pinned = object.replace("suite:1", &format!("suite@{digest}"));
        let open =
            pinned.replace("FAIL_CLOSE", "FAIL_OPEN").replace("{name: p, code", "{name: p, failOpen: true, code");
        refused(&open, "must not fail open")?;
        refused(&pinned.replace("suite@", "sweet@"), "none of Penstock's")?;
        apply(&cluster, &pinned).map_err(|said| anyhow::anyhow!("{kind}: {said}"))?;
        // Plugins of other vendors pass.
        let other = object.replace("penstock/suite:1", "waf:1").replace("name: shop,", "name: other,");
        apply(&cluster, &other).map_err(|said| anyhow::anyhow!("{kind}: {said}"))?;
    }
    Ok(())
}

/// A plugin that runs our dynamic module, and an EnvoyProxy that registers it.
fn dynamic(filter: &str) -> String {
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {{name: dynamic, namespace: shop}}\nspec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: g}}], dynamicModule: [{{name: penstock, filterName: {filter}, config: {{routes: {{default: a}}}}}}]}}\n"
    )
}

fn registry(name: &str, source: &str) -> String {
    format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyProxy\nmetadata: {{name: proxy, namespace: shop}}\nspec: {{dynamicModules: [{{name: {name}, source: {source}}}]}}\n"
    )
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_admission_policy_refuses_a_dynamic_module_that_fails_open_or_is_none_of_ours() -> Result<()> {
    let cluster = Cluster::knowing(&["gateway-api", "envoy-gateway"])?;
    cluster.namespace("shop", &[])?;
    cluster.apply_files(&[&workspace::root().join("deploy/admission-policy/admission-policy.yaml")])?;
    let refused = |object: &str, why: &str| -> Result<()> {
        let said = apply(&cluster, object).err().with_context(|| format!("was taken: {object}"))?;
        ensure!(said.contains(why), "{why:?} is not in {said}");
        Ok(())
    };
    eventually("a refusal", || refused(&dynamic("sweet"), "filterName is none of Penstock's modules: sweet"))?;
    apply(&cluster, &dynamic("suite")).map_err(anyhow::Error::msg)?;
    let remote =
        format!("{{type: Remote, remote: {{url: 'https://r.test/libpenstock.so', sha256: {}}}}}", "a".repeat(64));
    for name in ["penstock", "policies"] {
        refused(&registry(name, &remote), "every request passes")?;
        refused(&registry(name, "{local: {path: libpenstock.so}}"), "is not absolute")?;
        apply(&cluster, &registry(name, "{local: {path: /usr/lib/libpenstock.so}}")).map_err(anyhow::Error::msg)?;
    }
    apply(&cluster, &registry("waf", &remote.replace("penstock", "waf"))).map_err(anyhow::Error::msg)
}
