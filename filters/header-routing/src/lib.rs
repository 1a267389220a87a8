//! The `header-routing` module.
