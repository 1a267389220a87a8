//! A trie over labels: host names from the right, paths by segment. One flat hash table holds all edges, so that a
//! look-up costs one hash a label and stops at the first label that no pattern has.

use std::hash::{Hash, Hasher};

use hashbrown::{Equivalent, HashMap};
use rustc_hash::FxBuildHasher;

use crate::bytes::same;

/// The values at a node: for exactly its labels, and for everything below.
#[derive(Clone, Debug)]
pub struct Slot<T> {
    /// For exactly these labels.
    pub exact: Option<T>,
    /// For these labels followed by others.
    pub below: Option<T>,
}

/// The node where all labels begin.
pub const ROOT: u32 = 0;

/// The trie; node 0 is [`ROOT`].
#[derive(Clone, Debug)]
pub struct Trie<T> {
    edges: HashMap<Edge, u32, FxBuildHasher>,
    slots: Vec<Slot<T>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Edge {
    parent: u32,
    label: Box<[u8]>,
}

/// A borrowed [`Edge`]; its hash must be the same.
struct EdgeRef<'a> {
    parent: u32,
    label: &'a [u8],
}

impl Hash for EdgeRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parent.hash(state);
        self.label.hash(state);
    }
}

impl Equivalent<Edge> for EdgeRef<'_> {
    fn equivalent(&self, edge: &Edge) -> bool {
        self.parent == edge.parent && same(self.label, &edge.label)
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Trie { edges: HashMap::default(), slots: vec![Slot { exact: None, below: None }] }
    }
}

impl<T> Trie<T> {
    /// The slot for `labels`, created if necessary. `None` only past 2^32 nodes, which no configuration reaches.
    pub fn slot<'l>(&mut self, labels: impl Iterator<Item = &'l [u8]>) -> Option<&mut Slot<T>> {
        let mut at = 0u32;
        for label in labels {
            let key = EdgeRef { parent: at, label };
            at = match self.edges.get(&key) {
                Some(&child) => child,
                None => {
                    let child = u32::try_from(self.slots.len()).ok()?;
                    self.edges.insert(Edge { parent: at, label: label.into() }, child);
                    self.slots.push(Slot { exact: None, below: None });
                    child
                }
            };
        }
        self.slots.get_mut(at as usize)
    }

    /// Follows `labels` from the root and calls `each` with every slot on the way; `last` is true when no label is
    /// left.
    pub fn walk<'t, 'l>(&'t self, labels: impl Iterator<Item = &'l [u8]>, mut visit: impl FnMut(&'t Slot<T>, bool)) {
        let mut labels = labels.peekable();
        let mut at = 0u32;
        while let Some(slot) = self.slots.get(at as usize) {
            visit(slot, labels.peek().is_none());
            let Some(label) = labels.next() else { return };
            match self.edges.get(&EdgeRef { parent: at, label }) {
                Some(&child) => at = child,
                None => return,
            }
        }
    }

    /// The node that `label` leads to from the node `parent`, and its slot.
    pub fn child(&self, parent: u32, label: &[u8]) -> Option<(u32, &Slot<T>)> {
        let child = *self.edges.get(&EdgeRef { parent, label })?;
        Some((child, self.slots.get(child as usize)?))
    }

    /// The same trie with every value replaced.
    pub fn map<U>(self, mut convert: impl FnMut(T) -> U) -> Trie<U> {
        let slots = self
            .slots
            .into_iter()
            .map(|slot| Slot { exact: slot.exact.map(&mut convert), below: slot.below.map(&mut convert) })
            .collect();
        Trie { edges: self.edges, slots }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn labels(text: &str) -> impl Iterator<Item = &[u8]> {
        text.split('/').filter(|label| !label.is_empty()).map(str::as_bytes)
    }

    fn seen(trie: &Trie<&'static str>, text: &str) -> Vec<&'static str> {
        let mut seen = Vec::new();
        trie.walk(labels(text), |slot, last| {
            seen.extend(slot.below.filter(|_| !last));
            seen.extend(slot.exact.filter(|_| last));
        });
        seen
    }

    #[test]
    fn a_walk_shows_every_ancestor_and_the_place_itself() {
        let mut trie = Trie::default();
        trie.slot(labels("")).unwrap().below = Some("root");
        trie.slot(labels("a")).unwrap().below = Some("a/*");
        trie.slot(labels("a/b")).unwrap().exact = Some("a/b");
        assert_eq!(seen(&trie, "a/b"), ["root", "a/*", "a/b"]);
        assert_eq!(seen(&trie, "a/c/d"), ["root", "a/*"]);
        assert_eq!(seen(&trie, "b"), ["root"]);
        assert_eq!(seen(&trie, ""), [] as [&str; 0]);
    }
}
