//! What one worker remembers about a policy: the last states of the breakers that it has read, the responses that it has
//! not written to them yet, and the tokens that it has taken from limits in advance.

use crate::breaker::state::Tally;
use crate::decision::Watch;
use crate::rate_limits::lease::Leases;
use crate::split_mix::split_mix;
use crate::state::Table;

/// What one worker remembers about a policy between requests. The platform keeps it and passes it to each decision, so
/// that the policy itself never changes and any number of threads can share it.
#[derive(Debug, Default)]
pub struct WorkerMemory {
    breakers: Vec<KnownBreaker>,
    /// Returned instead of a breaker that `breakers` has no place for.
    none: KnownBreaker,
    pub(crate) leases: Leases,
    /// The state of the pseudo-random numbers; `None` until they are seeded.
    chance: Option<u64>,
}

/// What the worker knows about one breaker.
#[derive(Debug, Default)]
pub(crate) struct KnownBreaker {
    /// The identity of the breaker's table. It shows whether this entry is about a breaker of an earlier policy.
    identity: u64,
    /// When the state was last read.
    pub(crate) read: Option<u64>,
    pub(crate) open_since: u64,
    /// Responses that have not been written to the state yet.
    pub(crate) pending: Tally,
    pub(crate) pending_since: u64,
}

impl WorkerMemory {
    /// An empty memory. With `leases` the worker takes tokens from the buckets of limits in advance, which is for states
    /// with expensive updates. Then [`Policy::return_leases`](crate::Policy::return_leases) must be called once a second
    /// and when the worker ends.
    #[must_use]
    pub fn new(leases: bool) -> WorkerMemory {
        WorkerMemory { leases: Leases::new(leases), ..WorkerMemory::default() }
    }

    /// The next 64 pseudo-random bits, for [`Environment::chance`](crate::Environment::chance). `None` before
    /// [`WorkerMemory::seed`] was called.
    pub fn chance(&mut self) -> Option<u64> {
        self.chance.as_mut().map(split_mix)
    }

    /// Seeds the pseudo-random numbers with random bits.
    pub fn seed(&mut self, random: u64) {
        self.chance = Some(random);
    }

    /// The entry for the breaker number `watch`, whose state is in `table`.
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
