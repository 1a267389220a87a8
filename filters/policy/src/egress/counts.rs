//! What the section counts: each rule's outcomes, and each reason.

use crate::decision::EgressVerdict;
use crate::metrics::{MOST_RULES, Metric, Metrics};
use crate::reason::Reason;
use crate::section::Section;

/// The outcomes that are counted for a rule: it allowed the request; it came nearest to a request that was refused; it
/// came nearest to one that passed in mode Audit.
const RULE: [&str; 3] = ["allowed", "denied", "audited"];
/// The outcomes that are counted for a reason.
const REASON: [&str; 2] = ["denied", "audited"];

/// The section's counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct EgressCounters {
    rules: Metric,
    /// How many rules have counters of their own.
    own: u32,
    reasons: Metric,
}

impl EgressCounters {
    /// Names them: `requests_total` by rule, and `egress_reasons_total` by reason.
    pub fn new<'r>(rules: impl Iterator<Item = &'r str>, metrics: &mut Metrics) -> EgressCounters {
        let mut own = 0;
        let mut first = None;
        for rule in rules.take(MOST_RULES) {
            let metric = metrics.add(Section::Egress, rule, &RULE);
            first.get_or_insert(metric);
            own += 1;
        }
        let others = metrics.add(Section::Egress, "_others", &RULE);
        let mut reasons = None;
        for reason in Reason::of_egress() {
            reasons.get_or_insert(metrics.add_plain("egress_reasons_total", &[("reason", reason.as_str())], &REASON));
        }
        EgressCounters { rules: first.unwrap_or(others), own, reasons: reasons.unwrap_or(others) }
    }

    /// What one decision counts; `rule` is the number of the rule that allowed, or came nearest.
    pub fn of(&self, verdict: EgressVerdict, rule: Option<u32>, reason: Option<Reason>) -> [Option<Metric>; 2] {
        let of_rule = rule.map(|rule| {
            let place = match verdict {
                EgressVerdict::Allow => 0,
                EgressVerdict::Deny => 1,
                EgressVerdict::Audit => 2,
            };
            self.rules.plus(rule.min(self.own) * RULE.len() as u32 + place)
        });
        let of_reason = reason.map(|reason| {
            let place = u32::from(verdict == EgressVerdict::Audit);
            self.reasons.plus(reason.index() * REASON.len() as u32 + place)
        });
        [of_rule, of_reason]
    }
}
