//! A map whose keys are small numbers chosen by a policy, without an allocation while it is small.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

/// Up to this number of entries are searched linearly.
const FEW: usize = 8;

/// The map. Entries are never removed and keep their order.
#[derive(Debug)]
pub(crate) struct SmallMap<V> {
    entries: SmallVec<[(u32, V); FEW]>,
    /// The positions of all entries, once there are more than that.
    places: HashMap<u32, usize, FxBuildHasher>,
}

impl<V> Default for SmallMap<V> {
    fn default() -> Self {
        SmallMap { entries: SmallVec::new(), places: HashMap::default() }
    }
}

impl<V: Copy> SmallMap<V> {
    /// The value under `key`.
    pub(crate) fn get(&self, key: u32) -> Option<V> {
        if self.entries.len() <= FEW {
            return self.entries.iter().find(|(found, _)| *found == key).map(|(_, value)| *value);
        }
        self.places.get(&key).and_then(|place| self.entries.get(*place)).map(|(_, value)| *value)
    }

    /// Adds an entry; the key must be new.
    pub(crate) fn insert(&mut self, key: u32, value: V) {
        self.entries.push((key, value));
        match self.entries.len() {
            len if len <= FEW => {}
            len if len == FEW + 1 => self.places.extend(self.entries.iter().map(|(key, _)| *key).zip(0..)),
            len => {
                self.places.insert(key, len - 1);
            }
        }
    }

    /// All entries in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, V)> {
        self.entries.iter().copied()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_entry_is_found_however_many_there_are() {
        let mut map = SmallMap::default();
        for key in 0..1000_u32 {
            assert_eq!(map.get(key * 7), None);
            map.insert(key * 7, key);
            for known in [0, key / 2, key] {
                assert_eq!(map.get(known * 7), Some(known), "{key}");
            }
        }
        assert_eq!(map.len(), 1000);
        assert!(map.iter().zip(0..).all(|(entry, key)| entry == (key * 7, key)));
    }
}
