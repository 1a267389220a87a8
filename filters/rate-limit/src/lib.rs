//! The `rate-limit` module: the section `rateLimits`.

penstock_wasm::module!(RateLimit);
