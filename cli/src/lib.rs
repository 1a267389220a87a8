//! The library behind the `penstock` binary: what the integration tests share with it.

pub mod check;
pub mod diagnostics;
pub mod image;
pub mod lint;
pub mod output;
pub mod policy_file;
pub mod replay;
pub mod source;
pub mod yaml;
