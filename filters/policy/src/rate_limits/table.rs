//! The slot table of one limit: a fixed number of sets in the shared state, one value each.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use super::key::{Fingerprint, KeyPart};
use super::rate::Rate;
use super::set::{LONGEST, Set, WAYS};
use crate::environment::{Environment, StoreConflict, Timestamp, Version};

/// Keys for each set: half of its slots, so that chance seldom fills a set before the table is full. With as many keys
/// busy as `capacity` says, 99.9 % of them have a slot of their own; with half as many, all but one in a million.
const KEYS_IN_A_SET: u32 = (WAYS / 2) as u32;

/// Length of a set's name in the shared state.
const NAME: usize = 14;

/// What `capacity` is when it is absent.
pub(super) const DEFAULT_CAPACITY: u32 = 65_536;

/// Where the sets are.
#[derive(Debug)]
pub(super) struct Table {
    id: u64,
    sets: u32,
}

/// A set as it was found.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) set: Set,
    version: Option<Version>,
    /// Whether it was read just now, or only remembered.
    pub(super) fresh: bool,
    /// Whether the clock has stepped back since the set was written.
    pub(super) stepped_back: bool,
}

impl Table {
    /// A table for about `capacity` busy keys. Tables are the same, and share their state, when the plugin (`instance`),
    /// the limit's name, its key, its rate and its capacity are.
    pub(super) fn new(instance: &[u8], name: &str, key: &[KeyPart], rate: &Rate, capacity: u32) -> Table {
        let sets = capacity.div_ceil(KEYS_IN_A_SET).max(1);
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        instance.hash(&mut hasher);
        name.hash(&mut hasher);
        key.hash(&mut hasher);
        // Not the burst: whoever tightens it under attack does not give everybody a fresh bucket.
        (rate.interval, rate.ticks, sets).hash(&mut hasher);
        Table { id: hasher.finish(), sets }
    }

    /// The set of a key: the hash's upper bits, scaled.
    fn set_of(&self, key: Fingerprint) -> u32 {
        u32::try_from((u64::from(key.spread) * u64::from(self.sets)) >> 32).unwrap_or(0)
    }

    fn name(&self, set: u32) -> [u8; NAME] {
        let mut name = *b"rlttttttttssss";
        for (to, from) in name.iter_mut().skip(2).zip(self.id.to_le_bytes().into_iter().chain(set.to_le_bytes())) {
            *to = from;
        }
        name
    }

    /// How many sets there are.
    pub(super) fn sets(&self) -> u32 {
        self.sets
    }

    /// The keys of one set whose bucket is not full at the time `now`; `value` is memory to use.
    pub(super) fn busy_keys(
        &self,
        set: u32,
        rate: &Rate,
        now: Timestamp,
        value: &mut Vec<u8>,
        environment: &mut impl Environment,
    ) -> u64 {
        if !environment.peek(&self.name(set), value) {
            return 0;
        }
        Set::read_at(value, rate, now).0.busy_keys()
    }

    /// Makes every set that is not there yet, so that the memory is taken before the first request.
    pub(super) fn create(&self, environment: &mut impl Environment) {
        let mut buffer = [0; LONGEST];
        let empty = Set::EMPTY.write(&mut buffer);
        for set in 0..self.sets {
            // A conflict: another worker, or the configuration before this one, has made it.
            let _ = environment.create(&self.name(set), empty);
        }
    }

    /// The set of `key` at the time `now`, as this worker remembers it, else as it is.
    pub(super) fn recall(
        &self,
        key: Fingerprint,
        rate: &Rate,
        now: Timestamp,
        environment: &mut impl Environment,
    ) -> Seen {
        match environment.recall(&self.name(self.set_of(key)), Set::read) {
            Some((mut set, version)) => {
                let stepped_back = set.advance(rate, now);
                Seen { set, version: Some(version), fresh: false, stepped_back }
            }
            None => self.load(key, rate, now, environment),
        }
    }

    /// The set of `key` at the time `now`, as it is.
    pub(super) fn load(
        &self,
        key: Fingerprint,
        rate: &Rate,
        now: Timestamp,
        environment: &mut impl Environment,
    ) -> Seen {
        let mut value = Vec::new();
        let version = environment.load(&self.name(self.set_of(key)), &mut value);
        // No value reads as an empty set.
        let (set, stepped_back) = Set::read_at(&value, rate, now);
        Seen { set, version, fresh: true, stepped_back }
    }

    /// Writes a set that was seen, if nobody else has in between.
    pub(super) fn store(
        &self,
        key: Fingerprint,
        seen: &Seen,
        environment: &mut impl Environment,
    ) -> Result<(), StoreConflict> {
        let mut buffer = [0; LONGEST];
        let (name, value) = (self.name(self.set_of(key)), seen.set.write(&mut buffer));
        match seen.version {
            Some(_) => environment.store(&name, value, seen.version),
            None => environment.create(&name, value),
        }
        .map(|_| ())
    }
}
