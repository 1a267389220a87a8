//! Keeps panics out of Envoy: a panic there would end the process and every request in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use penstock_host::proxy_log::CRITICAL;

use crate::abi;

/// The guarded code has panicked. Its own data was dropped, and shared data is consistent, because it only changes by
/// single swaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs `act`; returns an error when it panics.
pub(crate) fn guard<T>(act: impl FnOnce() -> T) -> Result<T, Panicked> {
    let act = AssertUnwindSafe(|| {
        #[cfg(test)]
        crate::trap::spring();
        act()
    });
    catch_unwind(act).map_err(|_| Panicked)
}

/// Drops what may hold the last reference to a policy, whose end writes metrics.
pub(crate) fn release<T>(last: T) {
    let _ = guard(move || drop(last));
}

/// From now on, a panic writes one line to Envoy's log, at most once a second.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            static LINES: Limiter = Limiter::new();
            let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            let Some(left_out) = LINES.admit(second) else { return };
            let message = panic.payload_as_str().unwrap_or_default();
            let place = panic.location().map(|place| format!(" ({place})")).unwrap_or_default();
            let more = if left_out > 0 { format!("; {left_out} more were not logged") } else { String::new() };
            abi::write_log(CRITICAL, &format!("penstock: bug, please report: {message}{place}{more}"));
        }));
    });
}

/// Allows one line a second.
#[derive(Debug)]
struct Limiter {
    second: AtomicU64,
    left_out: AtomicU64,
}

impl Limiter {
    const fn new() -> Limiter {
        Limiter { second: AtomicU64::new(u64::MAX), left_out: AtomicU64::new(0) }
    }

    /// Returns `None` when there was a line in this second, or else how many lines were suppressed before.
    fn admit(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) == second {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_what_was_held_is_dropped() {
        let held = std::rc::Rc::new(());
        let inside = std::rc::Rc::clone(&held);
        let outcome = guard(move || {
            let _inside = inside;
            let empty: &[u8] = &[];
            assert!(!empty.is_empty(), "on purpose");
        });
        assert_eq!((outcome, std::rc::Rc::strong_count(&held)), (Err(Panicked), 1));
        assert_eq!(guard(|| 7), Ok(7));
    }

    #[test]
    fn a_flood_of_panics_is_a_line_a_second_and_a_count() {
        let limiter = Limiter::new();
        let lines = (0..1000).filter(|_| limiter.admit(7).is_some()).count();
        assert_eq!((lines, limiter.admit(8), limiter.admit(9)), (1, Some(999), Some(0)));
    }
}
