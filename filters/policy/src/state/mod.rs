//! The state that decisions leave for later ones: what limits, breakers, gauges and warnings know. One seam stores it.
//!
//! The seam is [`State::update`], after `StateStore::measure_and_replace` of the crate `governor`: the engine gives a pure
//! function from the old value to the new one, and the store applies it as if nobody else were there. Versions, guesses,
//! retries, caches and locks are the store's own affair. the module `laws` is what every implementation must hold to:
//! [`Memory`] here, the proxy's shared data in the wasm modules, and the map of a replay.

#[cfg(any(test, feature = "laws"))]
pub mod laws;
mod map;
mod memory;

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

pub use map::MapState;
pub use memory::{Memory, MemoryState};

/// Where a value is. Keys belong to one plugin: its store keeps them apart from those of other plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// A value of its own; there are only a few such names.
    Named(&'a str),
    /// The value number `index`, below [`Table::slots`], of a table of the policy.
    Slot(Table, u32),
}

/// A numbered range of values that belongs to one limit or breaker. It needs no memory until it is used, and a store gives
/// its memory to later tables when no policy has it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Tables of the same identity are the same table, whichever policy they come from.
    pub identity: u64,
    /// Its place in [`Policy::tables`](crate::Policy::tables).
    pub number: u32,
    /// How many values it has at most.
    pub slots: u32,
}

/// The tables of a policy, as its sections add them when they compile.
#[derive(Debug, Default)]
pub(crate) struct Tables(Vec<Table>);

impl Tables {
    /// Adds a table that is the same in every policy where `identity` and `slots` are.
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

/// What an update answers, and what becomes of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// The value stays. The answer may rest on a value that somebody has changed in the meantime.
    Keep(T),
    /// The value stays, and the answer rests on the value as it is now.
    Refuse(T),
    /// The new value takes its place, and the answer rests on exactly the value that it replaces.
    Replace(T),
}

/// The store cannot read or write: a proxy without shared data, or with other writers that never stop.
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
    /// Shows `change` the value under `key`, empty where there is none, and does what it answers. `change` appends the new
    /// value to the buffer it is given, in case that it answers [`Change::Replace`].
    ///
    /// `change` must depend on its argument alone: it runs again when the value turns out to be another than the one that
    /// was shown, and only the last answer counts. It must not use the store itself.
    ///
    /// # Errors
    /// When the store fails; the value may have been replaced or not.
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable>;

    /// Shows `read` the value under `key` as it is now, empty where there is none. For what is looked at in passing:
    /// nothing is remembered for a later update.
    ///
    /// # Errors
    /// When the store fails.
    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable>;
}
