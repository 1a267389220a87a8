//! Counts requests by decision.

use std::collections::BTreeMap;
use std::fmt::Write;

use penstock_policy::wire::WireDecision;
use serde::Serialize;

use crate::output::style::{BAD, GOOD, HEAD, NAME, WARN};
use crate::words;

/// The forms of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SummaryFormat {
    /// Text.
    Human,
    /// One JSON object.
    Json,
    /// LCOV, for tools that show coverage line by line.
    Lcov,
}

/// Counts of decisions. Their number is bounded by the policy's rules and reasons, whatever the traffic.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySummary {
    /// All requests.
    pub requests: u64,
    /// Requests that pass.
    pub passed: u64,
    /// Refused requests, by section, rule, reason and status.
    pub refused: BTreeMap<String, u64>,
    /// Requests that only pass because of Audit or Shadow, by the same fields.
    pub would_be_refused: BTreeMap<String, u64>,
    /// Requests that pass, by the rule or canary that decided, and by route; `none` when there is no route.
    pub routes: BTreeMap<String, u64>,
}

impl ReplaySummary {
    /// Counts a decision.
    pub fn add(&mut self, decision: &WireDecision) {
        self.requests += 1;
        let place = |decision: &WireDecision| match (decision.section, &decision.rule) {
            (Some(section), Some(rule)) => format!("{section}/{rule}"),
            (Some(section), None) => section.to_owned(),
            _ => String::new(),
        };
        let refusal = |status: u16| match decision.reason {
            Some(reason) => format!("{} {reason} {status}", place(decision)),
            None => format!("{} {status}", place(decision)),
        };
        if decision.action == Some("respond") {
            *self.refused.entry(refusal(decision.status.unwrap_or_default())).or_default() += 1;
            return;
        }
        self.passed += 1;
        if let Some(status) = decision.would_respond {
            *self.would_be_refused.entry(refusal(status)).or_default() += 1;
        }
        let route = decision.route.as_deref().unwrap_or("none");
        *self.routes.entry(route.to_owned()).or_default() += 1;
    }

    /// The human-readable form, with styles.
    pub fn human(&self) -> String {
        let mut out = String::new();
        let share = |n: u64| words::percent(n as f64 / self.requests.max(1) as f64);
        let refused: u64 = self.refused.values().sum();
        let _ = writeln!(
            out,
            "{HEAD}{} requests{HEAD:#}: {GOOD}{} passed{GOOD:#} ({}), {BAD}{} refused{BAD:#} ({})",
            words::thousands(self.requests),
            words::thousands(self.passed),
            share(self.passed),
            words::thousands(refused),
            share(refused)
        );
        for (title, style, counts) in [
            ("refused", BAD, &self.refused),
            ("would be refused (Audit, Shadow)", WARN, &self.would_be_refused),
            ("routes", NAME, &self.routes),
        ] {
            let only_none = counts.len() == 1 && counts.contains_key("none");
            if counts.is_empty() || only_none {
                continue;
            }
            let _ = writeln!(out, "\n{HEAD}{title}{HEAD:#}");
            let mut rows: Vec<(&String, &u64)> = counts.iter().collect();
            rows.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
            let width = rows.iter().map(|(_, count)| words::thousands(**count).len()).max().unwrap_or(0);
            for (name, count) in rows {
                let (number, share) = (words::thousands(*count), share(*count));
                let _ = writeln!(out, "  {number:>width$}  {share:>7}  {style}{name}{style:#}");
            }
        }
        out
    }
}
