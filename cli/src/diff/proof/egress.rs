//! Searches for requests that show a loosening of `egress`. It is the search of `check --within`, with the new policy
//! as the team's and the old policy as the platform's.

use std::collections::HashMap;
use std::net::IpAddr;

use penstock_policy::document::NonEmpty;
use penstock_policy::egress::{Cidr, Destination, DestinationTarget, EgressRuleDocument, Mode};

use super::judge::{Judge, ProofOutcome};
use crate::cover::{items, target_covers};
use crate::diff::change::Proof;
use crate::diff::destinations::{RuleDestinations, without_destinations};
use crate::diff::sought::Sought;
use crate::within::egress::{EgressSide, Mentioned, SearchEnd, WitnessSearch, any_path, other_name, unlisted};
use crate::within::identity;
use crate::within::limits::plain;
use crate::within::witness::RequestDraft;

/// The bound for all searches together, in steps of a comparison, and the steps that a decision by both policies counts
/// as.
const MOST_STEPS: usize = 8_000_000;
const STEPS_OF_DECISION: usize = 200;

const TOO_MUCH: &str = "there is too much to compare";
const NOT_FOUND: &str = "none was found";

/// The search for requests.
pub struct EgressProver<'p> {
    judge: &'p Judge<'p>,
    mentioned: Mentioned,
    /// The new and the old policy. Their modes and whether they verify server names are set for each search.
    ours: EgressSide<'p>,
    theirs: EgressSide<'p>,
    same_identity: bool,
    rules: &'p [EgressRuleDocument],
    rules_before: &'p [EgressRuleDocument],
    by_name: HashMap<&'p str, usize>,
    by_destination: RuleDestinations<'p>,
    with_ipv6: Vec<usize>,
    steps: usize,
}

/// Decides whether a request is an example.
type Check<'c> = &'c dyn Fn(&RequestDraft) -> Option<Proof>;

impl<'p> EgressProver<'p> {
    /// For two policies that both have the section.
    pub fn new(judge: &'p Judge<'p>) -> Option<EgressProver<'p>> {
        let (old, new) = (judge.sides.old, judge.sides.new);
        let (before, after) = (old.documents.egress.as_ref()?, new.documents.egress.as_ref()?);
        let rules = after.rules.0.as_slice();
        let (mut by_destination, mut by_name, mut with_ipv6) =
            (RuleDestinations::default(), HashMap::new(), Vec::new());
        for (number, rule) in rules.iter().enumerate() {
            by_name.insert(&*rule.name.0, number);
            rule.to.0.iter().for_each(|to| by_destination.add(number, to));
            if rule.to.0.iter().any(|to| is_ipv6(&to.target)) {
                with_ipv6.push(number);
            }
        }
        Some(EgressProver {
            mentioned: Mentioned::of(&[before, after]),
            ours: EgressSide::new(new.node, after),
            theirs: EgressSide::new(old.node, before),
            same_identity: identity(old.node) == identity(new.node),
            rules,
            rules_before: &before.rules.0,
            by_name,
            by_destination,
            with_ipv6,
            judge,
            steps: 0,
        })
    }

    /// Searches for an example of a loosening.
    pub fn prove(&mut self, sought: &Sought) -> ProofOutcome {
        // Refusals that depend on the mode Enforce are searched for as if the mode were Enforce.
        (self.ours.mode, self.theirs.mode) = (Mode::Enforce, Mode::Enforce);
        let judge = self.judge;
        let shows = |draft: &RequestDraft| judge.proof(draft);
        match sought {
            Sought::Rule(part) => match self.search(part, SearchWay::Forth, &shows) {
                ProofOutcome::Shown(proof) => ProofOutcome::Shown(proof),
                found => match self.by_name.get(&*part.name.0).and_then(|&number| self.rules.get(number)) {
                    Some(whole) => self.search(whole, SearchWay::Forth, &shows),
                    None => found,
                },
            },
            Sought::Denied(entry) => self.denied(entry, &shows),
            Sought::OtherServerName => self.other_server_name(),
            Sought::AmbiguousPath(rule) => self.ambiguous_path(rule),
            Sought::WithoutPort => {
                let without = |draft: &RequestDraft| {
                    let has_port = draft.authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
                    judge.proof(draft).filter(|_| !has_port)
                };
                let mut search = |shows: Check<'_>| match self.any_rule(self.rules, SearchWay::Forth, shows) {
                    ProofOutcome::None if self.passes_unlisted() => self.ambiguous_in_audit(self.rules_before, shows),
                    found => found,
                };
                match search(&without) {
                    // A request with a port shows another part of the change.
                    ProofOutcome::Unknown(_) => search(&shows),
                    found => found,
                }
            }
            _ => anything(judge, &self.mentioned),
        }
    }

    /// A request to a destination that an entry of `deny` covered and that a rule allows.
    fn denied(&mut self, entry: &Destination, shows: Check<'_>) -> ProofOutcome {
        let mut numbers = self.by_destination.overlapping(&entry.target);
        let is_ipv4 = matches!(entry.target, DestinationTarget::Cidr(Cidr { address: IpAddr::V4(_), .. }));
        if is_ipv4 {
            numbers.extend_from_slice(&self.with_ipv6);
        }
        let mut result = ProofOutcome::None;
        for rule in numbers.into_iter().filter_map(|number| self.rules.get(number)) {
            let rest = without_destinations(rule);
            for to in &rule.to.0 {
                let part = match is_ipv4 && is_ipv6(&to.target) {
                    true => to.clone(),
                    false => match common(entry, to) {
                        Some(common) => common,
                        None => continue,
                    },
                };
                let part = EgressRuleDocument { to: NonEmpty(vec![part]), ..rest.clone() };
                match self.search(&part, SearchWay::Forth, shows) {
                    ProofOutcome::None => {}
                    ProofOutcome::Shown(proof) => return ProofOutcome::Shown(proof),
                    unknown => result = unknown,
                }
            }
        }
        result
    }

    /// A request whose server name is not the host that the rule allows.
    fn other_server_name(&mut self) -> ProofOutcome {
        let judge = self.judge;
        let verified = (self.ours.verify_sni, self.theirs.verify_sni);
        // Skipped when the name differs anyway; an address is never a server name.
        (self.ours.verify_sni, self.theirs.verify_sni) = (false, false);
        let shows = |draft: &RequestDraft| judge.proof(&other_name(draft));
        let found = match verified.0 {
            // In Audit: a request that a rule allowed only with the correct server name and that no rule allows any
            // more.
            true => self.any_rule(self.rules_before, SearchWay::Back, &shows),
            false => {
                let is_enforced = |side: super::judge::Side<'_>| {
                    side.documents.egress.as_ref().is_some_and(|egress| egress.mode == Mode::Enforce)
                };
                let forth = self.any_rule(self.rules, SearchWay::ForthFromNothing, &shows);
                // A request with the wrong name passes when a new rule allows it, or an old one did.
                match (forth, is_enforced(judge.sides.old), is_enforced(judge.sides.new)) {
                    (ProofOutcome::Shown(proof), ..) => ProofOutcome::Shown(proof),
                    (found, true, true) | (found @ ProofOutcome::None, _, true) => found,
                    _ => self.any_rule(self.rules_before, SearchWay::BackFromNothing, &shows),
                }
            }
        };
        (self.ours.verify_sni, self.theirs.verify_sni) = verified;
        found
    }

    /// A request whose path the old policy refuses as ambiguous.
    fn ambiguous_path(&mut self, rule: &EgressRuleDocument) -> ProofOutcome {
        let judge = self.judge;
        let is_400 = |draft: &RequestDraft| judge.proof(draft).filter(|proof| proof.before.starts_with("400"));
        if self.passes_unlisted() {
            return self.ambiguous(rule, &is_400);
        }
        let mut numbers: Vec<usize> =
            rule.to.0.iter().flat_map(|to| self.by_destination.overlapping(&to.target)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut result = ProofOutcome::None;
        for rule in numbers.into_iter().filter_map(|number| self.rules.get(number)) {
            match self.search(rule, SearchWay::Forth, &is_400) {
                ProofOutcome::None => {}
                ProofOutcome::Shown(proof) => return ProofOutcome::Shown(proof),
                // A request that passes for other reasons does not show this.
                ProofOutcome::Unknown(_) => match self.search(rule, SearchWay::Forth, &|draft| judge.proof(draft)) {
                    ProofOutcome::None => {}
                    found => result = found,
                },
            }
        }
        result
    }

    /// Whether the new policy's mode is Audit: then what none of its rules selects passes.
    fn passes_unlisted(&self) -> bool {
        self.judge.sides.new.documents.egress.as_ref().is_some_and(|egress| egress.mode == Mode::Audit)
    }

    /// A request whose path the old policy refuses as ambiguous, because one of `rules` with `paths` selects it, and
    /// that the new policy, in Audit, passes.
    fn ambiguous_in_audit(&mut self, rules: &'p [EgressRuleDocument], shows: Check<'_>) -> ProofOutcome {
        let mut result = ProofOutcome::None;
        for rule in rules.iter().filter(|rule| rule.paths.is_some()) {
            match self.ambiguous(rule, shows) {
                ProofOutcome::None => {}
                ProofOutcome::Shown(proof) => return ProofOutcome::Shown(proof),
                unknown => result = unknown,
            }
        }
        result
    }

    /// As [`EgressProver::ambiguous_in_audit`], for one rule.
    fn ambiguous(&mut self, rule: &EgressRuleDocument, shows: Check<'_>) -> ProofOutcome {
        // With the old policy in Audit, the search finds no request that is refused for another reason.
        (self.ours.mode, self.theirs.mode) = (Mode::Audit, Mode::Audit);
        let found = self.search(&any_path(rule), SearchWay::Forth, shows);
        (self.ours.mode, self.theirs.mode) = (Mode::Enforce, Mode::Enforce);
        found
    }

    fn any_rule(&mut self, rules: &'p [EgressRuleDocument], way: SearchWay, shows: Check<'_>) -> ProofOutcome {
        let mut result = ProofOutcome::None;
        for rule in rules {
            match self.search(rule, way, shows) {
                ProofOutcome::None => {}
                ProofOutcome::Shown(proof) => return ProofOutcome::Shown(proof),
                unknown => result = unknown,
            }
        }
        result
    }

    fn search(&mut self, rule: &EgressRuleDocument, way: SearchWay, shows: Check<'_>) -> ProofOutcome {
        if self.steps > MOST_STEPS {
            return ProofOutcome::Unknown(TOO_MUCH);
        }
        let (team, platform) = match way {
            SearchWay::Forth | SearchWay::ForthFromNothing => (&self.ours, &self.theirs),
            SearchWay::Back | SearchWay::BackFromNothing => (&self.theirs, &self.ours),
        };
        let mut search = WitnessSearch {
            team,
            platform,
            mentioned: &self.mentioned,
            same_identity: self.same_identity,
            refuse_all: matches!(way, SearchWay::ForthFromNothing | SearchWay::BackFromNothing),
            // In Audit, what no rule allows passes with any server name.
            skips_addresses: team.verify_sni && team.mode == Mode::Enforce,
            now: self.judge.sides.now,
            decisions: 0,
        };
        let mut proof = None;
        let mut steps = self.steps;
        let found = search.rule(rule, &mut |draft| {
            steps += STEPS_OF_DECISION;
            proof = (steps <= MOST_STEPS).then(|| shows(draft)).flatten();
            proof.is_some()
        });
        self.steps = steps + search.decisions + 1;
        match (found, proof) {
            (SearchEnd::Nothing, _) => ProofOutcome::None,
            (SearchEnd::Request(_), Some(proof)) => ProofOutcome::Shown(Box::new(proof)),
            (SearchEnd::Request(_), None) => ProofOutcome::Unknown(NOT_FOUND),
            (SearchEnd::Unknown(_), _) if self.steps > MOST_STEPS => ProofOutcome::Unknown(TOO_MUCH),
            (SearchEnd::Unknown(why), _) => ProofOutcome::Unknown(why),
        }
    }
}

/// The policy whose rules are searched, and the policy over whose rules, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SearchWay {
    Forth,
    Back,
    ForthFromNothing,
    BackFromNothing,
}

/// Prefers the request that was refused by a rule over one that is malformed.
pub fn anything(judge: &Judge<'_>, mentioned: &Mentioned) -> ProofOutcome {
    let unlisted = unlisted(mentioned);
    let malformed = RequestDraft { authority: "2130706433".to_owned(), ..unlisted.clone() };
    let mut found: Vec<Proof> = [unlisted, malformed].iter().filter_map(|draft| judge.proof(draft)).collect();
    found.sort_by_key(|proof| proof.before.starts_with("reported"));
    found.into_iter().next().map_or(ProofOutcome::Unknown(NOT_FOUND), |proof| ProofOutcome::Shown(Box::new(proof)))
}

/// Requests that pass `egress` in the new policy, used to test limits.
pub fn passing(judge: &Judge<'_>) -> Vec<RequestDraft> {
    const MOST: usize = 8;
    let new = judge.sides.new;
    let mut found = Vec::new();
    if let Some(document) = new.documents.egress.as_ref().filter(|egress| egress.mode == Mode::Enforce) {
        let (side, mentioned) = (EgressSide::new(new.node, document), Mentioned::of(&[document]));
        let mut search = WitnessSearch {
            team: &side,
            platform: &side,
            mentioned: &mentioned,
            same_identity: true,
            refuse_all: true,
            skips_addresses: side.verify_sni,
            now: judge.sides.now,
            decisions: 0,
        };
        for rule in document.rules.0.iter().take(MOST) {
            let mut end = search.rule(rule, &mut |draft| judge.passed_egress(draft));
            if !matches!(end, SearchEnd::Request(_)) {
                end = search.rule(rule, &mut |_| true);
            }
            if let SearchEnd::Request(draft) = end {
                // Each rule has its own times.
                found.push(RequestDraft { time: None, ..*draft });
            }
        }
    }
    if found.is_empty() {
        found.push(plain());
    }
    found.sort_by_key(|draft| !judge.passed_egress(draft));
    found
}

fn is_ipv6(target: &DestinationTarget) -> bool {
    matches!(target, DestinationTarget::Cidr(Cidr { address: IpAddr::V6(_), .. }))
}

/// The part that both destinations have in common.
fn common(a: &Destination, b: &Destination) -> Option<Destination> {
    let target = match (target_covers(&a.target, &b.target), target_covers(&b.target, &a.target)) {
        (true, _) => b.target.clone(),
        (_, true) => a.target.clone(),
        _ => return None,
    };
    // Without a port in the authority, `deny` matches whatever ports it lists.
    let ports = match (items(&a.ports), items(&b.ports)) {
        (Some(a), Some(b)) if b.iter().any(|port| a.contains(port)) => {
            Some(b.iter().filter(|port| a.contains(port)).copied().collect())
        }
        (Some(a), None) => Some(a.to_vec()),
        (_, b) => b.map(<[_]>::to_vec),
    };
    Some(Destination { target, ports: ports.map(NonEmpty) })
}
