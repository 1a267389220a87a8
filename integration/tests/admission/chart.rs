//! The Helm chart: what it renders for several sets of values, which values it refuses, and that an API server accepts
//! and deletes all of it.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_integration::control_plane::{Cluster, eventually};
use penstock_integration::workspace;

use super::{Certificates, Webhook, apply, egress, objects};

/// Runs Helm against this cluster.
pub fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let output = Command::new(workspace::root().join(".tools/bin/helm"))
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HELM_CACHE_HOME", cluster.folder().join("helm-cache"))
        .env("HELM_CONFIG_HOME", cluster.folder().join("helm-config"))
        .env("HELM_DATA_HOME", cluster.folder().join("helm-data"))
        .output()
        .context("cannot run helm")?;
    ensure!(output.status.success(), "helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// `helm template` renders for this Kubernetes version: a Helm that is built from its Go module has no default.
const KUBERNETES: &str = "1.37.0";

fn chart() -> PathBuf {
    workspace::root().join("deploy/helm/penstock")
}

/// Values that enable every feature.
const EVERYTHING: &str = r#"
webhook:
  loosening: require-annotation
  certificate: {from: secret, secretName: penstock-tls}
ceilings:
  partners:
    namespaceSelector: {matchLabels: {ceiling: partners}}
    policy: {egress: {rules: [{name: r, to: [{host: "*.partner.example.com", ports: [443]}]}]}}
admissionPolicy: {enabled: true, requireDigest: false}
grafanaDashboard: {enabled: true}
dash:
  enabled: true
  tlsSecretName: dash-tls
  config:
    clusters: [{name: here, prometheus: "http://prometheus:9090"}]
    workspaces: [{name: all, clusters: ["*"], tokens: ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}]
plugins:
  shop:
    platform: istio
    namespace: shop
    module: suite
    selector: {matchLabels: {istio: gateway}}
    priority: 10
    policy: {routes: {default: stable}}
  web:
    platform: envoy-gateway
    namespace: shop
    module: header-routing
    targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]
    policy: {routes: {default: stable}}
"#;

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_chart_is_installed_upgraded_and_taken_away() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop", &[])?;
    cluster.namespace("team", &[("ceiling", "partners")])?;
    let folder = tempfile::tempdir()?;
    let chart = chart();
    let chart = chart.to_str().context("a path that is no text")?;
    helm(&cluster, &["lint", "--strict", chart])?;
    let values = folder.path().join("values.yaml");

    // The Service has an address of this machine, where the test starts the webhook that the chart's Pods would run.
    fs::write(&values, "webhook: {failurePolicy: Ignore}\n")?;
    let values_path = values.to_str().context("a path that is no text")?;
    let install =
        ["install", "penstock", chart, "--namespace", "penstock", "--create-namespace", "--values", values_path];
    helm(&cluster, &install)?;
    let service = cluster.get("service", "penstock", "penstock-webhook")?;
    let address = service.pointer("/spec/clusterIP").and_then(|ip| ip.as_str()).context("no address")?.to_owned();
    drop(TcpListener::bind((address.as_str(), 443)).with_context(|| format!("cannot listen on {address}:443"))?);
    let certificates = Certificates::new(&["penstock-webhook.penstock.svc".to_owned()])?;
    certificates.write(folder.path())?;
    fs::create_dir(folder.path().join("ceilings"))?;

    let bundle = STANDARD.encode(&certificates.authority);
    fs::write(
        &values,
        EVERYTHING.replace("secretName: penstock-tls", &format!("secretName: penstock-tls, caBundle: {bundle}")),
    )?;
    // The ConfigMap that the Pods would mount has the ceilings. The webhook must run before plugins are created.
    let rendered = helm(
        &cluster,
        &[
            "template",
            "penstock",
            chart,
            "--namespace",
            "penstock",
            "--values",
            values_path,
            "--kube-version",
            KUBERNETES,
        ],
    )?;
    ensure!(rendered.contains("partners.yaml: |"), "{rendered}");
    fs::write(folder.path().join("ceilings/partners.yaml"), egress("*.partner.example.com"))?;
    let webhook = Webhook::start(folder.path(), &format!("{address}:443"))?;
    helm(&cluster, &["upgrade", "penstock", chart, "--namespace", "penstock", "--values", values_path])?;
    cluster.get("wasmplugin", "shop", "shop")?;
    cluster.get("envoyextensionpolicy", "shop", "web")?;

    let in_team = |host: &str| objects(&egress(host)).remove(0).1.replace("namespace: shop", "namespace: team");
    eventually("a refusal", || {
        let said = apply(&cluster, &in_team("other.example.com")).err().context("not refused yet")?;
        ensure!(said.contains("GET https://other.example.com:443/"), "{said}");
        Ok(())
    })?;
    apply(&cluster, &in_team("api.partner.example.com")).map_err(anyhow::Error::msg)?;

    // The chart refuses values that it does not know.
    let wrong = helm(&cluster, &["template", chart, "--set", "webhook.replica=3", "--kube-version", KUBERNETES]);
    ensure!(wrong.is_err_and(|error| error.to_string().contains("replica")), "an unknown value was taken");

    helm(&cluster, &["uninstall", "penstock", "--namespace", "penstock"])?;
    drop(webhook);
    ensure!(cluster.get("service", "penstock", "penstock-webhook").is_err(), "the Service is still there");
    // After the uninstall, nothing holds up our kinds.
    eventually("our kinds to be taken", || apply(&cluster, &in_team("third.example.com")).map_err(anyhow::Error::msg))
}

/// Runs Helm without a cluster: returns what it renders, or its error about the values.
fn template(arguments: &[&str]) -> Result<Result<String, String>> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(workspace::root().join(".tools/bin/helm"))
        .args(["template", "penstock"])
        .arg(chart())
        .args(["--namespace", "penstock", "--kube-version", KUBERNETES, "--api-versions", "monitoring.coreos.com/v1"])
        .args(arguments)
        .env("HOME", folder.path())
        .output()
        .context("cannot run helm")?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

/// The rendered text without the files that the chart copies from elsewhere: the rules and the dashboard.
fn without_copies(rendered: &str) -> String {
    let documents = rendered.split("\n---\n").map(|document| {
        let begin = ["\n  penstock.json:", "\nspec:\n  #"];
        match begin.iter().find_map(|begin| document.find(begin)) {
            Some(at) if document.contains("kind: PrometheusRule") || document.contains("dashboard") => {
                format!("{}\n(…)\n", document.get(..at).unwrap_or_default())
            }
            _ => document.to_owned(),
        }
    });
    documents.collect::<Vec<_>>().join("\n---\n")
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_chart_renders_as_before_for_each_file_of_values() -> Result<()> {
    let folder = chart().join("ci");
    let mut names: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    names.sort();
    ensure!(names.len() >= 3, "{names:?}");
    let defaults = template(&[])?.map_err(anyhow::Error::msg)?;
    insta::assert_snapshot!("chart_defaults", without_copies(&defaults));
    for name in names {
        let path = folder.join(&name).display().to_string();
        let rendered = template(&["--values", &path])?.map_err(anyhow::Error::msg)?;
        let name = name.to_string_lossy().replace("-values.yaml", "").replace('-', "_");
        insta::assert_snapshot!(format!("chart_{name}"), without_copies(&rendered));
        let lint = Command::new(workspace::root().join(".tools/bin/helm"))
            .args(["lint", "--strict", "--values", &path])
            .arg(chart())
            .output()?;
        ensure!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    }
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn values_that_are_wrong_or_do_not_fit_are_refused_with_their_place_and_what_would_be_right() -> Result<()> {
    const PLUGIN: &str = "plugins.a.namespace=a,plugins.a.module=suite,plugins.a.policy.routes.default=x";
    let plugin = |more: &str| format!("{PLUGIN},{more}");
    for (values, said) in [
        ("webhook.replica=3".to_owned(), "at '/webhook': additional properties 'replica' not allowed"),
        ("webhook.failurePolicy=fail".to_owned(), "at '/webhook/failurePolicy': value must be one of 'Fail', 'Ignore'"),
        ("webhook.timeoutSeconds=60".to_owned(), "at '/webhook/timeoutSeconds': maximum: got 60, want 30"),
        ("webhook.networkPolicy.apiServerCidrs[0]=all".to_owned(), "at '/webhook/networkPolicy/apiServerCidrs/0'"),
        (
            "webhook.podDisruptionBudget.maxUnavailable=-1".to_owned(),
            "at '/webhook/podDisruptionBudget/maxUnavailable'",
        ),
        ("webhook.certificate.duration=1y".to_owned(), "at '/webhook/certificate/duration'"),
        ("webhook.certificate.from=secret".to_owned(), "webhook.certificate.secretName: `from: secret` needs the name"),
        (
            "webhook.certificate.from=secret,webhook.certificate.secretName=a".to_owned(),
            "webhook.certificate.caBundle: `from: secret` needs the certificate authority",
        ),
        ("image.digest=latest".to_owned(), "at '/image/digest'"),
        ("image.repository=registry.example.com/penstock:1.0".to_owned(), "at '/image/repository'"),
        ("image.repository=".to_owned(), "at '/image/repository'"),
        ("modules.registry=oci://registry.example.com".to_owned(), "at '/modules/registry'"),
        ("fullnameOverride=My_Release".to_owned(), "at '/fullnameOverride'"),
        ("nameOverride=penstock-".to_owned(), "at '/nameOverride'"),
        (r"commonLabels.app\.kubernetes\.io/name=x".to_owned(), "invalid propertyName 'app.kubernetes.io/name'"),
        ("commonLabels.team=a b".to_owned(), "at '/commonLabels/team'"),
        ("modules.digests.sweet=x".to_owned(), "sweet"),
        ("ceilings.a.policy.egress.mode=Enforce".to_owned(), "at '/ceilings/a': missing property 'namespaceSelector'"),
        (
            "webhook.enabled=false,ceilings.a.policy.routes.default=a,ceilings.a.namespaceSelector.matchLabels.a=b"
                .to_owned(),
            "ceilings: only the webhook enforces them",
        ),
        ("dash.enabled=true".to_owned(), "dash.tlsSecretName: a Secret of type kubernetes.io/tls is needed"),
        (plugin("plugins.a.platform=nginx"), "at '/plugins/a/platform': value must be one of 'istio', 'envoy-gateway'"),
        (plugin("plugins.a.platform=envoy-gateway"), "plugins.a.targetRefs: name the Gateways or routes"),
        (
            plugin("plugins.a.platform=istio,plugins.a.targetRefs[0].name=x"),
            "plugins.a.targetRefs: has no effect on istio",
        ),
        (plugin("plugins.a.platform=istio,admissionPolicy.enabled=true"), "modules.digests.suite: is missing"),
    ] {
        let refused = template(&["--set", &values])?.err().with_context(|| format!("{values} was taken"))?;
        ensure!(refused.contains(said), "{values}: {said:?} is not in {refused}");
    }
    Ok(())
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn names_fit_with_the_longest_release_and_labels_are_on_every_object_and_pod() -> Result<()> {
    let long = "a".repeat(70);
    let values = format!("fullnameOverride={long},nameOverride={long},commonLabels.team=edge");
    let all = chart().join("ci/plugins-only-values.yaml").display().to_string();
    let dash = "dash.enabled=true,dash.tlsSecretName=t,dash.config.workspaces[0].name=a";
    let mut documents = 0;
    for arguments in [vec![], vec!["--values", &all], vec!["--set", dash]] {
        let rendered = template(&[&["--set", &values], arguments.as_slice()].concat())?.map_err(anyhow::Error::msg)?;
        for document in rendered.split("\n---\n").filter(|document| document.contains("\nkind: ")) {
            // The chart copies this file unchanged.
            if document.contains("plugins.penstock.io") {
                continue;
            }
            let (_, metadata) = document.split_once("\nmetadata:").context("no metadata")?;
            ensure!(metadata.split("\nspec:").next().unwrap_or_default().contains("\n    team: edge"), "{document}");
            // The revision of an upgrade may have six digits.
            let name = metadata.lines().find_map(|line| line.trim().strip_prefix("name: ")).context("no name")?;
            ensure!(name.len() <= 63 - if document.contains("kind: Job") { 5 } else { 0 }, "{name}");
            ensure!(!document.contains("\n  template:") || document.contains("\n        team: edge\n"), "{document}");
            documents += 1;
        }
    }
    ensure!(documents > 20, "{documents}");
    Ok(())
}
