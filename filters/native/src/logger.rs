//! Envoy's log. Its id is `dynamic_modules`.

use log::LevelFilter;
use penstock_host::proxy_log::{ProxyLog, most_detailed};

use crate::abi;

/// Envoy's log behind the `log` facade.
pub(crate) static LOG: ProxyLog = ProxyLog { takes: abi::is_log_enabled, write: abi::write_log };

/// The most detailed level of which Envoy's log takes lines now.
pub(crate) fn level() -> LevelFilter {
    most_detailed(abi::is_log_enabled)
}
