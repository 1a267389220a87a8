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
//! The engine is pure: time, randomness, the connection's facts and shared state come in through [`Environment`], so
//! that unit tests, the command line and every proxy call the same [`Policy::decide`].
//!
//! # Embedding the engine
//! 1. [`Policy::from_json`] reads a document and reports every problem with its place ([`Problems`]).
//!    [`Policy::from_node`] takes a document that was parsed elsewhere, for example from YAML.
//! 2. Implement [`Environment`] for your server: the clock, the connection, random numbers, a [`State`](state::State),
//!    and a [`WorkerMemory`] for each thread. [`FixedEnvironment`] does for tests and for a single thread;
//!    [`state::Memory`] is a state that threads share.
//! 3. For each request make a [`Request`] of its headers, with a [`Scratch`], and call [`Policy::decide`].
//! 4. Apply the [`Decision`]: give its [`Response`] if its [`Action`] is one; otherwise change the request
//!    ([`HeaderOp`]) and later the response. Count its [`Metric`]s; [`Policy::metrics`] has their names.
//! 5. When a rate-limit service must be asked, `decide` returns a [`Pending`](rate_limits::Pending): send each
//!    [`Policy::rls_request`], then call [`Policy::resume`].
//! 6. When the exchange has ended, tell the breaker that [`Decision::watch`] names:
//!    [`Breakers::observe`](breaker::Breakers::observe).
//!
//! All of it must be done for a policy to have its full effect; a program that leaves out a part should refuse policies
//! that need it, such as those for which [`Policy::needs_facts`] or [`Policy::needs_workload`] is true.
//!
//! | module | what is in it |
//! |---|---|
//! | [`document`] | reading: the tree, problems with their paths, the types of values |
//! | [`matching`] | `matches`: conditions, and the index that selects rules |
//! | [`egress`], [`rate_limits`], [`routes`], [`canaries`] | the sections |
//! | [`breaker`] | `failover` and `rollback` |
//! | [`facts`] | claims of verified tokens, and other metadata |
//! | [`state`] | the store that decisions share |
//! | [`explain`] | notes about what a decision considered: see [`Trace`] |
//! | [`module`] | sets of sections that a program runs |

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod asked;
pub mod breaker;
mod bytes;
pub mod canaries;
mod canonical_path;
mod cidr;
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
