//! Pairs old and new policies: in files and folders with several plugins, those with the same name.

use anyhow::ensure;

use crate::policy_file::{PolicyFile, one};

/// Two policies of one plugin; one may be absent.
#[derive(Debug)]
pub struct PolicyPair {
    /// The plugin's name in messages; `None` when it is the only one.
    pub object: Option<String>,
    /// The old policy.
    pub old: Option<PolicyFile>,
    /// The new policy.
    pub new: Option<PolicyFile>,
}

/// Pairs the policies. With `old_runs`, the old side is a running system, and its policies that the new side lacks are
/// not a change.
///
/// # Errors
/// Returns an error when the pairs are ambiguous.
pub fn pairs(
    old: Vec<PolicyFile>,
    new: Vec<PolicyFile>,
    old_runs: bool,
    plugin: Option<&str>,
) -> anyhow::Result<Vec<PolicyPair>> {
    let only = |old, new| vec![PolicyPair { object: None, old: Some(old), new: Some(new) }];
    if plugin.is_some() {
        let pick = |side: Vec<PolicyFile>| match side.len() {
            // A plain policy file has no plugin name.
            1 if side.iter().all(|policy| policy.resource.is_none()) => one(side, None),
            _ => one(side, plugin),
        };
        return Ok(only(pick(old)?, pick(new)?));
    }
    let is_ours = |side: &[PolicyFile]| side.len() == 1 && side.iter().all(|policy| policy.resource.is_none());
    let only_one = old.len() == 1 && new.len() == 1 && !old_runs;
    if only_one || is_ours(&old) || is_ours(&new) {
        return Ok(only(one(old, None)?, one(new, None)?));
    }
    let mut old: Vec<Option<PolicyFile>> = old.into_iter().map(Some).collect();
    let mut pairs = Vec::new();
    for policy in new {
        let mut twins: Vec<(usize, &PolicyFile)> = old
            .iter()
            .enumerate()
            .filter_map(|(i, other)| Some((i, other.as_ref()?)))
            .filter(|(_, other)| same_plugin(other, &policy))
            .collect();
        // Among objects of several kinds, those of the same.
        if twins.iter().any(|(_, other)| other.resource == policy.resource) {
            twins.retain(|(_, other)| other.resource == policy.resource);
            ensure!(
                twins.len() <= 1,
                "{} occurs {} times on the old side, but a name is unique in a cluster: remove the others",
                policy.name(),
                twins.len()
            );
        }
        ensure!(
            twins.len() <= 1,
            "{} may be any of {}: add its namespace, or set --plugin",
            policy.name(),
            twins.iter().map(|(_, other)| other.name()).collect::<Vec<_>>().join(", ")
        );
        let twins: Vec<usize> = twins.into_iter().map(|(i, _)| i).collect();
        let twin = twins.first().and_then(|&i| old.get_mut(i)).and_then(Option::take);
        pairs.push(PolicyPair { object: policy.resource.clone(), old: twin, new: Some(policy) });
    }
    let gone: Vec<PolicyFile> = old.into_iter().flatten().collect();
    match old_runs {
        false => pairs.extend(gone.into_iter().map(|old| PolicyPair {
            object: old.resource.clone(),
            old: Some(old),
            new: None,
        })),
        true if !gone.is_empty() => {
            let names: Vec<String> = gone.iter().map(PolicyFile::name).collect();
            anstream::eprintln!("penstock: not compared, because the files do not contain them: {}", names.join(", "));
        }
        true => {}
    }
    Ok(pairs)
}

/// Whether two objects are the same plugin: the same name, and the same namespace when both have one. The kind does not
/// count, because Istio's WasmPlugin may be replaced by a TrafficExtension.
fn same_plugin(a: &PolicyFile, b: &PolicyFile) -> bool {
    let parts = |policy: &PolicyFile| {
        let resource = policy.resource.clone().unwrap_or_default();
        let name = resource.split_once(' ').map_or(resource.clone(), |(_, name)| name.to_owned());
        match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
            None => (None, name),
        }
    };
    let ((a_namespace, a_name), (b_namespace, b_name)) = (parts(a), parts(b));
    a_name == b_name && (a_namespace.is_none() || b_namespace.is_none() || a_namespace == b_namespace)
}
