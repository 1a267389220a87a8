//! What a policy shows beside its counters: which text is at work, how full the slot tables are, where the breakers
//! stand, and the shares of the variants now.
//!
//! A gauge belongs to the whole proxy, but the workers know the same things, so one of them looks and tells. Which one
//! is a lease in the shared store, renewed with every look; when its holder falls silent for [`PATIENCE`], the next that
//! asks takes over. A policy that another has replaced (its listener may drain for minutes) stays silent.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::environment::{Environment, Timestamp};
use crate::metrics::{MOST_RULES, name};
use crate::module::Runs;
use crate::policy::Policy;
use crate::section::Section;
use crate::state::{Change, Key, Unavailable};

/// The lease's place.
const LEASE: Key<'_> = Key::Named("gauges");

/// How long the holder of the lease may be silent, in nanoseconds.
const PATIENCE: u64 = 3_000_000_000;

/// So many sets of the slot tables are read in one look, all limits together: about 0.4 ms.
const SETS_A_LOOK: u32 = 256;

/// The hash of a policy's text: the low 48 bits of its SipHash-1-3, so that it is exact as a number everywhere. The text is
/// what the host hands over, byte for byte, white space included.
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
    /// One for each table of slots.
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
    /// The keys in all `sets`: those of this round, and for the sets that it has not reached the share of the last.
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
    /// The text that counts.
    hash: u64,
    generation: u64,
    /// When the proxy took that text first.
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

    /// A clock that stepped back ends a lease too: nobody can say how old it is.
    fn is_over(&self, now: u64) -> bool {
        now.checked_sub(self.renewed).is_none_or(|age| age > PATIENCE)
    }
}

impl Gauges {
    /// Those of `policy`, whose text has the hash `hash` and which runs under the name `plugin`. From now on this text is the
    /// one that counts.
    pub fn new<M: Runs>(policy: &Policy<M>, plugin: &str, hash: u64, environment: &mut impl Environment) -> Gauges {
        let mut names =
            Vec::from(["hash", "generation", "loadedSeconds"].map(|gauge| name(&["policy", plugin, gauge])));
        let mut counts = 0;
        if let Some(limits) = policy.rate_limits().filter(|_| M::MODULE.runs(Section::RateLimits)) {
            for table in limits.tables().take(MOST_RULES) {
                names.extend(["used", "capacity"].map(|gauge| name(&["slots", table.name, gauge])));
                counts += 1;
            }
        }
        if M::MODULE.owns_route_header() {
            names.extend(policy.breakers().gauges().take(MOST_RULES).map(Box::from));
        }
        if let Some(canaries) = policy.canaries().filter(|_| M::MODULE.runs(Section::Canaries)) {
            let variants =
                canaries.iter().flat_map(|c| c.variants().map(|variant| name(&["shares", c.name(), variant])));
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
        // Where the state fails, nobody tells anything.
        let _: Result<(), Unavailable> = environment.update(LEASE, |old, new| match Lease::read(old) {
            Some(lease) if lease.hash == hash => Change::Refuse(()),
            lease => {
                new.extend(gauges.taken(lease, now).write());
                Change::Replace(())
            }
        });
        gauges
    }

    /// The gauges' names, each at the place that [`Gauges::look`] tells: `penstock.policy.<plugin>.<what>`,
    /// `penstock.slots.<limit>.<what>`, `penstock.breakers.<rule or canary>.<route or variant>.state` and
    /// `penstock.shares.<canary>.<variant>`. Of limits, breakers and variants the first thousand each.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// The lease by which this text is the one that counts, and this worker the one that tells.
    fn taken(&self, before: Option<Lease>, now: u64) -> Lease {
        let generation = before.map_or(0, |before| before.generation).saturating_add(1);
        Lease { hash: self.hash, generation, loaded: now, worker: self.worker, renewed: now }
    }

    /// The lease, renewed, when it is this worker's turn to tell; else `None`, and the lease is taken when nobody has it.
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
                // The policy that came after this one may have been given up again.
                (Some(theirs), None) if !theirs.is_over(now) => return Change::Refuse(None),
                (lease, None) => (self.taken(lease, now), None),
            };
            new.extend(next.write());
            Change::Replace(turn)
        });
        renewed.ok().flatten()
    }

    /// Tells `tell` the gauges' places and values, when it is this worker's turn: call it once a second. `false`: it is
    /// somebody else's.
    ///
    /// The busy keys of a limit are counted a part at a time, 256 sets of 16 slots a look, all limits together. Until
    /// all have been read once the figure is scaled up; after that each part is as old as a round takes: a second for
    /// 2,048 keys of capacity, half a minute for 65,536.
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

    /// Counts on where the last look stopped.
    fn count(&mut self, limits: &crate::rate_limits::RateLimits, now: Timestamp, environment: &mut impl Environment) {
        let mut left = SETS_A_LOOK;
        // Each limit at most once a look, from where the last one stopped to there.
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
