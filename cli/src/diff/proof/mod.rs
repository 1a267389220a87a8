//! Finds for each loosening one or several requests that only the new policy passes, decided by both policies.
//!
//! A comparison of texts may report a loosening that is none. The searches behind `check --within` decide it: if they
//! find that nothing new passes, the change is reclassified as a plain change. They are bounded; if they give up, the
//! change stays a loosening, with the reason why there is no example.

mod egress;
mod judge;
mod limits;

use super::change::{ChangeClass, Changes};
use super::sought::Sought;
use crate::within::egress::Mentioned;
use crate::within::limits::ReadLimit;
use judge::{Judge, ProofOutcome};
pub use judge::{Side, Sides};

/// Searches for an example of each loosening. A loosening that turns out to be none becomes a plain change.
pub fn prove(changes: &mut Changes, sides: &Sides<'_>) {
    let judge = Judge { sides, limits: ReadLimit::all(sides.new.documents, sides.new.node) };
    let mut egress = None;
    let before: Vec<_> = sides.old.documents.egress.iter().collect();
    let mut limits = limits::LimitProver::new(&judge);
    for change in changes.0.iter_mut().filter(|change| change.class == ChangeClass::Loosened) {
        let outcome = match &change.sought {
            Sought::Nothing(why) => ProofOutcome::Unknown(why),
            Sought::Limit(name) => limits.limit(name),
            Sought::AnyLimit => limits.any(),
            sought => match egress.get_or_insert_with(|| egress::EgressProver::new(&judge)) {
                Some(prover) => prover.prove(sought),
                // The section was removed.
                None => egress::anything(&judge, &Mentioned::of(&before)),
            },
        };
        match outcome {
            ProofOutcome::Shown(proof) => change.proof = Some(*proof),
            ProofOutcome::Unknown(why) => change.no_proof = Some(why),
            ProofOutcome::None => {
                change.class = ChangeClass::Changed;
                change.message += "; no request passes that was refused before";
            }
        }
    }
}
