//! The module from Envoy's side, with an Envoy that fails on demand; `make sanitize` and `make miri` run these tests.

mod calls;
mod connections;
mod inputs;
mod misbehaving;
mod old_versions;
mod reloads;
mod requests;
mod workers;

use crate::abi::fake::{FakeExchange, Fate, LoadedFilter};

/// A policy with all four sections.
pub(crate) const SUITE: &str = r#"{
    "settings": {"filterState": true},
    "egress": {"rules": [{"name": "known", "to": [{"host": "shop.test"}]}]},
    "rateLimits": [{"name": "few", "key": [{"header": "x-user"}], "limit": {"requests": 3, "per": "24h"}}],
    "routes": {"rules": [{"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}],
        "requestHeaders": {"set": [{"name": "x-set", "value": "1"}], "remove": ["x-secret"]}}]},
    "canaries": [{"name": "shop", "stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": 50}, {"name": "v2", "weight": 50}],
        "rollback": {"variant": "v2", "to": "v1", "window": "10s", "minRequests": 5, "errorPercent": 10, "cooldown": "5s"}}]
}"#;

/// The suite as the plugin `name`. Each test uses its own name, because state belongs to the plugin.
pub(crate) fn suite(name: &str, policy: &str) -> LoadedFilter {
    let loaded = LoadedFilter::http(&format!("suite/{name}"), policy);
    loaded.unwrap_or_else(|| panic!("refused: {:?}", crate::abi::fake::log()))
}

/// The result of a request with these headers.
fn fate(loaded: &LoadedFilter, headers: &[(&str, &str)]) -> Fate {
    FakeExchange::sent(loaded, headers).fate()
}
