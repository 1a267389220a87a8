//! A problem.

use serde::Serialize;

/// The severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Severity {
    Error,
    Warning,
}

/// A problem.
#[derive(Debug, Serialize)]
pub(super) struct ProblemView {
    pub(super) severity: Severity,
    pub(super) kind: &'static str,
    pub(super) section: &'static str,
    pub(super) rule: String,
    /// The subject: the variant, the plugin, ….
    pub(super) subject: Option<String>,
    pub(super) text: String,
    /// The start time in seconds since 1970, if known.
    pub(super) since: Option<f64>,
    /// The rate per second, if it indicates the severity.
    pub(super) rate: Option<f64>,
}

/// A problem without subject, time and rate.
pub(super) fn problem(
    severity: Severity,
    kind: &'static str,
    section: &'static str,
    rule: &str,
    text: String,
) -> ProblemView {
    ProblemView { severity, kind, section, rule: rule.to_owned(), subject: None, text, since: None, rate: None }
}

/// Returns `on 2 of 3 proxies`, or an empty string when there is one proxy.
pub(super) fn on(some: usize, all: usize) -> String {
    if all > 1 { format!(" on {some} of {all} proxies") } else { String::new() }
}
