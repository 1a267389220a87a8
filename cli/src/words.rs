//! Formats times, numbers and reasons for human-readable output.

use std::time::Duration;

pub use penstock_policy::document::thousands;
use penstock_policy::rate_limits::LimitDocument;
use penstock_policy::{Reason, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An instant in RFC 3339, UTC, without trailing zeros.
pub fn instant(time: Timestamp) -> String {
    let formatted = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0)).map(|time| time.format(&Rfc3339));
    match formatted {
        Ok(Ok(text)) => text,
        // Years outside of RFC 3339 do not fit a timestamp.
        _ => format!("{} ns", time.0),
    }
}

/// A duration: `1h30m`, `1.8s`, `250ms`, `12µs`.
pub fn duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let seconds = duration.as_secs();
    if seconds >= 120 {
        let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
        return parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    }
    // Three digits are precise enough for shorter durations.
    let unit = [1_000_000, 1_000, 1].into_iter().find(|unit| duration.as_nanos() >= 1000 * u128::from(*unit));
    let nanos = match unit {
        Some(unit) => u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) / unit * unit,
        None => u64::from(duration.subsec_nanos()),
    };
    format!("{:?}", Duration::from_nanos(nanos))
}

/// A fraction as a percentage: `5 %`, `33.3 %`, `0.01 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = match percent {
        p if (p - p.round()).abs() < 1e-9 => 0,
        p if p >= 0.1 => 1,
        _ => 3,
    };
    format!("{percent:.digits$} %")
}

/// The first `most` characters of a text that may be long.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A list in words; a long one ends with the number of the remaining items.
pub fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What a limit allows: `100 in 60s, at most 20 at once`.
pub fn quota(limit: &LimitDocument) -> String {
    let (requests, per) = (limit.limit.requests.0, duration(limit.limit.per.0));
    let burst = limit.limit.burst.unwrap_or(limit.limit.requests).0;
    format!("{} in {per}, at most {} at once", thousands(requests.into()), thousands(burst.into()))
}

/// The meaning of a decision's reason.
pub fn reason(name: &str) -> &'static str {
    Reason::from_name(name).map_or("", Reason::words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        let ms = Duration::from_millis;
        for (length, text) in [
            (ms(0), "0s"),
            (ms(250), "250ms"),
            (ms(1800), "1.8s"),
            (Duration::from_nanos(1_234_567_890), "1.234s"),
            (Duration::from_nanos(999_999), "999.999µs"),
            (ms(60_000), "60s"),
            (ms(5_400_000), "1h30m"),
            (ms(125_500), "2m5s"),
        ] {
            assert_eq!(duration(length), text);
        }
        assert_eq!(instant(Timestamp(1_767_225_600_500_000_000)), "2026-01-01T00:00:00.5Z");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(["0 %", "5 %", "33.3 %", "0.010 %"], [0.0, 0.05, 1.0 / 3.0, 0.0001].map(percent));
        assert_eq!(["0", "999", "1,000", "12,345,678"], [0, 999, 1000, 12_345_678].map(thousands));
        assert_eq!((shortened("äöü", 3), shortened("äöü!", 3)), ("äöü".into(), "äöü…".into()));
    }
}
