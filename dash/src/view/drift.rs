//! Whether the proxies of a cluster run the same policies.

use std::collections::BTreeMap;

use serde::Serialize;

use super::seen::VisiblePart;

/// Which proxies run which text as one plugin.
#[derive(Debug, Serialize)]
pub(super) struct Drift<'a> {
    pub(super) plugin: &'a str,
    pub(super) hashes: Vec<PolicyVersion<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct PolicyVersion<'a> {
    pub(super) hash: String,
    pub(super) endpoints: Vec<&'a str>,
}

pub(super) fn drift<'a>(seen: &VisiblePart<'a>) -> Vec<Drift<'a>> {
    let mut plugins = BTreeMap::<&str, BTreeMap<String, Vec<&str>>>::new();
    for &(name, endpoint) in seen.endpoints.iter().filter(|(_, endpoint)| endpoint.alive()) {
        for plugin in endpoint.sample.plugins() {
            let value = endpoint.sample.gauge(&format!("policy.{plugin}.hash")).unwrap_or_default();
            plugins.entry(plugin).or_default().entry(hash(value)).or_default().push(name);
        }
    }
    let text = |(hash, endpoints): (String, Vec<&'a str>)| PolicyVersion { hash, endpoints };
    let drift = |(plugin, texts): (&'a str, BTreeMap<String, Vec<&'a str>>)| {
        let mut hashes: Vec<_> = texts.into_iter().map(text).collect();
        // What most run is what the others have drifted from.
        hashes.sort_by_key(|text| std::cmp::Reverse(text.endpoints.len()));
        Drift { plugin, hashes }
    };
    plugins.into_iter().map(drift).collect()
}

/// 48 bits.
pub(super) fn hash(value: f64) -> String {
    format!("{:012x}", value as u64)
}
