//! A network of Pods without a cluster and without root: each Pod has a network namespace of its own, with an address on a bridge.
//!
//! Programs that listen on fixed ports of every address, as those in containers do, can so run beside each other.

use std::env;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Set inside of the namespaces.
const INSIDE: &str = "PENSTOCK_POD_NETWORK";

/// The network. It ends with the process that has entered it.
#[derive(Debug)]
pub struct PodNetwork {
    pods: u16,
}

/// A Pod's place in the network. Dropping it removes the namespace.
#[derive(Debug)]
pub struct PodAddress {
    /// The name of its network namespace.
    pub namespace: String,
    /// Its address.
    pub ip: Ipv4Addr,
}

impl PodNetwork {
    /// The address of whatever runs outside of the Pods, such as control planes.
    pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

    /// Runs the ignored test with this name again, inside of namespaces of its own, and fails if it fails there. Inside: the network.
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
        // Names of network namespaces are files there.
        run("mount", &["-t", "tmpfs", "run", "/run"])?;
        ip("link set lo up")?;
        ip("link add pods type bridge")?;
        ip(&format!("addr add {}/16 dev pods", Self::OUTSIDE))?;
        ip("link set pods up")?;
        // An API server looks there for the address that it gives to others.
        ip("route add default dev pods")?;
        Ok(Some(PodNetwork { pods: 0 }))
    }

    /// A place for one more Pod.
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
        // Containers may listen on port 80; so may whatever has a user namespace of its own in the place of a container.
        let ports = "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start";
        run("ip", &["netns", "exec", name, "sh", "-c", ports])?;
        Ok(address)
    }
}

impl Drop for PodAddress {
    fn drop(&mut self) {
        // Everything ends with the process anyway.
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
