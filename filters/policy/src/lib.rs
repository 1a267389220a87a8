//! The Penstock policy engine: parse a document, compile it, decide requests.
//!
//! ```
//! use penstock_policy::{FixedEnvironment, Policy, Request};
//!
//! let policy: Policy = Policy::from_json(
//!     br#"{"routes": {"default": "stable", "rules": [{
//!         "name": "beta-users", "route": "beta",
//!         "matches": [{"headers": [{"name": "x-user-group", "value": "beta"}]}]
//!     }]}}"#,
//! )?;
//!
//! let headers: [(&[u8], &[u8]); 4] =
//!     [(b":method", b"GET"), (b":authority", b"shop.example.com"), (b":path", b"/"), (b"x-user-group", b"beta")];
//! let decision = policy.decide(&Request::new(&headers), &mut FixedEnvironment::default()).expect("no service to ask");
//! assert_eq!(decision.route, Some("beta"));
//! assert_eq!(decision.rule, Some("beta-users"));
//! # Ok::<(), penstock_policy::Problems>(())
//! ```
//!
//! Pure: time, randomness and the connection's facts come in through [`Environment`], so every behaviour has a
//! native unit test and the wasm modules, the CLI and the tests all call the same [`Policy::decide`].
//!
//! Data flows one way: bytes → [`document`] (every problem at once) → [`Policy`] → [`Decision`].

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod asked;
pub mod breaker;
mod bytes;
pub mod canaries;
mod client;
mod decision;
pub mod document;
pub mod egress;
mod environment;
pub mod explain;
pub mod facts;
mod fixed_environment;
mod gauges;
mod header_table;
mod identity;
pub mod matching;
mod metrics;
pub mod module;
mod policy;
mod policy_document;
mod protobuf;
pub mod rate_limits;
mod reason;
mod redirection;
mod references;
mod request;
pub mod routes;
#[cfg(feature = "schema")]
pub mod schema;
mod section;
mod settings;
mod small_map;
mod split_mix;
pub mod state;
mod timestamp;
mod trie;
mod upgrade;
#[cfg(feature = "wire")]
pub mod wire;
mod worker_memory;

pub use client::SourceAddress;
pub use client::client_address;
pub use decision::{
    Action, Counts, Decision, EgressOutcome, EgressVerdict, HeaderOp, HeaderOps, HeldBack, Response, ResponseHeaders,
};
pub use document::{Problem, Problems};
pub use environment::{Environment, Trace};
pub use fixed_environment::FixedEnvironment;
pub use gauges::{Gauges, text_hash};
pub use identity::IdentitySource;
pub use metrics::{Metric, Metrics, latency_name, metric_labels, metric_name};
pub use module::{Module, Runs};
pub use policy::{Policy, check};
pub use reason::Reason;
pub use request::{Header, Request, Scratch};
pub use section::Section;
pub use settings::{DEFAULT_ROUTE_HEADER, Settings};
pub use timestamp::Timestamp;
pub use worker_memory::WorkerMemory;
