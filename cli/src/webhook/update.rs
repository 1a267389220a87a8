//! Compares an update with the current object: whether it changes anything relevant, and whether it loosens a policy
//! and needs an approval.

use penstock_policy::document::Node;
use sha2::{Digest, Sha256};

use super::marks::APPROVAL;
use super::review::ReviewAnswer;
use crate::manifests::{ANNOTATION, LABEL};
use crate::{diff, replay, yaml_text};

/// A loosening by an update.
pub struct Loosened {
    changes: Vec<String>,
    /// A hash of the old and the new object: an approval is valid for one update only.
    hash: String,
}

/// Whether an update leaves everything unchanged that is checked.
pub fn is_same(old: &Node, new: &Node) -> bool {
    content(old) == content(new)
}

/// The requests that an update allows and that were refused before. Both sides are policies, of which the new ones are
/// valid.
pub fn loosened(old: (&Node, &[(String, &Node)]), new: (&Node, &[(String, &Node)])) -> Option<Loosened> {
    let ((old, was), (object, is)) = (old, new);
    if is_same(old, object) {
        return None;
    }
    let mut changes = Vec::new();
    for (place, policy) in was {
        match is.iter().find(|(other, _)| other == place) {
            Some((_, new)) if *new == *policy => {}
            Some((_, new)) => changes.extend(diff::loosenings(policy, new, replay::now())),
            None if restricts(policy) => changes.push(format!("the policy {place} is gone, or no longer checked")),
            None => {}
        }
    }
    if was.iter().any(|(_, policy)| restricts(policy)) {
        if fails_open(object) && !fails_open(old) {
            changes.push("the plugin lets all requests pass if it fails".to_owned());
        }
        let spec = |object: &Node, field: &str| object.get("spec").and_then(|spec| spec.get(field)).cloned();
        const WHERE: [&str; 6] = ["selector", "targetRef", "targetRefs", "targetSelectors", "match", "phase"];
        for field in WHERE.iter().filter(|field| spec(old, field) != spec(object, field)) {
            changes.push(format!("spec.{field}: the plugin no longer runs everywhere where it ran before"));
        }
    }
    (!changes.is_empty()).then(|| Loosened { changes, hash: hash(old, object) })
}

impl Loosened {
    /// Refuses the update unless it is approved, or warns where no approval is required.
    pub fn settle(&self, object: &Node, requires_approval: bool, answer: &mut ReviewAnswer) {
        let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let approval = annotations.and_then(|annotations| annotations.get(APPROVAL));
        if !requires_approval || matches!(approval, Some(Node::String(hash)) if *hash == self.hash) {
            answer.warnings.extend(self.changes.iter().map(|change| format!("loosens: {change}")));
            return;
        }
        // The API server forwards messages of any length, but users read the first lines.
        const SHOWN: usize = 50;
        let mut list: String = self.changes.iter().take(SHOWN).map(|change| format!("- {change}\n")).collect();
        if self.changes.len() > SHOWN {
            list += &format!("- and {} more: see penstock diff\n", self.changes.len() - SHOWN);
        }
        if approval.is_some() {
            list += "its annotation approves another update\n";
        }
        answer.refusal = Some(format!(
            "\nthe update loosens the policy:\n{list}to approve it, annotate the object: {APPROVAL}: \"{}\"",
            self.hash
        ));
    }
}

/// The policies of an object, and the metadata that determines whether they are checked.
fn content(object: &Node) -> Vec<&Node> {
    let mark = |list: &str, name: &str| object.get("metadata")?.get(list)?.get(name);
    let marks = [mark("annotations", ANNOTATION), mark("labels", LABEL)];
    let parts = ["spec", "data", "binaryData"].map(|field| object.get(field));
    parts.into_iter().chain(marks).map(|part| part.unwrap_or(&Node::Null)).collect()
}

/// Whether a policy refuses any request.
pub fn restricts(policy: &Node) -> bool {
    policy.get("egress").is_some() || policy.get("rateLimits").is_some()
}

/// Whether a plugin lets requests pass when it fails.
fn fails_open(node: &Node) -> bool {
    match node {
        Node::Map(fields) => fields.iter().any(|(field, value)| match (field.as_str(), value) {
            ("failStrategy", Node::String(word)) => word == "FAIL_OPEN",
            ("failOpen", Node::Bool(open)) => *open,
            ("pluginConfig" | "config", _) => false,
            _ => fails_open(value),
        }),
        Node::List(items) => items.iter().any(fails_open),
        _ => false,
    }
}

/// Sixteen hexadecimal digits.
fn hash(old: &Node, new: &Node) -> String {
    let mut hasher = Sha256::new();
    for part in content(old).into_iter().chain(content(new)) {
        hasher.update(yaml_text::block(part, 0));
        hasher.update([0]);
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
