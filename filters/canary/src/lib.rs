//! The `canary` module.
