//! The `rate-limit` module.
