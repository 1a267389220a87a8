//! `{peer}` in keys and stickiness is the caller that `settings.identity` names; a client cannot name another one.

use std::collections::BTreeSet;

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Listener, Route, WasmFilter};
use serde_json::{Value, json};

/// Stores the header `x-test-peer` as the filter state `test.peer`, as a mesh's own filter stores the caller.
fn caller() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers": [{
            "object_key": "test.peer", "factory_key": "envoy.string", "skip_if_empty": true,
            "format_string": {"text_format_source": {"inline_string": "%REQ(x-test-peer)%"}, "omit_empty_values": true},
        }],
    })
}

#[test]
fn limits_count_by_the_identity_of_the_settings_and_canaries_stick_to_it() -> Result<()> {
    let policy = |identity: Value| {
        json!({
            "settings": {"identity": identity},
            "rateLimits": [{"name": "per-caller", "key": [{"peer": {}}], "onMissingKey": "Deny",
                "limit": {"requests": 3, "per": "24h"}}],
            "canaries": [{"name": "c", "stickiness": {"peer": {}},
                "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}],
        })
    };
    let mut bootstrap = Bootstrap::new()?;
    let identities = [("state", json!({"filterState": "test.peer"})), ("certificate", json!({"peerCertificate": {}}))];
    for (name, identity) in identities {
        let filter = WasmFilter::new("suite", policy(identity))?.named(name);
        let listener = Listener::new(name).filter("caller", caller()).wasm(&filter);
        bootstrap = bootstrap.listener(listener.routes_named(&["v1", "v2"]).route(Route::any()));
    }
    let mut envoy = bootstrap.start()?;
    let ask = |listener: &str, peer: &str| -> Result<(u16, String)> {
        let mut request = HttpRequest::get("/").header("x-peer", "spiffe://forged");
        if !peer.is_empty() {
            request = request.header("x-test-peer", peer);
        }
        let response = http::send(Protocol::Http2, envoy.address(listener)?, &request)?;
        Ok((response.status, response.text()))
    };
    let mut variants = BTreeSet::new();
    for number in 0..12 {
        let peer = format!("spiffe://cluster.local/ns/a/sa/{number}");
        let answers = (0..4).map(|_| ask("state", &peer)).collect::<Result<Vec<_>>>()?;
        assert!(answers[..3].iter().all(|answer| answer == &answers[0] && answer.0 == 200), "{answers:?}");
        assert_eq!(answers[3].0, 429, "{answers:?}");
        variants.insert(answers[0].1.clone());
    }
    assert_eq!(variants.len(), 2, "twelve callers and one variant");
    assert_eq!(ask("state", "")?.0, 429, "without an identity there is no key");
    assert_eq!(ask("certificate", "spiffe://cluster.local/ns/a/sa/1")?.0, 429, "no certificate, no key");
    envoy.check_healthy()
}
