//! A network of Pods without a cluster and without root. Each Pod has its own network namespace, with an address on a
//! bridge.
//!
//! Programs that listen on fixed ports of all addresses, as containers do, can therefore run side by side.

use std::env;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// This variable is set inside the namespaces.
const INSIDE: &str = "PENSTOCK_POD_NETWORK";

/// The network. It is removed when the process that entered it ends.
#[derive(Debug)]
pub struct PodNetwork {
    pods: u16,
}

/// The network namespace of a Pod. Dropping it removes the namespace.
#[derive(Debug)]
pub struct PodAddress {
    /// The name of the network namespace.
    pub namespace: String,
    /// The address of the Pod.
    pub ip: Ipv4Addr,
}

impl PodNetwork {
    /// The address of processes outside the Pods, such as control planes.
    pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

    /// Runs the ignored test with this name again inside new namespaces, and fails if that run fails. Inside the
    /// namespaces, returns the network.
    pub fn enter(test: &str) -> Result<Option<Self>> {
        if env::var_os(INSIDE).is_none() {
            let status = Command::new("unshare")
                .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL"])
                .arg("--mount-proc")
                .arg(env::current_exe()?)
                .args(["--exact", test, "--ignored", "--nocapture"])
                .env(INSIDE, "1")
                .stdin(Stdio::null())
                .status()
                .context("cannot run unshare (util-linux)")?;
            ensure!(status.success(), "{test} failed inside of its namespaces (above: why)");
            return Ok(None);
        }
        // `ip` keeps the names of network namespaces as files in /run.
        run("mount", &["-t", "tmpfs", "run", "/run"])?;
        ip("link set lo up")?;
        ip("link add pods type bridge")?;
        ip(&format!("addr add {}/16 dev pods", Self::OUTSIDE))?;
        ip("link set pods up")?;
        // An API server announces the address of the default route.
        ip("route add default dev pods")?;
        Ok(Some(PodNetwork { pods: 0 }))
    }

    /// Creates the network namespace of another Pod.
    pub fn pod(&mut self) -> Result<PodAddress> {
        self.pods += 1;
        let [high, low] = self.pods.to_be_bytes();
        let address = PodAddress { namespace: format!("pod{}", self.pods), ip: Ipv4Addr::new(10, 244, high + 1, low) };
        let name = &address.namespace;
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set {name} master pods up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} addr add {}/16 dev eth0", address.ip))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        // Containers may listen on port 80, so every process may do so here.
        let ports = "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start";
        run("ip", &["netns", "exec", name, "sh", "-c", ports])?;
        Ok(address)
    }
}

impl Drop for PodAddress {
    fn drop(&mut self) {
        // Ignores errors: the namespace ends with the process in any case.
        let _ = ip(&format!("netns delete {}", self.namespace));
    }
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
