//! The `canary` module: the section `canaries`.

penstock_wasm::module!(Canary);
