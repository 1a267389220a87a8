//! A store in the memory of the process, for bodies whose workers are threads: no lock is shared by all of them.
//!
//! Values are spread over shards, each with a lock of its own that is held for one small computation. A plugin's memory
//! is freed with its last policy, a limit's or breaker's memory with the last policy that has it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustc_hash::FxBuildHasher;

use super::{Change, Key, State, Table, Unavailable};

/// The most shards of a map of values.
const SHARDS: usize = 64;

/// Values under keys of the kind `K`.
#[derive(Debug)]
struct Values<K> {
    /// Made when the first value is asked for: a policy may have 100,000 limits of which few are ever used.
    shards: OnceLock<Box<[Mutex<Shard<K>>]>>,
    /// How many shards there are to be.
    count: usize,
}

#[derive(Debug)]
struct Shard<K> {
    values: HashMap<K, Vec<u8>, FxBuildHasher>,
    /// The buffer for the next value; it is swapped with the old one.
    spare: Vec<u8>,
}

/// A value changes by one swap, so it is valid even if a thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq> Values<K> {
    fn new(most: usize) -> Values<K> {
        Values { shards: OnceLock::new(), count: most.clamp(1, SHARDS) }
    }

    fn shards(&self) -> &[Mutex<Shard<K>>] {
        self.shards.get_or_init(|| {
            let shard = || Mutex::new(Shard { values: HashMap::default(), spare: Vec::new() });
            std::iter::repeat_with(shard).take(self.count).collect()
        })
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> Option<MutexGuard<'_, Shard<K>>> {
        // The upper half of the hash: the map inside uses the lower bits.
        let hash = FxBuildHasher.hash_one(key) >> 32;
        let shards = self.shards();
        shards.get(usize::try_from(hash).unwrap_or(0) % shards.len().max(1)).map(lock)
    }

    fn update<Q, T>(&self, key: &Q, mut change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>) -> Result<T, Unavailable>
    where
        K: std::borrow::Borrow<Q> + for<'q> From<&'q Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key).ok_or(Unavailable)?;
        let Shard { values, spare } = &mut *shard;
        spare.clear();
        let old = values.get_mut(key);
        match change(old.as_ref().map_or(&[], |old| old.as_slice()), spare) {
            Change::Keep(answer) | Change::Refuse(answer) => Ok(answer),
            Change::Replace(answer) => {
                match old {
                    Some(old) => std::mem::swap(old, spare),
                    None => drop(values.insert(K::from(key), spare.clone())),
                }
                Ok(answer)
            }
        }
    }

    fn read<Q, T>(&self, key: &Q, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shard = self.shard(key).ok_or(Unavailable)?;
        Ok(read(shard.values.get(key).map_or(&[], Vec::as_slice)))
    }
}

/// The index of a slot, as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SlotIndex(u32);

impl From<&SlotIndex> for SlotIndex {
    fn from(index: &SlotIndex) -> SlotIndex {
        *index
    }
}

/// The memory of one plugin, shared by all threads.
///
/// ```
/// use std::sync::Arc;
///
/// use penstock_policy::state::{Change, Key, Memory, State};
///
/// let memory = Arc::new(Memory::new());
/// let add = |worker: &mut penstock_policy::state::MemoryState| {
///     worker.update(Key::Named("sum"), |old, new| {
///         new.push(old.first().map_or(1, |sum| sum + 1));
///         Change::Replace(())
///     })
/// };
/// let (mut first, mut second) = (memory.open(&[]), memory.open(&[]));
/// std::thread::scope(|scope| {
///     scope.spawn(|| add(&mut first));
///     scope.spawn(|| add(&mut second));
/// });
/// assert_eq!(memory.open(&[]).read(Key::Named("sum"), <[u8]>::to_vec), Ok(vec![2]));
/// ```
#[derive(Debug)]
pub struct Memory {
    named: Values<Box<str>>,
    /// The tables of all living policies, by identity.
    tables: Mutex<HashMap<u64, Weak<Values<SlotIndex>>>>,
}

impl Memory {
    /// The memory of the plugin `instance`: the same one while any policy of it lives.
    pub fn of(instance: &[u8]) -> Arc<Memory> {
        static ALL: Mutex<Option<HashMap<Vec<u8>, Weak<Memory>>>> = Mutex::new(None);
        let mut all = lock(&ALL);
        let all = all.get_or_insert_default();
        if let Some(memory) = all.get(instance).and_then(Weak::upgrade) {
            return memory;
        }
        all.retain(|_, memory| memory.strong_count() > 0);
        let memory = Arc::new(Memory::new());
        all.insert(instance.to_vec(), Arc::downgrade(&memory));
        memory
    }

    /// A memory of its own that is not shared.
    pub fn new() -> Memory {
        Memory { named: Values::new(1), tables: Mutex::default() }
    }

    /// The store of a policy with these [`tables`](crate::Policy::tables). Each thread clones it.
    pub fn open(self: &Arc<Self>, tables: &[Table]) -> MemoryState {
        let mut known = lock(&self.tables);
        let open = |table: &Table| {
            let place = known.entry(table.identity).or_default();
            place.upgrade().unwrap_or_else(|| {
                let values = Arc::new(Values::new(table.slots as usize));
                *place = Arc::downgrade(&values);
                values
            })
        };
        let tables = tables.iter().map(open).collect();
        known.retain(|_, values| values.strong_count() > 0);
        drop(known);
        MemoryState { memory: Arc::clone(self), tables }
    }

    /// The number of tables of all living policies.
    pub fn tables(&self) -> usize {
        lock(&self.tables).values().filter(|values| values.strong_count() > 0).count()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new()
    }
}

/// A policy's part of a [`Memory`].
#[derive(Clone, Debug)]
pub struct MemoryState {
    memory: Arc<Memory>,
    tables: Arc<[Arc<Values<SlotIndex>>]>,
}

impl MemoryState {
    fn table(&self, table: Table) -> Result<&Values<SlotIndex>, Unavailable> {
        self.tables.get(table.number as usize).map(|values| &**values).ok_or(Unavailable)
    }
}

impl State for MemoryState {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        match key {
            Key::Named(name) => self.memory.named.update(name, change),
            Key::Slot(table, index) => self.table(table)?.update(&SlotIndex(index), change),
        }
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        match key {
            Key::Named(name) => self.memory.named.read(name, read),
            Key::Slot(table, index) => self.table(table)?.read(&SlotIndex(index), read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws;
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn table(identity: u64, slots: u32) -> Table {
        Table { identity, number: 0, slots }
    }

    #[test]
    fn process_memory_holds_to_the_laws_of_a_store() {
        laws::all(|tables| {
            let state = Arc::new(Memory::new()).open(tables);
            [state.clone(), state]
        });
    }

    #[test]
    fn a_state_can_be_used_by_many_threads() {
        fn shared<T: Send + Sync + Clone>() {}
        shared::<MemoryState>();
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn threads_that_race_lose_no_update() {
        let tables = [table(1, 4)];
        let state = Arc::new(Memory::new()).open(&tables);
        let count = |old: &[u8]| old.try_into().map_or(0, u64::from_le_bytes);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut state = state.clone();
                scope.spawn(move || {
                    for i in 0..10_000 {
                        let added = state.update(Key::Slot(tables[0], i % 4), |old, new| {
                            new.extend((count(old) + 1).to_le_bytes());
                            Change::Replace(())
                        });
                        assert_eq!(added, Ok(()));
                    }
                });
            }
        });
        let mut state = state;
        let sum: u64 = (0..4).map(|i| state.read(Key::Slot(tables[0], i), count).unwrap()).sum();
        assert_eq!(sum, 40_000);
    }

    #[test]
    fn a_table_lives_as_long_as_a_policy_has_it() {
        let memory = Arc::new(Memory::new());
        let set = |state: &mut MemoryState| {
            state.update(Key::Slot(table(7, 8), 3), |_, new| {
                new.push(1);
                Change::Replace(())
            })
        };
        let get = |state: &mut MemoryState| state.read(Key::Slot(table(7, 8), 3), <[u8]>::to_vec).unwrap();
        let mut first = memory.open(&[table(7, 8)]);
        set(&mut first).unwrap();
        // A reload: the second policy exists before the first one is dropped.
        let mut second = memory.open(&[table(7, 8)]);
        drop(first);
        assert_eq!((get(&mut second), memory.tables()), (vec![1], 1));
        drop(second);
        assert_eq!(memory.tables(), 0);
        assert!(get(&mut memory.open(&[table(7, 8)])).is_empty());
    }

    #[test]
    fn policies_that_come_and_go_leave_nothing_behind() {
        let memory = Arc::new(Memory::new());
        for identity in 0..1000 {
            let mut state = memory.open(&[table(identity, 1)]);
            let put = state.update(Key::Slot(table(identity, 1), 0), |_, new| {
                new.extend([0; 1000]);
                Change::Replace(())
            });
            assert_eq!(put, Ok(()));
            assert_eq!(memory.tables(), 1);
        }
    }

    #[test]
    fn a_plugins_memory_is_found_by_its_name_while_it_lives() {
        let name = b"a plugin of this test alone";
        let write = |memory: &Arc<Memory>| {
            memory.open(&[]).update(Key::Named("k"), |_, new| {
                new.push(9);
                Change::Replace(())
            })
        };
        let read = |memory: &Arc<Memory>| memory.open(&[]).read(Key::Named("k"), <[u8]>::to_vec).unwrap();
        let memory = Memory::of(name);
        write(&memory).unwrap();
        assert_eq!(read(&Memory::of(name)), [9]);
        assert!(read(&Memory::of(b"another plugin")).is_empty());
        drop(memory);
        assert!(read(&Memory::of(name)).is_empty());
    }

    #[test]
    fn tables_that_nobody_uses_take_next_to_nothing() {
        let tables: Vec<Table> =
            (0..10_000).map(|i| Table { identity: u64::from(i), number: i, slots: 8_192 }).collect();
        let mut state = Arc::new(Memory::new()).open(&tables);
        let made = |state: &MemoryState| state.tables.iter().filter(|values| values.shards.get().is_some()).count();
        assert_eq!((made(&state), size_of::<Values<SlotIndex>>() < 64), (0, true));
        let put = state.update(Key::Slot(tables[7], 3), |_, new| {
            new.push(1);
            Change::Replace(())
        });
        assert_eq!((put, made(&state)), (Ok(()), 1));
    }
}
