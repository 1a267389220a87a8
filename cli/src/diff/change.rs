//! What a change of policy means.

use penstock_policy::document::Node;
use serde::Serialize;

use super::proof::{Proof, Sought};

/// Which way a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeClass {
    /// Something may pass that was refused.
    Loosened,
    /// Something may be refused that passed.
    Tightened,
    /// Neither: another route, another variant, other words.
    Changed,
}

/// One change.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyChange {
    /// Which way it goes.
    pub class: ChangeClass,
    /// The object that holds the policy, when there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Where, with names in place of numbers: `egress.rules[stripe].methods`.
    pub path: String,
    /// What, in words.
    pub message: String,
    /// Where a loosening shows.
    #[serde(skip)]
    pub sought: Sought,
    /// What shows a loosening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Why nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proof: Option<&'static str>,
}

/// The changes found so far.
#[derive(Debug, Default)]
pub struct Changes(pub Vec<PolicyChange>);

impl Changes {
    /// Notes a change.
    pub fn push(&mut self, class: ChangeClass, path: impl Into<String>, message: impl Into<String>, sought: Sought) {
        let (path, message) = (path.into(), message.into());
        self.0.push(PolicyChange { class, object: None, path, message, sought, proof: None, no_proof: None });
    }

    /// Something may pass that was refused, such as what is `sought`.
    pub fn loosened(&mut self, path: impl Into<String>, message: impl Into<String>, sought: Sought) {
        self.push(ChangeClass::Loosened, path, message, sought);
    }

    /// Something may be refused that passed.
    pub fn tightened(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(ChangeClass::Tightened, path, message, Sought::NOT);
    }

    /// Neither.
    pub fn changed(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(ChangeClass::Changed, path, message, Sought::NOT);
    }

    /// How many are of `class`.
    pub fn count(&self, class: ChangeClass) -> usize {
        self.0.iter().filter(|change| change.class == class).count()
    }
}

/// The fields of an object that differ, but for `known`, as changes that neither loosen nor tighten.
pub fn other_fields(path: &str, old: &Node, new: &Node, known: &[&str], changes: &mut Changes) {
    let (Node::Map(before), Node::Map(after)) = (old, new) else { return };
    let mut fields: Vec<&String> = before.iter().chain(after).map(|(field, _)| field).collect();
    fields.sort_unstable();
    fields.dedup();
    for field in fields.into_iter().filter(|field| !known.contains(&field.as_str())) {
        let here = format!("{path}.{field}");
        match (old.get(field), new.get(field)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => changes.changed(here, format!("{old} → {new}")),
            (Some(old), None) => changes.changed(here, format!("no longer {old}")),
            (None, Some(new)) => changes.changed(here, format!("now {new}")),
            (None, None) => {}
        }
    }
}

/// The names of both lists that come in another order: as few as explain it.
pub fn moved<'n>(old: &[&'n str], new: &[&'n str]) -> Vec<&'n str> {
    // The longest run that kept its order stays; the others moved. Patience sorting, O(n log n).
    let place: std::collections::HashMap<&str, usize> = old.iter().enumerate().map(|(i, name)| (*name, i)).collect();
    let common: Vec<(&'n str, usize)> = new.iter().filter_map(|name| Some((*name, *place.get(name)?))).collect();
    // Of each length the run that ends lowest, as a place in `common`, and the one before each.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(common.len());
    for (i, (_, rank)) in common.iter().enumerate() {
        let length = ends.partition_point(|&end| common.get(end).is_some_and(|(_, other)| other < rank));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = i,
            None => ends.push(i),
        }
    }
    let mut stays = std::collections::HashSet::new();
    let mut at = ends.last().copied();
    while let Some(i) = at {
        stays.insert(i);
        at = before.get(i).copied().flatten();
    }
    common.iter().enumerate().filter(|(i, _)| !stays.contains(i)).map(|(_, (name, _))| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_as_possible_have_moved() {
        for (old, new, expected) in [
            ("abc", "abc", ""),
            ("abc", "cab", "c"),
            ("abcd", "bcda", "a"),
            ("abcd", "dcba", "dcb"),
            ("abc", "xaycz", ""),
            ("", "abc", ""),
        ] {
            let names = |text: &'static str| text.split("").filter(|name| !name.is_empty()).collect::<Vec<_>>();
            assert_eq!(moved(&names(old), &names(new)).concat(), expected, "{old} {new}");
        }
    }
}
