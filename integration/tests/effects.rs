//! What a route rule does beside choosing a route, as the upstream and the client see it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Received, Route, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

/// A client that waits so long waits for Envoy's own timeout of 15 s, not for the rule's.
const HANGING: Duration = Duration::from_secs(9);

/// An Envoy with the suite in front of one upstream.
fn in_front_of(upstream: &Upstream, policy: Value) -> Result<Envoy> {
    let filter = WasmFilter::new("suite", policy)?;
    let listener = Listener::new("ingress").wasm(&filter).route(Route::any().to("upstream"));
    Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener).start()
}

/// What the upstream received of a request.
fn forwarded(envoy: &Envoy, upstream: &Upstream, protocol: Protocol, request: &HttpRequest) -> Result<Received> {
    let response = http::send(protocol, envoy.ingress()?, request)?;
    assert_eq!(response.status, 200, "{protocol} {request:?}: {response:?}");
    upstream.last().context("nothing reached the upstream")
}

#[test]
fn a_rule_sets_adds_and_removes_request_headers() -> Result<()> {
    let upstream = Upstream::echo()?;
    let mut envoy = in_front_of(
        &upstream,
        json!({"routes": {"rules": [{
            "name": "headers",
            "route": "headers",
            "matches": [{"path": {"value": "/headers"}}],
            "requestHeaders": {
                "set": [{"name": "X-Set", "value": "new"}, {"name": "x-fresh", "value": "here"}],
                "add": [{"name": "x-add", "value": "second"}],
                "remove": ["X-Remove", "x-never-there"],
            },
        }]}}),
    )?;
    for protocol in Protocol::ALL {
        let request = |path| {
            HttpRequest::get(path)
                .header("x-set", "old")
                .header("x-set", "older")
                .header("x-add", "first")
                .header("x-remove", "a")
                .header("x-remove", "b")
                .header("x-keep", "kept")
        };
        let received = forwarded(&envoy, &upstream, protocol, &request("/headers"))?;
        assert_eq!(received.values("x-set"), ["new"], "{protocol}");
        assert_eq!(received.values("x-fresh"), ["here"], "{protocol}");
        assert_eq!(received.values("x-add").join(",").replace(", ", ","), "first,second", "{protocol}");
        assert_eq!(received.values("x-remove"), [""; 0], "{protocol}");
        assert_eq!(received.values("x-keep"), ["kept"], "{protocol}");
        assert_eq!(received.values("x-penstock-route"), ["headers"], "{protocol}");

        let received = forwarded(&envoy, &upstream, protocol, &request("/other"))?;
        assert_eq!(received.values("x-set"), ["old", "older"], "{protocol}: another rule's changes");
        assert_eq!(received.values("x-remove"), ["a", "b"], "{protocol}: another rule's changes");
    }
    envoy.check_healthy()
}

#[test]
fn a_rewritten_path_and_host_are_what_the_upstream_sees() -> Result<()> {
    let upstream = Upstream::echo()?;
    let rule = |name: &str, path: &str, rewrite: Value| json!({"name": name, "route": name, "matches": [{"path": {"value": path}}], "rewrite": rewrite});
    let mut envoy = in_front_of(
        &upstream,
        json!({"routes": {"rules": [
            rule("prefix", "/v1", json!({"path": {"type": "ReplacePrefixMatch", "value": "/v2"}})),
            rule("strip", "/strip/me", json!({"path": {"type": "ReplacePrefixMatch", "value": "/"}})),
            rule("full", "/full", json!({"path": {"type": "ReplaceFullPath", "value": "/all/new"}})),
            rule("host", "/host", json!({"hostname": "v2.internal"})),
            rule("both", "/both", json!({"hostname": "v2.internal", "path": {"type": "ReplaceFullPath", "value": "/b"}})),
        ]}}),
    )?;
    for protocol in Protocol::ALL {
        for (path, seen, host) in [
            ("/v1", "/v2", "example.com"),
            ("/v1/", "/v2/", "example.com"),
            ("/v1/items?page=1&x=/v1", "/v2/items?page=1&x=/v1", "example.com"),
            ("/v1?page=1", "/v2?page=1", "example.com"),
            ("/v10", "/v10", "example.com"),
            ("/strip/me/now", "/now", "example.com"),
            ("/strip/me", "/", "example.com"),
            ("/full/anything?page=1", "/all/new?page=1", "example.com"),
            ("/host/x", "/host/x", "v2.internal"),
            ("/both/x?y", "/b?y", "v2.internal"),
        ] {
            let received = forwarded(&envoy, &upstream, protocol, &HttpRequest::get(path))?;
            assert_eq!(
                (received.path().as_str(), received.values("host")),
                (seen, vec![host.to_owned()]),
                "{protocol} {path}"
            );
        }
    }
    envoy.check_healthy()
}

#[test]
fn a_request_to_an_upstream_that_hangs_ends_at_the_rules_timeout() -> Result<()> {
    let upstream = Upstream::start(|_| UpstreamReply::Hang)?;
    let mut envoy = in_front_of(
        &upstream,
        json!({"routes": {"rules": [
            {"name": "hang", "route": "hang", "timeout": "300ms"},
        ]}}),
    )?;
    for protocol in Protocol::ALL {
        let started = Instant::now();
        let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
        let took = started.elapsed();
        assert_eq!(response.status, 504, "{protocol}: {response:?}");
        assert!(took > Duration::from_millis(250) && took < HANGING, "{protocol}: {took:?}");
    }
    envoy.check_healthy()
}

#[test]
fn a_client_cannot_stretch_the_rules_timeout() -> Result<()> {
    let upstream = Upstream::start(|_| UpstreamReply::Hang)?;
    let envoy = in_front_of(
        &upstream,
        json!({"routes": {"rules": [
            {"name": "hang", "route": "hang", "timeout": "300ms"},
        ]}}),
    )?;
    let started = Instant::now();
    let request = HttpRequest::get("/").header("x-envoy-upstream-rq-timeout-ms", "60000");
    assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &request)?.status, 504);
    assert!(started.elapsed() < HANGING);
    Ok(())
}

/// Fails as `failure` says twice for each path, then answers.
fn failing_twice(failure: UpstreamReply) -> Result<Upstream> {
    Upstream::start(move |request| if request.number % 3 < 2 { failure.clone() } else { UpstreamReply::Echo })
}

#[test]
fn a_request_is_retried_as_often_as_the_rule_says() -> Result<()> {
    // The limits are far above what an upstream that answers needs: only the one that hangs reaches them.
    for (failure, on, per_try) in [
        (UpstreamReply::Status(503, vec![]), "5xx", "20s"),
        (UpstreamReply::Close, "reset", "20s"),
        (UpstreamReply::Hang, "5xx", "1s"),
    ] {
        let upstream = failing_twice(failure.clone())?;
        let mut envoy = in_front_of(
            &upstream,
            json!({"routes": {"rules": [{
                "name": "retried",
                "route": "retried",
                "timeout": "60s",
                "retries": {"attempts": 2, "retryOn": [on], "perTryTimeout": per_try},
            }]}}),
        )?;
        for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
            let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
            assert_eq!(response.status, 200, "{protocol} after {failure:?}: {response:?}");
            assert_eq!(upstream.requests(), 3 * (number + 1), "{protocol} after {failure:?}");
        }
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn a_request_that_keeps_failing_is_given_up_after_the_last_attempt() -> Result<()> {
    let upstream = Upstream::start(|_| UpstreamReply::Status(503, vec![]))?;
    let policy = json!({"routes": {"rules": [
        {"name": "one", "route": "r", "matches": [{"path": {"value": "/one"}}], "retries": {"attempts": 1, "retryOn": ["5xx"]}},
        {"name": "other", "route": "r", "matches": [{"path": {"value": "/other"}}],
            "retries": {"attempts": 3, "retryOn": ["connect-failure"]}},
    ]}});
    let envoy = in_front_of(&upstream, policy)?;
    let attempts = |path| -> Result<usize> {
        let before = upstream.requests();
        assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get(path))?.status, 503);
        Ok(upstream.requests() - before)
    };
    assert_eq!(attempts("/one")?, 2, "one attempt and one retry");
    assert_eq!(attempts("/other")?, 1, "a 503 is no failed connection");
    assert_eq!(attempts("/none")?, 1, "no rule, no retries");
    Ok(())
}
