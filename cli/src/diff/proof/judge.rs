//! What both policies decide about the same requests.

use penstock_policy::document::Node;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::diff::verdict::Strictness;
use crate::documents::Documents;
use crate::within::limits::{ReadLimit, complete};
use crate::within::witness::{RequestDraft, Witness};

/// What shows a loosening.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The request, or several in order, in the form that `penstock replay` reads. All pass by the policy after.
    pub passes: Witness,
    /// What the policy before answers, to the last one: status and reason.
    pub before: String,
    /// The last one for people.
    #[serde(skip)]
    pub words: String,
}

/// What a search ended in.
#[derive(Clone, Debug)]
pub enum ProofOutcome {
    /// This shows it.
    Shown(Box<Proof>),
    /// Nothing passes that was refused.
    None,
    /// That cannot be told, or no request shows it, for this reason.
    Unknown(&'static str),
}

/// Both policies.
pub struct Sides<'p> {
    /// Before.
    pub old: Side<'p>,
    /// After.
    pub new: Side<'p>,
    /// When requests come.
    pub now: Timestamp,
}

/// One of the policies.
#[derive(Clone, Copy)]
pub struct Side<'p> {
    /// As written.
    pub node: &'p Node,
    /// Its sections as read.
    pub documents: &'p Documents,
    /// As it decides.
    pub policy: &'p Policy,
}

/// Decides by both policies.
pub struct Judge<'j> {
    /// Both.
    pub sides: &'j Sides<'j>,
    /// The limits after.
    pub limits: Vec<ReadLimit<'j>>,
}

impl Judge<'_> {
    /// Whether no `egress` of the policy before refused the request.
    pub fn passed_egress(&self, draft: &RequestDraft) -> bool {
        draft.wire().is_some_and(|request| {
            let decision = request.decide(self.sides.old.policy, &mut World::new(self.sides.now, 0));
            decision.action != Some("respond") || decision.section != Some("egress")
        })
    }

    /// What shows a loosening in this request, or in the same with all that limits count by; `None`: it is decided as
    /// strictly as before.
    pub fn proof(&self, draft: &RequestDraft) -> Option<Proof> {
        let completed = || {
            let mut draft = draft.clone();
            complete(&mut draft, &self.limits);
            draft
        };
        let mut drafts = vec![draft.clone()];
        drafts.extend((!self.limits.is_empty()).then(completed));
        drafts.iter().find_map(|draft| {
            let before = loosened(self.sides, &[draft.json()])?;
            Some(Proof { passes: Witness::Request(draft.json()), before, words: draft.words() })
        })
    }
}

/// What the policy before says to the first of some requests that it decides more strictly than the policy after, which lets
/// all pass.
pub fn loosened(sides: &Sides<'_>, requests: &[Value]) -> Option<String> {
    let (mut was, mut is) = (World::new(sides.now, 0), World::new(sides.now, 0));
    let mut found = None;
    for request in requests {
        let request: WireRequest = serde_json::from_value(request.clone()).ok()?;
        let (old, new) = (request.decide(sides.old.policy, &mut was), request.decide(sides.new.policy, &mut is));
        if Strictness::of(&new) == Strictness::Refused {
            return None;
        }
        if found.is_none() && Strictness::of(&new) < Strictness::of(&old) {
            let status = old.status.or(old.would_respond).unwrap_or_default();
            let reason = old.reason.unwrap_or_default();
            found = Some(match Strictness::of(&old) {
                Strictness::Refused => format!("{status} {reason}"),
                _ => format!("reported as {status} {reason}"),
            });
        }
    }
    found
}
