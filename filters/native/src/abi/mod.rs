//! The ABI of Envoy's dynamic modules, written by hand from `source/extensions/dynamic_modules/abi/abi.h` of
//! envoyproxy/envoy: the callbacks that this module uses, as safe functions. The hooks that it exports are in
//! `hooks.rs`.
//!
//! Since 1.40, that header guarantees that a type, hook or callback never changes incompatibly. Callbacks are looked up
//! by name when the module is loaded: the module refuses to load into an Envoy that lacks a required one; functions
//! that need an optional one return [`Missing`] without it.
//!
//! All pointers that Envoy passes are wrapped here. [`Stream`] and [`Downstream`] are only used within a hook and only
//! until Envoy has destroyed their filter, which [`crate::filter::Filter`] and
//! [`crate::connection::DownstreamConnection`] track.

mod config;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod hooks;
mod loader;
mod network;
mod stream;
mod types;

pub(crate) use config::{ConfigHandle, Scheduler};
pub(crate) use loader::{is_log_enabled, shows_all_attributes, write_log};
pub(crate) use network::Downstream;
pub(crate) use stream::{Attribute, Stream, StreamHeaders};
pub(crate) use types::AbiMetric;
