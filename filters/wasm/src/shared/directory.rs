//! Where each table is stored: shared data cannot be deleted, so the places of former tables are reused for new ones.
//!
//! All values of a plugin's tables are numbered together, and the *directory*, one value of the shared data, records
//! which table has which numbers. Nobody coordinates the workers: each reads the directory when it first uses a
//! policy's tables, and whoever
//! comes first writes what is missing. After that the place is known, and the directory is asked only once a second.
//!
//! Nobody says either when a policy has gone: it may be deciding its last requests in some worker while its listener drains,
//! and a VM may have died. So the directory counts generations: each policy with a new table is one, and the tables of the
//! policies that live are brought up to the current generation once a second. A table that was left behind by two
//! generations makes room. One that had to although its policy lives (three reloads within a second) finds values of
//! another owner in its place, asks the directory, and gets a place behind all others.

/// One table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TableEntry {
    identity: u64,
    /// Its first number, and how many numbers it has.
    start: u32,
    slots: u32,
    /// The last generation in which a policy used it.
    generation: u32,
}

const ENTRY: usize = 8 + 4 + 4 + 4;

/// The tables of one plugin, in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    generation: u32,
    entries: Vec<TableEntry>,
}

/// Whether this policy may replace the tables of other policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Displacement {
    /// For a new policy: it replaces the tables that no policy uses any more.
    Arrives,
    /// For a policy whose tables were replaced: it gets places after all others.
    Returns,
}

impl Directory {
    /// Reads what [`Directory::write`] wrote; anything else is an empty directory.
    pub(super) fn read(bytes: &[u8]) -> Directory {
        let Some((generation, entries)) = bytes.split_first_chunk::<4>() else { return Directory::default() };
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        let entry = |bytes: &[u8; ENTRY]| {
            let (identity, rest) = bytes.split_first_chunk::<8>()?;
            let (start, rest) = rest.split_first_chunk::<4>()?;
            let (slots, generation) = rest.split_first_chunk::<4>()?;
            Some(TableEntry {
                identity: u64::from_le_bytes(*identity),
                start: u32::from_le_bytes(*start),
                slots: u32::from_le_bytes(*slots),
                generation: u32::from_le_bytes(generation.try_into().ok()?),
            })
        };
        let entries: Vec<TableEntry> = entries.iter().filter_map(entry).collect();
        let in_order = entries.array_windows().all(|[one, next]| one.end().is_some_and(|end| end <= next.start));
        let is_one = rest.is_empty() && in_order && entries.last().is_none_or(|last| last.end().is_some());
        if is_one { Directory { generation: u32::from_le_bytes(*generation), entries } } else { Directory::default() }
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.generation.to_le_bytes());
        for entry in &self.entries {
            bytes.extend(entry.identity.to_le_bytes());
            for number in [entry.start, entry.slots, entry.generation] {
                bytes.extend(number.to_le_bytes());
            }
        }
    }

    /// The first number of each of these tables, given by identity and number of slots; `None` unless all exist.
    pub(super) fn find(&self, tables: &[(u64, u32)]) -> Option<Vec<u32>> {
        let mut known: Vec<(u64, u32, u32)> = self.entries.iter().map(|e| (e.identity, e.slots, e.start)).collect();
        known.sort_unstable();
        let find = |&(identity, slots): &(u64, u32)| {
            let at = known.partition_point(|&(i, s, _)| (i, s) < (identity, slots));
            known.get(at).filter(|&&(i, s, _)| (i, s) == (identity, slots)).map(|&(.., start)| start)
        };
        tables.iter().map(find).collect()
    }

    /// Assigns places to the tables of a policy, and marks them with the current generation. Returns whether the directory has changed.
    pub(super) fn claim(&mut self, tables: &[(u64, u32)], claim: Displacement) -> bool {
        let mut wanted: Vec<(u64, u32)> = tables.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut is_there = vec![false; wanted.len()];
        for entry in &self.entries {
            let at = wanted.binary_search(&(entry.identity, entry.slots));
            if let Some(is_there) = at.ok().and_then(|at| is_there.get_mut(at)) {
                *is_there = true;
            }
        }
        let missing: Vec<(u64, u32)> =
            wanted.iter().zip(&is_there).filter(|(_, is_there)| !**is_there).map(|(table, _)| *table).collect();
        if !missing.is_empty() && claim == Displacement::Arrives {
            self.generation = self.generation.saturating_add(1);
        }
        let mut has_changed = !missing.is_empty();
        for entry in &mut self.entries {
            if entry.generation != self.generation && wanted.binary_search(&(entry.identity, entry.slots)).is_ok() {
                entry.generation = self.generation;
                has_changed = true;
            }
        }
        if !missing.is_empty() && claim == Displacement::Arrives {
            let generation = self.generation;
            self.entries.retain(|entry| generation.saturating_sub(entry.generation) < 2);
        }
        self.place(&missing, claim);
        has_changed
    }

    /// Puts each table into the first gap that it fits into.
    fn place(&mut self, tables: &[(u64, u32)], claim: Displacement) {
        let behind = self.entries.last().and_then(|last| last.end()).unwrap_or(0);
        let mut from = if claim == Displacement::Arrives { 0 } else { behind };
        let mut at = if claim == Displacement::Arrives { 0 } else { self.entries.len() };
        for &(identity, slots) in tables {
            // The next gap from here; what is smaller and comes later may leave gaps, which the next policy fills.
            while let Some(next) = self.entries.get(at)
                && next.start - from < slots
            {
                from = next.end().unwrap_or(u32::MAX);
                at += 1;
            }
            // A policy has at most 2²⁰ sets, and there are only a few generations, so the numbers never run out.
            if from.checked_add(slots).is_none() {
                continue;
            }
            self.entries.insert(at, TableEntry { identity, start: from, slots, generation: self.generation });
            from += slots;
            at += 1;
        }
    }

    /// The number after the last one in use.
    #[cfg(test)]
    pub(super) fn extent(&self) -> u32 {
        self.entries.last().and_then(|last| last.end()).unwrap_or(0)
    }
}

impl TableEntry {
    fn end(&self) -> Option<u32> {
        self.start.checked_add(self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(first: u64, number: u64, slots: u32) -> Vec<(u64, u32)> {
        (first..first + number).map(|identity| (identity, slots)).collect()
    }

    fn arrive(directory: &mut Directory, tables: &[(u64, u32)]) -> Vec<u32> {
        directory.claim(tables, Displacement::Arrives);
        directory.find(tables).unwrap()
    }

    #[test]
    fn workers_with_the_same_policy_agree_and_write_once() {
        let mut directory = Directory::default();
        let tables = policy(1, 50, 8);
        assert_eq!(directory.find(&tables), None);
        assert!(directory.claim(&tables, Displacement::Arrives));
        let places = directory.find(&tables).unwrap();
        let before = directory.clone();
        assert!(!directory.claim(&tables, Displacement::Arrives));
        assert_eq!((&directory, directory.find(&tables)), (&before, Some(places)));
    }

    #[test]
    fn a_table_that_stays_keeps_its_place_whatever_comes_and_goes_around_it() {
        let mut directory = Directory::default();
        let stays = [(7, 8_192)];
        let place = arrive(&mut directory, &[&policy(100, 3, 50)[..], &stays].concat())[3];
        for round in 0..100_u64 {
            let tables = [&policy(1_000 + round * 10, round % 5, 100)[..], &stays, &policy(5, 1, 3)].concat();
            let places = arrive(&mut directory, &tables);
            assert_eq!(places[usize::try_from(round % 5).unwrap()], place, "{round}");
        }
    }

    #[test]
    fn what_is_gone_makes_room_after_two_reloads() {
        let mut directory = Directory::default();
        arrive(&mut directory, &policy(0, 50, 8_192));
        let first = directory.extent();
        for round in 1..1000 {
            arrive(&mut directory, &policy(round * 50, 50, 8_192));
            assert!(directory.extent() <= 2 * first, "{round}");
        }
        assert_eq!(directory.entries.len(), 100);
    }

    #[test]
    fn policies_that_live_side_by_side_keep_their_places() {
        let mut directory = Directory::default();
        let (drains, lives) = (policy(1, 3, 8), policy(10, 3, 8));
        let places = [arrive(&mut directory, &drains), arrive(&mut directory, &lives)];
        for round in 0..100 {
            // A second passes.
            directory.claim(&drains, Displacement::Returns);
            directory.claim(&lives, Displacement::Returns);
            arrive(&mut directory, &policy(100 + round, 1, 8));
            assert_eq!([&drains, &lives].map(|tables| directory.find(tables).unwrap()), places, "{round}");
        }
    }

    #[test]
    fn whoever_was_displaced_displaces_nobody() {
        let mut directory = Directory::default();
        let policies: Vec<_> = (0..5).map(|i| policy(i * 10, 3, 8)).collect();
        policies.iter().for_each(|tables| drop(arrive(&mut directory, tables)));
        assert_eq!(directory.find(&policies[0]), None);
        for tables in &policies {
            directory.claim(tables, Displacement::Returns);
        }
        for tables in &policies {
            assert!(directory.find(tables).is_some());
        }
    }

    #[test]
    fn bytes_of_a_stranger_are_an_empty_directory() {
        let mut directory = Directory::default();
        arrive(&mut directory, &policy(1, 3, 8));
        let mut bytes = Vec::new();
        directory.write(&mut bytes);
        assert_eq!(Directory::read(&bytes), directory);
        bytes.push(0);
        for bytes in [&bytes[..], b"", b"abc", &[0xff; 4 + 2 * ENTRY], &[0xff; 4 + ENTRY]] {
            assert_eq!(Directory::read(bytes).entries, []);
        }
    }

    proptest! {
        #[test]
        fn places_never_overlap(
            steps in prop::collection::vec((prop::collection::vec((0_u64..30, 1_u32..20), 0..10), any::<bool>()), 1..40),
        ) {
            let mut directory = Directory::default();
            for (tables, returns) in steps {
                let claim = if returns { Displacement::Returns } else { Displacement::Arrives };
                directory.claim(&tables, claim);
                prop_assert_eq!(directory.find(&tables).map(|found| found.len()), Some(tables.len()));
                let mut bytes = Vec::new();
                directory.write(&mut bytes);
                prop_assert_eq!(Directory::read(&bytes), directory.clone());
            }
        }
    }
}
