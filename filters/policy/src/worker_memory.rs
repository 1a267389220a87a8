//! What one worker knows by itself: of a policy's breakers, what it last read and what it has not written yet; of its limits,
//! what it has taken in advance.

use crate::breaker::state::Tally;
use crate::decision::Watch;
use crate::rate_limits::lease::Leases;
use crate::split_mix::split_mix;
use crate::state::Table;

/// What one worker remembers of a policy from request to request. The platform keeps it and lends it to each decision,
/// so that the policy itself never changes and any number of threads can share it.
#[derive(Debug, Default)]
pub struct WorkerMemory {
    breakers: Vec<KnownBreaker>,
    /// Used where there is no place for more.
    none: KnownBreaker,
    pub(crate) leases: Leases,
    /// Where the numbers for chance go on.
    chance: Option<u64>,
}

/// One breaker, as the worker knows it.
#[derive(Debug, Default)]
pub(crate) struct KnownBreaker {
    /// The breaker's identity: a memory may outlive its policy.
    identity: u64,
    /// When the state was last read.
    pub(crate) read: Option<u64>,
    pub(crate) open_since: u64,
    /// Responses that are not in the state yet, and since when.
    pub(crate) pending: Tally,
    pub(crate) pending_since: u64,
}

impl WorkerMemory {
    /// A worker that knows nothing yet. With `leases` it takes from the buckets of limits in advance, for a state whose updates
    /// cost more than to remember; then [`Policy::return_leases`](crate::Policy::return_leases) is to be called once a second,
    /// and when the worker ends.
    #[must_use]
    pub fn new(leases: bool) -> WorkerMemory {
        WorkerMemory { leases: Leases::new(leases), ..WorkerMemory::default() }
    }

    /// The next 64 bits for chance: see [`Environment::chance`](crate::Environment::chance). `None`: seed it first.
    pub fn chance(&mut self) -> Option<u64> {
        self.chance.as_mut().map(split_mix)
    }

    /// Lets the numbers for chance begin at random bits.
    pub fn seed(&mut self, random: u64) {
        self.chance = Some(random);
    }

    /// The breaker number `watch`, whose state is in `table`.
    pub(crate) fn breaker(&mut self, watch: Watch, table: &Table) -> &mut KnownBreaker {
        let place = watch.0 as usize;
        if self.breakers.len() <= place {
            self.breakers.resize_with(place + 1, KnownBreaker::default);
        }
        let known = self.breakers.get_mut(place).unwrap_or(&mut self.none);
        if known.identity != table.identity {
            *known = KnownBreaker { identity: table.identity, ..KnownBreaker::default() };
        }
        known
    }
}
