//! Reads from istiod's debug interface (`/debug/syncz`) which proxies have acknowledged the last configuration and what
//! they refused. Envoy Gateway's admin interface has no such information.

use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The port of istiod that serves it.
pub const PORT: u16 = 15014;

/// The largest response in bytes, enough for tens of thousands of proxies.
const MOST_BYTES: u64 = 256 << 20;

/// A control plane.
#[derive(Debug, Serialize)]
pub struct ControlPlane {
    /// Its URL or Pod.
    pub name: String,
    /// Its proxies, by name.
    pub proxies: Vec<Synced>,
}

/// What a control plane knows about a proxy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Synced {
    /// The name, such as `ingress-7d9f4.istio-system`.
    pub proxy: String,
    /// The proxy's Istio version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_version: Option<String>,
    /// Whether it accepted the last configuration.
    pub state: SyncState,
    /// The error of a refused configuration, by resource type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, String>,
}

/// Whether a proxy accepted the last listeners and extension configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SyncState {
    /// It accepted them.
    Acknowledged,
    /// It has not responded yet.
    Pending,
    /// It refused some of them and keeps the previous ones.
    Refused,
}

/// One entry of `/debug/syncz`.
#[derive(Debug, Deserialize)]
struct SyncStatus {
    proxy: String,
    istio_version: Option<String>,
    #[serde(default)]
    resources: BTreeMap<String, Resource>,
}

/// The nonces of what was sent and acknowledged for one type.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resource {
    sent: String,
    acked: String,
    last_error: String,
}

/// The resource types that configure our plugins.
const OURS: [&str; 2] = [
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
];

impl ControlPlane {
    /// Queries istiod at `url`.
    ///
    /// # Errors
    /// Returns an error when it does not respond, or when the response is of another kind.
    pub fn read(name: &str, url: &str) -> anyhow::Result<ControlPlane> {
        let base = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let place = format!("{}/debug/syncz", base.trim_end_matches('/'));
        let hint = || format!("cannot get {place}: is that istiod's debug interface (port {PORT})?");
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).build();
        let mut response = ureq::Agent::new_with_config(agent).get(&place).call().with_context(hint)?;
        let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_string().with_context(hint)?;
        let entries: Vec<SyncStatus> = serde_json::from_str(&text).with_context(hint)?;
        let mut proxies: Vec<Synced> = entries.into_iter().map(Synced::of).collect();
        proxies.sort_by(|a, b| a.proxy.cmp(&b.proxy));
        Ok(ControlPlane { name: name.to_owned(), proxies })
    }

    /// Whether every proxy accepted what was sent to it.
    pub fn is_fine(&self) -> bool {
        self.proxies.iter().all(|proxy| proxy.state == SyncState::Acknowledged)
    }
}

impl Synced {
    fn of(entry: SyncStatus) -> Synced {
        let ours = || entry.resources.iter().filter(|(kind, _)| OURS.contains(&kind.as_str()));
        let short = |kind: &str| kind.rsplit('.').next().unwrap_or(kind).to_owned();
        let refused: BTreeMap<String, String> = ours()
            .filter(|(_, resource)| !resource.last_error.is_empty())
            .map(|(kind, resource)| (short(kind), resource.last_error.clone()))
            .collect();
        let is_pending = ours().any(|(_, resource)| resource.sent != resource.acked);
        let state = match (refused.is_empty(), is_pending) {
            (false, _) => SyncState::Refused,
            (true, true) => SyncState::Pending,
            (true, false) => SyncState::Acknowledged,
        };
        let istio_version = entry.istio_version.filter(|version| !version.is_empty());
        Synced { proxy: entry.proxy, istio_version, state, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(resources: &serde_json::Value) -> Synced {
        let entry = serde_json::json!({"proxy": "ingress-1.istio-system", "proxy_type": "router", "istio_version": "1.31.0", "resources": resources});
        Synced::of(serde_json::from_value(entry).unwrap())
    }

    #[test]
    fn a_proxy_accepted_what_it_acknowledged_and_refused_what_it_answered_with_an_error() {
        let (listeners, extensions, endpoints) =
            (OURS[0], OURS[1], "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment");
        let nonce = |sent: &str, acked: &str| serde_json::json!({"sent": sent, "acked": acked, "sentTime": "2026-06-01T00:00:00Z"});
        let all = synced(
            &serde_json::json!({listeners: nonce("a", "a"), extensions: nonce("b", "b"), endpoints: nonce("d", "c")}),
        );
        assert_eq!((all.state, all.istio_version.as_deref()), (SyncState::Acknowledged, Some("1.31.0")));
        assert_eq!(synced(&serde_json::json!({listeners: nonce("b", "a")})).state, SyncState::Pending);
        let mut refused = nonce("b", "a");
        refused["lastError"] = serde_json::json!("Unable to create Wasm plugin istio-system.shop");
        let refused = synced(&serde_json::json!({extensions: refused}));
        assert_eq!(refused.state, SyncState::Refused);
        assert_eq!(refused.refused["TypedExtensionConfig"], "Unable to create Wasm plugin istio-system.shop");
        assert_eq!(synced(&serde_json::json!({})).state, SyncState::Acknowledged);
    }
}
