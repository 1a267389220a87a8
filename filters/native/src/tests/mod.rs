//! The module from Envoy's side, in front of an Envoy that fails as it is told to: what `make sanitize` and `make miri` run.

mod calls;
mod connections;
mod inputs;
mod misbehaving;
mod reloads;
mod requests;
mod workers;

use crate::abi::fake::{FakeExchange, Fate, LoadedFilter};

/// All four sections.
const SUITE: &str = r#"{
    "settings": {"filterState": true},
    "egress": {"rules": [{"name": "known", "to": [{"host": "shop.test"}]}]},
    "rateLimits": [{"name": "few", "key": [{"header": "x-user"}], "limit": {"requests": 3, "per": "24h"}}],
    "routes": {"rules": [{"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}],
        "requestHeaders": {"set": [{"name": "x-set", "value": "1"}], "remove": ["x-secret"]}}]},
    "canaries": [{"name": "shop", "stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": 50}, {"name": "v2", "weight": 50}],
        "rollback": {"variant": "v2", "to": "v1", "window": "10s", "minRequests": 5, "errorPercent": 10, "cooldown": "5s"}}]
}"#;

/// The suite of the plugin `name`, which each test has for itself: state belongs to it.
fn suite(name: &str, policy: &str) -> LoadedFilter {
    let loaded = LoadedFilter::http(&format!("suite/{name}"), policy);
    loaded.unwrap_or_else(|| panic!("refused: {:?}", crate::abi::fake::log()))
}

/// What becomes of a request with these headers.
fn fate(loaded: &LoadedFilter, headers: &[(&str, &str)]) -> Fate {
    FakeExchange::sent(loaded, headers).fate()
}
