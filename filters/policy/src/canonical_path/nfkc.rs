//! Characters that Unicode's compatibility form NFKC makes a delimiter of paths: a server that normalises what it has
//! decoded sees `../` where the client wrote `%EF%BC%8E%EF%BC%8E%EF%BC%8F`.
//!
//! The delimiters are those whose plain escapes [`canonical`](super::canonical) refuses or decodes: `.`, `/`, `\`,
//! `%` and `;`. Those of a query, `?` and `#`, are data in a path however they are escaped.

use std::cmp::Ordering;

/// First and last of each range, in ascending order; a test makes the list from Unicode's tables.
const RANGES: [(char, char); 20] = [
    ('\u{37e}', '\u{37e}'),
    ('\u{2024}', '\u{2026}'),
    ('\u{2100}', '\u{2101}'),
    ('\u{2105}', '\u{2106}'),
    ('\u{2488}', '\u{249b}'),
    ('\u{33c2}', '\u{33c2}'),
    ('\u{33c7}', '\u{33c7}'),
    ('\u{33d8}', '\u{33d8}'),
    ('\u{fe14}', '\u{fe14}'),
    ('\u{fe19}', '\u{fe19}'),
    ('\u{fe30}', '\u{fe30}'),
    ('\u{fe52}', '\u{fe52}'),
    ('\u{fe54}', '\u{fe54}'),
    ('\u{fe68}', '\u{fe68}'),
    ('\u{fe6a}', '\u{fe6a}'),
    ('\u{ff05}', '\u{ff05}'),
    ('\u{ff0e}', '\u{ff0f}'),
    ('\u{ff1b}', '\u{ff1b}'),
    ('\u{ff3c}', '\u{ff3c}'),
    ('\u{1f100}', '\u{1f100}'),
];

/// Whether the NFKC form of `c` contains a delimiter of paths.
pub(super) fn becomes_delimiter(c: char) -> bool {
    let place = |&(first, last): &(char, char)| match (c < first, c > last) {
        (true, _) => Ordering::Greater,
        (_, true) => Ordering::Less,
        _ => Ordering::Equal,
    };
    RANGES.binary_search_by(place).is_ok()
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;
    use unicode_normalization::UnicodeNormalization;

    #[test]
    fn the_ranges_are_all_characters_whose_compatibility_form_has_a_delimiter() {
        let mut ranges: Vec<(char, char)> = Vec::new();
        for c in ('\u{80}'..=char::MAX).filter(|c| std::iter::once(*c).nfkc().any(|c| r"./\%;".contains(c))) {
            match ranges.last_mut().filter(|(_, last)| u32::from(*last) + 1 == u32::from(c)) {
                Some((_, last)) => *last = c,
                None => ranges.push((c, c)),
            }
        }
        assert_eq!(RANGES.as_slice(), ranges, "write these ranges");
        let found = ('\u{80}'..=char::MAX).filter(|c| becomes_delimiter(*c)).count();
        assert_eq!(found, ranges.iter().map(|(first, last)| (*first..=*last).count()).sum::<usize>());
    }
}
