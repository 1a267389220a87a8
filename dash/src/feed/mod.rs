//! The live feed of decisions: whose requests were refused, and why.
//!
//! Modules put their decision into the filter state and the response code details of each request; Envoy's access log
//! contains both. The log arrives as Envoy's gRPC access log (`als`) or as lines of a JSON access log (`tail`). Both
//! produce an [`AccessLogEntry`] for each request, of which `decision` keeps what may be shown and `store` keeps a
//! bounded number. `query` and `rule` implement the API.

pub mod als;
#[cfg(test)]
mod als_clients;
mod command;
pub mod decision;
pub mod explain;
mod proto;
pub mod query;
mod question;
pub mod rule;
pub mod store;
pub mod tail;
mod visible;

pub use decision::{AccessLogEntry, FeedPrivacy, FilterStates, LoggedDecision};
pub use store::{ClusterFeed, DecisionFeed, SharedFeed, lock};
