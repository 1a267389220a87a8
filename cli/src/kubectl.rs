//! The cluster, through `kubectl`: its credentials, contexts and proxies are the user's own.

use std::process::{Command, Output};

use anyhow::{Context as _, bail};

use crate::source;

/// The kinds that hold our plugins, as `kubectl` names them.
pub const KINDS: [&str; 3] = [
    "wasmplugins.extensions.istio.io",
    "trafficextensions.extensions.istio.io",
    "envoyextensionpolicies.gateway.envoyproxy.io",
];

/// Which cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Kubectl {
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl Kubectl {
    /// The command, with the context.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.args(arguments);
        command
    }

    /// What it prints; `None`: the cluster does not have this kind.
    ///
    /// # Errors
    /// When it cannot be run, and what it says.
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
        let is_unknown =
            errors.contains("have a resource type") || errors.contains("could not find the requested resource");
        match is_unknown {
            true => Ok(None),
            false => bail!("kubectl {}: {}", arguments.join(" "), said(&errors)),
        }
    }
}

/// What an error of kubectl comes down to, without the lines of its log.
fn said(errors: &str) -> String {
    let is_log = |line: &str| {
        let mut words = line.split_whitespace();
        let level = words.next().unwrap_or_default().strip_prefix(['E', 'W', 'I']);
        level.is_some_and(|day| day.len() == 4 && day.bytes().all(|b| b.is_ascii_digit())) && line.contains(".go:")
    };
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty() && !is_log(line)).collect();
    if lines.is_empty() { errors.trim().to_owned() } else { lines.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_kubectl_is_shown_without_its_log() {
        let log = "E1126 18:13:43.844613     580 memcache.go:265] \"Unhandled Error\" err=\"x\"\n";
        let refused = "The connection to the server localhost:8080 was refused\n";
        assert_eq!(said(&format!("{log}{log}{refused}")), refused.trim());
        assert_eq!(said(log), log.trim());
        assert_eq!(said("Error from server (Forbidden): no\n"), "Error from server (Forbidden): no");
    }
}
