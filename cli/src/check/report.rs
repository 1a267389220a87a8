//! The result of one policy.

use serde::Serialize;

use crate::diagnostics::{Finding, Findings};
use crate::text::SourceText;

/// The result of checking one policy.
#[derive(Debug, Serialize)]
pub struct CheckResult {
    /// The file, and the object in it that contains the policy.
    pub(super) policy: String,
    pub(super) valid: bool,
    /// Whether the policy is within the platform's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) within: Option<bool>,
    /// Errors: they make the policy invalid.
    pub errors: Findings,
    /// The number of errors that are not listed.
    #[serde(rename = "moreErrors", skip_serializing_if = "is_zero")]
    pub(super) more_errors: usize,
    /// Warnings: valid, but probably not intended.
    pub warnings: Findings,
    /// The number of warnings that are not listed.
    #[serde(rename = "moreWarnings", skip_serializing_if = "is_zero")]
    pub(super) more_warnings: usize,
    /// Notes that need no change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<Finding>,
    #[serde(skip)]
    pub(super) file: String,
    #[serde(skip)]
    pub(super) text: SourceText,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl CheckResult {
    pub(super) fn new(
        file: &str,
        resource: Option<&str>,
        text: &SourceText,
        errors: Findings,
        warnings: Findings,
    ) -> CheckResult {
        let file = file.to_owned();
        let policy = resource.map_or_else(|| file.clone(), |resource| format!("{file} ({resource})"));
        CheckResult {
            policy,
            valid: errors.is_empty(),
            within: None,
            more_errors: errors.more,
            errors,
            more_warnings: warnings.more,
            warnings,
            notes: Vec::new(),
            file,
            text: text.clone(),
        }
    }
}
