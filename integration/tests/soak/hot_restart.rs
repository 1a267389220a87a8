//! Hot restart: a new Envoy process replaces the old one during traffic.

use std::time::Instant;

use anyhow::Result;
use penstock_integration::control_plane::free_port;
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Traffic, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

use crate::{alone, assert_flawless, wait_until};

const LIMIT: usize = 25;

fn policy() -> Value {
    let host = |name: &str| json!({"host": name});
    json!({
        "egress": {"rules": [
            {"name": "known", "to": [host("always.test"), host("limited.test"), host("broken.test"), host("stable.test")]}]},
        "rateLimits": [{"name": "few", "key": [], "matches": [{"hostnames": ["limited.test"]}],
            "limit": {"requests": LIMIT, "per": "24h"}}],
        "canaries": [{"name": "shop", "matches": [{"hostnames": ["broken.test"]}],
            "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
            "rollback": {"variant": "v2", "to": "v1", "window": "1h", "minRequests": 10, "errorPercent": 50, "cooldown": "1h"}}],
    })
}

fn ask(envoy: &Envoy, protocol: Protocol, host: &str) -> Result<HttpResponse> {
    http::send(protocol, envoy.ingress()?, &HttpRequest::get("/").at(host))
}

/// Sends twice as many requests as the limit; returns how many pass.
fn passed(envoy: &Envoy) -> Result<usize> {
    let mut passed = 0;
    for protocol in Protocol::ALL.into_iter().cycle().take(2 * LIMIT) {
        let status = ask(envoy, protocol, "limited.test")?.status;
        anyhow::ensure!([200, 429].contains(&status), "{status}");
        passed += usize::from(status == 200);
    }
    Ok(passed)
}

#[test]
fn a_hot_restart_loses_no_request_and_egress_stays_closed_but_limits_and_breakers_start_anew() -> Result<()> {
    let _alone = alone();
    let upstream = Upstream::start(|_| UpstreamReply::Status(200, vec![]))?;
    let broken = Upstream::start(|_| UpstreamReply::Status(503, vec![]))?;
    let mut bootstrap =
        Bootstrap::new()?.cluster("upstream", upstream.address()).cluster("broken", broken.address()).hot_restart();
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy())?.named("penstock"))?;
    let listener = Listener::new("ingress")
        .port(free_port()?)
        .discovered(filter)
        .route(Route::named("v1").to("upstream"))
        .route(Route::named("v2").to("broken"))
        .route(Route::any().to("upstream"));
    let mut envoy = bootstrap.listener(listener).start()?;

    assert_eq!(passed(&envoy)?, LIMIT);
    assert_eq!(passed(&envoy)?, 0);
    let variant_is_out = |envoy: &Envoy| Ok(ask(envoy, Protocol::Http1, "broken.test")?.status == 200);
    wait_until("the broken variant is out", || variant_is_out(&envoy))?;

    let traffic = Traffic::of(4, envoy.ingress()?, |client, number| {
        let (host, status) = [("always.test", 200), ("evil.test", 403), ("127.1", 400)][(client + number) % 3];
        (HttpRequest::get("/").at(host), move |response: &HttpResponse| {
            anyhow::ensure!(response.status == status, "{host}: {response:?}");
            Ok(())
        })
    });
    let mut times = Vec::new();
    for epoch in 1..=2 {
        traffic.wait_for(300)?;
        let started = Instant::now();
        envoy.hot_restart()?;
        let took = started.elapsed();
        traffic.wait_for(300)?;
        envoy.outlive_parent()?;
        times.push((took, started.elapsed()));
        // Shared data belongs to a process: every client has its whole burst again, and the variant is tried again.
        assert_eq!(passed(&envoy)?, LIMIT, "epoch {epoch}");
        assert_eq!(ask(&envoy, Protocol::Http1, "broken.test")?.status, 503, "epoch {epoch}");
        wait_until("the broken variant is out again", || variant_is_out(&envoy))?;
    }
    traffic.wait_for(300)?;
    let tally = traffic.stop()?;
    assert_flawless(&tally, 1000);
    envoy.check_healthy()?;
    let strangers = |request: &&penstock_integration::Received| {
        !matches!(request.header("host").as_deref(), Some("always.test" | "limited.test" | "broken.test"))
    };
    assert_eq!(upstream.all().iter().find(strangers), None, "forwarded");
    println!(
        "hot restart: {} requests, none failed; serving after, and the old process gone after {times:?}",
        tally.good
    );
    Ok(())
}
