//! The platform "Envoy dynamic module": the same engine as in the wasm modules, in Envoy's own process.
//!
//! Envoy calls the hooks in `abi/hooks.rs`. Each finds its [`filter::Filter`] or [`connection::DownstreamConnection`]
//! and calls it behind a guard (`guard.rs`): a panic refuses one request and never reaches Envoy. A filter belongs to a
//! [`config::FilterConfig`], a loaded policy that all worker threads share. Once a second, Envoy's main thread collects
//! what the policy has counted (`ticker.rs`, `metrics.rs`).
//!
//! `abi` is the only place with `unsafe` code.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod config;
mod connection;
mod error;
mod filter;
mod grpc;
mod guard;
mod handles;
mod headers;
mod host;
mod logger;
mod metadata;
mod metrics;
mod refused;
mod request;
mod sections;
#[cfg(test)]
mod tests;
mod ticker;
#[cfg(any(test, feature = "trap"))]
mod trap;
