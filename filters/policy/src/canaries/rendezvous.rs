//! Weighted rendezvous hashing: every worker and replica chooses the same variant for a key, without storing the choice.
//!
//! Each variant i turns the key into its own uniform number uᵢ; the one with the greatest `weightᵢ / -ln uᵢ` wins.
//! `-ln uᵢ` is exponentially distributed with rate 1, so `-ln uᵢ / weightᵢ` has rate weightᵢ, and the least of
//! several exponentials is the i-th with probability weightᵢ / Σ weights. Between two variants whose ratio of weights
//! stays, no key ever moves; the share that does move is 1 − Σᵢ 1/Σⱼ max(pⱼ/pᵢ, qⱼ/qᵢ) for shares p → q.
//!
//! Sources: Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (2005), for the score; Moulton and Jiang,
//! "Maximally Consistent Sampling and the Jaccard Index of Probability Distributions" (2018), for what moves; Aumasson
//! and Bernstein, "SipHash: a fast short-input PRF" (2012), for the hash.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// The hash's 128-bit key: the ASCII text `penstock canary!`. Fixed and public: other programs can compute the same.
const KEY: &[u8; 16] = b"penstock canary!";

/// SipHash-2-4 of a key for one name under one salt, with everything but the key hashed in advance.
///
/// The message is `u32 length ‖ salt ‖ u32 length ‖ name ‖ key`, lengths in bytes and little-endian, so that no two
/// triples make the same message.
#[derive(Clone, Debug)]
pub struct KeyHash(SipHasher24);

impl KeyHash {
    /// The hash for `name` under `salt`.
    pub fn new(salt: &[u8], name: &[u8]) -> KeyHash {
        let mut hasher = SipHasher24::new_with_key(KEY);
        for part in [salt, name] {
            hasher.write(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            hasher.write(part);
        }
        KeyHash(hasher)
    }

    /// 64 pseudo-random bits.
    pub fn of(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(key);
        hasher.finish()
    }
}

/// The number u in (0, 1) that the upper 52 bits of `hash` stand for: u = (upper + ½) / 2⁵². Exact: 52 bits and a half
/// fit a double's 53.
pub fn uniform(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) * (1.0 / 4_503_599_627_370_496.0)
}

/// `-ln u` for the [`uniform`] number u of `hash`.
///
/// Between 1.1e-16 and 36.8, within 4 units in the last place of the true value. Only +, −, ×, ÷ on doubles, which
/// IEEE 754 defines to the bit, so that every machine agrees; the logarithm of a C library would differ from one to
/// the next.
pub fn cost(hash: u64) -> f64 {
    /// 1/23, 1/21, … 1/3: with |s| ≤ 0.172 the next term is below half a unit in the last place.
    const COEFFICIENTS: [f64; 11] = [
        1.0 / 23.0,
        1.0 / 21.0,
        1.0 / 19.0,
        1.0 / 17.0,
        1.0 / 15.0,
        1.0 / 13.0,
        1.0 / 11.0,
        1.0 / 9.0,
        1.0 / 7.0,
        1.0 / 5.0,
        1.0 / 3.0,
    ];
    let u = uniform(hash);
    // u = m · 2^e with m in [√½, √2).
    let bits = u.to_bits();
    let mut e = (bits >> 52) as f64 - 1022.0;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3fe0_0000_0000_0000);
    if m < std::f64::consts::FRAC_1_SQRT_2 {
        m *= 2.0;
        e -= 1.0;
    }
    // ln m = 2 artanh s = 2 (s + s³/3 + s⁵/5 + …) with s = (m − 1) / (m + 1).
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = COEFFICIENTS.iter().fold(0.0, |sum, coefficient| (sum + coefficient) * square);
    -(e * std::f64::consts::LN_2 + (2.0 * s + 2.0 * s * series))
}

/// The position of the winner among candidates given as weight and [`cost`] of the key; `None` when all weights are 0.
///
/// Costs are only asked for where the weight is not 0. Of two equal scores, one in 2⁵², the first wins.
pub fn choose(candidates: impl Iterator<Item = (u64, impl FnOnce() -> f64)>) -> Option<usize> {
    let mut best = None;
    for (place, (weight, cost)) in candidates.enumerate() {
        if weight == 0 {
            continue;
        }
        // The inverse of the score: less is better.
        let cost = cost() / weight as f64;
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, place));
        }
    }
    best.map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// `salt name key hash cost`, all but the names in hexadecimal, one a line. The hashes come from OpenSSL's SipHash.
    const GOLDEN: &str = include_str!("golden.txt");

    #[test]
    fn hashes_and_logarithms_are_the_same_bits_everywhere() {
        let mut lines = 0;
        for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
            let [salt, name, key, hash, bits] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            assert_eq!(KeyHash::new(salt.as_bytes(), name.as_bytes()).of(key.as_bytes()), number(hash), "{line}");
            assert_eq!(cost(number(hash)).to_bits(), number(bits), "{line}");
            lines += 1;
        }
        assert!(lines >= 200);
    }

    #[test]
    fn the_logarithm_is_right_from_end_to_end() {
        let ends = [0, 1 << 12, u64::MAX, u64::MAX - (1 << 12), 1 << 63, (1 << 63) - 1];
        let spread = (1..100_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let powers = (12..64).flat_map(|shift| [1_u64 << shift, (1_u64 << shift) - 1, !(1_u64 << shift)]);
        for hash in ends.into_iter().chain(spread).chain(powers) {
            let u = ((hash >> 12) as f64 + 0.5) / 2_f64.powi(52);
            assert!(u > 0.0 && u < 1.0);
            let (ours, theirs) = (cost(hash), -u.ln());
            assert!(ours > 0.0 && ours.is_finite());
            assert!((ours - theirs).abs() <= 4.0 * f64::EPSILON * theirs, "{hash:x}: {ours} {theirs}");
        }
    }

    #[test]
    fn no_two_triples_are_one_message() {
        let hash =
            |salt: &str, name: &str, key: &str| KeyHash::new(salt.as_bytes(), name.as_bytes()).of(key.as_bytes());
        let parts = [hash("ab", "c", "d"), hash("a", "bc", "d"), hash("a", "b", "cd"), hash("", "abc", "d")];
        for (i, one) in parts.iter().enumerate() {
            assert!(!parts[i + 1..].contains(one));
        }
    }

    #[test]
    fn weight_zero_is_never_chosen_nor_hashed() {
        let never = || -> f64 { panic!("hashed") };
        let chosen = choose([(0, Box::new(never) as Box<dyn FnOnce() -> f64>), (1, Box::new(|| 1.0))].into_iter());
        assert_eq!(chosen, Some(1));
        assert_eq!(choose(std::iter::empty::<(u64, fn() -> f64)>()), None);
        assert_eq!(choose([0, 0].into_iter().map(|weight| (weight, || 1.0))), None);
    }
}
