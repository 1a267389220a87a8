//! Searches for sequences of requests that show a loosening of limits.

use std::collections::HashMap;

use penstock_policy::rate_limits::LimitMode;

use super::egress::passing;
use super::judge::{Judge, ProofOutcome, loosened};
use crate::diff::change::Proof;
use crate::within::limits::{LimitSearch, ReadLimit, alone, are_as_tight};
use crate::within::witness::{RequestDraft, Witness};

const UNASKED: &str = "a rate-limit service counts, and none is asked here: compare what it is configured to allow for the domain \
                       before and after";
const NONE_FOUND: &str = "no sequence of requests that was tried shows it: pass recorded requests as the third argument, so that both policies decide them";

/// No sequence is longer.
const MOST_REQUESTS: u32 = 10_000;
const TOO_MANY_KEYS: &str = "it takes more different keys at once than are tried here: compare the capacities with how many keys are \
                             busy within `limit.per`";

/// Bounds for the number of searches, and of decisions in all of them.
const MOST_SEARCHES: usize = 40;
const MOST_DECISIONS: usize = 100_000;

/// The maximum number of limits that one limit is compared with.
const MOST_OTHERS: usize = 64;

/// The search for sequences of requests.
pub struct LimitProver<'p> {
    judge: &'p Judge<'p>,
    before: Vec<ReadLimit<'p>>,
    by_name: HashMap<&'p str, ReadLimit<'p>>,
    plain: Option<Vec<RequestDraft>>,
    found: HashMap<String, ProofOutcome>,
    searches: usize,
    decisions: usize,
}

impl<'p> LimitProver<'p> {
    /// For two policies.
    pub fn new(judge: &'p Judge<'p>) -> LimitProver<'p> {
        let before = ReadLimit::all(judge.sides.old.documents, judge.sides.old.node);
        let by_name = before.iter().map(|limit| (&*limit.document.name.0, *limit)).collect();
        LimitProver { judge, before, by_name, plain: None, found: HashMap::new(), searches: 0, decisions: 0 }
    }

    /// Requests that a given limit of the old policy refuses.
    pub fn limit(&mut self, name: &str) -> ProofOutcome {
        if let Some(found) = self.found.get(name) {
            return found.clone();
        }
        let found = match self.by_name.get(name).copied() {
            Some(limit) => self.search(limit),
            None => ProofOutcome::Unknown("the limit is not found"),
        };
        self.found.insert(name.to_owned(), found.clone());
        found
    }

    /// Requests that any limit of the old policy refuses.
    pub fn any(&mut self) -> ProofOutcome {
        let enforced = self.before.iter().filter(|limit| limit.document.mode == LimitMode::Enforce);
        let names: Vec<&str> = enforced.map(|limit| &*limit.document.name.0).collect();
        let mut result = ProofOutcome::None;
        for name in names {
            match self.limit(name) {
                ProofOutcome::None => {}
                ProofOutcome::Shown(proof) => return ProofOutcome::Shown(proof),
                unknown => result = unknown,
            }
        }
        result
    }

    fn search(&mut self, limit: ReadLimit<'p>) -> ProofOutcome {
        let (old, new) = (self.judge.sides.old, self.judge.sides.new);
        if self.searches >= MOST_SEARCHES || self.decisions >= MOST_DECISIONS {
            return ProofOutcome::Unknown("there are too many limits to look for more");
        }
        self.searches += 1;
        let is_same = |other: &&ReadLimit<'_>| other.document.name == limit.document.name;
        let same = self.judge.limits.iter().filter(is_same);
        let ours: Vec<ReadLimit<'p>> = same.chain(self.judge.limits.iter().take(MOST_OTHERS)).copied().collect();
        if are_as_tight((old.node, limit), (new.node, &ours)) {
            return ProofOutcome::None;
        }
        let Some(theirs) = alone(old.node, vec![limit.node.clone()]) else {
            return ProofOutcome::Unknown("the limit does not compile by itself");
        };
        let plain = self.plain.get_or_insert_with(|| passing(self.judge)).clone();
        let mut search = LimitSearch {
            theirs: &theirs,
            mine: new.policy,
            settings: [old.node, new.node],
            plain,
            now: self.judge.sides.now,
            decisions: 0,
        };
        let sequence = search.sequence(limit, &ours);
        self.decisions += search.decisions;
        let proof = sequence.and_then(|sequence| {
            let requests: Vec<_> = sequence.iter().map(RequestDraft::json).collect();
            let before = loosened(self.judge.sides, &requests)?;
            let words = sequence.last()?.words();
            Some(Proof { passes: Witness::of(&sequence), before, words })
        });
        let is_global = limit.node.get("scope").is_some_and(|scope| scope.get("global").is_some());
        match proof {
            Some(proof) => ProofOutcome::Shown(Box::new(proof)),
            None if has_many_keys(limit, &ours) => ProofOutcome::Unknown(TOO_MANY_KEYS),
            None if is_global => ProofOutcome::Unknown(UNASKED),
            None => ProofOutcome::Unknown(NONE_FOUND),
        }
    }
}

/// Whether the capacity changes, and filling the table as it was takes more requests than a sequence has.
fn has_many_keys(limit: ReadLimit<'_>, ours: &[ReadLimit<'_>]) -> bool {
    const DEFAULT_CAPACITY: u32 = 65_536;
    let capacity =
        |limit: &ReadLimit<'_>| limit.document.capacity.as_ref().map_or(DEFAULT_CAPACITY, |capacity| capacity.0);
    let differs =
        |other: &ReadLimit<'_>| other.document.name == limit.document.name && capacity(other) != capacity(&limit);
    let burst = limit.burst().max(1);
    !limit.document.key.is_empty() && ours.iter().any(differs) && capacity(&limit) >= MOST_REQUESTS / burst
}
