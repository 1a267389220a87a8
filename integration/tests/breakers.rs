//! Breakers (`failover`, `rollback`) in a real Envoy: what counts as a failure, and the transitions from closed to open
//! to half-open and back to closed, as seen in responses, log lines and metrics.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_integration::http::{self, ClientConnection, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Bootstrap, Listener, Route, Upstream, UpstreamReply, WasmFilter, wait_until};
use serde_json::{Value, json};

/// An address at which nothing listens: no program gets so low a port by chance.
fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 1).into()
}

/// A cluster that speaks HTTP/2.
fn http2_cluster(name: &str, endpoint: SocketAddr) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
            {"socket_address": {"address": endpoint.ip().to_string(), "port_value": endpoint.port()}}}}]}]},
    })
}

/// How an exchange fails from the client's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Status(u16),
    /// The response was cut off.
    Broken,
}

fn seen(answer: &Result<HttpResponse>) -> Seen {
    answer.as_ref().map_or(Seen::Broken, |response| Seen::Status(response.status))
}

#[test]
fn every_kind_of_upstream_failure_fails_over_after_the_minimum() -> Result<()> {
    let upstream = Upstream::forgetful(|request| match request.path().as_str() {
        "/500" => UpstreamReply::Status(500, vec![]),
        "/503" => UpstreamReply::Status(503, vec![]),
        "/404" => UpstreamReply::Status(404, vec![]),
        "/close" => UpstreamReply::Close,
        "/cut-early" => UpstreamReply::Part(0, Box::new(UpstreamReply::Close)),
        "/cut" | "/reset" => UpstreamReply::Part(500, Box::new(UpstreamReply::Close)),
        "/stall" => UpstreamReply::Part(500, Box::new(UpstreamReply::Hang)),
        _ => UpstreamReply::Hang,
    })?;
    // An HTTP/2 upstream that resets a stream in the middle of a response: another Envoy, whose own upstream closes the
    // connection.
    let relay = Bootstrap::new()?
        .cluster("behind", upstream.address())
        .listener(Listener::new("ingress").route(Route::any().to("behind")))
        .start()?;
    // The path, the route, the rule's timeout, and what a client sees.
    let cases = [
        ("/500", "eu", None, Seen::Status(500)),
        ("/503", "eu", None, Seen::Status(503)),
        ("/close", "eu", None, Seen::Status(503)),
        ("/refused", "nobody", None, Seen::Status(503)),
        ("/hang", "eu", Some("300ms"), Seen::Status(504)),
        // The rule has no timeout, so Envoy's own timeout ends the request.
        ("/never", "impatient", None, Seen::Status(504)),
        ("/cut-early", "eu", None, Seen::Broken),
        ("/cut", "eu", None, Seen::Broken),
        ("/stall", "eu", Some("300ms"), Seen::Broken),
        ("/reset", "relay", None, Seen::Broken),
        ("/404", "eu", None, Seen::Status(404)),
    ];
    let rules = cases.iter().map(|(path, route, timeout, _)| {
        let mut rule = json!({"name": path.trim_start_matches('/'), "route": route, "matches": [{"path": {"value": path}}],
            "failover": {"route": "us", "errorPercent": 50, "window": "60s", "minRequests": 10, "cooldown": "1h"}});
        if let Some(timeout) = timeout {
            rule["timeout"] = json!(timeout);
        }
        rule
    });
    let policy = json!({"routes": {"rules": rules.collect::<Vec<_>>()}});
    for module in ["suite", "header-routing"] {
        let listener = Listener::new("ingress")
            .wasm(&WasmFilter::new(module, &policy)?)
            .route(Route::named("eu").to("eu"))
            .route(Route::named("impatient").to("eu").timeout("0.4s"))
            .route(Route::named("nobody").to("nobody"))
            .route(Route::named("relay").to("relay"))
            .route(Route::named("us"));
        let mut envoy = Bootstrap::new()?
            .cluster("eu", upstream.address())
            .cluster("nobody", nobody())
            .any_cluster(http2_cluster("relay", relay.ingress()?))
            .listener(listener)
            .start()?;
        let address = envoy.ingress()?;
        for (path, route, _, expected) in cases {
            for protocol in Protocol::ALL.repeat(5) {
                let answer = http::send(protocol, address, &HttpRequest::get(path));
                assert_eq!(seen(&answer), expected, "{module} {protocol} {path}: {answer:?}");
            }
            let name = path.trim_start_matches('/');
            if path == "/404" {
                assert!(!envoy.log()?.contains("rule 404"), "{module}: {:?}", envoy.transitions()?);
                continue;
            }
            // The tenth result may not have reached the breaker yet, and the other worker reads its state every 50 ms.
            for protocol in Protocol::ALL.repeat(2) {
                wait_until(format!("{module}: {path} is answered by `us`"), || {
                    Ok(http::send(protocol, address, &HttpRequest::get(path)).is_ok_and(|answer| answer.text() == "us"))
                })?;
            }
            let line = format!(
                "rule {name}: route {route}: 10 of 10 requests failed: all go to us, a probe follows in 3600 s"
            );
            assert_eq!(envoy.transitions()?.last(), Some(&line), "{module}");
        }
        assert_eq!(envoy.transitions()?.len(), cases.len() - 1, "{module}");
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn clients_that_leave_are_no_failures() -> Result<()> {
    let upstream = Upstream::forgetful(|request| match request.path().as_str() {
        "/begun" => UpstreamReply::Part(500, Box::new(UpstreamReply::Hang)),
        "/503" => UpstreamReply::Status(503, vec![]),
        _ => UpstreamReply::Hang,
    })?;
    let policy = json!({"routes": {"rules": [{"name": "all", "route": "eu",
        "failover": {"route": "us", "errorPercent": 50, "window": "60s", "minRequests": 30, "cooldown": "1h"}}]}});
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", &policy)?)
        .route(Route::named("eu").to("eu"))
        .route(Route::named("us"));
    // One worker: with several, each would keep its last successes until its next response.
    let mut envoy = Bootstrap::new()?.cluster("eu", upstream.address()).concurrency(1).listener(listener).start()?;
    let stat = |name: &str| envoy.admin().stat(&format!("http.ingress.downstream_{name}"));
    let mut open = Vec::new();
    for protocol in Protocol::ALL {
        for _ in 0..12 {
            // The client leaves before any response: the upstream has the request and does not respond.
            let mut connection = ClientConnection::open(protocol, envoy.ingress()?)?;
            let before = upstream.requests();
            connection.abandon(&HttpRequest::get("/"), || {
                wait_until("the upstream has the request", || Ok(upstream.requests() > before))
            })?;
            // The connection stays open, so that over HTTP/2 only the stream ends.
            open.push(connection);
            // The client leaves in the middle of the response.
            let mut connection = ClientConnection::open(protocol, envoy.ingress()?)?;
            let before = stat("rq_2xx")?;
            connection.abandon(&HttpRequest::get("/begun"), || {
                wait_until("the answer has begun", || Ok(stat("rq_2xx")? > before))
            })?;
            open.push(connection);
        }
    }
    wait_until("Envoy has seen them leave", || Ok(stat("rq_active")? == 0))?;
    assert_eq!(stat("rq_rx_reset")?, 48, "how they left");
    // The 24 clients that left before a response count as nothing; the 24 that left in the middle of one had a success.
    // So 24 failures are half.
    for _ in 0..23 {
        assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/503"))?.status, 503);
    }
    assert_eq!(envoy.transitions()?, [""; 0]);
    assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/503"))?.status, 503);
    wait_until("the next failure opens it", || Ok(envoy.transitions()?.len() == 1))?;
    let line = "rule all: route eu: 24 of 48 requests failed: all go to us, a probe follows in 3600 s";
    assert_eq!(envoy.transitions()?, [line]);
    envoy.check_healthy()
}

#[test]
fn a_variant_that_becomes_slow_is_rolled_back_although_every_answer_is_a_success() -> Result<()> {
    let upstream = Upstream::forgetful(|request| match request.path().as_str() {
        "/slow" => UpstreamReply::After(Duration::from_millis(2500), Box::new(UpstreamReply::Echo)),
        _ => UpstreamReply::Echo,
    })?;
    let policy = json!({"canaries": [{"name": "shop",
        "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
        "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": 20, "cooldown": "1h",
            "latency": {"percentile": 75, "above": "2s"}}}]});
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("canary", &policy)?)
        .route(Route::named("v2").to("v2"))
        .route(Route::named("v1"));
    let mut envoy = Bootstrap::new()?.cluster("v2", upstream.address()).listener(listener).start()?;
    let address = envoy.ingress()?;
    for protocol in Protocol::ALL.repeat(10) {
        assert_ne!(http::send(protocol, address, &HttpRequest::get("/"))?.text(), "v1");
    }
    // Successes are written with the first response after 50 ms at the latest.
    thread::sleep(Duration::from_millis(100));
    for protocol in Protocol::ALL.repeat(4) {
        http::send(protocol, address, &HttpRequest::get("/"))?;
    }
    assert_eq!(envoy.transitions()?, [""; 0]);
    let clients: Vec<_> = Protocol::ALL
        .repeat(10)
        .into_iter()
        .map(|protocol| thread::spawn(move || http::send(protocol, address, &HttpRequest::get("/slow"))))
        .collect();
    for client in clients {
        let answer = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        assert_eq!(answer.status, 200);
    }
    wait_until("v2 is rolled back", || Ok(envoy.transitions()?.len() == 1))?;
    let line = envoy.transitions()?.concat();
    assert!(line.starts_with("canary shop: variant v2: 0 of ") && line.contains(" requests failed, "), "{line}");
    assert!(line.ends_with(" slower than 2000 ms: all go to v1, a probe follows in 3600 s"), "{line}");
    thread::sleep(Duration::from_millis(100));
    for protocol in Protocol::ALL.repeat(4) {
        assert_eq!(http::send(protocol, address, &HttpRequest::get("/"))?.text(), "v1");
    }
    envoy.check_healthy()
}

/// A canary with all users on v2 and the given minimum of results.
fn watched(minimum: u32, cooldown: &str) -> Value {
    json!({"canaries": [{"name": "shop", "stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
        "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": minimum, "errorPercent": 50,
            "cooldown": cooldown}}]})
}

/// Whether a user is on v2 now.
fn is_on_v2(address: SocketAddr, user: usize) -> Result<bool> {
    let request = HttpRequest::get("/").header("x-user", user.to_string());
    let protocol = if user.is_multiple_of(2) { Protocol::Http1 } else { Protocol::Http2 };
    Ok(http::send(protocol, address, &request)?.text() != "v1")
}

/// The users of 0, 1, … `count` that are on v2 now.
fn on_v2(address: SocketAddr, count: usize) -> Result<Vec<usize>> {
    let mut users = Vec::new();
    for user in 0..count {
        if is_on_v2(address, user)? {
            users.push(user);
        }
    }
    Ok(users)
}

#[test]
fn an_open_breaker_cools_down_probes_and_reopens_or_closes_with_logs_and_metrics() -> Result<()> {
    const COOLDOWN: Duration = Duration::from_secs(3);
    let status = Arc::new(AtomicU16::new(503));
    let upstream = Upstream::forgetful({
        let status = Arc::clone(&status);
        move |_| UpstreamReply::Status(status.load(Ordering::SeqCst), vec![])
    })?;
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", watched(50, "3s"))?)
        .route(Route::named("v2").to("v2"))
        .route(Route::named("v1"));
    let mut envoy = Bootstrap::new()?.cluster("v2", upstream.address()).concurrency(4).listener(listener).start()?;
    let address = envoy.ingress()?;
    let told = || envoy.transitions();

    // Closed: all users are on v2, which fails. The fiftieth failure opens the breaker.
    let started = Instant::now();
    let mut sent = 0;
    while told()?.is_empty() {
        on_v2(address, 1)?;
        sent += 1;
        ensure!(sent < 1000, "a thousand failures did not open it");
    }
    assert_eq!(told()?, ["canary shop: variant v2: 50 of 50 requests failed: all go to v1, a probe follows in 3 s"]);

    // Open: no user reaches v2 before the cooldown is over. All workers know this after 50 ms.
    thread::sleep(Duration::from_millis(100));
    let before = upstream.requests();
    let mut kept_out = 0;
    while started.elapsed() < COOLDOWN {
        let on_v2 = on_v2(address, 1)?;
        if started.elapsed() < COOLDOWN {
            assert_eq!(on_v2, [0; 0], "{:?} after the first failure", started.elapsed());
            kept_out += 1;
        }
    }
    assert!(kept_out > 10 && upstream.requests() - before <= 1, "{kept_out}");

    // Half-open: failing probes open the breaker again. Users come one by one, so that nobody comes after it has opened
    // and cooled down again.
    let mut users = (0..300).cycle();
    wait_until("failing probes open it again", || {
        is_on_v2(address, users.next().unwrap_or_default())?;
        Ok(told()?.len() >= 3)
    })?;
    let lines = told()?;
    assert_eq!(lines[1], "canary shop: variant v2: 10 % of its requests probe it");
    assert_eq!(lines[2], "canary shop: variant v2: 25 of 25 requests failed: all go to v1, a probe follows in 3 s");

    // v2 works again: after the cooldown, a fixed tenth of the users probes it. Another worker may still let a probe pass
    // for 50 ms after the breaker opened.
    status.store(200, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(100));
    wait_until("it is half-open again", || {
        on_v2(address, 1)?;
        Ok(upstream.requests() > 0 && !on_v2(address, 20)?.is_empty())
    })?;
    let probes = on_v2(address, 200)?;
    assert!((10..=35).contains(&probes.len()), "{probes:?}");
    wait_until("fifty good probes restore it", || {
        on_v2(address, 200)?;
        Ok(told()?.len() >= 5)
    })?;
    let lines = told()?;
    assert_eq!(lines[3], "canary shop: variant v2: 10 % of its requests probe it");
    assert_eq!(lines[4], "canary shop: variant v2: 0 of 50 requests failed: restored");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(on_v2(address, 50)?.len(), 50, "everybody is back");
    assert_eq!(told()?.len(), 5);

    // Metrics are written once a second; those of the native body before Envoy 1.39, with the next request.
    for (outcome, count) in [("rolledBack", 2), ("halfOpen", 2), ("restored", 1)] {
        let name = format!(
            "wasmcustom.penstock.breaker_transitions_total.section.canaries.rule.shop.variant.v2.outcome.{outcome}"
        );
        wait_until(&name, || {
            on_v2(address, 1)?;
            Ok(envoy.admin().stat(&name)? == count)
        })?;
    }
    envoy.check_healthy()
}

#[test]
fn an_open_breaker_outlives_a_reload_that_leaves_it_as_it_was() -> Result<()> {
    let upstream = Upstream::forgetful(|_| UpstreamReply::Status(503, vec![]))?;
    let policy = |minimum: u32, default: &str| {
        let mut policy = watched(minimum, "1h");
        policy["routes"] = json!({"default": default});
        policy
    };
    let mut bootstrap = Bootstrap::new()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy(10, "a"))?.named("penstock"))?;
    let listener =
        Listener::new("ingress").discovered(filter).route(Route::named("v2").to("v2")).route(Route::named("v1"));
    let mut envoy = bootstrap.cluster("v2", upstream.address()).listener(listener).start()?;
    let address = envoy.ingress()?;
    wait_until("it opens", || Ok(on_v2(address, 4)?.is_empty()))?;
    for default in ["b", "a", "b"] {
        envoy.must_reload("penstock", policy(10, default))?;
        assert_eq!(on_v2(address, 20)?, [0; 0], "as it was");
    }
    // A different threshold makes a different breaker, which starts closed.
    envoy.must_reload("penstock", policy(11, "a"))?;
    assert_eq!(on_v2(address, 5)?.len(), 5);
    wait_until("the new one opens too", || Ok(on_v2(address, 4)?.is_empty()))?;
    assert_eq!(envoy.transitions()?.len(), 2);
    envoy.check_healthy()
}
