//! Weights by the clock: a progressive rollout without a controller.

use std::time::Duration;

use crate::document::{At, Context, Name, NonEmpty, PositiveDuration, Whole, object};
use crate::timestamp::Timestamp;

object! {
    /// A schedule for the weight of one variant.
    pub struct RampDocument check = RampDocument::check {
        /// The variant whose weight the schedule sets.
        variant as "variant": Name,
        /// Before this time its weight is 0.
        starts_at as "startsAt": Timestamp,
        /// The steps in order. The last one stays in effect.
        steps as "steps": NonEmpty<StepDocument>,
    }
}

object! {
    /// A step of a schedule.
    pub struct StepDocument {
        /// The variant's share in percent.
        weight as "weight": Whole<0, 100>,
        /// How long the step lasts. The last step needs none.
        lasts as "for": Option<PositiveDuration>,
    }
}

impl RampDocument {
    /// Every step except the last has a duration.
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let steps = at.field("steps");
        let Some((_, but_last)) = self.steps.0.split_last() else { return true };
        let mut fine = true;
        for (i, _) in but_last.iter().enumerate().filter(|(_, step)| step.lasts.is_none()) {
            let help = "only the last step has no end: give this one a duration such as 10m".to_owned();
            cx.problem_at(&steps.index(i).field("for"), "is required", help);
            fine = false;
        }
        fine
    }
}

/// The schedule, ready to evaluate.
#[derive(Debug)]
pub struct Ramp {
    /// The variant's position among the variants.
    pub variant: usize,
    /// The start of each step and its percentage, in order.
    steps: Box<[(Timestamp, u32)]>,
}

impl Ramp {
    /// The schedule for the variant at `variant`.
    pub fn new(document: &RampDocument, variant: usize) -> Ramp {
        let mut begins = document.starts_at;
        let mut steps = Vec::with_capacity(document.steps.0.len());
        for step in &document.steps.0 {
            steps.push((begins, step.weight.0));
            let lasts = step.lasts.map_or(Duration::ZERO, |PositiveDuration(lasts)| lasts);
            // A start later than any timestamp is never reached.
            begins.0 = begins.0.saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX));
        }
        Ramp { variant, steps: steps.into() }
    }

    /// The variant's percentage at `time`. A step's first instant belongs to it.
    pub fn percent_at(&self, time: Timestamp) -> u32 {
        let begun = self.steps.partition_point(|(begins, _)| *begins <= time);
        begun.checked_sub(1).and_then(|last| self.steps.get(last)).map_or(0, |(_, percent)| *percent)
    }
}
