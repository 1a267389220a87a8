//! Decides whether the platform's policy allows everything that a team's `egress` allows.

mod callers;
mod hosts;
mod paths;
mod search;
mod side;

use penstock_policy::document::{Node, NonEmpty};
use penstock_policy::egress::{Destination, EgressDocument, EgressRuleDocument, Mode};
use penstock_policy::matching::PathMatch;
use penstock_policy::wire::World;
use penstock_policy::{Policy, Timestamp};

use super::excess::{Excess, identity};
use super::witness::{RequestDraft, Witness, WitnessAnswer, refusal};
pub use hosts::Mentioned;
use paths::{PathDifference, difference};
pub use search::{SearchEnd, WitnessSearch};
pub use side::EgressSide;

/// The egress section of a policy, as text and compiled.
pub struct SectionPart<'d> {
    /// The text of the whole policy.
    pub node: &'d Node,
    /// The parsed section.
    pub document: &'d EgressDocument,
    /// The compiled policy with only this section.
    pub policy: &'d Policy,
}

/// The policy `node` with `egress` as its only section.
pub fn alone(node: &Node) -> Option<Policy> {
    let fields = ["settings", "egress"].iter().filter_map(|name| Some(((*name).to_owned(), node.get(name)?.clone())));
    Policy::from_node(&Node::Map(fields.collect())).ok()
}

/// Where the team's section allows what the platform's does not. `None`: the team has no such section, so it allows
/// everything.
pub fn excesses(platform: &SectionPart<'_>, team: Option<&SectionPart<'_>>, now: Timestamp) -> Vec<Excess> {
    let mut excesses = Vec::new();
    let Some(team) = team else {
        let mentioned = Mentioned::of(&[platform.document]);
        let request = unlisted(&mentioned);
        if platform.document.mode == Mode::Enforce || !platform.document.rules.0.is_empty() {
            let refused = judge(&request, None, platform.policy, now);
            let message = "is missing: the policy lets every request pass, and the platform's does not".to_owned();
            let witness = refused.map(|_| Witness::Request(request.json()));
            let help = Some("add an `egress` within the platform's".to_owned());
            excesses.push(Excess { path: "egress".to_owned(), message, help, witness });
        }
        return excesses;
    };
    let mentioned = Mentioned::of(&[team.document, platform.document]);
    let (mut ours, mut theirs) =
        (EgressSide::new(team.node, team.document), EgressSide::new(platform.node, platform.document));
    let mut comparison = EgressComparison {
        platform,
        team,
        same_identity: identity(platform.node) == identity(team.node),
        mentioned: &mentioned,
        now,
        excesses,
    };
    if ours.mode == Mode::Audit {
        comparison.audit(&ours, &theirs);
        // A wrong mode is reported separately; the rules are compared as if the mode were right.
        if theirs.mode == Mode::Enforce {
            ours.mode = Mode::Enforce;
        }
    }
    comparison.rules(&ours, &theirs);
    if platform.document.verify_sni {
        comparison.sni(&mut ours, &mut theirs);
    }
    comparison.excesses
}

/// A canonical path that `path` matches (any, if there is none) and that none of `others` matches.
pub fn a_path(path: Option<&PathMatch>, others: &[&PathMatch]) -> Option<String> {
    match difference(path.as_ref().map(std::slice::from_ref), others, false) {
        PathDifference::Path(path) => Some(path),
        _ => None,
    }
}

/// A request to a host that no policy mentions.
pub fn unlisted(mentioned: &Mentioned) -> RequestDraft {
    RequestDraft {
        method: "GET".to_owned(),
        scheme: Some("https"),
        authority: mentioned.unlisted().authority(),
        path: "/".to_owned(),
        ..RequestDraft::default()
    }
}

/// Why the platform refuses what the team's policy allows; `None` when both allow it or neither does.
fn judge(draft: &RequestDraft, team: Option<&Policy>, platform: &Policy, now: Timestamp) -> Option<WitnessAnswer> {
    let request = draft.wire()?;
    let mut world = World::new(now, 0);
    if team.is_some_and(|team| refusal(team, &request, &mut world).is_some()) {
        return None;
    }
    refusal(platform, &request, &mut world)
}

struct EgressComparison<'c, 'd> {
    platform: &'c SectionPart<'d>,
    team: &'c SectionPart<'d>,
    same_identity: bool,
    mentioned: &'c Mentioned,
    now: Timestamp,
    excesses: Vec<Excess>,
}

impl<'d> EgressComparison<'_, 'd> {
    fn search<'s>(&'s self, team: &'s EgressSide<'d>, platform: &'s EgressSide<'d>) -> WitnessSearch<'s, 'd> {
        WitnessSearch {
            team,
            platform,
            mentioned: self.mentioned,
            same_identity: self.same_identity,
            refuse_all: false,
            skips_addresses: team.verify_sni,
            now: self.now,
            decisions: 0,
        }
    }

    fn judge(&self, draft: &RequestDraft) -> Option<WitnessAnswer> {
        judge(draft, Some(self.team.policy), self.platform.policy, self.now)
    }

    fn push(&mut self, path: String, message: String, help: &str, witness: Option<&RequestDraft>) {
        let witness = witness.map(|draft| Witness::Request(draft.json()));
        self.excesses.push(Excess { path, message, help: Some(help.to_owned()), witness });
    }

    /// For each rule of the team.
    fn rules(&mut self, ours: &EgressSide<'d>, theirs: &EgressSide<'d>) {
        let mut search = self.search(ours, theirs);
        let mut found = Vec::new();
        for (number, rule) in ours.document.rules.0.iter().enumerate() {
            let outcome = search.rule(rule, &mut |draft| self.judge(draft).is_some());
            search.decisions = 0;
            found.push((number, rule, outcome));
        }
        for (number, rule, outcome) in found {
            let path = format!("egress.rules[{number}]");
            let help = "narrow the rule, or ask for a wider platform policy";
            match outcome {
                SearchEnd::Nothing => {}
                SearchEnd::Request(draft) => {
                    let why = self.judge(&draft).map(|refusal| self.words(&refusal)).unwrap_or_default();
                    let message = format!(
                        "rule `{}` lets a request pass that the platform's policy refuses: {}{why}",
                        rule.name.0,
                        draft.words()
                    );
                    self.push(path, message, help, Some(&draft));
                }
                SearchEnd::Unknown(why) => {
                    let message =
                        format!("rule `{}` could not be compared with the platform's policy: {why}", rule.name.0);
                    self.push(path, message, "write the rule in a form closer to the platform's", None);
                }
            }
        }
    }

    /// Formats a refusal, such as ` (403 hostNotAllowed)`.
    fn words(&self, refusal: &WitnessAnswer) -> String {
        format!(" ({} {})", refusal.status, refusal.reason)
    }

    /// In Audit, every well-formed request passes.
    fn audit(&mut self, ours: &EgressSide<'d>, theirs: &EgressSide<'d>) {
        let path = "egress.mode".to_owned();
        if theirs.mode == Mode::Enforce {
            let draft = unlisted(self.mentioned);
            let why = self.judge(&draft).map(|refusal| self.words(&refusal));
            let message = format!(
                "Audit lets requests pass that no rule allows: {}{}",
                draft.words(),
                why.clone().unwrap_or_default()
            );
            return self.push(path, message, "write mode: Enforce, as the platform does", why.map(|_| &draft));
        }
        // Both modes are Audit: only ambiguous paths are refused, where rules with `paths` are selected.
        // What no rule of the team allows passes with any server name, also requests to addresses.
        let mut search = WitnessSearch { skips_addresses: false, ..self.search(ours, theirs) };
        let mut found = None;
        for rule in theirs.document.rules.0.iter().filter(|rule| rule.paths.is_some()) {
            match search.rule(&any_path(rule), &mut |draft| self.judge(draft).is_some()) {
                SearchEnd::Nothing => {}
                SearchEnd::Request(draft) => found = Some((draft.words(), Some(draft))),
                SearchEnd::Unknown(why) => found = found.or(Some((why.to_owned(), None))),
            }
        }
        if let Some((words, draft)) = found {
            let message = format!("ambiguous paths pass that the platform refuses in Audit, too: {words}");
            self.push(path, message, "add the platform's rules with `paths` to the policy", draft.as_deref());
        }
    }

    /// The platform requires the server name to be the host.
    fn sni(&mut self, ours: &mut EgressSide<'d>, theirs: &mut EgressSide<'d>) {
        let path = "egress.verifySni".to_owned();
        let has_name = ours.verify_sni;
        // Skipped when the name differs anyway; an address is never a server name.
        (ours.verify_sni, theirs.verify_sni) = (false, false);
        let is_excess = |draft: &RequestDraft| self.judge(&other_name(draft)).is_some();
        let (document, mut search) = match (has_name, self.team.document.mode) {
            // Both refuse a request with the wrong name that a rule allows.
            (true, Mode::Enforce) => return,
            (true, Mode::Audit) if self.platform.document.mode == Mode::Enforce => return,
            // In Audit, a request that no rule allows passes with any name, so the team's rules must allow what the
            // platform's rules allow.
            (true, Mode::Audit) => {
                (ours.mode, theirs.mode) = (Mode::Enforce, Mode::Enforce);
                (theirs.document, self.search(theirs, ours))
            }
            // In Audit, a request that no rule of the platform allows passes with any name.
            (false, _) if self.platform.document.mode == Mode::Audit => {
                (ours.mode, theirs.mode) = (Mode::Enforce, Mode::Enforce);
                (theirs.document, WitnessSearch { refuse_all: true, ..self.search(theirs, ours) })
            }
            (false, _) => (ours.document, WitnessSearch { refuse_all: true, ..self.search(ours, theirs) }),
        };
        let mut witness = None;
        let mut is_doubtful = false;
        for rule in &document.rules.0 {
            match search.rule(rule, &mut |draft| is_excess(draft)) {
                SearchEnd::Request(draft) => {
                    witness = Some(other_name(&draft));
                    break;
                }
                SearchEnd::Unknown(_) => is_doubtful = true,
                SearchEnd::Nothing => {}
            }
        }
        let words = witness.as_ref().map(|draft| format!(": {}", draft.words())).unwrap_or_default();
        // If neither list has paths, the requests tried represent all.
        let has_paths = |document: &EgressDocument| document.rules.0.iter().any(|rule| rule.paths.is_some());
        let is_open = has_paths(self.team.document) && has_paths(self.platform.document);
        if witness.is_some() || (is_doubtful && (has_name || is_open)) {
            let message = format!("connections opened for another server name pass{words}");
            self.push(path, message, "write verifySni: true, as the platform does", witness.as_ref());
        }
    }
}

/// All requests that `rule` may make path-scoped: with any path, and on all ports, because the two policies may have
/// different default ports.
pub fn any_path(rule: &EgressRuleDocument) -> EgressRuleDocument {
    let to = rule.to.0.iter().map(|to| Destination { target: to.target.clone(), ports: None }).collect();
    EgressRuleDocument { to: NonEmpty(to), paths: None, connect: true, ..rule.clone() }
}

/// The same request on a connection with a different server name.
pub fn other_name(draft: &RequestDraft) -> RequestDraft {
    RequestDraft { sni: Some("other.example.com".to_owned()), ..draft.clone() }
}
