//! The example of an own filter that embeds the engine, run in Envoy.

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Listener, Route, Upstream, WasmFilter, workspace};
use serde_json::json;

#[test]
fn a_filter_on_the_sdk_lets_the_engine_decide_and_does_its_own_work() -> Result<()> {
    let policy = json!({
        "settings": {"routeHeader": "x-route"},
        "rateLimits": [{
            "name": "burst", "key": [{"sourceAddress": {}}], "limit": {"requests": 3, "per": "1h"},
            "matches": [{"path": {"value": "/limited"}}], "quotaHeaders": "IETF",
        }],
        "routes": {"default": "stable", "rules": [{
            "name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-user-group", "value": "beta"}]}],
            "requestHeaders": {"remove": ["x-internal"]}, "responseHeaders": {"set": [{"name": "x-plan", "value": "beta"}]},
        }]},
    });
    let upstream = Upstream::echo()?;
    let filter = WasmFilter::at("embed", &workspace::embed_example()?, policy);
    let envoy = Bootstrap::new()?
        .concurrency(1)
        .cluster("upstream", upstream.address())
        .listener(Listener::new("ingress").wasm(&filter).route(Route::any().to("upstream")))
        .start()?;
    for protocol in Protocol::ALL {
        let request =
            HttpRequest::new("GET", "shop.test", "/").header("x-user-group", "beta").header("x-internal", "1");
        let response = http::send(protocol, envoy.ingress()?, &request.header("x-route", "forged"))?;
        assert_eq!((response.status, response.header("x-plan").as_deref()), (200, Some("beta")), "{protocol}");
        let received = upstream.last().unwrap();
        assert_eq!(received.values("x-route"), ["beta"], "{protocol}");
        assert_eq!(received.values("x-greeting"), ["hello from a filter of your own"]);
        assert!(received.values("x-internal").is_empty());
    }
    let limited = HttpRequest::new("GET", "shop.test", "/limited");
    let statuses: Vec<u16> = (0..5)
        .map(|_| http::send(Protocol::Http1, envoy.ingress()?, &limited).map(|response| response.status))
        .collect::<Result<_>>()?;
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = http::send(Protocol::Http1, envoy.ingress()?, &limited)?;
    assert!(refused.header("retry-after").is_some() && refused.header("ratelimit").is_some(), "{refused:?}");
    Ok(())
}

#[test]
fn a_policy_with_a_mistake_is_refused_with_its_place() -> Result<()> {
    let filter = WasmFilter::at("embed", &workspace::embed_example()?, json!({"routes": {"rule": []}}));
    let error = Bootstrap::new()?.listener(Listener::new("ingress").wasm(&filter)).start().err();
    let error = format!("{:#}", error.expect("Envoy must not start"));
    assert!(error.contains("routes.rule: unknown field `rule`"), "{error}");
    Ok(())
}

#[test]
fn a_policy_that_needs_claims_is_refused_rather_than_partly_applied() -> Result<()> {
    let policy = json!({"routes": {"rules": [
        {"name": "r", "route": "a", "matches": [{"claims": [{"name": "tier", "value": "pro"}]}]},
    ]}});
    let filter = WasmFilter::at("embed", &workspace::embed_example()?, policy);
    let error = Bootstrap::new()?.listener(Listener::new("ingress").wasm(&filter)).start().err();
    let error = format!("{:#}", error.expect("Envoy must not start"));
    assert!(error.contains("sees no claims and no metadata"), "{error}");
    Ok(())
}
