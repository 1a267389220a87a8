//! The life of a Penstock plugin and of its requests, on any proxy.
//!
//! [`Plugin`] is a policy at work: it is configured, decides requests and connections, counts, and tells the proxy what it
//! counted once a second. All that it needs of the proxy is in one trait, [`Host`], and its requests' half,
//! [`ProxyRequest`]; an adapter implements the two and calls the plugin: `filters/wasm` for proxy-wasm.
//!
//! The way of a request: [`Plugin::request_headers`] decides it (`decide.rs`) and does what was decided (`apply.rs`). A
//! decision that needs a rate-limit service waits for it as a [`PendingRequest`] (`rate_limit_call.rs`); what is left for
//! the response and the end of the exchange is an [`AfterResponse`]. Whatever the proxy answers, no request passes
//! undecided: see [`Failure`].

mod addresses;
mod after_response;
mod apply;
mod configuration;
mod counters;
mod decide;
mod egress_log;
mod environment;
mod expiry;
mod failure;
mod gauges;
mod host;
mod latency;
mod plugin;
mod plugin_log;
pub mod proxy_log;
mod rate_limit_call;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use addresses::address;
pub use after_response::AfterResponse;
pub use apply::ROUTE_STATE;
pub use decide::{Handled, Rest};
pub use environment::{Unusable, Worker};
pub use failure::{Failure, count_failure};
pub use gauges::GaugeWriter;
pub use host::{
    CallStart, Flow, GrpcCall, GrpcStatusIn, HeaderMap, Headers, Host, Malformed, MetricKind, PluginState, PolicyNeed,
    ProxyRequest,
};
pub use plugin::{Plugin, TICK_PERIOD};
pub use plugin_log::PluginLog;
pub use rate_limit_call::PendingRequest;
