//! Coverage of a policy by requests: which rules, conditions, limits, variants, overrides and `deny` entries decided
//! something.
//!
//! Uses the engine's own trace, so that no decision is made a second time here.

mod egress;
mod items;
mod report;

use std::collections::HashMap;

use penstock_policy::document::Node;
use penstock_policy::explain::{Note, Notes};
use penstock_policy::matching::RequestMatch;
use penstock_policy::wire::{WireDecision, WireRequest};
use penstock_policy::{Header, Request, Scratch};

use crate::cover::items;
use crate::documents::Documents;
use items::{CoverageItem, conditions};
pub use report::{FileCoverage, human, json, lcov, total};

/// The parts of one policy, with the number of decisions of each.
#[derive(Debug)]
pub struct Coverage {
    documents: Documents,
    items: Vec<CoverageItem>,
    by_path: HashMap<String, usize>,
}

impl Coverage {
    /// Lists the parts of a valid policy.
    pub fn new(policy: &Node) -> Coverage {
        let documents = Documents::of(policy);
        let items = items::all(&documents);
        let by_path = items.iter().enumerate().map(|(number, item)| (item.path.clone(), number)).collect();
        Coverage { documents, items, by_path }
    }

    /// The parts in document order.
    pub fn items(&self) -> &[CoverageItem] {
        &self.items
    }

    fn hit(&mut self, path: &str) {
        if let Some(item) = self.by_path.get(path).and_then(|number| self.items.get_mut(*number)) {
            item.hits += 1;
        }
    }

    /// Counts the parts that decided one request.
    pub fn observe(&mut self, request: &WireRequest, decision: &WireDecision, trace: &Notes) {
        let mut hits = Vec::new();
        if let Some(egress) = &self.documents.egress {
            egress::hits(egress, request, decision, trace, &mut hits);
        }
        let owned = request.header_map();
        let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
        let scratch = Scratch::default();
        let request = Request::new(&headers).with_scratch(&scratch);
        let refused_by = decision.section.filter(|_| decision.action == Some("respond"));
        if refused_by != Some("egress") {
            self.limits(&request, decision, trace, &mut hits);
            if refused_by != Some("rateLimits") {
                self.routes(&request, decision, trace, &mut hits);
                self.canaries(&request, trace, &mut hits);
            }
        }
        hits.iter().for_each(|path| self.hit(path));
    }

    fn limits(&self, request: &Request<'_>, decision: &WireDecision, trace: &Notes, hits: &mut Vec<String>) {
        for (number, limit) in self.documents.limits.iter().enumerate() {
            let path = format!("rateLimits[{number}]");
            let is_this = |name: &str| *name == *limit.name.0;
            let decides = |note: &Note| match note {
                Note::Limit(note) => is_this(&note.limit) && note.refuses(),
                Note::NoKey { limit, on_missing_key, .. } => is_this(limit) && *on_missing_key == "Deny",
                Note::Asked { limit, .. } => is_this(limit) && decision.rule.as_deref() == Some(limit),
                _ => false,
            };
            if trace.0.iter().any(decides) {
                hits.push(path.clone());
            }
            matches(items(&limit.matches), request, &path, true, hits);
        }
    }

    fn routes(&self, request: &Request<'_>, decision: &WireDecision, trace: &Notes, hits: &mut Vec<String>) {
        let Some(routes) = &self.documents.routes else { return };
        let winner = trace.0.iter().find_map(|note| match note {
            Note::Route(name) => Some(name.as_str()),
            _ => None,
        });
        let winner = winner.and_then(|name| routes.rules.0.iter().position(|rule| *rule.name.0 == *name));
        if winner.is_none() && decision.route.is_some() && decision.variant.is_none() {
            hits.push("routes.default".to_owned());
        }
        for (number, rule) in routes.rules.0.iter().enumerate() {
            let path = format!("routes.rules[{number}]");
            let wins = winner == Some(number);
            if wins {
                hits.push(path.clone());
            }
            // Rules after the winning one could not have decided.
            if winner.is_none_or(|winner| number <= winner) {
                matches(items(&rule.matches), request, &path, wins, hits);
            }
        }
    }

    fn canaries(&self, request: &Request<'_>, trace: &Notes, hits: &mut Vec<String>) {
        let note = trace.0.iter().find_map(|note| match note {
            Note::Canary(note) => Some(note),
            _ => None,
        });
        // A rule of `routes` decided, so no canary was evaluated.
        if note.is_none() && trace.0.iter().any(|note| matches!(note, Note::Route(_))) {
            return;
        }
        let chosen =
            note.and_then(|note| self.documents.canaries.iter().position(|canary| *canary.name.0 == *note.canary));
        for (number, canary) in self.documents.canaries.iter().enumerate() {
            let path = format!("canaries[{number}]");
            let decides = chosen == Some(number);
            if let Some(note) = note.filter(|_| decides) {
                hits.push(path.clone());
                hits.push(format!("{path}.variants[{}]", note.chosen));
                hits.extend(note.overridden_by.map(|which| format!("{path}.overrides[{which}]")));
            }
            if chosen.is_none_or(|chosen| number <= chosen) {
                matches(items(&canary.matches), request, &path, decides, hits);
            }
        }
    }
}

/// Counts the entries of `matches` that are true where their rule `decides`, and each condition that alone made its
/// entry false.
fn matches(entries: Option<&[RequestMatch]>, request: &Request<'_>, path: &str, decides: bool, hits: &mut Vec<String>) {
    for (number, entry) in entries.unwrap_or_default().iter().enumerate() {
        let place = format!("{path}.matches[{number}]");
        let conditions = conditions(entry, &place);
        let verdicts = entry.verdicts(request);
        let mut failed =
            verdicts.iter().take(conditions.len()).enumerate().filter(|(_, verdict)| !verdict.holds).map(|(at, _)| at);
        match (failed.next(), failed.next()) {
            (None, _) if decides => hits.push(place),
            // Conditions on claims and metadata share one verdict, which is known only for the rule that decides.
            (Some(at), None) if entry.facts.is_empty() => hits.extend(conditions.into_iter().nth(at)),
            _ => {}
        }
    }
}
