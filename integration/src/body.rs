//! The two bodies of the engine: a wasm module or a dynamic module. Tests can run a filter in either.

use std::env;

/// How Envoy runs the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// `dist/<module>.wasm` in the sandbox.
    Wasm,
    /// `dist/libpenstock.so` in Envoy's own process.
    Native,
}

impl Body {
    /// Both bodies, for tests that run in each.
    pub const ALL: [Body; 2] = [Body::Wasm, Body::Native];

    /// The body that `PENSTOCK_BODY` names: `native`, or wasm for any other value. `make test-native` runs whole test
    /// files with it.
    pub fn of_environment() -> Body {
        match env::var("PENSTOCK_BODY").as_deref() {
            Ok("native") => Body::Native,
            _ => Body::Wasm,
        }
    }
}
