//! A VM that dies when it is told to, so that a test can see what the host does then. Only with the feature `trap`, which
//! no shipped module has.

use penstock_policy::Environment;

use crate::headers;
use crate::host::{self, HostEnvironment};

/// Traps when the current request has the header `x-penstock-trap`.
pub(crate) fn on_request() {
    let map = host::request_headers();
    let asked = map.as_ref().ok().and_then(|map| headers::parse(map).ok());
    if asked.is_some_and(|headers| headers.iter().any(|(name, _)| *name == b"x-penstock-trap")) {
        std::process::abort();
    }
}

/// Traps when the current connection asks for the server name `trap.test`.
pub(crate) fn on_connection() {
    if HostEnvironment::default().sni().is_some_and(|sni| sni == b"trap.test") {
        std::process::abort();
    }
}
