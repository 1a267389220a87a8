//! Makes a port of a Pod available on this machine with `kubectl port-forward`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use anyhow::{Context as _, bail};

use crate::kubectl::Kubectl;

/// A forwarded port. Dropping it stops the forwarding.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    url: String,
}

impl Forward {
    /// Forwards `port` of a Pod, given as `NAMESPACE/POD`.
    ///
    /// # Errors
    /// Returns an error with the message of `kubectl`.
    pub fn start(kubectl: &Kubectl, pod: &str, port: u16) -> anyhow::Result<Forward> {
        let (namespace, name) = pod.split_once('/').context("write the Pod as NAMESPACE/POD")?;
        let (target, ports) = (format!("pod/{name}"), format!(":{port}"));
        let mut command = kubectl.command(&["port-forward", "--namespace", namespace, &target, &ports]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run kubectl")?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        // Parses a line such as `Forwarding from 127.0.0.1:40001 -> 15000`.
        let local = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).map(str::to_owned);
        let Some(local) = local else {
            let mut said = String::new();
            let _ = child.kill();
            if let Some(errors) = &mut child.stderr {
                errors.read_to_string(&mut said)?;
            }
            let _ = child.wait();
            bail!("kubectl port-forward {pod}: {}", said.trim());
        };
        Ok(Forward { child, url: format!("http://{local}") })
    }

    /// The local address.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
