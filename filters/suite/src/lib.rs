//! The `suite` module.
