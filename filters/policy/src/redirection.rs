//! Headers that change where a request goes or what it requests, for the proxy or for servers that honour them.

/// Headers from which some servers take another method than the request's.
pub(crate) const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Headers from which some servers take another path than the request's.
pub(crate) const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// Headers from which Envoy's original-destination clusters take another address.
pub(crate) const DESTINATION_OVERRIDE: &str = "x-envoy-original-dst-host";

/// Whether the header `name`, in lower case, is one of them, or a pseudo-header or `host`.
pub(crate) fn redirects_request(name: &str) -> bool {
    name.starts_with(':')
        || matches!(name, "host" | DESTINATION_OVERRIDE)
        || METHOD_OVERRIDES.contains(&name)
        || PATH_OVERRIDES.contains(&name)
}
