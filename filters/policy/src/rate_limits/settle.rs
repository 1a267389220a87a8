//! What comes of all that the limits say: the refusal, the counters, the quota headers.

use smallvec::SmallVec;

use super::LimitsOutcome;
use super::claim::Verdict;
use super::document::Mode;
use super::global::{Failure, Left};
use super::limit::{Limit, Outcome};
use super::{quota, rate};
use crate::decision::Effects;
use crate::reason::Reason;

/// What one limit says in the end.
pub(super) struct Voice<'a> {
    pub(super) limit: &'a Limit,
    pub(super) verdict: Verdict,
    /// Whether it used an overflow bucket.
    pub(super) shared: bool,
    pub(super) left: Left,
}

impl Voice<'_> {
    /// Whether it refuses the request, or would in Shadow.
    fn is_against(&self) -> bool {
        match self.verdict {
            Verdict::Passes => false,
            Verdict::Wait(_) | Verdict::TooLarge => true,
            Verdict::Failed(_) => self.limit.denies_on_failure(),
        }
    }

    pub(super) fn refuses(&self) -> bool {
        self.limit.mode == Mode::Enforce && self.is_against()
    }

    /// Nanoseconds until the request would pass; `None` when that is not known, or never.
    fn wait(&self) -> Option<u64> {
        match self.verdict {
            Verdict::Wait(nanos) => Some(nanos),
            _ => None,
        }
    }

    /// How tight the refusal is: one that no waiting helps against is the tightest, and a service that does not answer says
    /// no time.
    fn tightness(&self) -> (bool, Option<u64>) {
        (self.verdict == Verdict::TooLarge, self.wait())
    }

    fn reason(&self) -> Reason {
        match self.verdict {
            Verdict::Failed(_) => Reason::ServiceFailed,
            _ => Reason::Limited,
        }
    }
}

/// Says what came of it.
#[inline(never)]
pub(super) fn settle<'a>(voices: &[Voice<'a>], effects: &mut Effects<'_, 'a>, decided: &mut LimitsOutcome<'a>) {
    // The tightest refusal, the first of the document among equals.
    let tightest = |mode: Mode| {
        let against = voices.iter().filter(|voice| voice.limit.mode == mode && voice.is_against());
        against.reduce(|tightest, voice| if voice.tightness() > tightest.tightness() { voice } else { tightest })
    };
    let (enforced, shadow) = (tightest(Mode::Enforce), tightest(Mode::Shadow));

    for voice in voices {
        let outcome = match voice.verdict {
            Verdict::Wait(_) | Verdict::TooLarge if voice.limit.mode == Mode::Enforce => Some(Outcome::Limited),
            Verdict::Wait(_) | Verdict::TooLarge => Some(Outcome::WouldLimit),
            Verdict::Failed(Failure::Error) => Some(Outcome::Error),
            Verdict::Failed(Failure::Timeout) => Some(Outcome::Timeout),
            Verdict::Passes => enforced.is_none().then_some(Outcome::Passed),
        };
        let overfull = voice.shared.then_some(Outcome::Overfull);
        outcome.into_iter().chain(overfull).for_each(|outcome| effects.count(voice.limit.counter(outcome)));
    }
    if voices.iter().any(|voice| voice.left.is_some()) {
        let left = voices.iter().filter_map(|voice| {
            let (remaining, until_full) = voice.left?;
            Some(quota::Left { quota: &voice.limit.quota, remaining, reset: rate::seconds(until_full) })
        });
        quota::write(&left.collect::<SmallVec<[_; 4]>>(), &mut |name, value| {
            effects.response_header(name, value.into_bytes().into())
        });
    }
    for voice in [shadow, enforced].into_iter().flatten() {
        decided.refused_by(voice.limit, voice.reason(), voice.wait());
    }
}
