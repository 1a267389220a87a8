//! Envoy's access logs: JSON lines, the default text formats of Envoy and Istio, and any format given as Envoy
//! configuration.

mod audit;
mod fields;
mod format;
mod json;
mod time;

use std::sync::LazyLock;

use penstock_policy::Timestamp;

pub use audit::{is_audit, read as audit};
pub use fields::{Line, response};
pub use format::LogFormat;
pub use json::{is_log as is_json_log, read as json};

/// The text formats that are known without their configuration.
static DEFAULTS: LazyLock<Vec<LogFormat>> = LazyLock::new(|| {
    [format::ENVOY, format::ISTIO].into_iter().filter_map(|format| LogFormat::parse(format).ok()).collect()
});

/// Whether a line looks like the default text formats: `[time] "METHOD …`.
pub fn is_text_log(line: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(line, b"] \"") else { return false };
    line.first() == Some(&b'[')
        && line
            .get(1..end)
            .and_then(|time| std::str::from_utf8(time).ok())
            .is_some_and(|time| Timestamp::parse(time).is_some())
}

/// Parses a line in Envoy's or Istio's default text format. A line with more or fewer fields has another format, whose
/// meaning only the format string in Envoy's configuration tells.
pub fn text(line: &[u8]) -> Line {
    let found = DEFAULTS.iter().find_map(|format| format.read(line)).filter(fields::LogRecord::is_certain);
    found.map_or(Line::OtherLayout, fields::LogRecord::finish)
}

/// Parses a line in a given format.
pub fn described(line: &[u8], format: &LogFormat) -> Line {
    format.read(line).map_or(Line::OtherLayout, fields::LogRecord::finish)
}

#[cfg(test)]
mod tests;
