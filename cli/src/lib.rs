//! The library behind the `penstock` binary: what the integration tests share with it.

pub mod check;
pub mod command;
pub mod completions;
pub mod cover;
pub mod dash;
pub mod diagnostics;
pub mod diff;
pub mod documents;
pub mod explain;
pub mod image;
pub mod import;
pub mod lint;
pub mod man;
pub mod manifests;
pub mod output;
pub mod policy_file;
pub mod render;
pub mod replay;
pub mod schema;
pub mod source;
pub mod test;
pub mod traffic;
pub mod words;
pub mod yaml;
pub mod yaml_text;
