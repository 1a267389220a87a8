//! Suggestions for a word that is not known.

/// What to write instead of `word`: "expected one of: …", and "did you mean …" when a known word is similar.
#[inline(never)]
pub fn suggestion(word: &str, known: &[&str]) -> String {
    let mut help = format!("expected {}", one_of(known));
    if let Some(nearest) = nearest(word, known) {
        help += &format!("; did you mean `{nearest}`?");
    }
    help
}

/// "one of: a, b", or the first of many.
pub(crate) fn one_of(known: &[&str]) -> String {
    const SHOWN: usize = 16;
    let mut text = format!("one of: {}", known.get(..SHOWN.min(known.len())).unwrap_or_default().join(", "));
    if known.len() > SHOWN {
        text += &format!(" and {} more", known.len() - SHOWN);
    }
    text
}

/// The known word that `word` is probably a typo or a part of.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_ascii_lowercase();
    let distances = known.iter().filter_map(|candidate| {
        // Up to a third of the letters may differ: enough for a typo, too little for another word.
        let most = (candidate.len().max(word.len()) / 3).max(1);
        // A word whose length differs by more is not similar; a very long word is not compared at all.
        let distance = (candidate.len().abs_diff(word.len()) <= most)
            .then(|| strsim::osa_distance(&lower, &candidate.to_ascii_lowercase()))?;
        (distance <= most).then_some((distance, *candidate))
    });
    let typo = distances.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate);
    // `prefix` for `PathPrefix`.
    let mut longer = known
        .iter()
        .copied()
        .filter(|candidate| (4..=64).contains(&word.len()) && candidate.to_ascii_lowercase().contains(&lower));
    typo.or_else(|| longer.next().filter(|_| longer.next().is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_nearest_word_is_a_typo_or_has_the_word_in_it() {
        let known = ["Exact", "PathPrefix", "RegularExpression"];
        for (word, expected) in [
            ("exact", Some("Exact")),
            ("Exat", Some("Exact")),
            ("prefix", Some("PathPrefix")),
            ("regular", Some("RegularExpression")),
            ("e", None),
            ("x", None),
            ("Suffix", None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
        assert_eq!(nearest("fixed", &["fixedOne", "fixedTwo"]), None, "two have it");
    }

    #[test]
    fn of_many_words_the_first_are_named() {
        let known: Vec<String> = (0..1_000).map(|i| format!("v{i}")).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        assert!(suggestion("other", &known).ends_with("v14, v15 and 984 more"), "{}", suggestion("other", &known));
    }
}
