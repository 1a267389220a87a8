//! The `egress-allowlist` module: the section `egress`.

penstock_wasm::module!(EgressAllowlist);
