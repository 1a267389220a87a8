//! Real control planes as ordinary processes on loopback: a Kubernetes API server, Istio, Envoy Gateway, an image
//! registry.
//!
//! [`Cluster`] is an API server with etcd and the custom resources of Istio, the Gateway API and Envoy Gateway: enough
//! to test that a manifest is accepted (`Cluster::start()?.apply(yaml)?`). There is no kubelet: Pods are objects that a
//! test writes, and the test starts the proxy of a Pod itself.
//!
//! Where Gateways are created and deleted during a test, as in the Gateway API's conformance suite, a [`Kubelet`] runs
//! their Deployments.
//!
//! `make control-planes` builds the programs.

mod api;
mod cluster;
mod envoy_gateway;
mod istio;
mod kubelet;
mod pod_network;
mod process;
mod registry;
mod tokens;

pub use cluster::{Cluster, Rejected};
pub use envoy_gateway::{EnvoyGateway, GatewayProxy, OUTSIDE};
pub use istio::{Istio, IstioProxy, Pod, Role};
pub use kubelet::Kubelet;
pub use pod_network::{PodAddress, PodNetwork};
pub use process::{Process, eventually, free_port, tool, within};
pub use registry::{Access, Registry};
pub use tokens::{Tokens, hosts, with_hosts};
