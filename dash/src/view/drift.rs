//! Drift: whether the proxies of a cluster run the same policies.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Serialize;

use super::seen::{VisiblePart, part};

/// The versions of one plugin's policy, with the proxies that run each.
#[derive(Debug, Serialize)]
pub(super) struct Drift<'a> {
    pub(super) plugin: String,
    pub(super) hashes: Vec<PolicyVersion<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct PolicyVersion<'a> {
    pub(super) hash: String,
    pub(super) endpoints: Vec<&'a str>,
}

/// The names with which plugins without a name report.
const MODULES: [&str; 5] = ["suite", "egress-allowlist", "rate-limit", "header-routing", "canary"];

pub(super) fn drift<'a>(seen: &VisiblePart<'a>) -> Vec<Drift<'a>> {
    let mut plugins = BTreeMap::<String, BTreeMap<String, Vec<&str>>>::new();
    let shared: BTreeSet<String> = seen.shared_names.iter().map(|name| part(name)).collect();
    let is_shared = |plugin: &str| shared.contains(plugin) || (shared.contains("") && MODULES.contains(&plugin));
    for &(name, endpoint) in seen.endpoints.iter().filter(|(_, endpoint)| endpoint.alive()) {
        for plugin in endpoint.sample.plugins().filter(|plugin| !is_shared(plugin)) {
            let value = endpoint.sample.gauge(&format!("policy.{plugin}.hash")).unwrap_or_default();
            plugins.entry(plugin.to_owned()).or_default().entry(hash(value)).or_default().push(name);
        }
        // Plugins with the same name overwrite each other's gauge, so their documents are compared instead.
        let policies = endpoint.configuration.policies.iter();
        for policy in policies.filter(|policy| seen.shared_names.contains(&policy.metrics)) {
            let mut hasher = DefaultHasher::new();
            policy.document.to_string().hash(&mut hasher);
            let hash = format!("{:012x}", hasher.finish() >> 16);
            plugins.entry(policy.plugin.clone()).or_default().entry(hash).or_default().push(name);
        }
    }
    let version = |(hash, endpoints): (String, Vec<&'a str>)| PolicyVersion { hash, endpoints };
    let drift = |(plugin, versions): (String, BTreeMap<String, Vec<&'a str>>)| {
        let mut hashes: Vec<_> = versions.into_iter().map(version).collect();
        // The version that most proxies run is the reference.
        hashes.sort_by_key(|version| std::cmp::Reverse(version.endpoints.len()));
        Drift { plugin, hashes }
    };
    plugins.into_iter().map(drift).collect()
}

/// The hash has 48 bits.
pub(super) fn hash(value: f64) -> String {
    format!("{:012x}", value as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::access::Visibility;
    use crate::configuration::EnvoyConfiguration;
    use crate::fleet::Fleet;
    use crate::sample::{Identity, Sample};

    /// The number of versions of each plugin where two proxies run these policies, with two of the same name each.
    fn versions(proxies: [[&str; 2]; 2]) -> Vec<(String, usize)> {
        let mut fleet = Fleet::default();
        for (name, (value, policies)) in ["a", "b"].into_iter().zip((1..).zip(proxies)) {
            let plugin = |(listener, route): (&str, &str)| {
                json!({"stat_prefix": listener, "config": {"name": "edge", "vm_config": {},
                    "configuration": {"value": json!({"routes": {"default": route}}).to_string()}}})
            };
            let dump = ["in", "out"].into_iter().zip(policies).map(plugin).collect();
            fleet.know("east", name, Identity::default(), EnvoyConfiguration::of(&dump, vec![]));
            let mut sample = Sample::default();
            sample.add("policy.edge.hash", f64::from(value));
            fleet.note("east", name, sample, 1.0);
        }
        let drift = drift(&VisiblePart::new(fleet.cluster("east").unwrap(), Visibility::Everything));
        drift.into_iter().map(|drift| (drift.plugin, drift.hashes.len())).collect()
    }

    #[test]
    fn plugins_of_one_name_drift_by_their_documents() {
        let of = |one: usize, two: usize| vec![("edge (in)".to_owned(), one), ("edge (out)".to_owned(), two)];
        assert_eq!(versions([["x", "y"], ["x", "y"]]), of(1, 1));
        assert_eq!(versions([["x", "y"], ["x", "z"]]), of(1, 2));
        // A plugin that both listeners have is one plugin, and is compared by the hash that it reports.
        assert_eq!(versions([["x", "x"], ["x", "x"]]), [("edge".to_owned(), 2)]);
    }
}
