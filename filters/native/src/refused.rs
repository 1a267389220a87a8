//! Policies that were refused. Envoy forgets a refused configuration, and all that it counted; the one that keeps serving under
//! the same plugin's name counts for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The most names that wait: those of plugins that never had a policy wait for ever.
const MOST: usize = if cfg!(miri) { 20 } else { 1_000 };

/// Refusals by plugin that nobody has counted yet.
static REFUSED: Mutex<BTreeMap<Vec<u8>, u32>> = Mutex::new(BTreeMap::new());

/// A policy of this plugin was refused.
pub(crate) fn note(plugin: Vec<u8>) {
    let mut all = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < MOST || all.contains_key(&plugin) {
        let count = all.entry(plugin).or_default();
        *count = count.saturating_add(1);
    }
}

/// How many were refused since the last time that this was asked.
pub(crate) fn take(plugin: &[u8]) -> u32 {
    REFUSED.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_once_by_plugin_and_take_bounded_memory() {
        note(b"a".to_vec());
        note(b"a".to_vec());
        note(b"b".to_vec());
        assert_eq!([take(b"a"), take(b"a"), take(b"b"), take(b"c")], [2, 0, 1, 0]);
        // Plugins without end take no memory without end.
        (0..2 * MOST).for_each(|number| note(number.to_string().into_bytes()));
        assert!(REFUSED.lock().unwrap().len() <= MOST);
        let counted: u32 = (0..2 * MOST).map(|number| take(number.to_string().as_bytes())).sum();
        assert_eq!(counted as usize, MOST);
    }
}
