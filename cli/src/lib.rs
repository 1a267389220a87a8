//! The library behind the `penstock` binary, also used by the integration tests.

mod automata;
pub mod check;
pub mod command;
pub mod completions;
pub mod cover;
pub mod coverage;
pub mod dash;
pub mod diagnostics;
pub mod diff;
pub mod documents;
pub mod explain;
mod forms;
pub mod image;
pub mod import;
pub mod init;
pub mod inputs;
pub mod kubectl;
pub mod learn;
pub mod lint;
pub mod man;
pub mod manifests;
mod numbers;
pub mod output;
pub mod place;
pub mod policy_file;
pub mod render;
pub mod replay;
pub mod schema;
pub mod set_weight;
pub mod source;
pub mod status;
pub mod test;
pub mod text;
pub mod traffic;
pub mod usage;
pub mod version;
pub mod watch;
pub mod webhook;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
mod widened_rules;
pub mod within;
pub mod words;
pub mod yaml;
pub mod yaml_text;
