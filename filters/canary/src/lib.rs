//! The `canary` module: the section `canaries`.

penstock_runtime::module!(Canary);
