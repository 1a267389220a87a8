//! Limits the lines that a plugin writes to the proxy's log: an attacker must not be able to fill the disk, and a plugin
//! with many lines must not suppress those of another.

use std::sync::{Mutex, PoisonError};

use log::Level;

use crate::host::Host;

/// The maximum number of lines about decisions, per second, plugin and worker.
const DECISIONS_A_SECOND: u32 = 100;

/// The maximum number of lines about errors, per second, plugin and worker. Each request could cause an error.
const ERRORS_A_SECOND: u32 = 10;

/// The limiters of one plugin's lines.
#[derive(Debug, Default)]
pub struct PluginLog {
    decisions: Mutex<LineLimiter>,
    errors: Mutex<LineLimiter>,
}

impl PluginLog {
    /// Writes the line that `line` returns about a decision, unless there were too many in this second. The next line in
    /// a later second is preceded by the number of omitted lines.
    pub(crate) fn decision<H: Host>(&self, level: Level, host: &H, line: impl FnOnce() -> String) {
        let (is_admitted, dropped) = admit(&self.decisions, DECISIONS_A_SECOND, host);
        if dropped > 0 {
            log::info!("{{\"egress\":\"notLogged\",\"decisions\":{dropped}}}");
        }
        if is_admitted {
            log::log!(level, "{}", line());
        }
    }

    /// As [`PluginLog::decision`], for an error.
    #[cold]
    pub(crate) fn error<H: Host>(&self, host: &H, line: &str) {
        let (is_admitted, dropped) = admit(&self.errors, ERRORS_A_SECOND, host);
        if dropped > 0 {
            log::error!("penstock: {dropped} more errors were not logged");
        }
        if is_admitted {
            log::error!("penstock: {line}");
        }
    }
}

/// Without a clock, all lines count as if in one second.
fn admit<H: Host>(limiter: &Mutex<LineLimiter>, most: u32, host: &H) -> (bool, u64) {
    let second = host.now().map_or(0, |now| now.0 / 1_000_000_000);
    limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(second, most)
}

/// The numbers of lines that were written and omitted in the current second.
#[derive(Debug, Default)]
struct LineLimiter {
    second: u64,
    lines: u32,
    dropped: u64,
}

impl LineLimiter {
    /// Whether one more line may be written now, and the number of lines that were omitted before this second.
    fn admit(&mut self, second: u64, most: u32) -> (bool, u64) {
        let mut dropped = 0;
        if second != self.second {
            dropped = std::mem::take(&mut self.dropped);
            (self.second, self.lines) = (second, 0);
        }
        if self.lines < most {
            self.lines += 1;
            return (true, dropped);
        }
        self.dropped += 1;
        (false, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, FakeHost, with};

    #[test]
    fn a_flood_is_so_many_lines_a_second_and_a_count() {
        let mut limiter = LineLimiter::default();
        let admitted = (0..1000).filter(|_| limiter.admit(7, 100).0).count();
        assert_eq!(admitted, 100);
        assert_eq!(limiter.admit(8, 100), (true, 900));
        assert_eq!(limiter.admit(8, 100), (true, 0));
    }

    #[test]
    fn a_flood_is_bounded_too_after_a_panic_that_left_the_lock_poisoned() {
        testing::reset();
        with(|proxy| proxy.time = 5_000_000_000);
        let log = PluginLog::default();
        let poison = std::panic::AssertUnwindSafe(|| {
            let _held = log.errors.lock();
            panic!("told to");
        });
        assert!(std::panic::catch_unwind(poison).is_err());
        assert!(log.errors.is_poisoned());
        let admitted = (0..1000).filter(|_| admit(&log.errors, ERRORS_A_SECOND, &FakeHost).0).count();
        assert_eq!(admitted, ERRORS_A_SECOND as usize);
    }

    #[test]
    fn one_plugins_flood_silences_neither_another_one_nor_its_own_lines_of_the_other_kind() {
        testing::reset();
        testing::capture_log();
        with(|proxy| proxy.time = 5_000_000_000);
        let [flooded, other] = [PluginLog::default(), PluginLog::default()];
        (0..1000).for_each(|_| flooded.error(&FakeHost, "flood"));
        other.error(&FakeHost, "other");
        flooded.decision(Level::Info, &FakeHost, || "decision".to_owned());
        let count = |text: &str| with(|proxy| proxy.log.iter().filter(|(_, line)| line.contains(text)).count());
        assert_eq!((count("flood"), count("other"), count("decision")), (ERRORS_A_SECOND as usize, 1, 1));
        with(|proxy| proxy.time = 6_000_000_000);
        flooded.error(&FakeHost, "flood");
        assert_eq!((count("flood"), count("990 more errors were not logged")), (ERRORS_A_SECOND as usize + 1, 1));
    }
}
