//! One thing that is wrong.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub(super) struct ProblemView {
    pub(super) severity: Severity,
    pub(super) kind: &'static str,
    pub(super) section: &'static str,
    pub(super) rule: String,
    /// The variant, the plugin, … that it is about.
    pub(super) subject: Option<String>,
    pub(super) text: String,
    /// When it began, in seconds since 1970, where that is known.
    pub(super) since: Option<f64>,
    /// Per second, where that says how bad it is.
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

/// `on 2 of 3 proxies`, or nothing where there is one.
pub(super) fn on(some: usize, all: usize) -> String {
    if all > 1 { format!(" on {some} of {all} proxies") } else { String::new() }
}
