//! Searches for a sequence of requests that shows a looser limit: the team's limits pass all of them, the platform's
//! refuses the last.
//!
//! The requests match the platform's limit. The attributes that limits depend on are kept, changed with each request,
//! or left out, and time advances whenever the team's limits would refuse.

use penstock_policy::document::Node;
use penstock_policy::wire::World;
use penstock_policy::{Policy, Timestamp};

use super::attributes::{LimitAttribute, Variation, apply, attributes, patterns};
use super::limit::ReadLimit;
use super::start::starts;
use crate::within::witness::{RequestDraft, refusal};

/// Bounds: a length that is enough for most sequences, the maximum length, and the maximum number of decisions.
const MEDIUM: usize = 600;
const LONGEST: usize = 10_000;
const MOST_DECISIONS: usize = 200_000;
/// Additional decisions for each request of the platform's burst.
const FOR_EACH: usize = 8;

/// Searches for sequences that one policy's limit refuses and another policy passes.
pub struct LimitSearch<'d> {
    /// The policy with only the limit.
    pub theirs: &'d Policy,
    /// The policy that must pass all requests.
    pub mine: &'d Policy,
    /// Both policies as text, for their settings.
    pub settings: [&'d Node; 2],
    /// The requests to start from.
    pub plain: Vec<RequestDraft>,
    /// The time of the first request.
    pub now: Timestamp,
    /// The number of decisions so far.
    pub decisions: usize,
}

/// How the requests of a sequence are made.
struct Varied<'v> {
    start: &'v RequestDraft,
    attributes: &'v [LimitAttribute],
    ways: &'v [Variation],
    /// How many consecutive requests are equal.
    repeat: usize,
}

impl LimitSearch<'_> {
    /// Finds a sequence; `ours` are limits of the policy that must pass everything.
    pub fn sequence(&mut self, limit: ReadLimit<'_>, ours: &[ReadLimit<'_>]) -> Option<Vec<RequestDraft>> {
        let burst = usize::try_from(limit.burst()).unwrap_or(LONGEST);
        let most = self.decisions + FOR_EACH.saturating_mul(burst).saturating_add(30_000).min(MOST_DECISIONS);
        let attributes = attributes(limit, ours, self.settings);
        let starts = starts(limit, ours, &self.plain, self.settings);
        // Short sequences show most differences: a burst, and the requests right after it. A slightly higher rate needs
        // many requests.
        let short = burst.saturating_mul(2).saturating_add(32);
        // To show that a table is full, each key in it must use its whole burst.
        let is_other = |other: &ReadLimit<'_>| {
            other.document.name == limit.document.name
                && other.document.capacity.map(|slots| slots.0) != limit.document.capacity.map(|slots| slots.0)
        };
        let repeats = if ours.iter().any(is_other) { vec![burst, 1] } else { vec![1] };
        for longest in [short.min(LONGEST), short.clamp(MEDIUM, LONGEST), LONGEST] {
            for ways in &patterns(&attributes) {
                for (start, &repeat) in
                    starts.iter().flat_map(|start| repeats.iter().map(move |repeat| (start, repeat)))
                {
                    let varied = Varied { start, attributes: &attributes, ways, repeat };
                    if let Some(sequence) = self.run(limit, &varied, longest, most) {
                        return Some(sequence);
                    }
                    if self.decisions > most {
                        return None;
                    }
                }
            }
        }
        None
    }

    fn run(
        &mut self,
        limit: ReadLimit<'_>,
        varied: &Varied<'_>,
        longest: usize,
        most: usize,
    ) -> Option<Vec<RequestDraft>> {
        let (mut ours, mut theirs) = (World::new(self.now, 0), World::new(self.now, 0));
        let quota = &limit.document.limit;
        let step = u64::try_from(quota.per.0.as_nanos() / u128::from(quota.requests.0.max(1)) / 2).unwrap_or(1).max(1);
        let mut time = self.now;
        let mut sequence = Vec::new();
        let mut waits = 0;
        while sequence.len() < longest && waits < longest && self.decisions <= most {
            let mut draft = varied.start.clone();
            for (attribute, way) in varied.attributes.iter().zip(varied.ways) {
                apply(&mut draft, attribute, *way, sequence.len() / varied.repeat.max(1));
            }
            draft.time = Some(time);
            let request = draft.wire()?;
            self.decisions += 2;
            if refusal(self.mine, &request, &mut ours).is_some() {
                time.0 = time.0.saturating_add(step);
                waits += 1;
                // Slower than the platform's own rate, nothing can be found.
                if waits > 4 * sequence.len() + 8 {
                    return None;
                }
                continue;
            }
            sequence.push(draft);
            if refusal(self.theirs, &request, &mut theirs).is_some() {
                return Some(sequence);
            }
        }
        None
    }
}
