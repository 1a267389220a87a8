//! The proxy's log behind the `log` facade. The ABIs of both bodies number its levels alike: trace is 0.

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The module itself is broken; the facade has no such level.
pub const CRITICAL: u32 = 5;

/// How a body writes to the proxy's log.
#[derive(Debug)]
pub struct ProxyLog {
    /// Whether the log takes lines of this level now. `|_| true` where the proxy itself leaves out what it does not take.
    pub takes: fn(u32) -> bool,
    /// Writes one line. There is nobody to tell when that fails.
    pub write: fn(u32, &str),
}

impl Log for ProxyLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        (self.takes)(number(metadata.level()))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.args().as_str() {
            Some(line) => (self.write)(number(record.level()), line),
            None => (self.write)(number(record.level()), &record.args().to_string()),
        }
    }

    fn flush(&self) {}
}

impl ProxyLog {
    /// From here on `log`'s macros write to the proxy's log.
    pub fn install(&'static self) {
        // It fails when it was done before.
        let _ = log::set_logger(self);
        log::set_max_level(LevelFilter::Trace);
    }
}

/// The ABI's number of a level.
pub fn number(level: Level) -> u32 {
    match level {
        Level::Trace => 0,
        Level::Debug => 1,
        Level::Info => 2,
        Level::Warn => 3,
        Level::Error => 4,
    }
}

/// The most detailed level of which a log takes lines. What is critical is written past the facade.
pub fn most_detailed(takes: impl Fn(u32) -> bool) -> LevelFilter {
    let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
    let taken = levels.into_iter().find(|level| takes(number(*level)));
    taken.map_or(LevelFilter::Off, |level| level.to_level_filter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_detailed_level_is_the_first_that_is_taken() {
        for (lowest, expected) in [
            (0, LevelFilter::Trace),
            (1, LevelFilter::Debug),
            (2, LevelFilter::Info),
            (3, LevelFilter::Warn),
            (4, LevelFilter::Error),
            (CRITICAL, LevelFilter::Off),
        ] {
            assert_eq!(most_detailed(|level| level >= lowest), expected);
        }
    }
}
