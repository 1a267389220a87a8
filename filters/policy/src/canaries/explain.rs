//! How a canary chose, in numbers.

use super::rendezvous;
use super::stickiness::Key;
use super::{Canary, Variant};
use crate::explain::{CanaryNote, KeyNote, VariantNote};

impl Canary {
    /// The note on one choice.
    pub(super) fn note(
        &self,
        overridden_by: Option<usize>,
        key: Option<&Key<'_>>,
        percent: Option<u32>,
        weighted: usize,
        chosen: usize,
    ) -> CanaryNote {
        let weights: Vec<u64> = self.weights(percent).collect();
        let total: u64 = weights.iter().sum();
        let variant = |(variant, weight): (&Variant, &u64)| {
            let hash = key.map(|key| variant.hash.of(key.as_bytes()));
            VariantNote {
                name: variant.name.to_string(),
                route: variant.route.to_string(),
                weight: *weight,
                share: *weight as f64 / total.max(1) as f64,
                u: hash.map(rendezvous::uniform),
                score: hash.map(|hash| *weight as f64 / rendezvous::cost(hash)),
            }
        };
        CanaryNote {
            canary: self.name.to_string(),
            overridden_by,
            key: key.map(Key::note),
            percent,
            variants: self.variants.iter().zip(&weights).map(variant).collect(),
            weighted,
            chosen,
        }
    }
}

impl Key<'_> {
    fn note(&self) -> KeyNote {
        let bytes = self.as_bytes();
        let text = match self {
            Key::Text(_) | Key::Owned(_) | Key::Id(_) => String::from_utf8_lossy(bytes).into_owned(),
            Key::V4(octets) => std::net::Ipv4Addr::from(*octets).to_string(),
            Key::V6(octets) => std::net::Ipv6Addr::from(*octets).to_string(),
            Key::Random(_) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        KeyNote { text, is_random: matches!(self, Key::Random(_)), is_new: matches!(self, Key::Id(_)) }
    }
}
