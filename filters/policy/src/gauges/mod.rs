//! What a policy shows beside its counters: which version is in use, how full the slot tables are, the states of the
//! breakers, and the current shares of the variants.
//!
//! A gauge belongs to the whole proxy, and all workers know the same values, so only one of them writes. A lease in the
//! shared state, renewed at every update, says which one. When its holder has been silent for [`PATIENCE`], the next
//! worker that tries takes over. A policy that was replaced (its listener may drain for minutes) does not write.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::environment::{Environment, Timestamp};
use crate::metrics::{MOST_RULES, metric_name};
use crate::module::Runs;
use crate::policy::Policy;
use crate::section::Section;
use crate::state::{Change, Key, Unavailable};

/// The key of the lease.
const LEASE: Key<'_> = Key::Named("gauges");

/// What a plugin says of its policy.
const POLICY: [&str; 3] = ["policy_hash", "policy_generation", "policy_loaded_timestamp_seconds"];

/// What a limit with a key says of its table.
const KEYS: [&str; 2] = ["rate_limit_keys_used", "rate_limit_keys_capacity"];

/// How long the holder of the lease may be silent, in nanoseconds.
const PATIENCE: u64 = 3_000_000_000;

/// The number of sets of the slot tables that are read in one update, of all limits together: about 0.4 ms.
const SETS_A_LOOK: u32 = 256;

/// The hash of a policy's text: the low 48 bits of its SipHash-1-3, so that every system can represent it exactly as a
/// number. The text is what the proxy hands over, byte for byte, white space included.
pub fn text_hash(json: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(json);
    hasher.finish() & ((1 << 48) - 1)
}

/// The gauges of one policy at work in one worker.
#[derive(Debug)]
pub struct Gauges {
    hash: u64,
    /// Tells this worker from the others.
    worker: u64,
    names: Vec<Box<str>>,
    /// One for each slot table.
    counts: Vec<BusyKeyCount>,
    /// The limit whose sets are read next.
    next: usize,
}

/// How far the count of one limit's busy keys has come.
#[derive(Clone, Copy, Debug, Default)]
struct BusyKeyCount {
    /// Sets read in this round, and the keys in them.
    sets: u32,
    keys: u64,
    /// The keys of the round before; `None`: there was none yet.
    before: Option<u64>,
}

impl BusyKeyCount {
    /// The keys in all `sets`: those counted in this round, plus the last round's share for the sets that it has not
    /// reached yet.
    fn keys(&self, sets: u32) -> u64 {
        let (read, sets) = (u64::from(self.sets), u64::from(sets.max(1)));
        match self.before {
            Some(before) => self.keys + before * (sets - read.min(sets)) / sets,
            None => self.keys * sets / read.max(1),
        }
    }
}

/// What the state has under [`LEASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    /// The hash of the policy in use.
    hash: u64,
    generation: u64,
    /// When the proxy first loaded that policy.
    loaded: u64,
    worker: u64,
    renewed: u64,
}

impl Lease {
    fn read(bytes: &[u8]) -> Option<Lease> {
        let mut numbers = bytes.chunks_exact(8).filter_map(|number| Some(u64::from_le_bytes(number.try_into().ok()?)));
        let mut next = || numbers.next();
        let lease = Lease { hash: next()?, generation: next()?, loaded: next()?, worker: next()?, renewed: next()? };
        (bytes.len() == 40).then_some(lease)
    }

    fn write(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let numbers = [self.hash, self.generation, self.loaded, self.worker, self.renewed];
        for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// A step back of the clock ends a lease too, because its age is then unknown.
    fn is_over(&self, now: u64) -> bool {
        now.checked_sub(self.renewed).is_none_or(|age| age > PATIENCE)
    }
}

impl Gauges {
    /// The gauges of `policy`, whose text has the hash `hash` and which runs under the name `plugin`. From now on this
    /// is the policy in use.
    pub fn new<M: Runs>(policy: &Policy<M>, plugin: &str, hash: u64, environment: &mut impl Environment) -> Gauges {
        let mut names = Vec::from(POLICY.map(|gauge| metric_name(gauge, &[("plugin", plugin)])));
        let mut counts = 0;
        if let Some(limits) = policy.rate_limits().filter(|_| M::MODULE.runs(Section::RateLimits)) {
            for table in limits.tables().take(MOST_RULES) {
                names.extend(KEYS.map(|gauge| metric_name(gauge, &[("rule", table.name)])));
                counts += 1;
            }
        }
        if M::MODULE.owns_route_header() {
            names.extend(policy.breakers().gauges().take(MOST_RULES).map(Box::from));
        }
        if let Some(canaries) = policy.canaries().filter(|_| M::MODULE.runs(Section::Canaries)) {
            let weight = |rule, variant| metric_name("variant_weight", &[("rule", rule), ("variant", variant)]);
            let variants = canaries.iter().flat_map(|c| c.variants().map(move |variant| weight(c.name(), variant)));
            names.extend(variants.take(MOST_RULES));
        }
        let gauges = Gauges {
            hash,
            worker: environment.random(),
            names,
            counts: vec![BusyKeyCount::default(); counts],
            next: 0,
        };
        let Timestamp(now) = environment.now();
        // Without the shared state no gauge is written.
        let _: Result<(), Unavailable> = environment.update(LEASE, |old, new| match Lease::read(old) {
            Some(lease) if lease.hash == hash => Change::Refuse(()),
            lease => {
                new.extend(gauges.taken(lease, now).write());
                Change::Replace(())
            }
        });
        gauges
    }

    /// The gauges' names, in the order of the numbers that [`Gauges::look`] reports: those of `POLICY`, for each limit those
    /// of `KEYS`, then `breaker_state` and `variant_weight`. Of limits, breakers and variants the first thousand each.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// The lease with which this policy is the one in use and this worker writes the gauges.
    fn taken(&self, before: Option<Lease>, now: u64) -> Lease {
        let generation = before.map_or(0, |before| before.generation).saturating_add(1);
        Lease { hash: self.hash, generation, loaded: now, worker: self.worker, renewed: now }
    }

    /// The lease, renewed, when this worker's turn has come; otherwise `None`. A free lease is taken.
    fn renew(&self, now: u64, environment: &mut impl Environment) -> Option<Lease> {
        let renewed = environment.update(LEASE, |old, new| {
            let lease = Lease::read(old);
            let is_ours = lease.filter(|lease| lease.hash == self.hash);
            let (next, turn) = match (lease, is_ours) {
                (_, Some(ours)) if ours.worker == self.worker || ours.is_over(now) => {
                    let renewed = Lease { worker: self.worker, renewed: now, ..ours };
                    (renewed, Some(renewed))
                }
                (_, Some(_)) => return Change::Refuse(None),
                // The policy that replaced this one may have been withdrawn again.
                (Some(theirs), None) if !theirs.is_over(now) => return Change::Refuse(None),
                (lease, None) => (self.taken(lease, now), None),
            };
            new.extend(next.write());
            Change::Replace(turn)
        });
        renewed.ok().flatten()
    }

    /// Calls `tell` with the gauges' numbers and values, when this worker's turn has come: call it once a second.
    /// Returns `false` when another worker writes.
    ///
    /// The busy keys of a limit are counted in parts: 256 sets of 16 slots at each update, for all limits together.
    /// Until all sets have been read once, the number is extrapolated; after that each part is as old as a round takes:
    /// a second for a capacity of 2,048 keys, half a minute for 65,536.
    pub fn look<M: Runs>(
        &mut self,
        policy: &Policy<M>,
        environment: &mut impl Environment,
        mut tell: impl FnMut(usize, u64),
    ) -> bool {
        let Timestamp(now) = environment.now();
        let Some(lease) = self.renew(now, environment) else { return false };
        let policy_values = [self.hash, lease.generation, lease.loaded / 1_000_000_000];
        let mut places = 0..;
        let mut tell = |value| {
            if let Some(place) = places.next() {
                tell(place, value);
            }
        };
        policy_values.into_iter().for_each(&mut tell);
        if let Some(limits) = policy.rate_limits().filter(|_| M::MODULE.runs(Section::RateLimits)) {
            self.count(limits, Timestamp(now), environment);
            for (table, count) in limits.tables().zip(&self.counts) {
                tell(count.keys(table.sets()));
                tell(table.capacity.into());
            }
        }
        if M::MODULE.owns_route_header() {
            policy.breakers().states(environment).take(MOST_RULES).for_each(&mut tell);
        }
        if let Some(canaries) = policy.canaries().filter(|_| M::MODULE.runs(Section::Canaries)) {
            let mut left = MOST_RULES;
            for canary in canaries.iter() {
                for share in canary.shares(policy.breakers(), environment).into_iter().take(left) {
                    left -= 1;
                    tell(share);
                }
            }
        }
        true
    }

    /// Continues counting where the last update stopped.
    fn count(&mut self, limits: &crate::rate_limits::RateLimits, now: Timestamp, environment: &mut impl Environment) {
        let mut left = SETS_A_LOOK;
        // Each limit at most once in an update, starting and ending where the last update stopped.
        let round = limits.tables().take(MOST_RULES).enumerate();
        let (before, after): (Vec<_>, Vec<_>) = round.partition(|(place, _)| *place < self.next);
        for (place, table) in after.into_iter().chain(before) {
            let Some(count) = self.counts.get_mut(place) else { break };
            self.next = place;
            let sets = table.sets();
            let last = count.sets.saturating_add(left).min(sets);
            for set in count.sets..last {
                count.keys += table.busy_keys(set, now, environment);
            }
            left -= last - count.sets;
            count.sets = last;
            if last < sets {
                break;
            }
            *count = BusyKeyCount { sets: 0, keys: 0, before: Some(count.keys) };
            self.next = (place + 1) % self.counts.len().max(1);
        }
    }
}

#[cfg(test)]
mod tests;
