//! The gauges of a policy: which version is in use, how full the slot tables are, the states of the breakers, and the
//! current weights of the variants.
//!
//! A gauge belongs to the whole proxy, and all workers know the same values, so only one worker writes. The one that
//! holds the lease in the shared state does, and renews the lease at each update. If it has not renewed the lease for
//! [`PATIENCE`], the next worker that tries takes over. A policy that was replaced does not write, although its
//! listener may drain for minutes.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::environment::{Environment, Timestamp};
use crate::metrics::{MOST_RULES, metric_name};
use crate::module::Runs;
use crate::policy::Policy;
use crate::rate_limits::{RateLimits, Slots};
use crate::section::Section;
use crate::state::{Change, Key, Unavailable};

/// The key of the lease.
const LEASE: Key<'_> = Key::Named("gauges");

/// The gauges about a policy as a whole.
const POLICY: [&str; 3] = ["policy_hash", "policy_generation", "policy_loaded_timestamp_seconds"];

/// The gauges about the table of a limit with a key.
const KEYS: [&str; 2] = ["rate_limit_keys_used", "rate_limit_keys_capacity"];

/// How long a lease is valid without being renewed, in nanoseconds.
const PATIENCE: u64 = 3_000_000_000;

/// The number of sets that one update reads, in the slot tables of all limits together. This takes about 0.4 ms.
const SETS_A_REFRESH: usize = 256;

/// The hash of a policy's text: the low 48 bits of its SipHash-1-3, which every system can represent exactly as a number.
/// The text consists of the bytes that the proxy passes, including white space.
pub fn text_hash(json: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(json);
    hasher.finish() & ((1 << 48) - 1)
}

/// The gauges of one policy in one worker.
#[derive(Debug)]
pub struct Gauges {
    hash: u64,
    /// Identifies this worker.
    worker: u64,
    names: Vec<Box<str>>,
    /// One count for each slot table.
    counts: Vec<BusyKeyCount>,
    /// Positions in `counts`, ordered by the sizes of the tables, the smallest first.
    order: Vec<usize>,
    /// The position in `order` of the table that is read next.
    next: usize,
}

/// The progress of counting one limit's busy keys.
#[derive(Clone, Copy, Debug, Default)]
struct BusyKeyCount {
    /// The number of sets that have been read in this round.
    sets: u32,
    keys: u64,
    /// The number of keys in the previous round, if there was one.
    before: Option<u64>,
}

impl BusyKeyCount {
    /// The number of keys in all `sets`: those counted in this round, plus an estimate, from the previous round, for the
    /// sets that have not been read yet.
    fn keys(&self, sets: u32) -> u64 {
        let (read, sets) = (u64::from(self.sets), u64::from(sets.max(1)));
        match self.before {
            Some(before) => self.keys + before * (sets - read.min(sets)) / sets,
            None => self.keys * sets / read.max(1),
        }
    }

    /// Reads the next sets of `table`: at most `share`, and not beyond the end of this round. Returns their number.
    fn read(&mut self, table: &Slots<'_>, share: usize, now: Timestamp, environment: &mut impl Environment) -> usize {
        let mut read = 0;
        while read < share && self.sets < table.sets() {
            self.keys += table.busy_keys(self.sets, now, environment);
            self.sets += 1;
            read += 1;
        }
        if self.sets >= table.sets() {
            *self = BusyKeyCount { sets: 0, keys: 0, before: Some(self.keys) };
        }
        read
    }
}

/// The value under [`LEASE`] in the shared state.
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

    /// Whether the lease has expired. It also expires when the clock steps back, because its age is then unknown.
    fn is_over(&self, now: u64) -> bool {
        now.checked_sub(self.renewed).is_none_or(|age| age > PATIENCE)
    }
}

impl Gauges {
    /// The gauges of `policy`, which becomes the policy in use. `hash` is the hash of its text, `plugin` the name of the
    /// plugin.
    pub fn new<M: Runs>(policy: &Policy<M>, plugin: &str, hash: u64, environment: &mut impl Environment) -> Gauges {
        let mut names = Vec::from(POLICY.map(|gauge| metric_name(gauge, &[("plugin", plugin)])));
        let (mut sets, mut order): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
        if let Some(limits) = policy.rate_limits().filter(|_| M::MODULE.runs(Section::RateLimits)) {
            for table in limits.tables().take(MOST_RULES) {
                names.extend(KEYS.map(|gauge| metric_name(gauge, &[("rule", table.name)])));
                // There are few tables, and a library's sort would make the module larger.
                let larger = order.partition_point(|place| sets.get(*place) <= Some(&table.sets()));
                order.insert(larger, sets.len());
                sets.push(table.sets());
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
        let counts = vec![BusyKeyCount::default(); sets.len()];
        let gauges = Gauges { hash, worker: environment.random(), names, counts, order, next: 0 };
        let Timestamp(now) = environment.now();
        // If the shared state fails, no gauge is written.
        let _: Result<(), Unavailable> = environment.update(LEASE, |old, new| match Lease::read(old) {
            Some(lease) if lease.hash == hash => Change::Refuse(()),
            lease => {
                new.extend(gauges.taken(lease, now).write());
                Change::Replace(())
            }
        });
        gauges
    }

    /// The gauges' names; [`Gauges::refresh`] reports positions in this list. The gauges of the policy come first, then
    /// those of each limit's table, then `breaker_state` and `variant_weight`. Of limits, breakers and variants, only the
    /// first thousand have gauges.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// A lease that makes this policy the one in use and this worker the one that writes the gauges.
    fn taken(&self, before: Option<Lease>, now: u64) -> Lease {
        let generation = before.map_or(0, |before| before.generation).saturating_add(1);
        Lease { hash: self.hash, generation, loaded: now, worker: self.worker, renewed: now }
    }

    /// Renews the lease if this worker holds it, or if it has expired. `None` if another worker holds it. If the expired
    /// lease is that of another policy, the result is `None` too, and this worker writes from the next update on.
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
                // An expired lease of another policy is taken: that policy may have been removed again.
                (Some(theirs), None) if !theirs.is_over(now) => return Change::Refuse(None),
                (lease, None) => (self.taken(lease, now), None),
            };
            new.extend(next.write());
            Change::Replace(turn)
        });
        renewed.ok().flatten()
    }

    /// Must be called once a second. If this worker writes the gauges, calls `tell` with the number and value of each
    /// gauge; returns `false` if another worker does.
    ///
    /// The busy keys of the limits are counted in parts: each update reads 256 sets of 16 slots, for all limits
    /// together. Each limit gets the same share, and what a small table does not need goes to the larger ones. With more
    /// than 256 limits, the limits take turns, one set each. Until all sets have been read once, the number is
    /// extrapolated. Afterwards, a part of it can be as old as one round: for the only limit of a policy, one second
    /// with a capacity of 2,048 keys and half a minute with 65,536.
    pub fn refresh<M: Runs>(
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
    fn count(&mut self, limits: &RateLimits, now: Timestamp, environment: &mut impl Environment) {
        let tables: Vec<_> = limits.tables().take(MOST_RULES).collect();
        let mut left = SETS_A_REFRESH;
        // Each limit is read at most once in an update. The smallest table is first, so that the sets that it does not
        // need go to the others. No share is empty, because there are at least as many sets left as limits.
        for following in (1..=self.order.len().min(SETS_A_REFRESH)).rev() {
            let Some(place) = self.order.get(self.next) else { break };
            self.next = (self.next + 1) % self.order.len();
            let (Some(table), Some(count)) = (tables.get(*place), self.counts.get_mut(*place)) else { break };
            left -= count.read(table, left / following, now, environment);
        }
    }
}

#[cfg(test)]
mod tests;
