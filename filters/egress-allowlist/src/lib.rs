//! The `egress-allowlist` module: the section `egress`.

penstock_runtime::module!(EgressAllowlist);
