//! The laws of every [`State`], as one list of tests that runs on all implementations.

use std::cell::RefCell;
use std::rc::Rc;

use super::{Change, Key, State, Table, Unavailable};

/// How many values, and how many changes of one value, are enough; Miri would need minutes for more.
const VALUES: u32 = if cfg!(miri) { 50 } else { 5_000 };
const CHANGES: u64 = if cfg!(miri) { 50 } else { 2_000 };

/// One store that two workers on the same thread use.
#[derive(Debug)]
pub struct SharedStore<S>(Rc<RefCell<S>>);

impl<S> SharedStore<S> {
    /// Shares a store.
    pub fn new(store: S) -> SharedStore<S> {
        SharedStore(Rc::new(RefCell::new(store)))
    }
}

impl<S> Clone for SharedStore<S> {
    fn clone(&self) -> Self {
        SharedStore(Rc::clone(&self.0))
    }
}

impl<S: State> State for SharedStore<S> {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        self.0.borrow_mut().update(key, change)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        self.0.borrow_mut().read(key, read)
    }
}

/// The tables that the tests use.
fn tables() -> [Table; 3] {
    [(0xa, 8), (0xb, 1), (0xc, 100_000)].map(|(identity, slots)| {
        let number = u32::try_from(identity - 0xa).unwrap_or(0);
        Table { identity, number, slots }
    })
}

fn put(state: &mut impl State, key: Key<'_>, value: &[u8]) {
    let put = state.update(key, |_, new| {
        new.extend(value);
        Change::Replace(())
    });
    assert_eq!(put, Ok(()), "{key:?}");
}

fn get(state: &mut impl State, key: Key<'_>) -> Vec<u8> {
    // On a failure returns the error's text, which no test writes as a value.
    state.read(key, <[u8]>::to_vec).unwrap_or_else(|error| error.to_string().into_bytes())
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_le_bytes)
}

fn add(state: &mut impl State, key: Key<'_>) -> u64 {
    let added = state.update(key, |old, new| {
        let sum = number(old) + 1;
        new.extend(sum.to_le_bytes());
        Change::Replace(sum)
    });
    added.unwrap_or(0)
}

/// Asserts every law. `workers` must return two workers that use one new store, which has the given tables.
pub fn all<S: State>(mut workers: impl FnMut(&[Table]) -> [S; 2]) {
    let [few, one, many] = tables();
    let mut start = || workers(&[few, one, many]);
    let keys = [
        Key::Named("a"),
        Key::Named("a longer name than any that is used"),
        Key::Slot(few, 0),
        Key::Slot(few, 7),
        Key::Slot(one, 0),
        Key::Slot(many, 0),
        Key::Slot(many, 99_999),
    ];

    // A value that was never written is empty, and reading it writes nothing.
    let [mut one_worker, mut other] = start();
    for key in keys {
        assert_eq!(get(&mut one_worker, key), b"", "{key:?}");
        assert_eq!(one_worker.update(key, |old, _| Change::Keep(old.len())), Ok(0), "{key:?}");
        assert_eq!(one_worker.update(key, |old, _| Change::Refuse(old.len())), Ok(0), "{key:?}");
        assert_eq!(get(&mut other, key), b"", "{key:?}");
    }

    // Each key has its own value, of any length, and the other worker sees it.
    let value = |i: usize| vec![u8::try_from(i).unwrap_or(0); i * 90 + 1];
    for (i, key) in keys.into_iter().enumerate() {
        put(&mut one_worker, key, &value(i));
    }
    for (i, key) in keys.into_iter().enumerate() {
        assert_eq!(get(&mut one_worker, key), value(i), "{key:?}");
        assert_eq!(get(&mut other, key), value(i), "{key:?}");
    }

    // The content of the buffer is only stored if the answer is `Replace`.
    for key in keys {
        let before = get(&mut one_worker, key);
        for change in [Change::Keep(1), Change::Refuse(2)] {
            let kept = one_worker.update(key, |_, new| {
                new.extend(b"never");
                change
            });
            assert!(kept.is_ok(), "{key:?}");
            assert_eq!(get(&mut other, key), before, "{key:?}");
        }
    }

    // A value can grow, shrink and become empty.
    for key in keys {
        for length in [300, 3, 5_000, 0, 1] {
            put(&mut one_worker, key, &vec![7; length]);
            assert_eq!(get(&mut other, key).len(), length, "{key:?}");
        }
    }

    // A refusal is based on the current value, whatever this worker has read before.
    for key in keys {
        let [mut one_worker, mut other] = start();
        for round in 0..CHANGES / 10 {
            put(&mut one_worker, key, &round.to_le_bytes());
            put(&mut other, key, &(round + 1_000).to_le_bytes());
            let seen = one_worker.update(key, |old, _| Change::Refuse(number(old)));
            assert_eq!(seen, Ok(round + 1_000), "{key:?}");
        }
    }

    // A replacement replaces exactly the value on which its answer is based: no update is lost, and no sum is returned
    // twice.
    for key in keys {
        let [mut one_worker, mut other] = start();
        let mut dice = 7_u64;
        let mut sums = Vec::new();
        for _ in 0..CHANGES {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let worker = if (dice >> 40).is_multiple_of(3) { &mut other } else { &mut one_worker };
            if (dice >> 50).is_multiple_of(5) {
                put(worker, Key::Named("something else"), b"x");
            }
            sums.push(add(worker, key));
        }
        assert_eq!(sums, Vec::from_iter(1..=CHANGES), "{key:?}");
        assert_eq!(number(&get(&mut other, key)), CHANGES, "{key:?}");
    }

    // More values than any worker caches.
    let [mut one_worker, mut other] = start();
    for index in 0..VALUES {
        put(&mut one_worker, Key::Slot(many, index), &index.to_le_bytes());
    }
    for index in 0..VALUES {
        assert_eq!(get(&mut other, Key::Slot(many, index)), index.to_le_bytes());
        assert_eq!(add(&mut other, Key::Slot(many, index + 50_000)), 1);
    }
}
