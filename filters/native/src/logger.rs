//! Envoy's log behind the `log` facade. Its id is `dynamic_modules`.

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::abi;

/// The module itself is broken; the facade has no such level.
pub(crate) const CRITICAL: u32 = 5;

struct EnvoyLog;

impl Log for EnvoyLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        abi::is_log_enabled(number(metadata.level()))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.args().as_str() {
            Some(line) => write(number(record.level()), line),
            None => write(number(record.level()), &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

/// From here on `log`'s macros write to Envoy's log.
pub(crate) fn install() {
    // It fails when it was done before.
    let _ = log::set_logger(&EnvoyLog);
    log::set_max_level(LevelFilter::Trace);
}

/// Writes one line to Envoy's log.
pub(crate) fn write(level: u32, line: &str) {
    abi::write_log(level, line);
}

/// The ABI's number of a level: trace is 0.
fn number(level: Level) -> u32 {
    match level {
        Level::Trace => 0,
        Level::Debug => 1,
        Level::Info => 2,
        Level::Warn => 3,
        Level::Error => 4,
    }
}

/// The most detailed level of which Envoy's log takes lines now.
pub(crate) fn level() -> LevelFilter {
    let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
    let taken = levels.into_iter().find(|level| abi::is_log_enabled(number(*level)));
    taken.map_or(LevelFilter::Off, |level| level.to_level_filter())
}
