//! For each loosening a request, or several, that passes only by the policy after: both policies decide it.
//!
//! What is compared by its text alone may be called loosened where nothing is. The searches that `check --within` rests on
//! tell: where they find that nothing passes anew, the change is none of that kind. They are bounded, and where they give
//! up the change stays loosened, with the reason why no request shows it.

mod egress;
mod judge;
mod limits;
mod sought;

use super::change::{ChangeClass, Changes};
use crate::within::egress::Mentioned;
use crate::within::limits::ReadLimit;
use judge::{Judge, ProofOutcome};
pub use judge::{Proof, Side, Sides};
pub use sought::Sought;

/// Looks for what shows each loosening. One that turns out to be none becomes a change.
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
                // The section is gone.
                None => egress::anything(&judge, &Mentioned::of(&before)),
            },
        };
        match outcome {
            ProofOutcome::Shown(proof) => change.proof = Some(*proof),
            ProofOutcome::Unknown(why) => change.no_proof = Some(why),
            ProofOutcome::None => {
                change.class = ChangeClass::Changed;
                change.message += "; nothing passes that was refused";
            }
        }
    }
}
