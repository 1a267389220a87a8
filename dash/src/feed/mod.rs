//! The live feed of decisions: who was refused what, and why.
//!
//! Modules leave what they decided in the filter state and in the response code details of each request; Envoy's access log has both.
//! It comes here as Envoy's gRPC access log (`als`) or as lines of a JSON access log (`tail`). Either makes a [`AccessLogEntry`] of each
//! request, of which `decision` keeps what may be shown and `store` a bounded number. `query` and `rule` answer the API.

pub mod als;
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
pub use store::{DecisionFeed, SharedFeed, lock};
