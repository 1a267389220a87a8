//! The section of the document, and the checks of its fields against each other.

use std::time::Duration;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::ramp::RampDocument;
use super::stickiness::StickinessList;
use crate::breaker::{LatencyLimit, Thresholds};
use crate::document::{
    At, Context, Decode, Name, Named, Node, NonEmpty, PositiveDuration, RouteName, Whole, made_of, object, suggestion,
};
use crate::matching::{Condition, HeaderCondition, PairCondition, RequestMatch};

object! {
    /// A canary, which gives each user one of several variants.
    pub struct CanaryDocument check = CanaryDocument::check {
        /// The name of the canary, unique among the canaries. It is also the salt, unless `salt` is set.
        name as "name": Name,
        /// The canary applies to a request if one of these entries matches. Default: every request.
        matches as "matches": Option<NonEmpty<RequestMatch>>,
        /// The salt. Canaries with different salts choose variants independently of each other.
        salt as "salt": Option<Name>,
        /// How users are recognised, so that they keep their variant: a source, or a list of sources. The first
        /// source that a request has is used. Without it, the variant is random for each request.
        stickiness as "stickiness": Option<StickinessList>,
        /// Overrides. The first one that matches chooses the variant, whatever the weights are.
        overrides as "overrides": Vec<Override> = Vec::new(),
        /// The variants to choose from.
        variants as "variants": Named<VariantDocument>,
        /// A schedule for the weight of one variant.
        ramp as "ramp": Option<RampDocument>,
        /// When a variant is rolled back automatically.
        rollback as "rollback": Option<RollbackDocument>,
    }
}

object! {
    /// When a variant is rolled back automatically.
    pub struct RollbackDocument check = RollbackDocument::check {
        /// The variant that is watched.
        variant as "variant": Name,
        /// The variant that takes over its users.
        to as "to": Name,
        /// The length of the sliding window in which requests are counted.
        window as "window": PositiveDuration = PositiveDuration(Duration::from_secs(60)),
        /// The minimum number of requests in the window. With fewer, the variant is not rolled back.
        min_requests as "minRequests": Whole<1, 1_000_000> = Whole(50),
        /// The percentage of failed requests from which on the variant is rolled back.
        error_percent as "errorPercent": Option<Whole<1, 100>>,
        /// The latency above which the variant is rolled back.
        latency as "latency": Option<LatencyLimit>,
        /// How long the variant gets no requests before it is probed.
        cooldown as "cooldown": PositiveDuration = PositiveDuration(Duration::from_secs(600)),
    }
}

impl RollbackDocument {
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let watches = self.error_percent.is_some() || self.latency.is_some();
        if !watches {
            cx.problem_at(at, "watches nothing", "give `errorPercent`, `latency` or both".to_owned());
        }
        let elsewhere = self.variant != self.to;
        if !elsewhere {
            let node = Node::String(self.to.0.to_string());
            cx.problem(&at.field("to"), &node, "is the variant itself", "name another one".to_owned());
        }
        watches && elsewhere
    }

    /// When it is rolled back.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            window: self.window,
            min_requests: self.min_requests,
            error_percent: self.error_percent,
            latency: self.latency.clone(),
            cooldown: self.cooldown,
        }
    }
}

object! {
    /// A variant of a canary.
    pub struct VariantDocument check = VariantDocument::check {
        /// The name of the variant, unique in its canary.
        name as "name": Name,
        /// The variant's share is this number divided by the sum of all weights. With 0, only an override chooses the variant.
        weight as "weight": Whole<0, 1_000_000>,
        /// The value of the route header. Default: the name.
        route as "route": Option<RouteName>,
    }
}

impl VariantDocument {
    /// Without `route`, the name is the value of the route header.
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let name = Node::String(self.name.0.to_string());
        self.route.is_some() || RouteName::decode(&name, &at.field("name"), cx).is_some()
    }
}

/// An override of the weights: a condition on a header or a cookie, and the variant that it chooses.
#[derive(Clone, Debug)]
pub struct Override {
    /// The condition.
    pub condition: OverrideCondition,
    /// The variant's name.
    pub variant: Name,
}

/// The condition of an override.
#[derive(Clone, Debug)]
pub enum OverrideCondition {
    /// A header.
    Header(Condition),
    /// A cookie.
    Cookie(Condition),
}

object! {
    /// A condition on a header or a cookie, and the variant that it chooses, whatever the weights. The first that holds
    /// wins.
    struct OverrideDocument one of ["header", "cookie"] {
        /// The condition on a header.
        header as "header": Option<HeaderCondition>,
        /// The condition on a cookie.
        cookie as "cookie": Option<PairCondition>,
        /// The name of the variant that it chooses.
        variant as "variant": Name,
    }
}

made_of!(Override, OverrideDocument, |document, _, _| Override::new(document));

impl Override {
    fn new(document: OverrideDocument) -> Option<Override> {
        let header = document.header.map(|header| OverrideCondition::Header(header.0));
        let cookie = document.cookie.map(|cookie| OverrideCondition::Cookie(cookie.0));
        Some(Override { condition: header.or(cookie)?, variant: document.variant })
    }
}

/// The positions of variants, by name.
pub(super) type Places<'d> = HashMap<&'d Name, usize, FxBuildHasher>;

impl CanaryDocument {
    /// The positions of the variants, by name.
    pub(super) fn places(&self) -> Places<'_> {
        self.variants.0.iter().enumerate().map(|(place, variant)| (&variant.name, place)).collect()
    }

    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let variants = at.field("variants");
        if self.variants.0.is_empty() {
            cx.problem_at(&variants, "is empty", "give at least one variant".to_owned());
            return false;
        }
        let overrides = at.field("overrides");
        let places = self.places();
        let mut fine = true;
        for (i, over) in self.overrides.iter().enumerate() {
            fine &= self.names(&places, &over.variant, &overrides.index(i), "variant", cx);
        }
        if let Some(ramp) = &self.ramp {
            fine &= self.names(&places, &ramp.variant, &at.field("ramp"), "variant", cx);
        }
        if let Some(rollback) = &self.rollback {
            let at = at.field("rollback");
            fine &= self.names(&places, &rollback.variant, &at, "variant", cx)
                & self.names(&places, &rollback.to, &at, "to", cx);
        }
        // Before the ramp begins its variant has no weight, so the others must have some.
        let ramped = self.ramp.as_ref().map(|ramp| &ramp.variant);
        let others = self.variants.0.iter().filter(|variant| Some(&variant.name) != ramped);
        if others.map(|variant| u64::from(variant.weight.0)).sum::<u64>() == 0 {
            let message = match ramped {
                None => "have weights that sum to zero: nobody could be served".to_owned(),
                Some(ramped) => {
                    format!("have no weight but that of `{}`: nobody could be served before the ramp begins", ramped.0)
                }
            };
            cx.problem_at(&variants, message, "give at least one of them a weight of 1 or more".to_owned());
            fine = false;
        }
        fine
    }

    /// Whether the field names a variant.
    fn names(&self, places: &Places<'_>, name: &Name, at: &At<'_>, field: &str, cx: &mut Context) -> bool {
        if places.contains_key(name) {
            return true;
        }
        let node = Node::String(name.0.to_string());
        let help = (!cx.is_full()).then(|| {
            let known: Vec<&str> = self.variants.0.iter().map(|variant| &*variant.name.0).collect();
            suggestion(&name.0, &known)
        });
        cx.problem(&at.field(field), &node, "is not the name of a variant", help);
        false
    }
}
