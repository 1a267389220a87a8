//! Combines what the limits decided into the section's outcome: the refusal, the counters, the quota headers.

use smallvec::SmallVec;

use super::document::LimitMode;
use super::limit::LimitCount;
use super::outcome::LimitsOutcome;
use super::verdict::{LimitVerdict, ServiceFailure, Verdict};
use super::{quota, rate};
use crate::decision::Effects;

/// Computes the outcome.
#[inline(never)]
pub(super) fn finish<'a>(
    verdicts: &[LimitVerdict<'a>],
    effects: &mut Effects<'_, 'a>,
    decided: &mut LimitsOutcome<'a>,
) {
    // The tightest refusal; of equal ones the first in the document.
    let tightest = |mode: LimitMode| {
        let against = verdicts.iter().filter(|verdict| verdict.limit.mode == mode && verdict.is_against());
        against.reduce(|tightest, verdict| if verdict.tightness() > tightest.tightness() { verdict } else { tightest })
    };
    let (enforced, shadow) = (tightest(LimitMode::Enforce), tightest(LimitMode::Shadow));

    for verdict in verdicts {
        let outcome = match verdict.verdict {
            Verdict::Wait(_) | Verdict::TooLarge if verdict.limit.mode == LimitMode::Enforce => {
                Some(LimitCount::Limited)
            }
            Verdict::Wait(_) | Verdict::TooLarge => Some(LimitCount::WouldLimit),
            Verdict::Failed(ServiceFailure::Error) => Some(LimitCount::Error),
            Verdict::Failed(ServiceFailure::Timeout) => Some(LimitCount::Timeout),
            Verdict::Passes => enforced.is_none().then_some(LimitCount::Passed),
        };
        let overfull = verdict.shared.then_some(LimitCount::Overfull);
        outcome.into_iter().chain(overfull).for_each(|outcome| effects.count(verdict.limit.counter(outcome)));
    }
    if verdicts.iter().any(|verdict| verdict.left.is_some()) {
        let left = verdicts.iter().filter_map(|verdict| {
            let (remaining, until_full) = verdict.left?;
            Some(quota::LimitState { quota: &verdict.limit.quota, remaining, reset: rate::seconds(until_full) })
        });
        quota::write(&left.collect::<SmallVec<[_; 4]>>(), &mut |name, value| {
            effects.response_header(name, value.into_bytes().into())
        });
    }
    for verdict in [shadow, enforced].into_iter().flatten() {
        decided.refused_by(verdict.limit, verdict.reason(), verdict.wait());
    }
}
