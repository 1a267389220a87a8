//! The properties that the fuzz targets check. The tests of the policy crate use the same source on the stable
//! toolchain, with the seeds as input.

#[path = "../filters/policy/tests/readers/mod.rs"]
mod readers;
#[path = "../filters/policy/tests/reference/mod.rs"]
mod reference;

pub mod properties;
