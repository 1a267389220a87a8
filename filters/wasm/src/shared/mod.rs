//! The state that policies share, in the host's shared data, and this worker's copies of values.
//!
//! A read makes the host call back into the module for memory, so it costs about three times as much as a write.
//! Therefore the worker keeps the values that it read or wrote last, and bases the next write on them: if no other
//! worker has written in between, the write succeeds; otherwise the host refuses it, and the value is read.
//!
//! A write needs the token of the value that it replaces, but the host does not tell the token that a write creates.
//! It can be foretold: proxy-wasm-cpp-host (`src/shared_data.cc`) numbers the writes of the whole process, all keys and
//! all VMs, 1, 2, 3 … and skips 0. So after a write the token is the largest that this worker knows of, plus one,
//! if nobody else wrote in between. If somebody did, the true token is larger than the foretold one, and so is every
//! later token of that key: a wrong guess never fits by accident until 2³² writes later, and then with odds of 2⁻³².
//!
//! The store belongs to all plugins of a VM's `vm_id`, to strangers too. So every key begins with `penstock.` and the hash of
//! the plugin's identity, and every value with [`MARK`] and the hash of what it belongs to.

mod directory;
mod tables;

use std::cell::RefCell;
use std::hash::Hasher;

use penstock_policy::state::Change;

use crate::abi::{self, Status};
use crate::memory::{self, HostBuffer};
pub(crate) use tables::SharedState;

/// The number of values that a worker remembers, each in a slot chosen by its key: 2¹⁰ of up to [`LARGEST`] bytes.
const PLACES: usize = 1024;

/// Larger values are not remembered. With [`PLACES`] this bounds the memory of a worker to about half a MiB.
const LARGEST: usize = 512;

/// A token that no value has: the host counts up from 1, and reaches it once in 2³² writes.
const NEVER: u32 = u32::MAX;

/// The score of recent guesses from which on a guess is worth a call; see [`Store::is_worth_trying`].
const CONFIDENT: u8 = 4;
const MOST_CONFIDENT: u8 = 8;

/// How often an update is tried when others keep writing the same value. Each conflict means that another worker
/// succeeded, so this many in a row mean a broken proxy.
const MOST_TRIES: u32 = 1000;

/// The prefix of every key.
const PREFIX: &[u8; 9] = b"penstock.";

/// The first bytes of every value: the name, and the number of the layout.
const MARK: [u8; 2] = *b"p1";

/// The number of bytes before the engine's part of a value: [`MARK`] and the owner.
const FRONT: usize = MARK.len() + 8;

/// The key of a value: prefix, kind, 8 bytes of hash, 4 of number. libc++ stores up to 22 bytes inside a string object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawKey([u8; 22]);

impl RawKey {
    fn new(kind: u8, hash: u64, number: u32) -> RawKey {
        let mut key = [0; 22];
        let parts = PREFIX.iter().copied().chain([kind]).chain(hash.to_le_bytes()).chain(number.to_le_bytes());
        key.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        RawKey(key)
    }

    fn place(self) -> usize {
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(&self.0);
        // Only the lower bits are used, because a word may have 32 bits.
        (hasher.finish() as usize) % PLACES
    }
}

/// The owner of a value that was found.
enum ValueOwner<'a> {
    /// No owner: there is no value, or one that another program has written.
    Nobodys,
    Ours(&'a [u8]),
    /// Another owner: an earlier table in this place, or one that has replaced this one.
    Others,
}

impl ValueOwner<'_> {
    fn of(bytes: &[u8], owner: u64) -> (ValueOwner<'_>, bool) {
        let Some((front, value)) = bytes.split_first_chunk::<FRONT>() else {
            return (ValueOwner::Nobodys, !bytes.is_empty());
        };
        if !front.starts_with(&MARK) {
            return (ValueOwner::Nobodys, true);
        }
        let found = if front.ends_with(&owner.to_le_bytes()) { ValueOwner::Ours(value) } else { ValueOwner::Others };
        (found, false)
    }
}

/// Why an update has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The proxy failed.
    Host(Status),
    /// Other workers had written the value each time that this worker tried.
    Contended,
    /// The value belongs to another owner.
    Others,
}

/// A value that the worker remembers, with the token that it had.
#[derive(Debug, Default)]
struct RememberedValue {
    key: RawKey,
    /// The whole value with its first bytes; empty if there was none.
    value: Vec<u8>,
    token: u32,
    /// Whether the token was predicted and not read.
    is_guess: bool,
}

/// One worker's access to the shared data.
#[derive(Debug)]
pub(crate) struct Store {
    /// The largest token that was seen or predicted, in the order of a counter that wraps; `None` when there was none yet.
    last: Option<u32>,
    /// The score of recent guesses: it grows with a correct one, and falls with a wrong one.
    confidence: u8,
    /// The number of skipped guesses.
    held_back: u8,
    places: Vec<RememberedValue>,
    /// The buffer for a new value; it is swapped with the old value's.
    spare: Vec<u8>,
    /// The number of values of other owners under our keys since the last report.
    foreign: u32,
}

thread_local! {
    static STORE: RefCell<Store> = const { RefCell::new(Store::new()) };
}

/// Uses the store of this worker, which all its plugins share: they share the counter of tokens. `None` only while it is already in use.
pub(crate) fn with<T>(act: impl FnOnce(&mut Store) -> T) -> Option<T> {
    STORE.with(|store| store.try_borrow_mut().ok().map(|mut store| act(&mut store)))
}

/// A new worker, for tests.
#[cfg(test)]
pub(crate) fn reset() {
    with(|store| *store = Store::new());
}

impl Store {
    /// A new worker.
    pub(crate) const fn new() -> Store {
        Store {
            last: None,
            confidence: MOST_CONFIDENT,
            held_back: 0,
            places: Vec::new(),
            spare: Vec::new(),
            foreign: 0,
        }
    }

    /// Records a token that exists, so the counter has reached it.
    fn saw(&mut self, token: u32) {
        if self.last.is_none_or(|last| token.wrapping_sub(last) < NEVER / 2) {
            self.last = Some(token);
        }
    }

    /// The predicted token of a write that has just happened; the first one of a process is 1.
    fn foretell(&mut self) -> u32 {
        let next = self.last.map_or(1, |last| last.wrapping_add(1).max(1));
        self.last = Some(next);
        next
    }

    fn was_right(&mut self, right: bool) {
        let changed = if right { self.confidence.saturating_add(1) } else { self.confidence.saturating_sub(1) };
        self.confidence = changed.min(MOST_CONFIDENT);
    }

    /// Whether to guess the token. A wrong guess costs a call. When several workers write constantly, most guesses are
    /// wrong; after a series of wrong ones, only one in 64 is tried, to detect when the others have stopped.
    fn is_worth_trying(&mut self) -> bool {
        if self.confidence >= CONFIDENT {
            return true;
        }
        self.held_back = self.held_back.wrapping_add(1);
        self.held_back.is_multiple_of(64)
    }

    /// How many values of other owners were found since the last call.
    pub(crate) fn take_foreign(&mut self) -> u32 {
        std::mem::take(&mut self.foreign)
    }

    /// Updates the value under `key` that belongs to `owner`; see [`penstock_policy::state::State::update`]. With
    /// `takes_over`, a value of another owner is treated as missing; otherwise it stops the update.
    pub(crate) fn update<T>(
        &mut self,
        key: RawKey,
        owner: u64,
        takes_over: bool,
        change: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Stopped> {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, RememberedValue::default);
        }
        let at = key.place();
        // Taken out of the store during the update; no value has a key of zeros.
        let Some(mut place) = self.places.get_mut(at).map(std::mem::take) else { return Err(Stopped::Contended) };
        let answer = self.update_at(&mut place, key, owner, takes_over, change);
        if place.value.len() > LARGEST || answer.is_err() {
            place = RememberedValue::default();
        }
        if let Some(home) = self.places.get_mut(at) {
            *home = place;
        }
        answer
    }

    fn update_at<T>(
        &mut self,
        place: &mut RememberedValue,
        key: RawKey,
        owner: u64,
        takes_over: bool,
        change: &mut impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Stopped> {
        let mut is_fresh = place.key != key || (place.is_guess && !self.is_worth_trying());
        if is_fresh {
            self.read_into(place, key)?;
        }
        for _ in 0..MOST_TRIES {
            let (found, is_foreign) = ValueOwner::of(&place.value, owner);
            self.foreign = self.foreign.saturating_add(is_foreign.into());
            let old = match found {
                ValueOwner::Ours(value) => value,
                ValueOwner::Nobodys => &[],
                ValueOwner::Others if takes_over => &[],
                ValueOwner::Others if is_fresh => return Err(Stopped::Others),
                ValueOwner::Others => {
                    self.read_into(place, key)?;
                    is_fresh = true;
                    continue;
                }
            };
            self.spare.clear();
            self.spare.extend_from_slice(&MARK);
            self.spare.extend_from_slice(&owner.to_le_bytes());
            match change(old, &mut self.spare) {
                Change::Keep(answer) => return Ok(answer),
                Change::Refuse(answer) if is_fresh => return Ok(answer),
                Change::Refuse(_) => {}
                Change::Replace(answer) => match write(key, &self.spare, place.token) {
                    Ok(()) => {
                        if place.is_guess {
                            self.was_right(true);
                        }
                        std::mem::swap(&mut place.value, &mut self.spare);
                        (place.token, place.is_guess) = (self.foretell(), true);
                        return Ok(answer);
                    }
                    Err(Status::CAS_MISMATCH) => {
                        if place.is_guess {
                            self.was_right(false);
                        }
                    }
                    Err(status) => return Err(Stopped::Host(status)),
                },
            }
            self.read_into(place, key)?;
            is_fresh = true;
        }
        Err(Stopped::Contended)
    }

    /// Reads `key` into `place`.
    fn read_into(&mut self, place: &mut RememberedValue, key: RawKey) -> Result<(), Stopped> {
        place.value.clear();
        place.key = key;
        place.is_guess = false;
        match read(key).map_err(Stopped::Host)? {
            Some((value, token)) => {
                place.value.extend_from_slice(&value);
                place.token = token;
                self.saw(token);
            }
            // The host accepts any token for a key that does not exist, and no value has this one.
            None => place.token = NEVER,
        }
        Ok(())
    }

    /// Calls `look` with the value under `key` that belongs to `owner`, without remembering it.
    pub(crate) fn read<T>(&mut self, key: RawKey, owner: u64, look: impl FnOnce(&[u8]) -> T) -> Result<T, Status> {
        let found = read(key)?;
        let (found, is_foreign) = ValueOwner::of(found.as_ref().map_or(&[], |(value, _)| value), owner);
        self.foreign = self.foreign.saturating_add(is_foreign.into());
        Ok(match found {
            ValueOwner::Ours(value) => look(value),
            ValueOwner::Nobodys | ValueOwner::Others => look(&[]),
        })
    }
}

/// The host's answer to a read: the value and its token. `Ok(None)`: there is no such key.
fn read(RawKey(key): RawKey) -> Result<Option<(HostBuffer, u32)>, Status> {
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

/// Writes `key` when its token is still `token`.
fn write(RawKey(key): RawKey, value: &[u8], token: u32) -> Result<(), Status> {
    // For the host, 0 means to write in any case; no value has it as its token.
    let token = token.max(1);
    // SAFETY: each address goes with the length of the same slice; the host copies before it returns.
    Status::check(unsafe { abi::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), token) })
}

#[cfg(test)]
mod leases;
#[cfg(test)]
mod tests;
