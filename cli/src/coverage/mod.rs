//! Coverage of a policy by requests: which rules, conditions, limits, variants, overrides and `deny` entries decided
//! something.
//!
//! Uses the engine's own trace, so that no decision is made a second time here.

mod egress;
mod items;
mod report;

use std::collections::{HashMap, HashSet};

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
    /// The entries of `matches` of each limit, rule and canary.
    limits: Vec<Vec<EntryItems>>,
    routes: Vec<Vec<EntryItems>>,
    canaries: Vec<Vec<EntryItems>>,
}

/// The numbers of the items of an entry of `matches`.
#[derive(Debug)]
struct EntryItems {
    /// The entry.
    entry: Option<usize>,
    /// Its conditions.
    conditions: Vec<usize>,
}

impl Coverage {
    /// Lists the parts of a valid policy.
    pub fn new(policy: &Node) -> Coverage {
        let documents = Documents::of(policy);
        let all = items::all(&documents);
        let by_path: HashMap<String, usize> =
            all.iter().enumerate().map(|(number, item)| (item.path.clone(), number)).collect();
        let number = |path: &str| by_path.get(path).copied();
        let of_entry = |(at, entry): (usize, &RequestMatch), path: &str| {
            let place = format!("{path}.matches[{at}]");
            let conditions = conditions(entry, &place).iter().filter_map(|path| number(path)).collect();
            EntryItems { entry: number(&place), conditions }
        };
        let of = |path: &str, entries: Option<&[RequestMatch]>| -> Vec<EntryItems> {
            entries.unwrap_or_default().iter().enumerate().map(|entry| of_entry(entry, path)).collect()
        };
        let limits = documents.limits.iter().enumerate();
        let limits = limits.map(|(n, limit)| of(&format!("rateLimits[{n}]"), items(&limit.matches))).collect();
        let rules = documents.routes.iter().flat_map(|routes| &routes.rules.0).enumerate();
        let routes = rules.map(|(n, rule)| of(&format!("routes.rules[{n}]"), items(&rule.matches))).collect();
        let canaries = documents.canaries.iter().enumerate();
        let canaries = canaries.map(|(n, canary)| of(&format!("canaries[{n}]"), items(&canary.matches))).collect();
        Coverage { documents, items: all, by_path, limits, routes, canaries }
    }

    /// The parts in document order.
    pub fn items(&self) -> &[CoverageItem] {
        &self.items
    }

    fn hit(&mut self, hit: &Hit) {
        let number = match hit {
            Hit::Path(path) => self.by_path.get(path).copied(),
            Hit::Item(number) => Some(*number),
        };
        if let Some(item) = number.and_then(|number| self.items.get_mut(number)) {
            item.hits += 1;
        }
    }

    /// Counts the parts that decided one request.
    pub fn observe(&mut self, request: &WireRequest, decision: &WireDecision, trace: &Notes) {
        let mut hits = Vec::new();
        if let Some(egress) = &self.documents.egress {
            let mut paths = Vec::new();
            egress::hits(egress, request, decision, trace, &mut paths);
            hits.extend(paths.into_iter().map(Hit::Path));
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
        hits.iter().for_each(|hit| self.hit(hit));
    }

    fn limits(&self, request: &Request<'_>, decision: &WireDecision, trace: &Notes, hits: &mut Vec<Hit>) {
        let mut deciding: HashSet<&str> = HashSet::new();
        for note in &trace.0 {
            match note {
                Note::Limit(note) if note.refuses() => {
                    deciding.insert(&note.limit);
                }
                Note::NoKey { limit, on_missing_key, .. } if *on_missing_key == "Deny" => {
                    deciding.insert(limit);
                }
                Note::Asked { limit, .. } if decision.rule.as_deref() == Some(limit) => {
                    deciding.insert(limit);
                }
                _ => {}
            }
        }
        for (number, (limit, entries)) in self.documents.limits.iter().zip(&self.limits).enumerate() {
            if deciding.contains(&*limit.name.0) {
                hits.push(Hit::Path(format!("rateLimits[{number}]")));
            }
            self.matches(items(&limit.matches), entries, request, true, hits);
        }
    }

    fn routes(&self, request: &Request<'_>, decision: &WireDecision, trace: &Notes, hits: &mut Vec<Hit>) {
        let Some(routes) = &self.documents.routes else { return };
        let winner = trace.0.iter().find_map(|note| match note {
            Note::Route(name) => Some(name.as_str()),
            _ => None,
        });
        let winner = winner.and_then(|name| routes.rules.0.iter().position(|rule| *rule.name.0 == *name));
        if winner.is_none() && decision.route.is_some() && decision.variant.is_none() {
            hits.push(Hit::Path("routes.default".to_owned()));
        }
        // Rules after the one that won could not have decided, whatever they say.
        let considered = winner.map_or(usize::MAX, |winner| winner + 1);
        for (number, (rule, entries)) in routes.rules.0.iter().zip(&self.routes).enumerate().take(considered) {
            let wins = winner == Some(number);
            if wins {
                hits.push(Hit::Path(format!("routes.rules[{number}]")));
            }
            self.matches(items(&rule.matches), entries, request, wins, hits);
        }
    }

    fn canaries(&self, request: &Request<'_>, trace: &Notes, hits: &mut Vec<Hit>) {
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
        let considered = chosen.map_or(usize::MAX, |chosen| chosen + 1);
        for (number, (canary, entries)) in
            self.documents.canaries.iter().zip(&self.canaries).enumerate().take(considered)
        {
            let decides = chosen == Some(number);
            if let Some(note) = note.filter(|_| decides) {
                let path = format!("canaries[{number}]");
                hits.push(Hit::Path(format!("{path}.variants[{}]", note.chosen)));
                hits.extend(note.overridden_by.map(|which| Hit::Path(format!("{path}.overrides[{which}]"))));
                hits.push(Hit::Path(path));
            }
            self.matches(items(&canary.matches), entries, request, decides, hits);
        }
    }

    /// Which entries of `matches` hold where their rule `decides`, and which conditions are alone in that they do not hold:
    /// without them the entry would. A condition that has been seen to is not looked at again where its rule does not decide.
    fn matches(
        &self,
        entries: Option<&[RequestMatch]>,
        numbers: &[EntryItems],
        request: &Request<'_>,
        decides: bool,
        hits: &mut Vec<Hit>,
    ) {
        let is_hit = |number: &usize| self.items.get(*number).is_some_and(|item| item.hits > 0);
        for (entry, EntryItems { entry: own, conditions }) in entries.unwrap_or_default().iter().zip(numbers) {
            if !decides && conditions.iter().all(is_hit) {
                continue;
            }
            let verdicts = entry.verdicts(request);
            let verdicts = verdicts.iter().take(conditions.len()).enumerate();
            let mut failed = verdicts.filter(|(_, verdict)| !verdict.holds).map(|(at, _)| at);
            match (failed.next(), failed.next()) {
                (None, _) if decides => hits.extend(own.map(Hit::Item)),
                // Whether claims and metadata hold is only known together, from the rule that decides.
                (Some(at), None) if entry.facts.is_empty() => {
                    hits.extend(conditions.get(at).copied().map(Hit::Item));
                }
                _ => {}
            }
        }
    }
}

/// An item that decided something.
enum Hit {
    /// By its path.
    Path(String),
    /// By its number.
    Item(usize),
}
