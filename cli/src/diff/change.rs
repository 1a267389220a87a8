//! The meaning of a change of a policy.

use penstock_policy::document::Node;
use serde::Serialize;

use super::sought::Sought;
use crate::within::witness::Witness;

/// The direction of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeClass {
    /// Something may pass that was refused before.
    Loosened,
    /// Something may be refused that passed before.
    Tightened,
    /// Neither: for example another route, another variant, another text.
    Changed,
}

/// One change.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyChange {
    /// The direction of the change.
    pub class: ChangeClass,
    /// The object that contains the policy, when there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The path, with names instead of numbers: `egress.rules[stripe].methods`.
    pub path: String,
    /// The description of the change.
    pub message: String,
    /// Where to search for a request that shows a loosening.
    #[serde(skip)]
    pub sought: Sought,
    /// The requests that show a loosening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Why no request shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proof: Option<&'static str>,
}

/// An example that shows a loosening.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// One or several requests in order, in the format of `penstock replay`. All of them pass with the new policy.
    pub passes: Witness,
    /// The old policy's response to the last one: status and reason.
    pub before: String,
    /// A description of the last one.
    #[serde(skip)]
    pub words: String,
}

/// The changes found so far.
#[derive(Debug, Default)]
pub struct Changes(pub Vec<PolicyChange>);

impl Changes {
    /// Records a change.
    pub fn push(&mut self, class: ChangeClass, path: impl Into<String>, message: impl Into<String>, sought: Sought) {
        let (path, message) = (path.into(), message.into());
        self.0.push(PolicyChange { class, object: None, path, message, sought, proof: None, no_proof: None });
    }

    /// Records that something may pass that was refused before; `sought` says where to search for an example.
    pub fn loosened(&mut self, path: impl Into<String>, message: impl Into<String>, sought: Sought) {
        self.push(ChangeClass::Loosened, path, message, sought);
    }

    /// Records that something may be refused that passed before.
    pub fn tightened(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(ChangeClass::Tightened, path, message, Sought::NOT);
    }

    /// Records a change that does neither.
    pub fn changed(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.push(ChangeClass::Changed, path, message, Sought::NOT);
    }

    /// The number of changes with this direction.
    pub fn count(&self, class: ChangeClass) -> usize {
        self.0.iter().filter(|change| change.class == class).count()
    }
}

/// Records the fields of an object that differ, except those in `known`, as changes that neither loosen nor tighten.
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

/// The names in both lists whose order has changed: the smallest set that explains the difference.
pub fn moved<'n>(old: &[&'n str], new: &[&'n str]) -> Vec<&'n str> {
    // The longest run that kept its order stays; all others moved. Patience sorting, O(n log n).
    let place: std::collections::HashMap<&str, usize> = old.iter().enumerate().map(|(i, name)| (*name, i)).collect();
    let common: Vec<(&'n str, usize)> = new.iter().filter_map(|name| Some((*name, *place.get(name)?))).collect();
    // For each length, the run that ends lowest, as an index into `common`, and the predecessor of each element.
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
