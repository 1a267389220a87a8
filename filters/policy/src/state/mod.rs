//! The state that requests and workers share: of limits, breakers, gauges and warnings. The trait [`State`] stores it.
//!
//! Its central method is [`State::update`], modelled on `StateStore::measure_and_replace` of the crate `governor`: the
//! engine passes a pure function from the old value to the new one, and the store applies it atomically. How a store does
//! that, with versions, retries, caches or locks, is its own matter. The module `laws` tests every implementation:
//! [`Memory`] here, the proxy's shared data in the wasm modules, and the map of a replay.

#[cfg(any(test, feature = "laws"))]
pub mod laws;
mod map;
mod memory;

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

pub use map::MapState;
pub use memory::{Memory, MemoryState};

/// The key of a value. A store keeps the values of different plugins separate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// A named value; there are only a few such names.
    Named(&'a str),
    /// The value number `index`, below [`Table::slots`], of a table of the policy.
    Slot(Table, u32),
}

/// A numbered range of values that belongs to one limit or breaker. It needs no memory until it is used. When no policy
/// contains it any more, its memory is available to later tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Tables of different policies that have the same identity are the same table.
    pub identity: u64,
    /// Its position in [`Policy::tables`](crate::Policy::tables).
    pub number: u32,
    /// The maximum number of values.
    pub slots: u32,
}

/// The tables of a policy, which its sections add while they compile.
#[derive(Debug, Default)]
pub(crate) struct Tables(Vec<Table>);

impl Tables {
    /// Adds a table. It is shared by all policies that have the same `identity` and `slots`.
    pub(crate) fn add(&mut self, identity: &impl Hash, slots: u32) -> Table {
        let mut hasher = SipHasher13::new();
        identity.hash(&mut hasher);
        hasher.write_u32(slots);
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let table = Table { identity: hasher.finish(), number, slots };
        self.0.push(table);
        table
    }

    pub(crate) fn finish(self) -> Box<[Table]> {
        self.0.into()
    }
}

/// The answer of an update, and whether the value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// The value stays. The answer may be based on a value that has changed in the meantime.
    Keep(T),
    /// The value stays, and the answer is based on the current value.
    Refuse(T),
    /// The value is replaced, and the answer is based on exactly the value that was replaced.
    Replace(T),
}

/// The store cannot read or write: the proxy has no shared data, or other writers were faster in every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read or written")]
pub struct Unavailable;

/// A store of small values that several workers share.
///
/// ```
/// use penstock_policy::state::{Change, Key, MapState, State};
///
/// let mut store = MapState::default();
/// for expected in 1..=3_u8 {
///     let count = store.update(Key::Named("requests"), |old, new| {
///         let count = old.first().map_or(1, |count| count + 1);
///         new.push(count);
///         Change::Replace(count)
///     });
///     assert_eq!(count, Ok(expected));
/// }
/// assert_eq!(store.read(Key::Named("requests"), <[u8]>::to_vec), Ok(vec![3]));
/// ```
pub trait State {
    /// Calls `change` with the value under `key`, or an empty one if there is none, and applies the result. `change`
    /// appends the new value to its buffer if it returns [`Change::Replace`].
    ///
    /// `change` must depend only on its argument: it is called again if the value has changed in the meantime, and only
    /// its last result counts. It must not use the store.
    ///
    /// # Errors
    /// When the store fails; it is then unknown whether the value was replaced.
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable>;

    /// Calls `read` with the current value under `key`, or an empty one if there is none. This is for values that are
    /// not updated afterwards: nothing is cached for a later update.
    ///
    /// # Errors
    /// When the store fails.
    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable>;
}
