//! Real control planes as plain processes on loopback: a Kubernetes API server, Istio, Envoy Gateway, an image registry.
//!
//! [`Cluster`] is an API server with etcd and the custom resources of Istio, the Gateway API and Envoy Gateway: enough to
//! prove that a manifest is accepted (`Cluster::start()?.apply(yaml)?`). There is no kubelet: Pods are objects that a test
//! writes, and the test starts the proxy that a Pod would hold.
//!
//! Where Gateways come and go by themselves, as under the Gateway API's conformance suite, a [`Kubelet`] starts what Deployments ask for.
//!
//! `make control-planes` builds them.

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
pub use envoy_gateway::{EnvoyGateway, GatewayProxy};
pub use istio::{Istio, IstioProxy, Pod, Role};
pub use kubelet::Kubelet;
pub use pod_network::{PodAddress, PodNetwork};
pub use process::{Process, eventually, free_port, tool, within};
pub use registry::{Access, PASSWORD, Registry, USER};
pub use tokens::{Tokens, hosts, with_hosts};
