//! A store in one map, for replays and tests on one thread.

use std::collections::HashMap;

use super::{Change, Key, State, Unavailable};

/// A store with a single worker.
#[derive(Clone, Debug, Default)]
pub struct MapState {
    named: HashMap<String, Vec<u8>>,
    slots: HashMap<(u64, u32), Vec<u8>>,
}

impl MapState {
    fn get(&self, key: Key<'_>) -> &[u8] {
        match key {
            Key::Named(name) => self.named.get(name),
            Key::Slot(table, index) => self.slots.get(&(table.identity, index)),
        }
        .map_or(&[], Vec::as_slice)
    }

    /// The number of values, and their total size in bytes.
    pub fn size(&self) -> (usize, usize) {
        let values = || self.named.values().chain(self.slots.values());
        (values().count(), values().map(Vec::len).sum())
    }
}

impl State for MapState {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        mut change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        let mut new = Vec::new();
        match change(self.get(key), &mut new) {
            Change::Keep(answer) | Change::Refuse(answer) => Ok(answer),
            Change::Replace(answer) => {
                match key {
                    Key::Named(name) => self.named.insert(name.to_owned(), new),
                    Key::Slot(table, index) => self.slots.insert((table.identity, index), new),
                };
                Ok(answer)
            }
        }
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        Ok(read(self.get(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{self, SharedStore};
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_map_holds_to_the_laws_of_a_store() {
        laws::all(|_| {
            let shared = SharedStore::new(MapState::default());
            [shared.clone(), shared]
        });
    }
}
