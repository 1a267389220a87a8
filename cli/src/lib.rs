//! The library behind the `penstock` binary: what the integration tests share with it.

pub mod check;
pub mod lint;
pub mod replay;
pub mod source;
pub mod yaml;
