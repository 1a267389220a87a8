//! One set of the slot table: the buckets of all keys whose hash leads here, as one value of the shared state.
//!
//! A set has [`WAYS`] slots and is written as the time of the last write and the slots whose bucket was not full then;
//! a full bucket is what a new key starts with, so forgetting it loses nothing, and it is the only thing that is
//! forgotten. When all slots are taken by busy keys, a further key uses the set's one *overflow* bucket, shared with
//! all others that find no room: its limit may be too strict then, never without bound.

use super::rate::{self, Debt, Rate};
use crate::environment::Timestamp;

/// Slots for keys in a set.
pub(super) const WAYS: usize = 16;

/// And the overflow bucket.
const SLOTS: usize = WAYS + 1;

/// The fingerprint of the overflow bucket; no key has it.
const OVERFLOW: u64 = 0;

/// Bytes of a slot: fingerprint and debt, little endian.
const SLOT: usize = 8 + 12;

/// The most bytes that a set is written in.
pub(super) const LONGEST: usize = 8 + SLOTS * SLOT;

/// A set, read.
#[derive(Clone, Debug)]
pub(super) struct Set {
    /// When the debts were what they are.
    base: Timestamp,
    used: usize,
    prints: [u64; SLOTS],
    debts: [Debt; SLOTS],
}

/// A key's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    slot: usize,
    print: u64,
    /// In ticks of the limit's rate.
    pub(super) debt: Debt,
}

impl Bucket {
    /// Whether the key shares the overflow bucket.
    pub(super) fn is_shared(&self) -> bool {
        self.print == OVERFLOW
    }
}

impl Set {
    /// Every bucket full.
    pub(super) const EMPTY: Set = Set { base: Timestamp(0), used: 0, prints: [0; SLOTS], debts: [0; SLOTS] };

    /// Reads what [`Set::write`] wrote. What is anything else counts as empty: keys are this module's own, so only a
    /// stranger who writes into them could cause that.
    pub(super) fn read(bytes: &[u8]) -> Set {
        let mut set = Set::EMPTY;
        let Some((base, slots)) = bytes.split_first_chunk::<8>() else { return set };
        set.base = Timestamp(u64::from_le_bytes(*base));
        for slot in slots.chunks_exact(SLOT) {
            let (Some((print, debt)), Some(to_print), Some(to_debt)) =
                (slot.split_first_chunk::<8>(), set.prints.get_mut(set.used), set.debts.get_mut(set.used))
            else {
                break;
            };
            let mut wide = [0; 16];
            wide.iter_mut().zip(debt).for_each(|(to, from)| *to = *from);
            *to_print = u64::from_le_bytes(*print);
            *to_debt = Debt::from_le_bytes(wide);
            set.used += 1;
        }
        set
    }

    /// The same, as it is at the time `now`; and what [`Set::advance`] says.
    #[inline(never)]
    pub(super) fn read_at(bytes: &[u8], rate: &Rate, now: Timestamp) -> (Set, bool) {
        let mut set = Set::read(bytes);
        let stepped_back = set.advance(rate, now);
        (set, stepped_back)
    }

    /// The bytes to store, at the front of `buffer`.
    pub(super) fn write<'b>(&self, buffer: &'b mut [u8; LONGEST]) -> &'b [u8] {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(to) = buffer.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
                at += bytes.len();
            }
        };
        put(&self.base.0.to_le_bytes());
        for (print, debt) in self.slots() {
            put(&print.to_le_bytes());
            put(debt.to_le_bytes().first_chunk::<12>().unwrap_or(&[0; 12]));
        }
        buffer.get(..at).unwrap_or_default()
    }

    fn slots(&self) -> impl Iterator<Item = (u64, Debt)> {
        self.prints.iter().copied().zip(self.debts).take(self.used)
    }

    /// Lets the time go by until `now`; full buckets are forgotten. `true`: the clock has stepped back, and the set must
    /// be written even if nothing is taken from it, or else time would stand still until the clock is where it was.
    pub(super) fn advance(&mut self, rate: &Rate, now: Timestamp) -> bool {
        let (base, nanos) = rate::elapsed(self.base, now);
        let stepped_back = base < self.base;
        self.base = base;
        let mut kept = 0;
        for slot in 0..self.used {
            let (Some(&print), Some(&debt)) = (self.prints.get(slot), self.debts.get(slot)) else { break };
            let debt = rate.drained(debt, nanos);
            if debt > 0 && self.put(kept, print, debt) {
                kept += 1;
            }
        }
        self.used = kept;
        stepped_back
    }

    /// The keys that have a slot of their own.
    pub(super) fn busy_keys(&self) -> u64 {
        self.slots().filter(|(print, _)| *print != OVERFLOW).count() as u64
    }

    fn put(&mut self, slot: usize, print: u64, debt: Debt) -> bool {
        match (self.prints.get_mut(slot), self.debts.get_mut(slot)) {
            (Some(to_print), Some(to_debt)) => {
                (*to_print, *to_debt) = (print, debt);
                true
            }
            _ => false,
        }
    }

    /// The bucket of the key with this fingerprint, which is not 0.
    pub(super) fn bucket(&self, print: u64) -> Bucket {
        let find = |print| self.slots().enumerate().find(|(_, (p, _))| *p == print);
        let found = |print| find(print).map(|(slot, (print, debt))| Bucket { slot, print, debt });
        let overflow = found(OVERFLOW);
        let keys = self.used - usize::from(overflow.is_some());
        let new = |print| Bucket { slot: self.used, print, debt: 0 };
        match found(print) {
            Some(own) => own,
            None if keys < WAYS => new(print),
            None => overflow.unwrap_or_else(|| new(OVERFLOW)),
        }
    }

    /// Gives `bucket`, which is one of this set, its new debt.
    pub(super) fn set(&mut self, bucket: Bucket, debt: Debt) {
        if self.put(bucket.slot, bucket.print, debt) && bucket.slot == self.used {
            self.used += 1;
        }
    }

    /// Takes `debt` off the bucket that [`Bucket::is_shared`] says, or the key's own; what is not there owes nothing.
    pub(super) fn refund(&mut self, print: u64, shared: bool, debt: Debt) {
        let print = if shared { OVERFLOW } else { print };
        let slot = self.slots().position(|(p, _)| p == print);
        if let Some(slot) = slot
            && let Some(owed) = self.debts.get_mut(slot)
        {
            *owed = owed.saturating_sub(debt);
        }
    }
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

    /// Takes one request's worth; whether it passed, and whether out of the overflow bucket.
    fn take(set: &mut Set, print: u64, now: Timestamp) -> (bool, bool) {
        set.advance(&rate(), now);
        let bucket = set.bucket(print);
        let passes = rate().allows(bucket.debt, 1);
        if passes {
            set.set(bucket, bucket.debt + rate().price(1));
        }
        let mut buffer = [0; LONGEST];
        *set = Set::read(set.write(&mut buffer));
        (passes, bucket.is_shared())
    }

    #[test]
    fn a_set_survives_writing_and_reading() {
        let mut set = Set::EMPTY;
        set.advance(&rate(), at(5));
        for print in 1..=WAYS as u64 {
            let bucket = set.bucket(print);
            set.set(bucket, Debt::from(print) << 80);
        }
        let mut buffer = [0; LONGEST];
        let again = Set::read(set.write(&mut buffer));
        assert_eq!((again.base, again.used, again.prints, again.debts), (set.base, set.used, set.prints, set.debts));
    }

    #[test]
    fn bytes_of_a_stranger_are_an_empty_set() {
        for bytes in [&b""[..], b"1234567", &[0xff; 9], &[0xff; 8 + 19]] {
            assert_eq!(Set::read(bytes).used, 0);
        }
        // Too many slots are cut, not read past the end.
        assert_eq!(Set::read(&[0xff; 8 + 40 * SLOT]).used, SLOTS);
    }

    #[test]
    fn only_a_full_bucket_is_forgotten() {
        let mut set = Set::EMPTY;
        for print in 1..=WAYS as u64 {
            assert_eq!(take(&mut set, print, at(100)), (true, false));
            assert_eq!(take(&mut set, print, at(100)), (true, false));
        }
        // All slots are busy for two seconds, so nobody is forgotten, and nobody gets in.
        for print in 1..=WAYS as u64 {
            assert_eq!(take(&mut set, print, at(100)), (false, false));
        }
        assert_eq!(take(&mut set, 99, at(101)), (true, true));
        // One second later everybody may once more, and a second after that the slots are free.
        assert_eq!(take(&mut set, 1, at(101)), (true, false));
        assert_eq!(take(&mut set, 99, at(102)), (true, false));
    }

    #[test]
    fn keys_without_a_slot_share_one_bucket() {
        let mut set = Set::EMPTY;
        for print in 1..=WAYS as u64 {
            take(&mut set, print, at(100));
        }
        let passed = (100..150).filter(|print| take(&mut set, *print, at(100)).0).count();
        assert_eq!(passed, 2);
        assert_eq!(set.used, SLOTS);
    }

    #[test]
    fn a_refund_is_what_was_taken_and_no_more() {
        let mut set = Set::EMPTY;
        take(&mut set, 7, at(1));
        set.refund(7, false, rate().price(1));
        assert_eq!(set.bucket(7).debt, 0);
        set.refund(7, false, rate().price(1));
        set.refund(8, false, rate().price(1));
        set.refund(8, true, rate().price(1));
        assert_eq!((set.bucket(7).debt, set.used), (0, 1));
    }
}
