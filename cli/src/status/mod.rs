//! `penstock status`: which plugins the cluster has, and which proxies run which policy.

mod forward;
mod istiod;
mod plugin;
mod proxy;

use std::fmt::Write as _;

use penstock_policy::document::Node;
use serde::Serialize;

use crate::kubectl::{ENVOY_KINDS, KINDS, Kubectl};
use crate::manifests::ManifestFile;
use crate::numbers::whole;
use crate::output::Output;
use crate::output::style::{BAD, GOOD, HEAD, NAME, WARN};
use istiod::ControlPlane;
use plugin::ClusterPlugin;
use proxy::ProxyStatus;
pub use proxy::warnings;

/// Show the plugins of the cluster, and which policy each proxy runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock status --pod istio-system/ingress-7d9f\n  \
    penstock status --envoy http://127.0.0.1:15000\n  kubectl penstock status -o json\n  \
    penstock status --istiod-pod istio-system/istiod-6f4c9\n\n\
    Exit status: 1 if the control plane did not accept a plugin, or if a proxy refused a policy, has not acknowledged it, or\n\
    runs another one.")]
pub struct Args {
    /// The admin interface of a proxy; may be repeated.
    #[arg(long = "envoy", value_name = "URL")]
    envoys: Vec<String>,
    /// A Pod with a proxy, reached by `kubectl port-forward`; may be repeated.
    #[arg(long = "pod", value_name = "NAMESPACE/POD")]
    pods: Vec<String>,
    /// The debug interface of istiod, such as http://127.0.0.1:15014, which shows what each proxy has accepted; may be
    /// repeated.
    #[arg(long = "istiod", value_name = "URL")]
    istiods: Vec<String>,
    /// A Pod with istiod, reached by `kubectl port-forward`; may be repeated.
    #[arg(long = "istiod-pod", value_name = "NAMESPACE/POD")]
    istiod_pods: Vec<String>,
    /// The port of the admin interface in Pods: Istio's is 15000, Envoy Gateway's 19000.
    #[arg(long, value_name = "PORT", default_value = "15000", allow_negative_numbers = true, value_parser = whole::<u16>(1, 65_535))]
    admin_port: u16,
    /// Only show plugins of this namespace.
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    kubectl: Kubectl,
    /// The option of other commands. The cluster is what this one reads, with or without it.
    #[arg(long = "from-cluster", hide = true)]
    _from_cluster: bool,
    /// The format of the report.
    #[arg(long, short, value_enum, default_value = "human")]
    output: StatusFormat,
}

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum StatusFormat {
    /// Text.
    Human,
    /// One JSON object.
    Json,
}

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusReport {
    plugins: Vec<ClusterPlugin>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    control_planes: Vec<ControlPlane>,
    proxies: Vec<ProxyStatus>,
}

impl Args {
    /// Prints the report. Returns `false` when a problem was found.
    ///
    /// # Errors
    /// Returns an error when the cluster or a proxy cannot be queried.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let plugins = self.plugins()?;
        let mut proxies = Vec::new();
        for url in &self.envoys {
            proxies.push(ProxyStatus::read(url, url, &plugins)?);
        }
        for pod in &self.pods {
            let forward = forward::Forward::start(&self.kubectl, pod, self.admin_port)?;
            proxies.push(ProxyStatus::read(pod, forward.url(), &plugins)?);
        }
        let mut control_planes = Vec::new();
        for url in &self.istiods {
            control_planes.push(ControlPlane::read(url, url)?);
        }
        for pod in &self.istiod_pods {
            let forward = forward::Forward::start(&self.kubectl, pod, istiod::PORT)?;
            control_planes.push(ControlPlane::read(pod, forward.url())?);
        }
        let report = StatusReport { plugins, control_planes, proxies };
        match self.output {
            StatusFormat::Human => out.human(&human(&report))?,
            StatusFormat::Json => out.json(&report)?,
        }
        let is_accepted = |plugin: &ClusterPlugin| plugin.refused.is_none();
        let are_synced = report.control_planes.iter().all(ControlPlane::is_fine);
        Ok(report.plugins.iter().all(is_accepted) && are_synced && report.proxies.iter().all(ProxyStatus::is_fine))
    }

    fn plugins(&self) -> anyhow::Result<Vec<ClusterPlugin>> {
        let mut plugins = Vec::new();
        for kind in KINDS.into_iter().chain(ENVOY_KINDS) {
            let Some(text) = self.kubectl.list(kind, self.namespace.as_deref())? else { continue };
            let list = Node::from_json(text.as_bytes())?;
            let Some(Node::List(items)) = list.get("items") else { continue };
            plugins.extend(items.iter().filter_map(plugin));
        }
        Ok(plugins)
    }
}

/// A plugin of ours; `None` for one of another vendor.
fn plugin(object: &Node) -> Option<ClusterPlugin> {
    let text = serde_json::to_string(&json(object)).ok()?;
    let file = ManifestFile::read_as("object.json", text.as_str().into(), false).ok()?;
    let first = file.policies.first()?;
    let field = |name: &str| match object.get("metadata").and_then(|metadata| metadata.get(name)) {
        Some(Node::String(text)) => text.clone(),
        _ => String::new(),
    };
    let mut image = None;
    image_of(object.get("spec")?, &mut image);
    Some(ClusterPlugin {
        object: first.resource.clone().unwrap_or_default(),
        module: first.module.map(|module| module.name()),
        image,
        refused: object.get("status").and_then(refused),
        name: (field("namespace"), field("name")),
        policies: file.policies.iter().map(|found| found.node.clone()).collect(),
    })
}

/// The first URL of a module.
fn image_of(node: &Node, image: &mut Option<String>) {
    match node {
        Node::Map(fields) => {
            for (field, value) in fields {
                match (field.as_str(), value) {
                    ("url", Node::String(url)) if image.is_none() => *image = Some(url.clone()),
                    ("pluginConfig" | "config", _) => {}
                    _ => image_of(value, image),
                }
            }
        }
        Node::List(items) => items.iter().for_each(|item| image_of(item, image)),
        _ => {}
    }
}

/// The message of a condition that is false, anywhere in the status.
fn refused(status: &Node) -> Option<String> {
    match status {
        Node::Map(fields) => {
            let text = |name: &str| match status.get(name) {
                Some(Node::String(text)) if !text.is_empty() => Some(text.clone()),
                _ => None,
            };
            if text("type").is_some() && text("status").as_deref() == Some("False") {
                return text("message").or_else(|| text("reason")).or_else(|| text("type"));
            }
            fields.iter().find_map(|(_, value)| refused(value))
        }
        Node::List(items) => items.iter().find_map(refused),
        _ => None,
    }
}

/// A tree as JSON.
fn json(node: &Node) -> serde_json::Value {
    crate::yaml_text::value(node)
}

/// The human-readable report, with styles.
fn human(report: &StatusReport) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &StatusReport, text: &mut String) -> std::fmt::Result {
    writeln!(text, "{HEAD}{} in the cluster{HEAD:#}", crate::output::count(report.plugins.len(), "plugin"))?;
    for plugin in &report.plugins {
        write!(text, "  {NAME}{}{NAME:#}", plugin.object)?;
        if let Some(module) = plugin.module {
            write!(text, "  {module}")?;
        }
        if let Some(image) = &plugin.image {
            write!(text, "  {image}")?;
        }
        match &plugin.refused {
            Some(why) => writeln!(text, "\n    {BAD}not accepted{BAD:#}: {why}")?,
            None => writeln!(text)?,
        }
    }
    for plane in &report.control_planes {
        write_control_plane(plane, text)?;
    }
    for proxy in &report.proxies {
        writeln!(text, "\n{HEAD}{}{HEAD:#}  Envoy {}", proxy.name, proxy.version)?;
        if proxy.policies.is_empty() && proxy.refused.is_empty() {
            writeln!(text, "  runs no plugin of Penstock")?;
        }
        for policy in &proxy.policies {
            let state = match policy.state {
                proxy::ProxyState::Current => format!("{GOOD}current{GOOD:#}"),
                proxy::ProxyState::Differs => format!("{BAD}differs{BAD:#}: the cluster has another policy"),
                proxy::ProxyState::Unknown => {
                    format!("{WARN}from elsewhere{WARN:#}: no plugin of the cluster has this policy")
                }
            };
            let name = policy.object.as_deref().unwrap_or(&policy.name);
            write!(text, "  {NAME}{name}{NAME:#}  {state}")?;
            match &policy.code {
                Some(code) => writeln!(text, "  {code}")?,
                None => writeln!(text)?,
            }
        }
        for warning in &proxy.warnings {
            writeln!(text, "  {WARN}warning{WARN:#}: {warning}")?;
        }
        for refused in &proxy.refused {
            writeln!(text, "  {NAME}{}{NAME:#}  {BAD}refused{BAD:#}: {}", refused.name, refused.message)?;
        }
    }
    Ok(())
}

fn write_control_plane(plane: &ControlPlane, text: &mut String) -> std::fmt::Result {
    let acknowledged = plane.proxies.iter().filter(|proxy| proxy.state == istiod::SyncState::Acknowledged).count();
    let all = plane.proxies.len();
    writeln!(
        text,
        "\n{HEAD}{}{HEAD:#}  istiod: {acknowledged} of {all} proxies acknowledged what was sent",
        plane.name
    )?;
    for proxy in plane.proxies.iter().filter(|proxy| proxy.state != istiod::SyncState::Acknowledged) {
        if proxy.refused.is_empty() {
            writeln!(text, "  {NAME}{}{NAME:#}  {WARN}pending{WARN:#}: it has not answered", proxy.proxy)?;
        }
        for message in proxy.refused.values() {
            writeln!(text, "  {NAME}{}{NAME:#}  {BAD}refused{BAD:#}: {message}", proxy.proxy)?;
        }
    }
    Ok(())
}
