//! Policies that change while a request is in flight.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{
    Answer, Bootstrap, Envoy, GrpcServer, Listener, Reload, Route, Upstream, UpstreamReply, WasmFilter, grpc_cluster,
};
use serde_json::{Value, json};

use crate::wait_until;

/// All requests go to `route` when the service allows them.
fn asking(route: &str) -> Value {
    let scope = json!({"global": {"cluster": "ratelimit", "domain": "d", "timeout": "5s", "onFailure": "Deny"}});
    json!({
        "rateLimits": [{"name": "g", "key": [], "limit": {"requests": 100, "per": "1m"}, "scope": scope}],
        "routes": {"default": route},
    })
}

fn start(policy: &Value, service: &GrpcServer) -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?.concurrency(1);
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy)?.named("penstock"))?;
    let listener = Listener::new("ingress").discovered(filter).routes_named(&["old", "new"]).route(Route::any());
    bootstrap.any_cluster(grpc_cluster("ratelimit", service.address())).listener(listener).start()
}

/// A request in flight.
fn sent(envoy: &Envoy, protocol: Protocol, request: HttpRequest) -> Result<JoinHandle<Result<HttpResponse>>> {
    let address = envoy.ingress()?;
    Ok(thread::spawn(move || http::send(protocol, address, &request)))
}

fn answer(client: JoinHandle<Result<HttpResponse>>) -> Result<HttpResponse> {
    client.join().map_err(|_| anyhow!("a client panicked"))?
}

#[test]
fn a_request_that_waits_for_the_service_is_decided_by_the_policy_it_started_with() -> Result<()> {
    for (code, status, text) in [(1, 200, "old"), (2, 429, "rate limit exceeded")] {
        let service = GrpcServer::start(Answer::After(Duration::from_millis(1500), vec![0x08, code]))?;
        let mut envoy = start(&asking("old"), &service)?;
        for protocol in Protocol::ALL {
            for next in ["other policy", "without the section", "another module"] {
                let asked = service.calls();
                let client = sent(&envoy, protocol, HttpRequest::new("POST", "a.test", "/").body("some body"))?;
                wait_until("the service is asked", || Ok(service.calls() > asked))?;
                let to_new = json!({"routes": {"default": "new"}});
                let reloaded = match next {
                    "other policy" => envoy.reload("penstock", asking("new"))?,
                    "without the section" => envoy.reload("penstock", &to_new)?,
                    _ => envoy.replace("penstock", WasmFilter::new("header-routing", &to_new)?)?,
                };
                if let Reload::Refused(log) = reloaded {
                    bail!("{next}: {log}");
                }
                if next != "other policy" {
                    // New requests do not call the service.
                    let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
                    assert_eq!((response.status, response.text()), (200, "new".to_owned()), "{protocol} {next}");
                }
                let response = answer(client).with_context(|| format!("{protocol} {next}"))?;
                let body = response.text();
                assert!(response.status == status && body.trim() == text, "{protocol} {next}: {response:?}");
                envoy.replace("penstock", WasmFilter::new("suite", asking("old"))?)?;
            }
        }
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn a_response_whose_breaker_was_removed_is_not_counted() -> Result<()> {
    let upstream = Upstream::start(|_| {
        UpstreamReply::After(Duration::from_millis(1200), Box::new(UpstreamReply::Status(503, vec![])))
    })?;
    let watched = json!({"routes": {"rules": [{"name": "r", "route": "eu",
        "failover": {"route": "us", "errorPercent": 50, "window": "60s", "minRequests": 1, "cooldown": "1h"},
        "responseHeaders": {"set": [{"name": "x-by", "value": "the policy of its beginning"}]}}]}});
    let mut bootstrap = Bootstrap::new()?.concurrency(1).cluster("upstream", upstream.address());
    let filter = bootstrap.discovered(WasmFilter::new("suite", &watched)?.named("penstock"))?;
    let listener =
        Listener::new("ingress").discovered(filter).route(Route::named("us")).route(Route::any().to("upstream"));
    let mut envoy = bootstrap.listener(listener).start()?;
    for protocol in Protocol::ALL {
        let before = upstream.requests();
        let client = sent(&envoy, protocol, HttpRequest::get("/"))?;
        wait_until("the upstream has it", || Ok(upstream.requests() > before))?;
        // First another threshold, which makes another breaker; then none at all.
        match protocol {
            Protocol::Http1 => {
                let mut other = watched.clone();
                other["routes"]["rules"][0]["failover"]["minRequests"] = json!(2);
                envoy.must_reload("penstock", other)?;
            }
            Protocol::Http2 => envoy.must_reload("penstock", json!({}))?,
        }
        let response = answer(client)?;
        assert_eq!(response.status, 503, "{protocol}");
        assert_eq!(response.header("x-by").as_deref(), Some("the policy of its beginning"), "{protocol}");
    }
    // The first failure opened the first breaker, which no policy uses any more.
    assert!(envoy.transitions()?.len() <= 1, "{:?}", envoy.transitions()?);
    envoy.check_healthy()
}
