//! Runs the modules of `dist/` in an embedded interpreter and counts what they do: guest instructions, calls to the
//! host, memory. The same numbers on every machine and in every run, so that CI can hold them to a budget.
//!
//! - [`Guest`] is one VM with one module; its callbacks are those that Envoy makes.
//! - [`MeterHost`] is the host's side: it answers as Envoy does, or as wrongly as a test wants.
//! - [`scenarios`] are the requests and policies that are measured, [`Budget`] is what they may cost.
//!
//! - [`hostile`] makes policies and requests that are meant to take long, and says what a request may cost by its bytes.
//!
//! An instruction is a WebAssembly operator that was executed and of which a compiler makes code. That is neither time nor
//! cycles (a division counts like an addition, copying a megabyte like one of either), but it moves with them and never
//! by itself.

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
