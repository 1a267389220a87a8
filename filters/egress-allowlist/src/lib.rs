//! The `egress-allowlist` module.
