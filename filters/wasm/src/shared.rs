//! The host's shared data, and what this worker remembers of it.
//!
//! A read makes the host call back into the module for memory, so it costs about three times a write. What the worker
//! last saw is therefore kept here, and a write is based on that: when nobody else wrote in between it succeeds, else
//! the host refuses it and the value is read.
//!
//! A write needs the token of the value that it replaces, but the host does not tell the token that a write creates.
//! It can be foretold: proxy-wasm-cpp-host (`src/shared_data.cc`) numbers the writes of the whole process, all keys and
//! all VMs, 1, 2, 3 … and skips 0. So after a write the token is the largest that this worker knows of, plus one,
//! if nobody else wrote in between. If somebody did, the true token is larger than the foretold one, and so is every
//! later token of that key: a wrong guess never fits by accident until 2³² writes later, and then with odds of 2⁻³².

use std::cell::RefCell;
use std::hash::Hasher;

use penstock_policy::{StoreConflict, Version};

use crate::abi::{self, Status};
use crate::memory::{self, HostBuffer};

/// Values that a worker remembers, each in a place that its key gives: 2¹⁰ of up to [`LARGEST`] bytes.
const PLACES: usize = 1024;

/// Larger values are not remembered. With [`PLACES`] this bounds the memory of a worker to about half a MiB.
const LARGEST: usize = 512;

/// A token that no value has: the host counts up from 1, so it gets here once in 2³² writes.
const NEVER: u32 = u32::MAX;

/// How often guesses must have been right lately to be worth a call; see [`Store::is_worth_trying`].
const CONFIDENT: u8 = 4;
const MOST_CONFIDENT: u8 = 8;

#[derive(Debug)]
struct Place {
    key: Vec<u8>,
    value: Vec<u8>,
    token: u32,
    /// Whether the token was foretold rather than read.
    guessed: bool,
}

#[derive(Debug)]
struct Store {
    /// The largest token seen or foretold, in the order of a counter that wraps; `None`: none was seen yet.
    last: Option<u32>,
    /// Goes up with a guess that was right, down with one that was wrong.
    confidence: u8,
    /// Counts the times that a guess was held back.
    held_back: u8,
    places: Vec<Option<Place>>,
}

thread_local! {
    static STORE: RefCell<Store> = const {
        RefCell::new(Store { last: None, confidence: MOST_CONFIDENT, held_back: 0, places: Vec::new() })
    };
}

fn store<T>(act: impl FnOnce(&mut Store) -> T) -> Option<T> {
    STORE.with(|store| store.try_borrow_mut().ok().map(|mut store| act(&mut store)))
}

fn place_of(key: &[u8]) -> usize {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(key);
    usize::try_from(hasher.finish() >> 32).unwrap_or(0) % PLACES
}

impl Store {
    fn place(&mut self, key: &[u8]) -> Option<&mut Option<Place>> {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        self.places.get_mut(place_of(key))
    }

    fn remember(&mut self, key: &[u8], value: &[u8], token: u32, guessed: bool) {
        if value.len() > LARGEST {
            self.forget(key);
            return;
        }
        match self.place(key) {
            Some(Some(place)) => {
                place.key.clear();
                place.key.extend_from_slice(key);
                place.value.clear();
                place.value.extend_from_slice(value);
                place.token = token;
                place.guessed = guessed;
            }
            Some(empty) => *empty = Some(Place { key: key.to_vec(), value: value.to_vec(), token, guessed }),
            None => {}
        }
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some(place) = self.place(key)
            && place.as_ref().is_some_and(|place| place.key == key)
        {
            *place = None;
        }
    }

    /// A token that exists: the counter is at least there.
    fn saw(&mut self, token: u32) {
        if self.last.is_none_or(|last| token.wrapping_sub(last) < NEVER / 2) {
            self.last = Some(token);
        }
    }

    /// The token of a write that has just happened; a process's first is 1.
    fn foretell(&mut self) -> u32 {
        let next = self.last.map_or(1, |last| last.wrapping_add(1).max(1));
        self.last = Some(next);
        next
    }

    fn is_guess(&mut self, key: &[u8], token: u32) -> bool {
        let place = self.place(key).and_then(|place| place.as_ref());
        place.is_some_and(|place| place.guessed && place.token == token && place.key == key)
    }

    fn was_right(&mut self, right: bool) {
        let changed = if right { self.confidence.saturating_add(1) } else { self.confidence.saturating_sub(1) };
        self.confidence = changed.min(MOST_CONFIDENT);
    }

    /// A guess that is wrong costs a call. Where several workers write all the time most are, so after a run of wrong
    /// ones only one in 64 is tried, to find out when the others have gone quiet.
    fn is_worth_trying(&mut self) -> bool {
        if self.confidence >= CONFIDENT {
            return true;
        }
        self.held_back = self.held_back.wrapping_add(1);
        self.held_back.is_multiple_of(64)
    }
}

/// Shows `read` what this worker remembers under `key`.
pub(crate) fn recall<T>(key: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<(T, Version)> {
    store(|store| {
        let worth_trying = store.is_worth_trying();
        let place = store.place(key)?.as_ref().filter(|place| place.key == key && worth_trying)?;
        Some((read(&place.value), Version(place.token)))
    })
    .flatten()
}

/// The host's answer to a read: the value and its token. `Ok(None)`: there is no such key.
fn read(key: &[u8]) -> Result<Option<(HostBuffer, u32)>, Status> {
    let mut token = 0;
    let found = memory::receive(|data, length| {
        // SAFETY: address and length are those of `key`; the out-pointers live through the call.
        unsafe { abi::proxy_get_shared_data(key.as_ptr(), key.len(), data, length, &raw mut token) }
    });
    match found {
        Ok(found) => Ok(Some((found, token))),
        Err(Status::NOT_FOUND) => Ok(None),
        Err(status) => Err(status),
    }
}

/// Reads `key` into `value`, which is cleared first. `Ok(None)`: there is no such key.
pub(crate) fn load(key: &[u8], value: &mut Vec<u8>) -> Result<Option<Version>, Status> {
    value.clear();
    let Some((found, token)) = read(key)? else {
        store(|store| store.forget(key));
        return Ok(None);
    };
    value.extend_from_slice(&found);
    store(|store| {
        store.saw(token);
        store.remember(key, value, token, false);
    });
    Ok(Some(Version(token)))
}

/// Reads `key` into `value`, which is cleared first, and remembers nothing of it. `false`: there is no such key.
pub(crate) fn peek(key: &[u8], value: &mut Vec<u8>) -> Result<bool, Status> {
    value.clear();
    let found = read(key)?;
    value.extend_from_slice(found.as_ref().map_or(&[], |(found, _)| found));
    Ok(found.is_some())
}

/// Writes `key` when its version is still `expected`; `None`: in any case.
pub(crate) fn write(
    key: &[u8],
    value: &[u8],
    expected: Option<Version>,
) -> Result<Result<Version, StoreConflict>, Status> {
    // The host takes 0 for "in any case"; a version that is 0 would have been none.
    let token = expected.map_or(0, |version| version.0.max(1));
    // SAFETY: each address goes with the length of the same slice; the host copies before it returns.
    let status = unsafe { abi::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), token) };
    match Status::check(status) {
        Ok(()) => {
            let version = store(|store| {
                if store.is_guess(key, token) {
                    store.was_right(true);
                }
                let version = store.foretell();
                store.remember(key, value, version, true);
                version
            });
            Ok(Ok(Version(version.unwrap_or(NEVER))))
        }
        Err(Status::CAS_MISMATCH) => {
            store(|store| {
                if store.is_guess(key, token) && token != NEVER {
                    store.was_right(false);
                }
                store.forget(key);
            });
            Ok(Err(StoreConflict))
        }
        Err(status) => Err(status),
    }
}

/// Writes `key` when there is none yet: the host lets any token pass for a key that it does not have, and [`NEVER`] is
/// nobody's.
pub(crate) fn create(key: &[u8], value: &[u8]) -> Result<Result<Version, StoreConflict>, Status> {
    write(key, value, Some(Version(NEVER)))
}

/// A worker that has just begun, for tests.
#[cfg(test)]
pub(crate) fn reset() {
    store(|store| *store = Store { last: None, confidence: MOST_CONFIDENT, held_back: 0, places: Vec::new() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{self, with};

    fn fresh() {
        fake_host::reset();
        reset();
    }

    fn read_back(key: &[u8]) -> Option<(Vec<u8>, Version)> {
        let mut value = Vec::new();
        load(key, &mut value).unwrap().map(|version| (value, version))
    }

    /// Another worker writes.
    fn somebody_writes(key: &[u8], value: &[u8]) {
        with(|host| host.set_shared(key, value));
    }

    #[test]
    fn a_worker_that_is_alone_foretells_every_token() {
        fresh();
        create(b"k", b"0").unwrap().unwrap();
        let mut version = read_back(b"k").unwrap().1;
        for i in 1..1000_u32 {
            write(b"other", b"x", None).unwrap().unwrap();
            version = write(b"k", &i.to_le_bytes(), Some(version)).unwrap().unwrap();
        }
        assert_eq!(read_back(b"k").unwrap(), (999_u32.to_le_bytes().to_vec(), version));
    }

    #[test]
    fn a_wrong_guess_is_a_conflict_and_the_read_after_it_is_right() {
        fresh();
        create(b"k", b"0").unwrap().unwrap();
        read_back(b"k").unwrap();
        somebody_writes(b"other", b"x");
        let guess = write(b"k", b"1", recall(b"k", |_| ()).map(|(_, v)| v)).unwrap().unwrap();
        assert_eq!(write(b"k", b"2", Some(guess)).unwrap(), Err(StoreConflict));
        assert!(recall(b"k", |_| ()).is_none(), "what was wrong is forgotten");
        let (value, version) = read_back(b"k").unwrap();
        assert_eq!(value, b"1");
        assert!(write(b"k", b"2", Some(version)).unwrap().is_ok());
    }

    #[test]
    fn nothing_is_lost_whatever_the_others_write() {
        fresh();
        create(b"k", &0_u32.to_le_bytes()).unwrap().unwrap();
        let (mut mine, mut theirs) = (0_u32, 0_u32);
        for round in 0..500_u32 {
            if round % 3 == 0 {
                let (value, _) = with(|host| host.shared.get(&b"k"[..]).cloned()).unwrap();
                let next = u32::from_le_bytes(value.try_into().unwrap()) + 1;
                somebody_writes(b"k", &next.to_le_bytes());
                theirs += 1;
            }
            if round % 5 == 0 {
                somebody_writes(b"other", b"x");
            }
            let number = |value: &[u8]| u32::from_le_bytes(value.try_into().unwrap());
            let recalled = recall(b"k", number);
            let (value, version) =
                recalled.unwrap_or_else(|| read_back(b"k").map(|(value, v)| (number(&value), v)).unwrap());
            if write(b"k", &(value + 1).to_le_bytes(), Some(version)).unwrap().is_err() {
                let (value, version) = read_back(b"k").unwrap();
                assert!(write(b"k", &(number(&value) + 1).to_le_bytes(), Some(version)).unwrap().is_ok());
            }
            mine += 1;
        }
        assert_eq!(read_back(b"k").unwrap().0, (mine + theirs).to_le_bytes());
    }

    #[test]
    fn creating_never_overwrites() {
        fresh();
        assert!(create(b"k", b"mine").unwrap().is_ok());
        assert_eq!(create(b"k", b"again").unwrap(), Err(StoreConflict));
        somebody_writes(b"j", b"theirs");
        assert_eq!(create(b"j", b"mine").unwrap(), Err(StoreConflict));
        assert_eq!(read_back(b"j").unwrap().0, b"theirs");
    }

    #[test]
    fn guesses_stop_where_they_are_mostly_wrong_and_come_back() {
        fresh();
        create(b"k", b"0").unwrap().unwrap();
        let round = |disturb: bool| {
            let version = match recall(b"k", |_| ()) {
                Some((_, version)) => version,
                None => read_back(b"k").unwrap().1,
            };
            if write(b"k", b"1", Some(version)).unwrap().is_err() {
                write(b"k", b"1", Some(read_back(b"k").unwrap().1)).unwrap().unwrap();
            }
            if disturb {
                somebody_writes(b"k", b"1");
            }
        };
        let conflicts = |rounds: u32, disturb: bool| {
            with(|host| host.conflicts = 0);
            (0..rounds).for_each(|_| round(disturb));
            with(|host| host.conflicts)
        };
        assert!(conflicts(1000, true) <= 40);
        assert!(conflicts(1000, false) <= 10);
    }

    #[test]
    fn memory_is_bounded() {
        fresh();
        for i in 0..50_000_u32 {
            write(&i.to_le_bytes(), &[7; 100], None).unwrap().unwrap();
        }
        write(b"large", &[7; LARGEST + 1], None).unwrap().unwrap();
        assert!(recall(b"large", |_| ()).is_none());
        assert_eq!(store(|store| store.places.len()), Some(PLACES));
    }

    #[test]
    fn the_counter_of_tokens_may_wrap() {
        fresh();
        with(|host| host.token = u32::MAX - 3);
        let mut version = None;
        for i in 0..20_u8 {
            write(b"k", &[i], version).unwrap().ok();
            version = read_back(b"k").map(|(_, version)| version);
            assert_eq!(read_back(b"k").unwrap().0, [i]);
        }
    }
}
