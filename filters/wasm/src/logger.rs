//! The proxy's log.

use log::{Level, LevelFilter};
use penstock_host::proxy_log::{ProxyLog, most_detailed, number};

use crate::abi;

/// The proxy's log behind the `log` facade. The proxy itself leaves out what its log does not take.
pub(crate) static LOG: ProxyLog = ProxyLog { takes: |_| true, write };

/// Writes one line to the proxy's log.
pub(crate) fn write(level: u32, line: &str) {
    // SAFETY: address and length are those of `line`.
    let _ = unsafe { abi::proxy_log(level, line.as_ptr(), line.len()) };
}

/// The most detailed level of which the proxy's log takes lines now. A proxy that does not say takes those that matter.
pub(crate) fn level() -> LevelFilter {
    let mut lowest = number(Level::Info);
    // SAFETY: `lowest` lives through the call.
    let _ = unsafe { abi::proxy_get_log_level(&raw mut lowest) };
    most_detailed(|level| level >= lowest)
}
