//! The proxy's log.

use log::{Level, LevelFilter};
use penstock_host::proxy_log::{ProxyLog, most_detailed, number};

use crate::abi;

/// The proxy's log as a backend of the `log` facade. The proxy itself drops lines of levels that are not enabled.
pub(crate) static LOG: ProxyLog = ProxyLog { takes: |_| true, write };

/// Writes one line to the proxy's log.
pub(crate) fn write(level: u32, line: &str) {
    // SAFETY: address and length are those of `line`.
    let _ = unsafe { abi::proxy_log(level, line.as_ptr(), line.len()) };
}

/// The most detailed level that is enabled in the proxy's log now. If the proxy does not return it, warnings and errors are assumed.
pub(crate) fn level() -> LevelFilter {
    let mut lowest = number(Level::Info);
    // SAFETY: `lowest` lives through the call.
    let _ = unsafe { abi::proxy_get_log_level(&raw mut lowest) };
    most_detailed(|level| level >= lowest)
}
