//! A port of a Pod on this machine, by `kubectl port-forward`, as long as it is kept.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use anyhow::{Context as _, bail};

use crate::kubectl::Kubectl;

/// A forwarded port. Dropping it ends it.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    url: String,
}

impl Forward {
    /// Forwards `port` of a Pod, `NAMESPACE/POD`.
    ///
    /// # Errors
    /// What `kubectl` says.
    pub fn start(kubectl: &Kubectl, pod: &str, port: u16) -> anyhow::Result<Forward> {
        let (namespace, name) = pod.split_once('/').context("write the Pod as NAMESPACE/POD")?;
        let (target, ports) = (format!("pod/{name}"), format!(":{port}"));
        let mut command = kubectl.command(&["port-forward", "--namespace", namespace, &target, &ports]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run kubectl")?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        // Forwarding from 127.0.0.1:40001 -> 15000
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

    /// Where it is here.
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
