//! How a canary chose, in numbers.

use super::rendezvous;
use super::stickiness::HashedKey;
use super::{Canary, Variant};
use crate::explain::{CanaryNote, KeyNote, VariantNote};

impl Canary {
    /// The note on one choice.
    pub(super) fn note(
        &self,
        overridden_by: Option<usize>,
        key: Option<&HashedKey<'_>>,
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
            key: key.map(HashedKey::note),
            percent,
            variants: self.variants.iter().zip(&weights).map(variant).collect(),
            weighted,
            chosen,
        }
    }
}

impl HashedKey<'_> {
    fn note(&self) -> KeyNote {
        let bytes = self.as_bytes();
        let text = match self {
            HashedKey::Text(_) | HashedKey::Owned(_) | HashedKey::Id(_) => String::from_utf8_lossy(bytes).into_owned(),
            HashedKey::V4(octets) => std::net::Ipv4Addr::from(*octets).to_string(),
            HashedKey::V6(octets) => std::net::Ipv6Addr::from(*octets).to_string(),
            HashedKey::Random(_) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        KeyNote { text, is_random: matches!(self, HashedKey::Random(_)), is_new: matches!(self, HashedKey::Id(_)) }
    }
}
