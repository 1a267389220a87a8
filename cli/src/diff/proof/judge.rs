//! Decides the same requests with both policies.

use penstock_policy::document::Node;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::Value;

use crate::diff::change::Proof;
use crate::diff::verdict::Strictness;
use crate::documents::Documents;
use crate::within::limits::{ReadLimit, complete};
use crate::within::witness::{RequestDraft, Witness};

/// The result of a search.
#[derive(Clone, Debug)]
pub enum ProofOutcome {
    /// These requests show the loosening.
    Shown(Box<Proof>),
    /// Nothing passes that was refused before.
    None,
    /// The search found no request or cannot decide, for this reason.
    Unknown(&'static str),
}

/// Both policies.
pub struct Sides<'p> {
    /// The old policy.
    pub old: Side<'p>,
    /// The new policy.
    pub new: Side<'p>,
    /// The time of the requests.
    pub now: Timestamp,
}

/// One of the policies.
#[derive(Clone, Copy)]
pub struct Side<'p> {
    /// Its text.
    pub node: &'p Node,
    /// Its parsed sections.
    pub documents: &'p Documents,
    /// The compiled policy.
    pub policy: &'p Policy,
}

/// Decides with both policies.
pub struct Judge<'j> {
    /// The two policies.
    pub sides: &'j Sides<'j>,
    /// The limits of the new policy.
    pub limits: Vec<ReadLimit<'j>>,
}

impl Judge<'_> {
    /// Whether `egress` of the old policy refused none of the requests.
    pub fn passed_egress(&self, draft: &RequestDraft) -> bool {
        draft.wire().is_some_and(|request| {
            let decision = request.decide(self.sides.old.policy, &mut World::new(self.sides.now, 0));
            decision.action != Some("respond") || decision.section != Some("egress")
        })
    }

    /// Returns the example if this request shows a loosening, alone or repeated with every value that limits count by.
    /// `None`: it is not decided more loosely than before.
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

/// The old policy's response to the first request that it decides more strictly than the new one, which passes all of
/// them.
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
