//! The proxy's log behind the `log` facade.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::abi;

/// The module itself is broken; the facade has no such level.
pub(crate) const CRITICAL: u32 = 5;

struct ProxyLog;

impl Log for ProxyLog {
    /// The proxy itself drops lines of levels that its log does not accept.
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        match record.args().as_str() {
            Some(line) => write(number(record.level()), line),
            None => write(number(record.level()), &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

/// From here on `log`'s macros write to the proxy's log.
pub(crate) fn install() {
    // Fails when a logger was set before, which is the same one.
    let _ = log::set_logger(&ProxyLog);
    log::set_max_level(LevelFilter::Trace);
}

/// Writes one line to the proxy's log. If that fails there is nobody to tell.
pub(crate) fn write(level: u32, line: &str) {
    // SAFETY: address and length are those of `line`.
    let _ = unsafe { abi::proxy_log(level, line.as_ptr(), line.len()) };
}

/// The ABI's number of a level: trace is 0.
pub(crate) fn number(level: Level) -> u32 {
    match level {
        Level::Trace => 0,
        Level::Debug => 1,
        Level::Info => 2,
        Level::Warn => 3,
        Level::Error => 4,
    }
}

/// The most detailed level that the proxy's log accepts now. If the proxy does not say, the levels that matter.
pub(crate) fn level() -> LevelFilter {
    let mut lowest = number(Level::Info);
    // SAFETY: `lowest` lives through the call.
    let _ = unsafe { abi::proxy_get_log_level(&raw mut lowest) };
    match lowest {
        0 => LevelFilter::Trace,
        1 => LevelFilter::Debug,
        2 => LevelFilter::Info,
        3 => LevelFilter::Warn,
        4 => LevelFilter::Error,
        // What is critical is written past the facade.
        _ => LevelFilter::Off,
    }
}
