//! Regular expressions with RE2's syntax that match whole values, with one table look-up for each byte.
//!
//! The syntax is read by a parser of our own ([`syntax`]), the rest is done when the policy loads ([`automaton`]): every
//! expression is a table of bounded size, and all that a policy asks of one field share their tables ([`registry`]).

mod answers;
mod automaton;
mod error;
mod registry;
mod substring;
mod syntax;

use std::sync::{Arc, OnceLock};

use regex_syntax::hir::{Hir, HirKind, Look};

pub(crate) use answers::{Answers, Asked};
use automaton::{Automaton, AutomatonLimits, AutomatonPlace, ExpressionSource};
pub use error::BadRegex;
pub(crate) use registry::Expressions;
pub use substring::Substring;

/// Values longer than this match no expression, in bytes.
pub const LONGEST_VALUE: usize = 8 << 10;

/// The maximum memory for making the automaton of one expression.
const LIMITS: AutomatonLimits = AutomatonLimits { table: 4 << 20, combinations: 512 << 10 };

/// An expression that matches whole values only.
#[derive(Debug)]
pub struct Regex {
    pattern: Box<str>,
    literal_prefix: Box<[u8]>,
    place: OnceLock<AutomatonPlace>,
}

impl Regex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// When RE2 refuses it, it has a Unicode class, or it would take more than a mebibyte.
    pub fn new(pattern: &str) -> Result<Regex, BadRegex> {
        let (regex, _, automaton) = Regex::compile(pattern)?;
        let _ = regex.place.set(AutomatonPlace { automaton: Arc::new(automaton), bit: 0, number: None });
        Ok(regex)
    }

    /// Compiles `pattern`; [`registry`] chooses its automaton later.
    fn compile(pattern: &str) -> Result<(Regex, ExpressionSource, Automaton), BadRegex> {
        let source = ExpressionSource::new(syntax::parse(pattern)?);
        let automaton = Automaton::new(source.shape, &[&source.hir], LIMITS)
            .map_err(|automaton::TooLarge| BadRegex::too_large())?;
        let literal_prefix = match source.shape {
            automaton::ExpressionShape::Whole => literal_prefix(&source.hir),
            _ => Box::default(),
        };
        let regex = Regex { pattern: pattern.into(), literal_prefix, place: OnceLock::new() };
        Ok((regex, source, automaton))
    }

    /// Its automaton: shared with others when a policy has been compiled, else its own.
    fn place(&self) -> &AutomatonPlace {
        self.place.get_or_init(|| {
            // It has been compiled before, so there is one.
            let own = Regex::compile(&self.pattern).map_or_else(|_| Automaton::nothing(), |(.., automaton)| automaton);
            AutomatonPlace { automaton: Arc::new(own), bit: 0, number: None }
        })
    }

    /// Whether the whole of `value` matches. Values above [`LONGEST_VALUE`] do not.
    pub fn matches(&self, value: &[u8]) -> bool {
        if value.len() > LONGEST_VALUE || !value.starts_with(&self.literal_prefix) {
            return false;
        }
        let place = self.place();
        place.automaton.matching(value) >> place.bit & 1 == 1
    }

    /// Whether any of a field's `values` matches. What one pass finds out about all expressions on the field is kept in
    /// `asked` for the others.
    pub(crate) fn matches_any<'v>(
        &self,
        values: impl Iterator<Item = &'v [u8]> + Clone,
        asked: Option<(&Answers, Asked)>,
    ) -> bool {
        let mut is_possible = false;
        for value in values.clone() {
            if value.len() > LONGEST_VALUE {
                if let Some((answers, _)) = asked {
                    answers.note_long_value();
                }
            } else {
                is_possible |= value.starts_with(&self.literal_prefix);
            }
        }
        if !is_possible {
            return false;
        }
        let place = self.place();
        let matching = || {
            let short = values.filter(|value| value.len() <= LONGEST_VALUE);
            short.fold(0, |matching, value| matching | place.automaton.matching(value))
        };
        let matching = match (asked, place.number) {
            (Some((answers, asked)), Some(number)) => answers.get_or_add(number, asked, matching),
            _ => matching(),
        };
        matching >> place.bit & 1 == 1
    }

    /// The text that every matching value begins with.
    pub fn literal_prefix(&self) -> &[u8] {
        &self.literal_prefix
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Its syntax tree, parsed again, for code that compares expressions with each other.
    pub fn hir(&self) -> Option<Hir> {
        syntax::parse(&self.pattern).ok()
    }
}

/// The literal that every match of an expression begins with.
fn literal_prefix(hir: &Hir) -> Box<[u8]> {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.clone(),
        HirKind::Concat(parts) => {
            let mut parts = parts.iter().skip_while(|part| *part.kind() == HirKind::Look(Look::Start));
            parts.next().map(literal_prefix).unwrap_or_default()
        }
        _ => Box::default(),
    }
}

#[cfg(test)]
mod tests;
