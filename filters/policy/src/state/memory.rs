//! A store in the memory of the process, for the native body, whose workers are threads. No lock is shared by all of
//! them.
//!
//! Values are spread over shards. Each has its own lock, which is held for one small computation. A plugin's memory is
//! freed with its last policy, and the memory of a limit or breaker with the last policy that contains it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustc_hash::FxBuildHasher;

use super::{Change, Key, State, Table, Unavailable};

/// The maximum number of shards of a table.
const SHARDS: usize = 64;

/// Values under keys of the kind `K`.
#[derive(Debug)]
struct Values<K> {
    /// Created when it is first used, because a policy may have 100,000 limits of which few are ever used.
    shards: OnceLock<Box<[Mutex<Shard<K>>]>>,
    /// The number of shards to create.
    count: usize,
}

#[derive(Debug)]
struct Shard<K> {
    values: HashMap<K, Vec<u8>, FxBuildHasher>,
    /// The buffer for the next value. It is swapped with the old value.
    spare: Vec<u8>,
}

/// Ignores that a thread panicked while it held the lock: values are only changed by a swap, so they are still valid.
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
        // Uses the upper half of the hash, because the map inside the shard uses the lower bits.
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
    /// The tables of all policies that still exist, by identity.
    tables: Mutex<HashMap<u64, Weak<Values<SlotIndex>>>>,
}

impl Memory {
    /// The memory of the plugin `instance`. It is the same one as long as any policy of the plugin exists.
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

    /// A new memory, which no plugin shares.
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

    /// The number of tables of all policies that still exist.
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

    fn count(old: &[u8]) -> u64 {
        old.try_into().map_or(0, u64::from_le_bytes)
    }

    fn add(state: &mut MemoryState, key: Key<'_>) {
        let added = state.update(key, |old, new| {
            new.extend((count(old) + 1).to_le_bytes());
            Change::Replace(())
        });
        assert_eq!(added, Ok(()));
    }

    /// The number of concurrent threads, and of the updates of each. With Miri they are few, because it runs the same
    /// threads in many orders.
    #[cfg(not(target_arch = "wasm32"))]
    const RACES: [(u32, u32); 3] =
        if cfg!(miri) { [(1, 4), (2, 8), (3, 8)] } else { [(1, 10_000), (2, 10_000), (4, 10_000)] };

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn threads_that_race_lose_no_update() {
        let tables = [table(1, 4)];
        for (threads, each) in RACES {
            let mut state = Arc::new(Memory::new()).open(&tables);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    let mut state = state.clone();
                    scope.spawn(move || (0..each).for_each(|i| add(&mut state, Key::Slot(tables[0], i % 4))));
                }
            });
            let sum: u64 = (0..4).map(|i| state.read(Key::Slot(tables[0], i), count).unwrap()).sum();
            assert_eq!(sum, u64::from(threads * each));
        }
    }

    /// Each thread loads its own policies while others still use an older one, as in a reload.
    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn threads_that_load_policies_while_others_count_lose_no_update() {
        let shared = table(1, 4);
        for (threads, each) in RACES {
            let memory = Arc::new(Memory::new());
            let mut first = memory.open(&[shared]);
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let memory = &memory;
                    let mut old = first.clone();
                    scope.spawn(move || {
                        for i in 0..each / 2 {
                            let own = Table { number: 1, ..table(u64::from(2 + thread), 1) };
                            let mut new = memory.open(&[shared, own]);
                            add(&mut new, Key::Slot(shared, i % 4));
                            add(&mut new, Key::Slot(own, 0));
                            // No other policy has had this table since the last one was dropped.
                            assert_eq!(new.read(Key::Slot(own, 0), count), Ok(1));
                            add(&mut old, Key::Slot(shared, i % 4));
                        }
                    });
                }
            });
            let sum: u64 = (0..4).map(|i| first.read(Key::Slot(shared, i), count).unwrap()).sum();
            assert_eq!((sum, memory.tables()), (u64::from(threads * each), 1));
            drop(first);
            assert_eq!(memory.tables(), 0);
        }
    }

    /// All policies of a plugin that exist at the same time share one memory, in whatever order threads load and drop
    /// them.
    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn threads_that_load_a_plugin_at_once_share_its_memory() {
        let name = b"a plugin that many threads load";
        for (threads, each) in RACES {
            let barrier = std::sync::Barrier::new(threads as usize);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        for _ in 0..each.min(500) {
                            let memory = Memory::of(name);
                            add(&mut memory.open(&[]), Key::Named("k"));
                            barrier.wait();
                            let sum = memory.open(&[]).read(Key::Named("k"), count);
                            assert_eq!(sum, Ok(u64::from(threads)));
                            barrier.wait();
                            drop(memory);
                            // After the last thread has dropped it, the next round starts with an empty memory.
                            barrier.wait();
                        }
                    });
                }
            });
        }
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
