//! One set of the slot table: the buckets of all keys whose hash chooses it, as one value of the shared state.
//!
//! A set has [`WAYS`] slots. It is stored as the time of the last write, the rate in which its debts are counted, the time
//! of the last [lease](super::lease), the epoch of its leases, and the slots whose bucket was not full at that time. A new
//! key starts with a full bucket, so forgetting full buckets loses nothing; nothing else is forgotten. When all slots are
//! taken by busy keys, a further key uses the set's one *overflow* bucket, shared with all others that find no slot: for
//! them the limit may be too strict, but it is never exceeded.
//!
//! A set is not decoded: [`advance`] reads the old bytes once, writes the new ones after them, and notes where the
//! wanted bucket is.

use super::lease::{self, BucketLease};
use super::rate::{self, Debt, Rate};
use crate::timestamp::Timestamp;

/// Slots for keys in a set.
pub(super) const WAYS: usize = 16;

/// The slots and the overflow bucket.
const SLOTS: usize = WAYS + 1;

/// The fingerprint of the overflow bucket; no key has it.
const OVERFLOW: u64 = 0;

/// Bytes of a slot: fingerprint, debt and leased requests, little endian.
const SLOT: usize = 8 + OWED;
const DEBT: usize = 12;
const OWED: usize = DEBT + 4;

/// Bytes before the slots: time, interval, ticks, burst; time of the last lease, epoch.
#[cfg(test)]
const HEADER: usize = EPOCH + 8;

/// The positions of the time of the last lease, and of the epoch.
const LEASED_AT: usize = 8 + 8 + 4 + 4;
const EPOCH: usize = LEASED_AT + 8;

/// The most bytes that a stored set has.
#[cfg(test)]
pub(super) const LONGEST: usize = HEADER + SLOTS * SLOT;

/// A key's bucket in a set that [`advance`] has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The position of its debt in the new bytes; `None`: it has none yet, the bucket is full.
    at: Option<usize>,
    print: u64,
    /// In ticks of the limit's rate.
    pub(super) debt: Debt,
    /// Requests that workers have taken in advance.
    leased: u32,
}

impl Bucket {
    /// Whether the key shares the overflow bucket.
    pub(super) fn is_shared(&self) -> bool {
        self.print == OVERFLOW
    }

    /// What counts against the burst: the debt and what is leased.
    pub(super) fn owed(&self, rate: &Rate) -> Debt {
        self.debt + rate.price(self.leased)
    }

    /// The same bucket after its worker's lease was reported, if the lease is still valid in `set`; and whether it is.
    pub(super) fn with_reported(self, lease: Option<BucketLease>, set: &Advanced, rate: &Rate) -> (Bucket, bool) {
        match lease.filter(|lease| lease.epoch == set.epoch && self.at.is_some() && !self.is_shared()) {
            Some(lease) => {
                let leased = self.leased.saturating_sub(lease.taken);
                (Bucket { debt: self.debt + rate.price(lease.spent()), leased, ..self }, true)
            }
            None => (self, false),
        }
    }

    /// The same bucket with this number of requests leased.
    pub(super) fn with_leased(self, requests: u32) -> Bucket {
        Bucket { leased: self.leased.saturating_add(requests), ..self }
    }

    /// Writes it with the debt `debt` into `set`, the bytes that [`advance`] wrote.
    pub(super) fn owe(&self, debt: Debt, set: &mut Vec<u8>) {
        // The upper 4 bytes of a debt are 0.
        let bytes = (debt | Debt::from(self.leased) << (8 * DEBT)).to_le_bytes();
        match self.at {
            Some(at) => {
                if let Some(to) = set.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<OWED>()) {
                    *to = bytes;
                }
            }
            None => {
                set.extend_from_slice(&self.print.to_le_bytes());
                set.extend_from_slice(&bytes);
            }
        }
    }
}

/// A set at the time of the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advanced {
    own: Option<Bucket>,
    overflow: Option<Bucket>,
    /// Keys with a slot of their own.
    keys: usize,
    print: u64,
    /// Where it begins in the new bytes, and its time.
    start: usize,
    base: Timestamp,
    /// A lease of another epoch is void.
    pub(super) epoch: u64,
    /// Whether the set must be written even if nothing is taken from it. The clock has stepped back: otherwise nothing
    /// would drain until it reaches the old time again. The rate has changed: otherwise the set would still drain at
    /// the old rate.
    /// Leases are void: otherwise they would never drain.
    pub(super) must_write: bool,
}

impl Advanced {
    /// The bucket of the wanted key.
    pub(super) fn bucket(&self) -> Bucket {
        let new = |print| Bucket { at: None, print, debt: 0, leased: 0 };
        match self.own {
            Some(own) => own,
            None if self.keys < WAYS => new(self.print),
            None => self.overflow(),
        }
    }

    /// The overflow bucket.
    pub(super) fn overflow(&self) -> Bucket {
        self.overflow.unwrap_or(Bucket { at: None, print: OVERFLOW, debt: 0, leased: 0 })
    }

    /// Starts the next epoch in `set`, the bytes that [`advance`] wrote.
    #[cold]
    fn end_leases(&mut self, set: &mut [u8]) {
        self.must_write = true;
        self.epoch = self.epoch.wrapping_add(1).max(self.base.0);
        let at = set.get_mut(self.start + EPOCH..).and_then(|rest| rest.first_chunk_mut::<8>());
        at.into_iter().for_each(|at| *at = self.epoch.to_le_bytes());
    }

    /// Notes in `set`, the bytes that [`advance`] wrote, that one of its buckets is leased from now on.
    pub(super) fn note_lease(&self, set: &mut [u8]) {
        let at = set.get_mut(self.start + LEASED_AT..).and_then(|rest| rest.first_chunk_mut::<8>());
        at.into_iter().for_each(|at| *at = self.base.0.to_le_bytes());
    }

    /// The key's own bucket, or the overflow bucket if the key shares it. `None`: the bucket is full.
    pub(super) fn debtor(&self, shared: bool) -> Option<Bucket> {
        if shared { self.overflow } else { self.own }
    }
}

/// The bytes of a set, checked.
#[derive(Clone, Copy, Debug)]
struct SetView<'a> {
    base: Timestamp,
    rate: Rate,
    leased_at: u64,
    epoch: u64,
    slots: &'a [u8],
}

impl<'a> SetView<'a> {
    /// `None`: the set was never written, or the bytes are malformed.
    fn of(bytes: &'a [u8]) -> Option<SetView<'a>> {
        let (base, rest) = bytes.split_first_chunk::<8>()?;
        let (interval, rest) = rest.split_first_chunk::<8>()?;
        let (ticks, rest) = rest.split_first_chunk::<4>()?;
        let (burst, rest) = rest.split_first_chunk::<4>()?;
        let (leased_at, rest) = rest.split_first_chunk::<8>()?;
        let (epoch, slots) = rest.split_first_chunk::<8>()?;
        let rate = Rate {
            interval: u64::from_le_bytes(*interval),
            ticks: u32::from_le_bytes(*ticks),
            burst: u32::from_le_bytes(*burst),
        };
        let (leased_at, epoch) = (u64::from_le_bytes(*leased_at), u64::from_le_bytes(*epoch));
        rate.is_one().then_some(SetView { base: Timestamp(u64::from_le_bytes(*base)), rate, leased_at, epoch, slots })
    }

    /// Whether its leases have expired at the time `base`.
    fn is_void(&self, base: Timestamp) -> bool {
        base.0.checked_sub(self.leased_at).is_none_or(|ago| ago >= lease::VOID)
    }

    /// Fingerprint, debt and leased requests of each slot. More than there can be are not read.
    fn slots(&self) -> impl Iterator<Item = (u64, Debt, u32)> + use<'a> {
        let (slots, _) = self.slots.as_chunks::<SLOT>();
        slots.iter().take(SLOTS).filter_map(|slot| {
            let (print, owed) = slot.split_first_chunk::<8>()?;
            let owed = Debt::from_le_bytes(*owed.first_chunk::<OWED>()?);
            let leased = u32::try_from(owed >> (8 * DEBT)).unwrap_or(0);
            Some((u64::from_le_bytes(*print), owed & ((1 << (8 * DEBT)) - 1), leased))
        })
    }
}

/// Appends the set `old` as it is at the time `now` to `new`, without the buckets that are full by then, and looks for the
/// bucket of `print`, which is not 0. Debts that were counted at another rate are converted. Leases that are void, because of
/// that or by their age, become debts.
pub(super) fn advance(old: &[u8], rate: &Rate, now: Timestamp, print: u64, new: &mut Vec<u8>) -> Advanced {
    let view = SetView::of(old);
    let (base, nanos) = view.map_or((now, 0), |view| rate::elapsed(view.base, now));
    // Not that of a set that was here before and is lost.
    let (leased_at, epoch) = view.map_or((0, base.0), |view| (view.leased_at, view.epoch));
    let start = new.len();
    let mut set = Advanced { own: None, overflow: None, keys: 0, print, start, base, epoch, must_write: false };
    new.extend_from_slice(&base.0.to_le_bytes());
    new.extend_from_slice(&rate.interval.to_le_bytes());
    new.extend_from_slice(&rate.ticks.to_le_bytes());
    new.extend_from_slice(&rate.burst.to_le_bytes());
    new.extend_from_slice(&leased_at.to_le_bytes());
    new.extend_from_slice(&epoch.to_le_bytes());
    let Some(view) = view else { return set };
    let is_converted = view.rate != *rate;
    set.must_write = base < view.base || is_converted;
    let mut ends_leases = false;
    for (of, debt, mut leased) in view.slots() {
        let mut debt = view.rate.drained(debt, nanos);
        if debt == 0 && leased == 0 {
            continue;
        }
        if leased > 0 && (is_converted || view.is_void(base)) {
            debt = view.rate.overdrawn(debt, std::mem::take(&mut leased));
            ends_leases = true;
        }
        if is_converted {
            debt = rate.converted(debt, &view.rate);
        }
        let bucket = Bucket { at: Some(new.len() + 8), print: of, debt, leased };
        Bucket { at: None, ..bucket }.owe(debt, new);
        if of == OVERFLOW {
            set.overflow = Some(bucket);
        } else {
            set.keys += 1;
        }
        if of == print {
            set.own = Some(bucket);
        }
    }
    if ends_leases {
        set.end_leases(new);
    }
    set
}

/// The keys of a set that have a slot of their own and are not full at the time `now`.
pub(super) fn busy_keys(bytes: &[u8], now: Timestamp) -> u64 {
    let Some(view) = SetView::of(bytes) else { return 0 };
    let (_, nanos) = rate::elapsed(view.base, now);
    let is_busy = |debt, leased: u32| leased > 0 || view.rate.drained(debt, nanos) > 0;
    view.slots().filter(|(print, debt, leased)| *print != OVERFLOW && is_busy(*debt, *leased)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rate() -> Rate {
        Rate::new(10, Duration::from_secs(10), 2)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    /// Takes the cost of one request; returns whether it passes, and whether from the overflow bucket.
    fn take_at(set: &mut Vec<u8>, rate: &Rate, print: u64, now: Timestamp) -> (bool, bool) {
        let mut new = Vec::new();
        let advanced = advance(set, rate, now, print, &mut new);
        let bucket = advanced.bucket();
        let passes = rate.allows(bucket.debt, 1);
        if passes {
            bucket.owe(bucket.debt + rate.price(1), &mut new);
        }
        if passes || advanced.must_write {
            *set = new;
        }
        (passes, bucket.is_shared())
    }

    fn take(set: &mut Vec<u8>, print: u64, now: Timestamp) -> (bool, bool) {
        take_at(set, &rate(), print, now)
    }

    fn debt(set: &[u8], rate: &Rate, print: u64, now: Timestamp) -> Debt {
        advance(set, rate, now, print, &mut Vec::new()).bucket().debt
    }

    #[test]
    fn a_set_survives_writing_and_reading() {
        let mut set = Vec::new();
        for print in 1..=WAYS as u64 {
            let mut new = Vec::from(*b"what the store puts in front");
            let front = new.len();
            advance(&set, &rate(), at(5), print, &mut new).bucket().owe(Debt::from(print) << 80, &mut new);
            set = new.split_off(front);
        }
        assert_eq!(set.len(), LONGEST - SLOT);
        for print in 1..=WAYS as u64 {
            assert_eq!(debt(&set, &rate(), print, at(5)), Debt::from(print) << 80);
        }
        let mut again = Vec::new();
        advance(&set, &rate(), at(5), 1, &mut again);
        assert_eq!(again, set);
    }

    #[test]
    fn bytes_of_a_stranger_are_an_empty_set() {
        for bytes in [&b""[..], b"1234567", &[0; 300], &[0xff; HEADER - 1]] {
            assert_eq!((debt(bytes, &rate(), 7, at(1)), busy_keys(bytes, at(1))), (0, 0), "{bytes:?}");
        }
        // Too many slots are cut, not read past the end.
        let mut many = Vec::new();
        advance(&[], &rate(), at(1), 1, &mut many);
        many.extend([0xff; 40 * SLOT + 3]);
        let mut new = Vec::new();
        advance(&many, &rate(), at(1), 1, &mut new);
        assert_eq!(new.len(), LONGEST);
    }

    #[test]
    fn only_a_full_bucket_is_forgotten() {
        let mut set = Vec::new();
        for print in 1..=WAYS as u64 {
            assert_eq!(take(&mut set, print, at(100)), (true, false));
            assert_eq!(take(&mut set, print, at(100)), (true, false));
        }
        assert_eq!(busy_keys(&set, at(101)), WAYS as u64);
        // All slots are busy for two seconds, so nobody is forgotten, and nobody gets in.
        for print in 1..=WAYS as u64 {
            assert_eq!(take(&mut set, print, at(100)), (false, false));
        }
        assert_eq!(take(&mut set, 99, at(101)), (true, true));
        // One second later everybody may once more, and a second after that the slots are free.
        assert_eq!(take(&mut set, 1, at(101)), (true, false));
        assert_eq!(take(&mut set, 99, at(102)), (true, false));
        assert_eq!(busy_keys(&set, at(200)), 0);
    }

    #[test]
    fn keys_without_a_slot_share_one_bucket() {
        let mut set = Vec::new();
        for print in 1..=WAYS as u64 {
            take(&mut set, print, at(100));
        }
        let passed = (100..150).filter(|print| take(&mut set, *print, at(100)).0).count();
        assert_eq!((passed, set.len()), (2, LONGEST));
    }

    #[test]
    fn another_rate_keeps_the_share_of_the_burst_that_each_key_has_used() {
        let hourly = |requests, burst| Rate::new(requests, Duration::from_secs(3600), burst);
        let rates = [
            hourly(100, 100),
            hourly(50, 50),
            hourly(25, 25),
            hourly(7, 7),
            hourly(1_000_000, 3),
            Rate::new(100, Duration::from_secs(1), 200),
        ];
        let mut set = Vec::new();
        assert_eq!((0..200).filter(|_| take_at(&mut set, &rates[0], 1, at(10)).0).count(), 100);
        assert_eq!((0..50).filter(|_| take_at(&mut set, &rates[0], 2, at(10)).0).count(), 50);
        // Who has used all has used all, there and back again, and no rounding ever gives anything away.
        for rate in rates.iter().chain(rates.iter().rev()).cycle().take(1000) {
            assert_eq!(take_at(&mut set, rate, 1, at(10)), (false, false), "{rate:?}");
        }
        let half = rates[0].remaining(debt(&set, &rates[0], 2, at(10)));
        assert!((49..=50).contains(&half), "{half}");
        let half = rates[1].remaining(debt(&set, &rates[1], 2, at(10)));
        assert!((24..=25).contains(&half), "{half}");
        // From the first look on it is the new rate that gives.
        assert_eq!(take_at(&mut set, &rates[2], 1, at(10)), (false, false));
        assert_eq!(take_at(&mut set, &rates[2], 1, at(10 + 143)), (false, false));
        assert_eq!(take_at(&mut set, &rates[2], 1, at(10 + 145)), (true, false));
    }

    #[test]
    fn the_largest_rates_convert_without_overflow() {
        const MOST: u32 = 1_000_000_000;
        let longest = Duration::from_secs(4 * 99_999 * 3_600);
        let rates = [Rate::new(1, longest, MOST), Rate::new(MOST - 1, longest, MOST), Rate::new(MOST, longest, 1)];
        for from in rates {
            for to in rates {
                assert_eq!(to.converted(from.price(from.burst), &from), to.price(to.burst), "{from:?} {to:?}");
                assert!(to.converted(1, &from) >= 1);
            }
        }
    }
}
