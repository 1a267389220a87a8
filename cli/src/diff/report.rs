//! The whole report.

use serde::Serialize;

use super::change::PolicyChange;
use super::routing::Moved;
use super::traffic;

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DiffReport {
    pub(super) loosened: usize,
    pub(super) tightened: usize,
    pub(super) changed: usize,
    pub(super) changes: Vec<PolicyChange>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) canaries: Vec<Moved>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traffic: Option<traffic::TrafficReport>,
}
