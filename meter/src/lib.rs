//! Runs the modules of `dist/` in an embedded interpreter and counts guest instructions, calls to the host, and memory.
//! The numbers are the same on every machine and in every run, so that CI can compare them with a budget.
//!
//! - [`Guest`] is one VM with one module; it makes the same callbacks as Envoy.
//! - [`MeterHost`] is the host's side: it behaves like Envoy, or wrongly on demand.
//! - [`scenarios`] are the requests and policies that are measured; [`Budget`] is what they may cost.
//!
//! - [`hostile`] makes policies and requests that are designed to be slow, and bounds the cost of a request by its
//!   size.
//!
//! An instruction is an executed WebAssembly operator for which a compiler makes code. It is not a measure of time (a
//! division counts like an addition, and copying a megabyte like either), but it changes with the time, and only when
//! the code changes.

mod budget;
mod count;
mod guest;
mod host;
pub mod hostile;
mod profile;
pub mod scenarios;

pub use budget::{Budget, ScenarioCost};
pub use guest::{Guest, Spent};
pub use host::{GuestResponse, HandOver, MeterHost};
pub use profile::Profile;
