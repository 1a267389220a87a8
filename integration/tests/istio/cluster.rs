//! Tests `make e2e-istio CLUSTER=kubeconfig` with the test's own API server and istiod as the cluster.

use std::process::Command;

use anyhow::{Result, ensure};
use penstock_integration::control_plane::{Cluster, Istio};
use penstock_integration::workspace;

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn the_manifests_are_tried_on_a_cluster_of_ones_own_and_nothing_is_left() -> Result<()> {
    let cluster = Cluster::knowing(&["istio", "gateway-api"])?;
    let run = || -> Result<(bool, String)> {
        let output = Command::new(workspace::root().join("scripts/e2e-cluster.sh"))
            .env("CLUSTER", cluster.kubeconfig())
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let _istio = Istio::start(&cluster)?;
    let (passed, said) = run()?;
    eprintln!("{said}");
    ensure!(passed && said.contains("PASSED"), "{said}");
    ensure!(said.contains("the policy that the cluster keeps is valid"), "{said}");
    for kind in
        ["wasmplugin", "trafficextension", "virtualservice", "destinationrule", "gateways.gateway.networking.k8s.io"]
    {
        let left = cluster.kubectl(["get", kind, "--all-namespaces", "--output=name"])?;
        ensure!(left.is_empty(), "{left} is left");
    }

    // A cluster whose Istio is too old to support TrafficExtension.
    cluster.kubectl(["delete", "crd", "trafficextensions.extensions.istio.io"])?;
    let (passed, said) = run()?;
    ensure!(!passed && said.contains("it needs Istio 1.30 or newer"), "{said}");
    Ok(())
}
