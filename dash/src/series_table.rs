//! A bounded number of counters.

use std::collections::BTreeMap;

use crate::series::{CounterSeries, PollInterval, WINDOW};

/// Counters that have not increased for this many seconds give their place to others.
const IDLE: f64 = 2.0 * WINDOW;

/// Counters by name. When there are more than the maximum, those that count stay, and those that have not counted for the
/// longest time are left out until they count again.
#[derive(Debug, Default)]
pub struct SeriesTable(BTreeMap<Box<str>, CounterSeries>);

impl SeriesTable {
    /// The number of counters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The counters, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &CounterSeries)> {
        self.0.iter().map(|(name, series)| (&**name, series))
    }

    /// One counter.
    pub fn get(&self, name: &str) -> Option<&CounterSeries> {
        self.0.get(name)
    }

    /// Adds a proxy's counters, `before` and `now`; `before` is `None` at the first poll. Returns whether some were left
    /// out because there are more than `most`.
    pub fn note_all(
        &mut self,
        before: Option<&BTreeMap<Box<str>, u64>>,
        now: &BTreeMap<Box<str>, u64>,
        at: f64,
        most: usize,
    ) -> bool {
        let mut is_left_out = self.trim(most);
        let mut idle = None;
        for (name, &value) in now {
            // A counter that is new was 0 before, unless this is the first poll.
            let before = before.map(|before| before.get(name).copied().unwrap_or(0));
            if let Some(series) = self.0.get_mut(name) {
                series.note(before, value, at);
                continue;
            }
            if self.0.len() >= most {
                is_left_out = true;
                let counts = before.is_some_and(|before| before != value);
                if !counts {
                    continue;
                }
                let Some(oldest) = idle.get_or_insert_with(|| self.idle(at)).pop() else { continue };
                self.0.remove(&oldest);
            }
            let mut series = CounterSeries::after(before.unwrap_or(0));
            series.note(before, value, at);
            self.0.insert(name.clone(), series);
        }
        is_left_out
    }

    /// Removes the counters above the maximum that have not increased for the longest time. Returns whether there were any.
    pub fn trim(&mut self, most: usize) -> bool {
        let Some(over) = self.0.len().checked_sub(most).filter(|&over| over > 0) else { return false };
        let mut ages: Vec<f64> = self.0.values().map(last).collect();
        let (_, &mut newest, _) = ages.select_nth_unstable_by(over - 1, f64::total_cmp);
        let mut left = over;
        // Several may have increased at that time.
        self.0.retain(|_, series| {
            let goes = left > 0 && last(series) < newest;
            left -= usize::from(goes);
            !goes
        });
        self.0.retain(|_, series| {
            let goes = left > 0 && last(series) <= newest;
            left -= usize::from(goes);
            !goes
        });
        true
    }

    /// Ends the current interval.
    pub fn tick(&mut self, tick: PollInterval) {
        self.0.values_mut().for_each(|series| series.tick(tick));
    }

    /// The names of counters that do not count, the one that has not for the longest time last.
    fn idle(&self, at: f64) -> Vec<Box<str>> {
        let idle = self.0.iter().filter(|(_, series)| at - last(series) >= IDLE);
        let mut idle: Vec<(f64, &str)> = idle.map(|(name, series)| (last(series), &**name)).collect();
        idle.sort_unstable_by(|(a, _), (b, _)| b.total_cmp(a));
        idle.into_iter().map(|(_, name)| name.into()).collect()
    }
}

fn last(series: &CounterSeries) -> f64 {
    series.last().unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn counters<const N: usize>(values: [(&str, u64); N]) -> BTreeMap<Box<str>, u64> {
        values.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }

    fn names(table: &SeriesTable) -> Vec<&str> {
        table.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_counter_that_counts_takes_the_place_of_one_that_does_not() {
        let mut table = SeriesTable::default();
        let first = counters([("a", 5), ("b", 5), ("c", 5)]);
        assert!(!table.note_all(None, &first, 0.0, 3));
        let second = counters([("a", 5), ("b", 6), ("c", 6), ("d", 7)]);
        assert!(table.note_all(Some(&first), &second, 1_000.0, 3));
        assert_eq!(names(&table), ["b", "c", "d"]);
        // One that was left out counts again. Nobody else has been idle for long enough.
        let third = counters([("a", 6), ("b", 6), ("c", 7), ("d", 7)]);
        assert!(table.note_all(Some(&second), &third, 1_001.0, 3));
        assert_eq!(names(&table), ["b", "c", "d"]);
        let fourth = counters([("a", 7), ("b", 6), ("c", 7), ("d", 9)]);
        assert!(table.note_all(Some(&third), &fourth, 1_100.0, 3));
        assert_eq!(names(&table), ["a", "c", "d"]);
        table.tick(PollInterval { at: 1_100.0, seconds: 1.0, watched: 1_100.0 });
        // What the proxy had counted before is part of its total.
        assert_eq!(table.get("a").unwrap().rate().total, 7);
        assert!(!table.note_all(Some(&fourth), &counters([("a", 7), ("c", 7), ("d", 9)]), 1_101.0, 3));
    }

    #[test]
    fn counters_of_old_rules_do_not_keep_those_of_new_rules_out() {
        let (mut table, mut before) = (SeriesTable::default(), BTreeMap::new());
        // Envoy keeps the counters of each policy that it has had.
        for policy in 0..20_u32 {
            let mut now = before.clone();
            (0..50).for_each(|rule| {
                now.insert(format!("p{policy}.r{rule}").into(), 1);
            });
            table.note_all(Some(&before), &now, 100.0 * f64::from(policy), 100);
            let newest = table.iter().filter(|(name, _)| name.starts_with(&format!("p{policy}."))).count();
            assert_eq!((newest, table.len()), (50, if policy == 0 { 50 } else { 100 }));
            before = now;
        }
    }

    #[test]
    fn a_smaller_maximum_removes_those_that_counted_longest_ago() {
        let mut table = SeriesTable::default();
        let nothing = BTreeMap::new();
        table.note_all(Some(&nothing), &counters([("a", 1)]), 3.0, 10);
        table.note_all(Some(&nothing), &counters([("b", 1), ("c", 1)]), 2.0, 10);
        table.note_all(None, &counters([("d", 1)]), 9.0, 10);
        assert!(!table.trim(4) && table.trim(2));
        assert_eq!(names(&table), ["a", "c"]);
        assert!(table.trim(0) && table.is_empty());
    }
}
