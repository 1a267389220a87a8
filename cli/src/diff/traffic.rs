//! Decides recorded requests with both policies. Memory does not grow with their number: kinds of difference and
//! remembered users are bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use penstock_policy::Policy;
use penstock_policy::explain::{Note, Notes};
use penstock_policy::wire::{WireDecision, WireRequest, World};
use serde::Serialize;

use super::change::ChangeClass;
use super::verdict::Strictness;
use crate::{replay, traffic, words};

/// The maximum number of kinds of difference; further ones are combined.
const MOST_KINDS: usize = 200;

/// The maximum number of distinct users of a canary, at 16 bytes each.
const MOST_USERS: usize = 1_000_000;

/// The differences in decisions.
#[derive(Debug, Serialize)]
pub struct TrafficReport {
    /// The number of requests.
    pub requests: u64,
    /// The number of requests with different decisions.
    pub differ: u64,
    /// The kinds of difference, loosening first, then by frequency.
    pub kinds: Vec<DifferenceKind>,
    /// Sticky users, by canary.
    pub users: Vec<Users>,
}

/// One kind of difference.
#[derive(Debug, Serialize)]
pub struct DifferenceKind {
    /// The direction of the difference.
    pub class: ChangeClass,
    /// The decision of the old policy.
    pub from: String,
    /// The decision of the new policy.
    pub to: String,
    /// The number of requests.
    pub count: u64,
    /// The first requests of this kind.
    pub examples: Vec<Example>,
}

/// A request as an example.
#[derive(Debug, Serialize)]
pub struct Example {
    /// Its line in the input, starting at 1.
    pub line: u64,
    /// Method and URL.
    pub request: String,
}

/// The sticky users of one canary.
#[derive(Debug, Serialize)]
pub struct Users {
    /// The canary's name.
    pub canary: String,
    /// The number of distinct users.
    pub users: usize,
    /// Whether there were more users than could be distinguished.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// The number of users who get another variant.
    pub moved: usize,
    /// The moves between variants, with some of the users.
    pub moves: Vec<Move>,
}

/// A move between two variants.
#[derive(Debug, Serialize)]
pub struct Move {
    /// The old variant.
    pub from: String,
    /// The new variant.
    pub to: String,
    /// The number of users.
    pub users: usize,
    /// The first users, by key.
    pub examples: Vec<String>,
}

/// Users of one canary while they are counted.
#[derive(Default)]
struct SeenUsers {
    users: HashMap<u64, bool>,
    overflow: bool,
    moves: Vec<Move>,
}

struct TrafficComparison {
    kinds: HashMap<(String, String), DifferenceKind>,
    users: HashMap<String, SeenUsers>,
    hasher: RandomState,
    examples: usize,
    requests: u64,
    differ: u64,
}

/// Decides every request of a file with both policies.
///
/// # Errors
/// Returns an error when the file cannot be read, or when a line is not a request.
pub fn compare(
    old: &Policy,
    new: &Policy,
    requests: &Path,
    options: &traffic::ReadOptions,
    examples: usize,
) -> anyhow::Result<TrafficReport> {
    let mut comparison = TrafficComparison {
        kinds: HashMap::new(),
        users: HashMap::new(),
        hasher: RandomState::new(),
        examples,
        requests: 0,
        differ: 0,
    };
    let now = replay::now();
    let (mut before, mut after) = (World::new(now, 0), World::new(now, 0));
    // Only canaries have users, and their keys are only in the trace.
    let sticky = old.canaries().is_some() && new.canaries().is_some();
    traffic::each(requests, options, true, &mut |line, request| {
        // Both policies get the same random numbers; otherwise chance would show as a difference.
        comparison.requests += 1;
        let seed = comparison.requests;
        (before.random, after.random) = (seed, seed);
        let (was, is) = if sticky {
            let ((was, old_notes), (is, new_notes)) =
                (request.explain(old, &mut before), request.explain(new, &mut after));
            comparison.note_user(&old_notes, &new_notes);
            (was, is)
        } else {
            (request.decide(old, &mut before), request.decide(new, &mut after))
        };
        comparison.note(line, &request, was, is);
        Ok(())
    })?;
    Ok(comparison.finish())
}

impl TrafficComparison {
    fn note(&mut self, line: u64, request: &WireRequest, was: WireDecision, is: WireDecision) {
        let (was, is) = (without_id(was), without_id(is));
        if was == is {
            return;
        }
        self.differ += 1;
        let (mut from, mut to) = (outcome(&was), outcome(&is));
        if from == to {
            from = details(&was, &is);
            to = details(&is, &was);
        }
        let mut key = (from, to);
        if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&key) {
            key = ("other".to_owned(), format!("other, {:?}", class(&was, &is)).to_lowercase());
        }
        let kind = self.kinds.entry(key.clone()).or_insert_with(|| DifferenceKind {
            class: class(&was, &is),
            from: key.0,
            to: key.1,
            count: 0,
            examples: Vec::new(),
        });
        kind.count += 1;
        if kind.examples.len() < self.examples {
            kind.examples.push(Example { line, request: traffic::line(request) });
        }
    }

    fn note_user(&mut self, old: &Notes, new: &Notes) {
        let choice = |trace: &Notes| {
            trace.0.iter().find_map(|note| match note {
                Note::Canary(canary) => {
                    let key = canary.key.as_ref().filter(|key| !key.is_random && !key.is_new)?;
                    let variant = canary.variants.get(canary.chosen)?;
                    Some((canary.canary.clone(), key.text.clone(), variant.name.clone()))
                }
                _ => None,
            })
        };
        let (Some((canary, key, was)), Some((other, same, is))) = (choice(old), choice(new)) else { return };
        if canary != other || key != same {
            return;
        }
        let seen = self.users.entry(canary).or_default();
        let moves = was != is;
        let hash = self.hasher.hash_one(&key);
        let full = seen.users.len() >= MOST_USERS;
        match seen.users.get_mut(&hash) {
            // A ramp moves users while requests are read; each user counts once.
            Some(moved) if moves && !*moved => *moved = true,
            Some(_) => return,
            None if full => {
                seen.overflow = true;
                return;
            }
            None => {
                seen.users.insert(hash, moves);
            }
        }
        if !moves {
            return;
        }
        let place = seen.moves.iter().position(|other| other.from == was && other.to == is).unwrap_or_else(|| {
            seen.moves.push(Move { from: was, to: is, users: 0, examples: Vec::new() });
            seen.moves.len() - 1
        });
        if let Some(to) = seen.moves.get_mut(place) {
            to.users += 1;
            if to.examples.len() < self.examples {
                to.examples.push(words::shortened(&key, 100));
            }
        }
    }

    fn finish(self) -> TrafficReport {
        let mut kinds: Vec<DifferenceKind> = self.kinds.into_values().collect();
        kinds.sort_by(|a, b| (a.class, b.count, &a.from, &a.to).cmp(&(b.class, a.count, &b.from, &b.to)));
        let mut users: Vec<Users> = self
            .users
            .into_iter()
            .map(|(canary, seen)| Users {
                canary,
                users: seen.users.len(),
                at_least: seen.overflow,
                moved: seen.users.values().filter(|moved| **moved).count(),
                moves: seen.moves,
            })
            .collect();
        users.sort_by(|a, b| a.canary.cmp(&b.canary));
        TrafficReport { requests: self.requests, differ: self.differ, kinds, users }
    }
}

/// The id in a refusal is random.
fn without_id(mut decision: WireDecision) -> WireDecision {
    decision.response_headers.retain(|(name, _)| name != "x-penstock-decision-id");
    decision
}

/// The direction: compares refused or not first, then what would be refused outside of Audit and Shadow.
fn class(was: &WireDecision, is: &WireDecision) -> ChangeClass {
    match Strictness::of(is).cmp(&Strictness::of(was)) {
        std::cmp::Ordering::Less => ChangeClass::Loosened,
        std::cmp::Ordering::Greater => ChangeClass::Tightened,
        std::cmp::Ordering::Equal => ChangeClass::Changed,
    }
}

/// A short description of a decision. The number of different ones is bounded by the names in the policy.
fn outcome(decision: &WireDecision) -> String {
    let by = |decision: &WireDecision| {
        let rule = decision.rule.as_ref().map(|rule| format!(" `{rule}`")).unwrap_or_default();
        format!("by {}{rule}, {}", decision.section.unwrap_or("nothing"), decision.reason.unwrap_or("no reason"))
    };
    let to = match (&decision.route, &decision.variant) {
        (Some(route), Some(variant)) if route != variant => format!(" to route {route}, variant {variant}"),
        (Some(route), _) => format!(" to route {route}"),
        _ => String::new(),
    };
    match (decision.status, decision.would_respond) {
        (Some(status), _) if (300..400).contains(&status) => format!("redirected with {status} {}", by(decision)),
        (Some(status), _) => format!("refused with {status} {}", by(decision)),
        (None, Some(status)) => format!("goes on{to}, would be refused with {status} {}", by(decision)),
        (None, None) => format!("goes on{to}"),
    }
}

/// What `decision` has that `other` lacks, when their outcomes are equal.
fn details(decision: &WireDecision, other: &WireDecision) -> String {
    let mut parts = Vec::new();
    if decision.rule != other.rule {
        parts.push(format!("rule {}", decision.rule.as_deref().unwrap_or("none")));
    }
    if decision.reason != other.reason {
        parts.push(format!("reason {}", decision.reason.unwrap_or("none")));
    }
    if decision.body != other.body {
        parts.push("another body".to_owned());
    }
    // Only names: there may be as many values as requests.
    let mut names = |what: &str, mine: &[(String, String)], theirs: &[(String, String)]| {
        let differ = mine.iter().filter(|pair| !theirs.contains(pair)).map(|(name, _)| name.as_str());
        let mut differ: Vec<&str> = differ.collect();
        differ.dedup();
        if !differ.is_empty() {
            parts.push(format!("{what} {}", differ.join(", ")));
        }
    };
    names("sets", &decision.headers.set, &other.headers.set);
    names("adds", &decision.headers.add, &other.headers.add);
    names("response header", &decision.response_headers, &other.response_headers);
    let removes: Vec<&str> = decision
        .headers
        .remove
        .iter()
        .filter(|name| !other.headers.remove.contains(name))
        .map(String::as_str)
        .collect();
    if !removes.is_empty() {
        parts.push(format!("removes {}", removes.join(", ")));
    }
    match parts.is_empty() {
        true => outcome(decision),
        false => format!("{}: {}", outcome(decision), parts.join("; ")),
    }
}
