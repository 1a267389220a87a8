//! The mathematics of the split, over a million users: exact shares, least movement, independent canaries.
//!
//! Hashes and logarithms are computed once for each user and variant; the weights then choose over the same numbers, by
//! the same function, as a decision does.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]
#![cfg(not(target_arch = "wasm32"))]

use std::sync::LazyLock;

use penstock_policy::canaries::rendezvous::{KeyHash, choose, cost};

const USERS: usize = 1_000_000;

/// The costs of a million users for the variants v1, v2, …
fn costs<const N: usize>(salt: &str) -> Vec<[f64; N]> {
    let variants: [KeyHash; N] =
        std::array::from_fn(|i| KeyHash::new(salt.as_bytes(), format!("v{}", i + 1).as_bytes()));
    let users = (0..USERS).map(|user| format!("user-{user}"));
    users.map(|user| variants.each_ref().map(|variant| cost(variant.of(user.as_bytes())))).collect()
}

static REVIEWS: LazyLock<Vec<[f64; 6]>> = LazyLock::new(|| costs("reviews"));

fn split<const N: usize>(users: &[[f64; N]], weights: &[u64]) -> Vec<u8> {
    let choose = |costs: &[f64; N]| choose(weights.iter().zip(costs).map(|(weight, cost)| (*weight, || *cost)));
    users.iter().map(|costs| u8::try_from(choose(costs).unwrap()).unwrap()).collect()
}

fn count(choices: &[u8], variants: usize) -> Vec<f64> {
    let mut counts = vec![0.0; variants];
    choices.iter().for_each(|&choice| counts[usize::from(choice)] += 1.0);
    counts
}

fn shares(weights: &[u64]) -> Vec<f64> {
    let sum = weights.iter().sum::<u64>() as f64;
    weights.iter().map(|&weight| weight as f64 / sum).collect()
}

/// SplitMix64: the same weight sets in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// Two to six weights, sometimes 0.
    fn weights(&mut self) -> Vec<u64> {
        let scale = [10, 100, 1_000_000][self.roll(3) as usize];
        let mut weights: Vec<u64> = (0..2 + self.roll(5)).map(|_| self.roll(scale + 1)).collect();
        weights[0] += 1;
        weights
    }
}

/// The 99.9 % quantile of chi-square with 1–5 degrees of freedom: p > 0.001 below it.
const CHI_SQUARE: [f64; 5] = [10.828, 13.816, 16.266, 18.467, 20.515];

#[test]
fn twenty_random_weight_sets_are_met_exactly() {
    let mut dice = Dice(1);
    for _ in 0..20 {
        let weights = dice.weights();
        let counts = count(&split(&REVIEWS, &weights), weights.len());
        let mut chi_square = 0.0;
        for ((count, share), weight) in counts.iter().zip(shares(&weights)).zip(&weights) {
            let expected = share * USERS as f64;
            assert!((count - expected).abs() <= 0.0015 * USERS as f64, "{weights:?}: {count} for {expected}");
            if *weight == 0 {
                assert_eq!(*count, 0.0, "{weights:?}");
            } else {
                chi_square += (count - expected).powi(2) / expected;
            }
        }
        let positive = weights.iter().filter(|&&weight| weight > 0).count();
        if positive > 1 {
            assert!(chi_square < CHI_SQUARE[positive - 2], "{weights:?}: {chi_square}");
        }
    }
}

/// The share that moves: 1 − Σᵢ 1/Σⱼ max(pⱼ/pᵢ, qⱼ/qᵢ).
fn moved(p: &[f64], q: &[f64]) -> f64 {
    let stays = |i: usize| {
        let sum: f64 = (0..p.len()).map(|j| (p[j] / p[i]).max(q[j] / q[i])).sum();
        if p[i] == 0.0 || q[i] == 0.0 { 0.0 } else { 1.0 / sum }
    };
    1.0 - (0..p.len()).map(stays).sum::<f64>()
}

#[test]
fn a_change_moves_what_the_formula_says() {
    let mut dice = Dice(2);
    let mut changes: Vec<(Vec<u64>, Vec<u64>)> =
        vec![(vec![90, 10], vec![75, 25]), (vec![100, 0], vec![95, 5]), (vec![1, 1, 1], vec![1, 1, 0])];
    for _ in 0..12 {
        let from = dice.weights();
        let mut to: Vec<u64> = from.iter().map(|_| dice.roll(1000)).collect();
        to[0] += 1;
        changes.push((from, to));
    }
    for (from, to) in changes {
        let (before, after) = (split(&REVIEWS, &from), split(&REVIEWS, &to));
        let observed = before.iter().zip(&after).filter(|(a, b)| a != b).count() as f64 / USERS as f64;
        let (p, q) = (shares(&from), shares(&to));
        let expected = moved(&p, &q);
        assert!((observed - expected).abs() <= 0.0015, "{from:?} {to:?}: {observed} for {expected}");
        if p.len() == 2 {
            // The least that any method could move.
            let least: f64 = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
            assert!((observed - least).abs() <= 0.0015, "{from:?} {to:?}: {observed} for {least}");
        }
    }
}

#[test]
fn nobody_moves_between_two_variants_whose_ratio_stays() {
    let from = split(&REVIEWS, &[60, 30, 10]);
    for to in [[60, 30, 50], [20, 10, 10], [120, 60, 0], [54, 27, 19]] {
        for (before, after) in from.iter().copied().zip(split(&REVIEWS, &to)) {
            assert!(before == after || before == 2 || after == 2, "{to:?}");
        }
    }
}

#[test]
fn raising_a_weight_moves_nobody_out() {
    let weights = [50, 30, 15, 5];
    let from = split(&REVIEWS, &weights);
    for raised in 0..4 {
        for by in [1, 1000] {
            let mut to = weights;
            to[raised] += by;
            for (before, after) in from.iter().copied().zip(split(&REVIEWS, &to)) {
                assert!(before == after || usize::from(after) == raised);
            }
        }
    }
}

#[test]
fn canaries_with_different_salts_are_independent() {
    let weights = [80, 20];
    let one = split(&REVIEWS, &weights);
    for salt in ["ratings", "reviews2", "Reviews"] {
        let other = split(&costs::<2>(salt), &weights);
        let mut table = [[0.0; 2]; 2];
        one.iter().zip(&other).for_each(|(&a, &b)| table[usize::from(a)][usize::from(b)] += 1.0);
        let p = [0.8, 0.2];
        let mut chi_square = 0.0;
        for (row, a) in table.iter().zip(p) {
            for (cell, b) in row.iter().zip(p) {
                let expected = a * b * USERS as f64;
                chi_square += (cell - expected).powi(2) / expected;
            }
        }
        assert!(chi_square < CHI_SQUARE[2], "{salt}: {chi_square}");
    }
}

#[test]
fn keys_that_count_up_are_as_good_as_any() {
    let variants = ["v1", "v2", "v3"].map(|name| KeyHash::new(b"shop", name.as_bytes()));
    let weights = [70, 20, 10];
    for key in
        [|i: u32| i.to_be_bytes().to_vec(), |i: u32| i.to_le_bytes().to_vec(), |i: u32| vec![b'a'; (i % 4096) as usize]]
    {
        let mut counts = [0.0; 3];
        let keys: Vec<Vec<u8>> = (0..100_000).map(key).collect();
        let distinct = keys.iter().collect::<std::collections::HashSet<_>>();
        for key in &distinct {
            let chosen = choose(weights.iter().zip(&variants).map(|(weight, hash)| (*weight, || cost(hash.of(key)))));
            counts[chosen.unwrap()] += 1.0;
        }
        let chi_square: f64 = counts
            .iter()
            .zip(shares(&weights))
            .map(|(count, share)| (count - share * distinct.len() as f64).powi(2) / (share * distinct.len() as f64))
            .sum();
        assert!(chi_square < CHI_SQUARE[1], "{chi_square}");
    }
}
