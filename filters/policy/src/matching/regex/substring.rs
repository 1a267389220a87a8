//! Searches for texts in a value, which may have any bytes: one by one, or in one pass if there are many for one field.

use std::sync::OnceLock;

use memchr::memmem::Finder;

use super::answers::{Answers, Asked};
use super::automaton::AutomatonPlace;

/// A text that a value may contain.
#[derive(Debug)]
pub struct Substring {
    finder: Finder<'static>,
    /// The automaton that it shares with others.
    pub(super) place: OnceLock<AutomatonPlace>,
}

impl Substring {
    /// The text `needle`, on its own.
    pub fn new(needle: &[u8]) -> Substring {
        Substring { finder: Finder::new(needle).into_owned(), place: OnceLock::new() }
    }

    /// The text.
    pub fn needle(&self) -> &[u8] {
        self.finder.needle()
    }

    /// Whether `value` contains it; takes linear time for all inputs.
    pub fn is_in(&self, value: &[u8]) -> bool {
        self.finder.find(value).is_some()
    }

    /// Whether any of a field's `values` has it; see [`super::Regex::matches_any`].
    pub(crate) fn is_in_any<'v>(
        &self,
        mut values: impl Iterator<Item = &'v [u8]>,
        asked: Option<(&Answers, Asked)>,
    ) -> bool {
        match (self.place.get(), asked) {
            (Some(AutomatonPlace { automaton, bit, number: Some(number) }), Some((answers, asked))) => {
                let found = answers
                    .get_or_add(*number, asked, || values.fold(0, |found, value| found | automaton.matching(value)));
                found >> bit & 1 == 1
            }
            _ => values.any(|value| self.is_in(value)),
        }
    }
}
