//! What the section counts: each rule's outcomes, and each reason.

use super::report::Outcome;
use crate::decision::{Counts, Section};
use crate::metrics::{MOST_RULES, Metric, Metrics};

/// The outcomes of a rule: it allowed; it came nearest to what was refused, or to what Audit let pass.
const RULE: [&str; 3] = ["allowed", "denied", "audited"];
/// The outcomes of a reason.
const REASON: [&str; 2] = ["denied", "audited"];

/// Every reason that a decision can give.
const REASONS: [&str; 31] = [
    "authorityMissing",
    "authorityMalformed",
    "hostIsAmbiguousNumber",
    "portMalformed",
    "hostHeaderMismatch",
    "methodMalformed",
    "protocolWithoutConnect",
    "pseudoHeaderRepeated",
    "pathNotOriginForm",
    "pathMalformed",
    "pathNotCanonical",
    "connectWithoutPort",
    "destinationOverrideHeader",
    "pathOverrideHeader",
    "pathEscapeMalformed",
    "pathEscapesDelimiter",
    "pathNotUtf8",
    "pathAboveRoot",
    "hostDenied",
    "hostNotAllowed",
    "portNotAllowed",
    "callerUnknown",
    "callerNotAllowed",
    "ruleNotYetValid",
    "ruleExpired",
    "methodNotAllowed",
    "ruleNeedsHttp",
    "methodOverrideNotAllowed",
    "connectNotAllowed",
    "upgradeNotAllowed",
    "pathNotAllowed",
];
/// And those of connections and names of connections.
const NAME_REASONS: [&str; 3] = ["sniMismatch", "serverNameMissing", "serverNameMalformed"];

/// The section's counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters {
    rules: Metric,
    /// How many rules have their own.
    own: u32,
    reasons: Metric,
}

impl Counters {
    /// Names them: `penstock.egress.<rule>.<outcome>` and `penstock.egressReasons.<reason>.<outcome>`.
    pub fn new<'r>(rules: impl Iterator<Item = &'r str>, metrics: &mut Metrics) -> Counters {
        let mut own = 0;
        let mut first = None;
        for rule in rules.take(MOST_RULES) {
            let metric = metrics.add(Section::Egress, rule, &RULE);
            first.get_or_insert(metric);
            own += 1;
        }
        let others = metrics.add(Section::Egress, "_others", &RULE);
        let mut reasons = None;
        for reason in REASONS.iter().chain(&NAME_REASONS) {
            reasons.get_or_insert(metrics.add_to("egressReasons", reason, &REASON));
        }
        Counters { rules: first.unwrap_or(others), own, reasons: reasons.unwrap_or(others) }
    }

    /// What one decision counts; `rule` is the number of the rule that allowed, or came nearest.
    pub fn count(&self, outcome: Outcome, rule: Option<u32>, reason: Option<&str>, counts: &mut Counts) {
        if let Some(rule) = rule {
            let place = match outcome {
                Outcome::Allow => 0,
                Outcome::Deny => 1,
                Outcome::Audit => 2,
            };
            let of_rule = rule.min(self.own) * RULE.len() as u32;
            counts.push(self.rules.plus(of_rule + place));
        }
        if let Some(reason) = reason {
            let at = (0u32..).zip(REASONS.iter().chain(&NAME_REASONS)).find(|(_, known)| **known == reason);
            debug_assert!(at.is_some(), "{reason} has no counter");
            if let Some((at, _)) = at {
                counts.push(self.reasons.plus(at * REASON.len() as u32 + u32::from(outcome == Outcome::Audit)));
            }
        }
    }
}
