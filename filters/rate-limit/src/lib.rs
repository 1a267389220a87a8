//! The `rate-limit` module: the section `rateLimits`.

penstock_runtime::module!(RateLimit);
