//! The `header-routing` module: the section `routes`.

penstock_runtime::module!(HeaderRouting);
