//! The `header-routing` module: the section `routes`.

penstock_wasm::module!(HeaderRouting);
