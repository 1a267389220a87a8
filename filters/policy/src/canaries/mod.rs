//! `canaries`: weighted splits that keep each user on a variant.

mod document;
mod explain;
mod ramp;
pub mod rendezvous;
mod stickiness;

use smallvec::SmallVec;

use crate::asked::AskedNames;
use crate::breaker::{Breakers, Guard, PROBE_PERCENT, Phase, Watch, probes};
use crate::client::Clients;
use crate::document::{At, Problem};
use crate::environment::{Environment, Timestamp};
use crate::explain::Note;
use crate::matching::{Index, RequestMatch};
use crate::metrics::{Metric, Metrics};
use crate::reason::Reason;
use crate::request::Request;
use crate::section::Section;
pub use document::{CanaryDocument, Override, OverrideCondition, RollbackDocument, VariantDocument};
use ramp::Ramp;
pub use ramp::{RampDocument, StepDocument};
use rendezvous::KeyHash;
use stickiness::HashedKey;
pub use stickiness::{CookieAge, CookieDocument, CookieName, CookiePath, SameSite, Stickiness, StickinessList};

/// The section, ready to decide.
#[derive(Debug)]
pub struct Canaries {
    canaries: Box<[Canary]>,
    /// The entries of all canaries in document order.
    entries: Box<[RequestMatch]>,
    /// The canary of each entry.
    canary_of: Box<[u32]>,
    index: Index,
}

/// One canary, ready to choose.
#[derive(Debug)]
pub struct Canary {
    name: Box<str>,
    stickiness: Option<StickinessList>,
    overrides: Overrides,
    variants: Box<[Variant]>,
    ramp: Option<Ramp>,
    /// The sum of the weights of all variants except the ramp's.
    others: u64,
    rollback: Option<Rollback>,
}

/// The overrides, in document order.
#[derive(Debug)]
struct Overrides {
    /// Each override as an entry with one condition.
    entries: Box<[RequestMatch]>,
    /// The variant of each override.
    variants: Box<[usize]>,
    index: Index,
}

/// A variant that is rolled back when it fails.
#[derive(Debug)]
struct Rollback {
    variant: usize,
    to: usize,
    watch: Watch,
    /// The hash that decides which users probe it.
    probe: KeyHash,
    percentile_needs: Option<u32>,
}

/// One variant, ready to be chosen.
#[derive(Debug)]
struct Variant {
    name: Box<str>,
    route: Box<str>,
    weight: u32,
    hash: KeyHash,
    /// The counter of how often it is chosen.
    chosen: Metric,
}

/// What a canary decided about a request.
#[derive(Debug)]
pub(crate) struct CanaryOutcome<'a> {
    /// The canary.
    pub(crate) canary: &'a str,
    /// The variant chosen.
    pub(crate) variant: &'a str,
    /// The variant's route.
    pub(crate) route: &'a str,
    /// Why the request does not get the variant that the weights give it.
    pub(crate) reason: Option<Reason>,
    /// The breaker that must be told how the request ends.
    pub(crate) watch: Option<Watch>,
    /// The cookie of a user who had none.
    pub(crate) set_cookie: Option<Vec<u8>>,
    /// The counters to increment.
    pub(crate) count: Metric,
}

impl Canaries {
    /// Compiles the section. A canary that a rule names is evaluated only when that rule matches.
    pub(crate) fn new(
        documents: Vec<CanaryDocument>,
        is_named: impl Fn(&str) -> bool,
        breakers: &mut Breakers,
        metrics: &mut Metrics,
        names: &mut AskedNames,
    ) -> Canaries {
        let mut canaries = Vec::with_capacity(documents.len());
        let mut entries = Vec::new();
        for (place, mut document) in (0u32..).zip(documents) {
            if !is_named(&document.name.0) {
                let matches =
                    document.matches.take().map_or_else(|| vec![RequestMatch::default()], |entries| entries.0);
                entries.extend(matches.into_iter().map(|entry| (entry, place)));
            }
            canaries.push(Canary::new(document, breakers, metrics));
        }
        for canary in &canaries {
            canary.overrides.entries.iter().for_each(|entry| entry.add_names(names));
            for source in canary.stickiness.iter().flat_map(|list| &list.0) {
                source.add_name(names);
            }
        }
        let (entries, canary_of): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let index = Index::new(&entries);
        entries.iter().for_each(|entry| entry.add_names(names));
        Canaries { canaries: canaries.into(), entries: entries.into(), canary_of: canary_of.into(), index }
    }

    /// What the first canary that matches chooses. `None`: none matches.
    pub(crate) fn decide<'a>(
        &'a self,
        request: &Request<'a>,
        clients: &Clients,
        breakers: &Breakers,
        environment: &mut impl Environment,
    ) -> Option<CanaryOutcome<'a>> {
        let rank = self.index.first_asking(&self.entries, request, environment)?;
        let canary = self.canaries.get(*self.canary_of.get(rank)? as usize)?;
        canary.choose(request, clients, breakers, environment)
    }

    /// What the canary of this number chooses, for a rule that names it.
    pub(crate) fn choose<'a>(
        &'a self,
        number: u32,
        request: &Request<'a>,
        clients: &Clients,
        breakers: &Breakers,
        environment: &mut impl Environment,
    ) -> Option<CanaryOutcome<'a>> {
        self.canaries.get(number as usize)?.choose(request, clients, breakers, environment)
    }

    /// Problems that are allowed but probably not intended.
    pub fn warnings(&self) -> Vec<Problem> {
        let root = At::Root;
        let canaries = root.field("canaries");
        self.canaries.iter().enumerate().filter_map(|(i, canary)| canary.warning(&canaries.index(i))).collect()
    }

    /// The canaries in document order.
    pub fn iter(&self) -> std::slice::Iter<'_, Canary> {
        self.canaries.iter()
    }
}

impl Canary {
    fn new(document: CanaryDocument, breakers: &mut Breakers, metrics: &mut Metrics) -> Canary {
        let salt = document.salt.as_ref().unwrap_or(&document.name);
        // `check` has verified that every name exists.
        let places = document.places();
        let place = |name| places.get(name).copied();
        let ramp = document.ramp.as_ref().and_then(|ramp| Some(Ramp::new(ramp, place(&ramp.variant)?)));
        let ramped = ramp.as_ref().map(|ramp| ramp.variant);
        let variants = document.variants.0.iter();
        let others = variants.clone().enumerate().filter(|(place, _)| Some(*place) != ramped);
        let others = others.map(|(_, variant)| u64::from(variant.weight.0)).sum();
        let rollback = document.rollback.as_ref().and_then(|rollback| {
            let (variant, to) = (&rollback.variant, &rollback.to);
            let guard =
                Guard { section: Section::Canaries, rule: &document.name.0, guarded: &variant.0, instead: &to.0 };
            Some(Rollback {
                variant: place(variant)?,
                to: place(to)?,
                watch: breakers.add(&guard, &rollback.thresholds(), metrics),
                // No variant has an empty name.
                probe: KeyHash::new(salt.0.as_bytes(), b""),
                percentile_needs: rollback.thresholds().percentile_needs(),
            })
        });
        Canary {
            stickiness: document.stickiness.clone(),
            overrides: Overrides::new(&document),
            variants: variants
                .map(|variant| Variant {
                    hash: KeyHash::new(salt.0.as_bytes(), variant.name.0.as_bytes()),
                    weight: variant.weight.0,
                    route: variant.route.as_ref().map_or_else(|| variant.name.0.clone(), |route| route.0.clone()),
                    name: variant.name.0.clone(),
                    chosen: metrics.add_variant(&document.name.0, &variant.name.0),
                })
                .collect(),
            ramp,
            rollback,
            others,
            name: document.name.0.clone(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variants' names and weights at `time`, in document order. Only their proportions matter.
    pub fn weights_at(&self, time: Timestamp) -> impl Iterator<Item = (&str, u64)> {
        let percent = self.ramp.as_ref().map(|ramp| ramp.percent_at(time));
        self.variants.iter().zip(self.weights(percent)).map(|(variant, weight)| (&*variant.name, weight))
    }

    /// The variants' names in document order.
    pub fn variants(&self) -> impl Iterator<Item = &str> {
        self.variants.iter().map(|variant| &*variant.name)
    }

    /// The variants' shares of new users now, per mille, in document order: by ramp and rollback, without overrides.
    pub(crate) fn shares(&self, breakers: &Breakers, environment: &mut impl Environment) -> SmallVec<[u64; 4]> {
        let percent = self.ramp.as_ref().map(|ramp| ramp.percent_at(environment.now()));
        let mut weights: SmallVec<[u64; 4]> = self.weights(percent).map(|weight| weight * 100).collect();
        if let Some(rollback) = &self.rollback {
            let stays = match breakers.phase(rollback.watch, environment) {
                Phase::Closed => 100,
                Phase::HalfOpen => PROBE_PERCENT,
                Phase::Open => 0,
            };
            let moved = weights.get_mut(rollback.variant).map(|weight| {
                let stay = *weight / 100 * stays;
                std::mem::replace(weight, stay) - stay
            });
            if let (Some(to), Some(moved)) = (weights.get_mut(rollback.to), moved) {
                *to += moved;
            }
        }
        let sum = weights.iter().sum::<u64>().max(1);
        weights.iter_mut().for_each(|weight| *weight = (*weight * 1000 + sum / 2) / sum);
        weights
    }

    /// The weights in document order while the ramp's variant has `percent` of the total. All are whole numbers, so
    /// that the others keep their proportions exactly.
    fn weights(&self, percent: Option<u32>) -> impl Iterator<Item = u64> {
        let ramped = self.ramp.as_ref().map(|ramp| ramp.variant);
        self.variants.iter().enumerate().map(move |(place, variant)| {
            let weight = u64::from(variant.weight);
            match percent.map(u64::from) {
                None => weight,
                Some(percent) if Some(place) == ramped => percent * self.others,
                Some(percent) => (100 - percent.min(100)) * weight,
            }
        })
    }

    /// The variant that `key` has at `time`, by the weights alone. `None`: all weights are 0, which a valid document
    /// never has.
    pub fn variant_of(&self, key: &[u8], time: Timestamp) -> Option<&str> {
        let percent = self.ramp.as_ref().map(|ramp| ramp.percent_at(time));
        Some(&*self.variants.get(self.weighted(key, percent)?)?.name)
    }

    fn weighted(&self, key: &[u8], percent: Option<u32>) -> Option<usize> {
        let hashes = self.variants.iter().map(|variant| || rendezvous::cost(variant.hash.of(key)));
        rendezvous::choose(self.weights(percent).zip(hashes))
    }

    fn choose<'a>(
        &'a self,
        request: &Request<'a>,
        clients: &Clients,
        breakers: &Breakers,
        environment: &mut impl Environment,
    ) -> Option<CanaryOutcome<'a>> {
        let (mut reason, mut watch) = (None, None);
        let told = self.overrides.index.first(&self.overrides.entries, request);
        let (weighted, key) = if let Some(variant) = told.and_then(|told| self.overrides.variants.get(told)) {
            reason = Some(Reason::Override);
            (*variant, None)
        } else {
            let percent = self.ramp.as_ref().map(|ramp| ramp.percent_at(environment.now()));
            let key = stickiness::key(self.stickiness.as_ref(), request, clients, environment);
            (self.weighted(key.as_bytes(), percent)?, Some(key))
        };
        let place = match &self.rollback {
            Some(rollback) if rollback.variant == weighted => {
                if rollback.passes(key.as_ref(), breakers, environment) {
                    watch = Some(rollback.watch);
                    weighted
                } else {
                    reason = Some(Reason::RolledBack);
                    rollback.to
                }
            }
            _ => weighted,
        };
        if environment.is_tracing() {
            let percent = self.ramp.as_ref().map(|ramp| ramp.percent_at(environment.now()));
            environment.note(Note::Canary(self.note(told, key.as_ref(), percent, weighted, place)));
        }
        let variant = self.variants.get(place)?;
        Some(CanaryOutcome {
            canary: &self.name,
            variant: &variant.name,
            route: &variant.route,
            reason,
            watch,
            set_cookie: stickiness::set_cookie(self.stickiness.as_ref(), key.as_ref(), request),
            count: variant.chosen,
        })
    }

    /// Problems that are allowed but probably not intended.
    fn warning(&self, at: &At<'_>) -> Option<Problem> {
        let needs = self.rollback.as_ref()?.percentile_needs?;
        let rollback = at.field("rollback");
        Some(Problem {
            path: rollback.field("minRequests").to_string(),
            value: None,
            message: "is so small that a single slow request rolls the variant back".to_owned(),
            help: Some(format!("with this percentile write {needs} or more")),
        })
    }
}

impl Rollback {
    /// Whether a request may go to the watched variant. While the variant is probed, a user either always or never gets
    /// it; a request without a key gets it at random.
    fn passes(&self, key: Option<&HashedKey<'_>>, breakers: &Breakers, environment: &mut impl Environment) -> bool {
        match breakers.phase(self.watch, environment) {
            Phase::Closed => true,
            Phase::Open => false,
            Phase::HalfOpen => probes(key.map_or_else(|| environment.chance(), |key| self.probe.of(key.as_bytes()))),
        }
    }
}

impl Overrides {
    fn new(document: &CanaryDocument) -> Overrides {
        let places = document.places();
        let known = document.overrides.iter().filter_map(|over| {
            let entry = match &over.condition {
                OverrideCondition::Header(condition) => {
                    RequestMatch { headers: Box::new([condition.clone()]), ..RequestMatch::default() }
                }
                OverrideCondition::Cookie(condition) => {
                    RequestMatch { cookies: Box::new([condition.clone()]), ..RequestMatch::default() }
                }
            };
            Some((entry, *places.get(&over.variant)?))
        });
        let (entries, variants): (Vec<_>, Vec<_>) = known.unzip();
        Overrides { index: Index::new(&entries), entries: entries.into(), variants: variants.into() }
    }
}

#[cfg(test)]
mod tests;
