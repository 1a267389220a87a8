//! Traps on demand, so that tests can observe what the proxy does. Only with the feature `trap`, which no released
//! module has.

use penstock_host::{HeaderMap, ProxyRequest};

use crate::host::CurrentRequest;

/// Traps when the current request has the header `x-penstock-trap`.
pub(crate) fn on_request() {
    let map = CurrentRequest.headers();
    let asked = map.as_ref().ok().and_then(|map| map.parse().ok());
    if asked.is_some_and(|headers| headers.iter().any(|(name, _)| *name == b"x-penstock-trap")) {
        std::process::abort();
    }
}

/// Traps when the current connection asks for the server name `trap.test`.
pub(crate) fn on_connection() {
    if CurrentRequest.sni().is_some_and(|sni| sni == b"trap.test") {
        std::process::abort();
    }
}
