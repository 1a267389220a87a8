//! Counts refused policies. Envoy destroys a refused configuration with its metrics, so the configuration that stays
//! active under the same plugin name counts the refusal.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The maximum number of plugin names; for a plugin that never had a policy, the count is never collected.
const MOST: usize = if cfg!(miri) { 20 } else { 1_000 };

/// Uncollected refusals, by plugin.
static REFUSED: Mutex<BTreeMap<Vec<u8>, u32>> = Mutex::new(BTreeMap::new());

/// Records that a policy of this plugin was refused.
pub(crate) fn note(plugin: Vec<u8>) {
    let mut all = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < MOST || all.contains_key(&plugin) {
        let count = all.entry(plugin).or_default();
        *count = count.saturating_add(1);
    }
}

/// Returns how many were refused since the last call.
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
        // The memory is bounded for any number of plugins.
        (0..2 * MOST).for_each(|number| note(number.to_string().into_bytes()));
        assert!(REFUSED.lock().unwrap().len() <= MOST);
        let counted: u32 = (0..2 * MOST).map(|number| take(number.to_string().as_bytes())).sum();
        assert_eq!(counted as usize, MOST);
    }
}
