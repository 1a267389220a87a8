//! Headers that choose where a request goes or what it asks for, for the proxy or for a server that heeds them.

/// By which some servers take another method than the request's.
pub(crate) const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// By which some servers take another path than the request's.
pub(crate) const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// By which Envoy's original-destination clusters take another address.
pub(crate) const DESTINATION_OVERRIDE: &str = "x-envoy-original-dst-host";

/// Whether the header `name`, in lower case, is one of them, or a pseudo-header or `host`.
pub(crate) fn redirects_request(name: &str) -> bool {
    name.starts_with(':')
        || matches!(name, "host" | DESTINATION_OVERRIDE)
        || METHOD_OVERRIDES.contains(&name)
        || PATH_OVERRIDES.contains(&name)
}
