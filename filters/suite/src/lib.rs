//! The `suite` module: all four sections in one VM, the fast way.

penstock_wasm::module!(Suite);
