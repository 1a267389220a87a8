//! Access to the cluster through `kubectl`, which uses the user's own credentials, contexts and proxies.

use std::process::{Command, Output};

use anyhow::{Context as _, bail};

use crate::source;

/// The kinds that contain our plugins, as `kubectl` names them.
pub const KINDS: [&str; 3] = [
    "wasmplugins.extensions.istio.io",
    "trafficextensions.extensions.istio.io",
    "envoyextensionpolicies.gateway.envoyproxy.io",
];

/// The kinds of Envoy's own configuration, in which a plugin may be, too. Who may read plugins need not be allowed to
/// read these.
pub const ENVOY_KINDS: [&str; 2] = ["envoyfilters.networking.istio.io", "envoypatchpolicies.gateway.envoyproxy.io"];

/// The cluster to use.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Kubectl {
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl Kubectl {
    /// A `kubectl` command with the context.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.args(arguments);
        command
    }

    /// All objects of a kind, as a JSON list; `None` when the cluster does not have the kind, or the user may not read one
    /// of [`ENVOY_KINDS`].
    ///
    /// # Errors
    /// Errors are those of [`Kubectl::run`].
    pub fn list(&self, kind: &str, namespace: Option<&str>) -> anyhow::Result<Option<String>> {
        let whose = match namespace {
            Some(namespace) => vec!["--namespace", namespace],
            None => vec!["--all-namespaces"],
        };
        match self.run(&[&["get", kind, "--output", "json"], &whose[..]].concat()) {
            Err(error) if ENVOY_KINDS.contains(&kind) && error.to_string().contains("(Forbidden)") => {
                anstream::eprintln!("penstock: not read: {kind}: you may not list them in this cluster");
                Ok(None)
            }
            answer => answer,
        }
    }

    /// Runs it and returns its output; `None` when the cluster does not have this kind.
    ///
    /// # Errors
    /// Returns an error when it cannot be run, or fails, with its message.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Option<String>> {
        let Output { status, stdout, stderr } = self.command(arguments).output().map_err(|error| {
            anyhow::anyhow!(
                "cannot run kubectl: {}: install it, and give it access to the cluster",
                match error.kind() {
                    std::io::ErrorKind::NotFound => "it is not on the PATH".to_owned(),
                    _ => source::why(&error),
                }
            )
        })?;
        if status.success() {
            return Ok(Some(String::from_utf8(stdout).context("kubectl printed something that is not UTF-8")?));
        }
        let errors = String::from_utf8_lossy(&stderr);
        match is_unknown_kind(&errors) {
            true => Ok(None),
            false => bail!("kubectl {}: {}", arguments.join(" "), said(&errors)),
        }
    }
}

/// Whether the error says that the cluster responds but lacks this kind. A server that is not Kubernetes has no kinds
/// at all.
fn is_unknown_kind(errors: &str) -> bool {
    let lacks = errors.contains("have a resource type") || errors.contains("could not find the requested resource");
    lacks && !errors.contains("API group list")
}

/// The essential part of an error of kubectl, without its log lines.
fn said(errors: &str) -> String {
    const BEGIN: [&str; 6] = [
        "error:",
        "Error from server",
        "Error in configuration",
        "Unable to connect to the server",
        "The connection to the server",
        "Unable to use a TTY",
    ];
    let is_log = |line: &str| {
        let mut words = line.split_whitespace();
        let level = words.next().unwrap_or_default().strip_prefix(['E', 'W', 'I']);
        level.is_some_and(|day| day.len() == 4 && day.bytes().all(|b| b.is_ascii_digit())) && line.contains(".go:")
    };
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A log entry may have several lines; the error itself comes last.
    let last = lines.iter().rposition(|line| BEGIN.iter().any(|begin| line.starts_with(begin)));
    let rest: Vec<&str> = match last {
        Some(last) => lines.get(last..).unwrap_or_default().to_vec(),
        None => lines.iter().copied().filter(|line| !is_log(line)).collect(),
    };
    let said = if rest.is_empty() { errors.trim().to_owned() } else { rest.join(" ") };
    // Without a kubeconfig, kubectl asks this address.
    if said.contains("The connection to the server localhost:8080 was refused") {
        return "no cluster is chosen: set KUBECONFIG to a kubeconfig, or name one of its contexts with --context"
            .to_owned();
    }
    match errors.contains("API group list") && said.contains("could not find the requested resource") {
        true => format!("{said}; is the server of the kubeconfig an API server of Kubernetes?"),
        false => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_kubectl_is_shown_without_its_log() {
        let log = "E1126 18:13:43.844613     580 memcache.go:265] \"Unhandled Error\" err=\"x\"\n";
        let refused = "The connection to the server 10.0.0.1:6443 was refused\n";
        assert_eq!(said(&format!("{log}{log}{refused}")), refused.trim());
        let nowhere =
            "The connection to the server localhost:8080 was refused - did you specify the right host or port?\n";
        assert!(said(&format!("{log}{nowhere}")).starts_with("no cluster is chosen: set KUBECONFIG"));
        assert_eq!(said(log), log.trim());
        assert_eq!(said("Error from server (Forbidden): no\n"), "Error from server (Forbidden): no");
        let long =
            "E1126 18:13:43.8 580 memcache.go:265] \"x\" err=<\n\texec: executable a not found\n\n\tinstall it\n >\n";
        let failed =
            "Unable to connect to the server: getting credentials: exec: executable a not found\n\ninstall it\n";
        assert_eq!(said(&format!("{long}{long}{failed}")), failed.replace("\n\n", " ").trim());
    }

    #[test]
    fn a_server_other_than_kubernetes_is_not_taken_for_one_without_our_kinds() {
        let not_found = "Error from server (NotFound): the server could not find the requested resource\n";
        let log = "E1126 21:56:15.3 5939 memcache.go:381] \"Couldn't get current server API group list\" err=\"x\"\n";
        assert!(is_unknown_kind("error: the server doesn't have a resource type \"foos\" in group \"bar.io\"\n"));
        assert!(is_unknown_kind(not_found));
        assert!(!is_unknown_kind(&format!("{log}{not_found}")));
        assert!(said(&format!("{log}{not_found}")).ends_with("an API server of Kubernetes?"));
        assert!(!is_unknown_kind("The connection to the server localhost:8080 was refused\n"));
    }
}
