//! The platform "Envoy dynamic module": the same engine as in the wasm modules, in Envoy's own process.
//!
//! Envoy calls the hooks of `abi/hooks.rs`; each finds the [`filter::Filter`] or [`connection::DownstreamConnection`] that it is about
//! and calls it behind a guard (`guard.rs`): a panic refuses one request and never crosses into Envoy. A filter belongs to a
//! [`config::FilterConfig`], one policy at work, which all worker threads share. What the policy counts is handed to Envoy by its
//! main thread once a second (`ticker.rs`, `metrics.rs`).
//!
//! `abi` is the only place with `unsafe` code.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod config;
mod connection;
mod filter;
mod grpc;
mod guard;
mod handles;
mod headers;
mod host;
mod logger;
mod metrics;
mod refused;
mod request;
mod sections;
#[cfg(test)]
mod tests;
mod ticker;
#[cfg(any(test, feature = "trap"))]
mod trap;
