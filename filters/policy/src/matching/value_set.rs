//! A set of values, for `type: In`.

use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use crate::asked::NameFilter;

/// The values, compared byte for byte. A value that is longer than all of them, or whose last byte none of them has, is
/// not hashed.
#[derive(Clone, Debug, Default)]
pub struct ValueSet {
    values: HashSet<Box<[u8]>, FxBuildHasher>,
    filter: NameFilter,
    longest: usize,
}

impl ValueSet {
    /// Whether `value` is one of them.
    pub fn contains(&self, value: &[u8]) -> bool {
        value.len() <= self.longest && self.filter.may_have(value) && self.values.contains(value)
    }

    /// The values in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.values.iter().map(|value| &**value)
    }

    /// Whether `other` contains all of them.
    pub fn is_subset(&self, other: &ValueSet) -> bool {
        self.values.is_subset(&other.values)
    }
}

impl FromIterator<Box<[u8]>> for ValueSet {
    fn from_iter<I: IntoIterator<Item = Box<[u8]>>>(values: I) -> ValueSet {
        let mut set = ValueSet::default();
        for value in values {
            set.filter.add(&value);
            set.longest = set.longest.max(value.len());
            set.values.insert(value);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_set_has_its_values_and_no_others() {
        let set: ValueSet = ["", "a", "beta"].map(|value| Box::from(value.as_bytes())).into_iter().collect();
        for (value, expected) in
            [("", true), ("a", true), ("beta", true), ("b", false), ("zeta", false), ("beta ", false), ("A", false)]
        {
            assert_eq!(set.contains(value.as_bytes()), expected, "{value}");
        }
        assert!(!ValueSet::default().contains(b"") && ValueSet::default().is_subset(&set));
    }
}
