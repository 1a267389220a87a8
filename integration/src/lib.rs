//! Tests, demo and benchmarks that drive a **real Envoy** with the **real modules**.
//!
//! The library is the harness that they share; it does not interpret policies.
//!
//! - [`Bootstrap`] and [`Listener`] describe an Envoy configuration in Rust: filters, routes, clusters.
//! - [`Envoy`] runs it as a child process on free loopback ports and stops it on drop. [`Envoy::reload`] replaces the
//!   policy of a filter through filesystem ECDS, without draining the listener.
//! - [`http`] contains clients that send exactly what they are given, over HTTP/1.1 and HTTP/2.
//! - [`Upstream`] is a server that returns what it received, and that hangs, fails or resets connections on demand.
//! - [`RateLimitService`] is envoyproxy/ratelimit with its Redis.
//! - [`Prometheus`] scrapes Envoys.
//! - [`Dash`] is `penstock dash`; [`Browser`] is a headless Chromium for testing its pages.
//! - [`GrpcServer`] responds to gRPC calls with any given response, including invalid ones.
//! - [`Traffic`] sends requests in the background and counts those that fail.
//! - [`check_routes`] sends a table of requests and checks which route takes each.
//! - [`contract`] reads the contract's cases and sends them through Envoy.
//! - [`control_plane`] runs Kubernetes' API server, Istio and Envoy Gateway.
//! - [`demo`] is `make demo`, [`mod@bench`] is `make bench`.
//!
//! Everything is blocking and runs on plain threads: tests read from top to bottom, and a peer that hangs causes a
//! timeout.

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
mod greeter;
mod grpc_server;
pub mod http;
mod jwt;
mod listener;
mod prometheus;
mod rate_limit_service;
mod rows;
mod shop;
mod traffic;
mod upstream;
mod wait;
mod wasm;
pub mod workspace;

pub use admin::Admin;
pub use body::Body;
pub use bootstrap::Bootstrap;
pub use browser::{Browser, Page, browser_tool};
pub use dash::Dash;
pub use discovery::Reload;
pub use envoy::Envoy;
pub use greeter::{greeted, greeter};
pub use grpc_server::{Answer, GrpcServer};
pub use jwt::TokenSigner;
pub use listener::{Listener, Route};
pub use prometheus::{Prometheus, prometheus_tool};
pub use rate_limit_service::{RateLimitService, grpc_cluster};
pub use rows::{NONE, check_routes, check_routes_over};
pub use shop::{RENDERED_POLICY, shop, shop_splits_and_limits};
pub use traffic::{Traffic, TrafficTally};
pub use upstream::{Received, Upstream, UpstreamReply};
pub use wait::{PATIENCE, wait_until};
pub use wasm::{Configuration, WasmFilter};
