//! A request of a client that Envoy sends several times (retries), or that passes the filters twice (internal
//! redirects).

use anyhow::{Context, Result};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Listener, Route, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

use crate::remaining;

fn limit(requests: u32) -> Value {
    json!({"name": "all", "key": [], "limit": {"requests": requests, "per": "24h"}, "quotaHeaders": "Draft03"})
}

#[test]
fn a_request_that_envoy_retries_is_one_request_for_limits_and_breakers() -> Result<()> {
    // Every third attempt succeeds.
    let upstream = Upstream::start(|request| match request.number % 3 {
        0 => UpstreamReply::Close,
        1 => UpstreamReply::Status(503, vec![]),
        _ => UpstreamReply::Status(200, vec![]),
    })?;
    let policy = json!({
        "rateLimits": [limit(6)],
        "routes": {"rules": [{"name": "all", "route": "v",
            "retries": {"attempts": 2, "retryOn": ["5xx", "reset"]},
            "failover": {"route": "us", "errorPercent": 10, "window": "60s", "minRequests": 3, "cooldown": "1h"}}]},
    });
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", &policy)?)
        .route(Route::named("us"))
        .route(Route::any().to("upstream"));
    let mut envoy =
        Bootstrap::new()?.concurrency(1).cluster("upstream", upstream.address()).listener(listener).start()?;
    for (number, protocol) in (0_u64..6).zip(Protocol::ALL.into_iter().cycle()) {
        let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
        assert_eq!((response.status, remaining(&response)), (200, Some(5 - number)), "{protocol}: {response:?}");
    }
    assert_eq!(upstream.requests(), 18, "three attempts each");
    assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/"))?.status, 429);
    assert_eq!(envoy.transitions()?, [""; 0]);
    for attempt in upstream.all() {
        assert_eq!(attempt.values("x-penstock-route"), ["v"], "a retry keeps what was decided");
    }
    envoy.check_healthy()
}

#[test]
fn an_internal_redirect_is_decided_and_counted_as_a_request_of_its_own() -> Result<()> {
    let upstream = Upstream::start(|request| match request.path().as_str() {
        "/from" => UpstreamReply::Status(302, vec![("location".to_owned(), "http://example.com/to".to_owned())]),
        "/out" => UpstreamReply::Status(302, vec![("location".to_owned(), "http://example.com/secret".to_owned())]),
        "/away" => UpstreamReply::Status(302, vec![("location".to_owned(), "http://evil.test/to".to_owned())]),
        _ => UpstreamReply::Echo,
    })?;
    let rule = |path: &str, route: &str| {
        json!({"name": route, "matches": [{"path": {"value": path}}], "route": route,
            "requestHeaders": {"set": [{"name": "x-set", "value": route}], "add": [{"name": "x-add", "value": route}]}})
    };
    let policy = json!({
        "egress": {"rules": [{"name": "r", "to": [{"host": "example.com"}],
            "paths": [{"value": "/from"}, {"value": "/out"}, {"value": "/away"}, {"value": "/to"}]}]},
        "rateLimits": [limit(100)],
        "routes": {"rules": [rule("/from", "a"), rule("/to", "b")]},
    });
    let redirects = json!({"max_internal_redirects": 2, "allow_cross_scheme_redirect": true});
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", &policy)?)
        .route(Route::any().to("upstream").action("internal_redirect_policy", redirects));
    let mut envoy = Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener).start()?;
    let mut before = 100;
    for protocol in Protocol::ALL {
        let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/from"))?;
        assert_eq!((response.status, remaining(&response)), (200, Some(before - 2)), "{protocol}: {response:?}");
        before -= 2;
        let received = upstream.last().context("nothing came")?;
        assert_eq!(received.path(), "/to");
        assert_eq!(received.values("x-penstock-route"), ["b"], "{protocol}");
        assert_eq!(received.values("x-set"), ["b"], "{protocol}");
        // Envoy redirects the request as the first decision changed it.
        assert_eq!(received.values("x-add"), ["a", "b"], "{protocol}");
        for path in ["/out", "/away"] {
            let seen = upstream.requests();
            let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get(path))?;
            assert_eq!((response.status, upstream.requests()), (403, seen + 1), "{protocol} {path}: {response:?}");
            before -= 1;
        }
    }
    envoy.check_healthy()
}
