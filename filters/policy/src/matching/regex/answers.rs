//! The results of expressions on the fields of one request.

use std::cell::{Cell, RefCell};

use super::automaton::Mask;
use crate::small_map::SmallMap;

/// The kind of field that an expression is evaluated on; fields of different kinds may have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    /// The path.
    Path,
    /// The path in the canonical form that egress matches.
    CanonicalPath,
    /// A header.
    Header,
    /// A query parameter.
    Query,
    /// A cookie.
    Cookie,
    /// A claim or other metadata.
    Fact,
}

/// The results for one request, by automaton and kind of field.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    known: RefCell<SmallMap<Mask>>,
    has_long_value: Cell<bool>,
}

impl Answers {
    /// The result of the automaton `number` on the field of this kind.
    pub(super) fn get_or_add(&self, number: u32, asked: Asked, find: impl FnOnce() -> Mask) -> Mask {
        let key = number.wrapping_mul(8).wrapping_add(asked as u32);
        if let Some(mask) = self.known.borrow().get(key) {
            return mask;
        }
        let mask = find();
        self.known.borrow_mut().insert(key, mask);
        mask
    }

    /// Notes that a value was too long for any expression.
    pub(super) fn note_long_value(&self) {
        self.has_long_value.set(true);
    }

    /// Whether a value was too long for an expression that was evaluated on it.
    pub(crate) fn has_long_value(&self) -> bool {
        self.has_long_value.get()
    }
}
