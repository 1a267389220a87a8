//! Envoy's log, under the id `dynamic_modules`.

use log::LevelFilter;
use penstock_host::proxy_log::{ProxyLog, most_detailed};

use crate::abi;

/// Envoy's log as a backend of the `log` facade.
pub(crate) static LOG: ProxyLog = ProxyLog { takes: abi::is_log_enabled, write: abi::write_log };

/// The most detailed level that is enabled in Envoy's log.
pub(crate) fn level() -> LevelFilter {
    most_detailed(abi::is_log_enabled)
}
