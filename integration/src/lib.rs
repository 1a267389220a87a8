//! Tests, demo and benchmarks that drive a **real Envoy** with the **real modules**.
//!
//! The library is the harness that they share; nothing in it knows what a policy means.
//!
//! - [`Bootstrap`] and [`Listener`] describe an Envoy configuration in Rust: filters, routes, clusters.
//! - [`Envoy`] runs it as a child process on free loopback ports and stops it on drop. [`Envoy::reload`] gives a filter
//!   a new policy through filesystem ECDS, so nothing drains.
//! - [`http`] holds clients that send exactly what they are told, over HTTP/1.1 and HTTP/2.
//! - [`Upstream`] is a server that says what it received, and that hangs, fails or resets on demand.
//! - [`RateLimitService`] is envoyproxy/ratelimit with its Redis.
//! - [`Prometheus`] scrapes Envoys.
//! - [`Dash`] is `penstock dash`, [`Browser`] a Chromium without a window to look at it.
//! - [`GrpcServer`] answers gRPC calls as wrongly as it is told.
//! - [`Traffic`] keeps requests coming while something else happens, and counts those that went wrong.
//! - [`check_routes`] runs a table of requests.
//! - [`contract`] reads the contract's cases.
//! - [`control_plane`] runs Kubernetes' API server, Istio and Envoy Gateway.
//! - [`demo`] is `make demo`, [`mod@bench`] is `make bench`.
//!
//! Everything blocks and runs on plain threads: tests read top to bottom and a stuck peer ends in a timeout.

mod admin;
pub mod bench;
mod body;
mod bootstrap;
mod browser;
pub mod contract;
pub mod control_plane;
mod dash;
pub mod demo;
mod discovery;
mod envoy;
mod grpc_server;
pub mod http;
mod jwt;
mod listener;
mod prometheus;
mod rate_limit_service;
mod rows;
mod traffic;
mod upstream;
mod wasm;
pub mod workspace;

pub use admin::Admin;
pub use body::Body;
pub use bootstrap::Bootstrap;
pub use browser::{Browser, Page, browser_tool};
pub use dash::Dash;
pub use discovery::Reload;
pub use envoy::Envoy;
pub use grpc_server::{Answer, GrpcServer};
pub use jwt::TokenSigner;
pub use listener::{Listener, Route};
pub use prometheus::{Prometheus, prometheus_tool};
pub use rate_limit_service::{RateLimitService, grpc_cluster};
pub use rows::{NONE, check_routes, check_routes_over};
pub use traffic::{Traffic, TrafficTally};
pub use upstream::{Received, Upstream, UpstreamReply};
pub use wasm::{Configuration, WasmFilter};
