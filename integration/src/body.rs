//! The two bodies of the engine: what a filter of a test is.

use std::env;

/// How Envoy runs a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// `dist/<module>.wasm` in the sandbox.
    Wasm,
    /// `dist/libpenstock.so` in Envoy's own process.
    Native,
}

impl Body {
    /// Both.
    pub const ALL: [Body; 2] = [Body::Wasm, Body::Native];

    /// What `PENSTOCK_BODY` names: `native`, else wasm. `make test-native` runs whole test files so.
    pub fn of_environment() -> Body {
        match env::var("PENSTOCK_BODY").as_deref() {
            Ok("native") => Body::Native,
            _ => Body::Wasm,
        }
    }
}
