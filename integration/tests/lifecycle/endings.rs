//! Interim and early responses, trailers, and clients that leave.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use penstock_integration::http::{self, ClientConnection, HttpRequest, Protocol, h1, h2};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

use crate::{HeadServer, remaining, wait_until};

/// A policy with a cookie for each user, a limit, and a breaker that opens at the second failure.
fn policy() -> Value {
    json!({
        "rateLimits": [{"name": "all", "key": [], "limit": {"requests": 100, "per": "24h"}, "quotaHeaders": "Draft03"}],
        "canaries": [{"name": "c", "stickiness": {"cookie": {"name": "id"}},
            "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
            "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": 2, "errorPercent": 50,
                "latency": {"percentile": 50, "above": "5s"}, "cooldown": "1h"}}],
    })
}

/// An Envoy that forwards trailers in both directions.
fn envoy(upstream: SocketAddr) -> Result<Envoy> {
    let cluster = json!({
        "name": "upstream",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
            "socket_address": {"address": upstream.ip().to_string(), "port_value": upstream.port()}}}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}}},
    });
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", policy())?)
        .manager("http_protocol_options", json!({"enable_trailers": true}))
        .route(Route::named("v1"))
        .route(Route::any().to("upstream"));
    Bootstrap::new()?.concurrency(1).any_cluster(cluster).listener(listener).start()
}

#[test]
fn interim_responses_do_not_affect_the_final_one() -> Result<()> {
    let upstream = HeadServer::start(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
    )?;
    let mut envoy = envoy(upstream.address)?;
    for protocol in Protocol::ALL {
        let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
        assert_eq!((response.status, response.text()), (200, "ok".to_owned()), "{protocol}: {response:?}");
        assert_eq!(response.values("set-cookie").count(), 1, "{protocol}: {response:?}");
        assert!(remaining(&response).is_some(), "{protocol}: {response:?}");
    }
    // A client that waits for status 100 before it sends its body.
    let mut connection = h1::Http1Connection::open(envoy.ingress()?)?;
    connection.send(b"POST / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")?;
    thread::sleep(Duration::from_millis(100));
    connection.send(b"body")?;
    let response = connection.receive(false)?;
    assert_eq!((response.status, response.values("set-cookie").count()), (200, 1), "{response:?}");
    assert_eq!(envoy.transitions()?, [""; 0]);
    envoy.check_healthy()
}

#[test]
fn a_response_before_the_end_of_the_request_counts_by_its_status() -> Result<()> {
    let early = |answer: &'static [u8]| -> Result<(Envoy, HeadServer)> {
        let upstream = HeadServer::start(answer)?;
        Ok((envoy(upstream.address)?, upstream))
    };
    let upload = |envoy: &Envoy| -> Result<u16> {
        let mut connection = h1::Http1Connection::open(envoy.ingress()?)?;
        connection.send(b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1000\r\n\r\nbegun")?;
        Ok(connection.receive(false)?.status)
    };
    let (mut refuses, _upstream) = early(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    for _ in 0..4 {
        assert_eq!(upload(&refuses)?, 413);
    }
    assert_eq!(refuses.transitions()?, [""; 0]);
    refuses.check_healthy()?;
    let (mut fails, _upstream) = early(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    for _ in 0..2 {
        assert_eq!(upload(&fails)?, 503);
    }
    wait_until("two failures are told", || Ok(fails.transitions()?.len() == 1))?;
    fails.check_healthy()
}

#[test]
fn trailers_of_a_request_are_forwarded() -> Result<()> {
    let upstream = Upstream::echo()?;
    let mut envoy = envoy(upstream.address())?;
    let mut connection = h1::Http1Connection::open(envoy.ingress()?)?;
    connection.send(
        b"POST /h1 HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
          4\r\nbody\r\n0\r\nx-sum: 1\r\nx-penstock-route: v1\r\n\r\n",
    )?;
    assert_eq!(connection.receive(false)?.status, 200);
    let mut connection = h2::Http2Connection::open(envoy.ingress()?)?;
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let trailers = [field("x-sum", "1"), field("x-penstock-route", "v1")];
    let request = HttpRequest::new("POST", "a.test", "/h2");
    let response = connection.request_in_parts(&request, &[b"bo", b"dy"], Duration::ZERO, &trailers)?;
    assert_eq!(response.status, 200, "{response:?}");
    for received in upstream.all() {
        assert_eq!(received.body, b"body");
        assert_eq!(received.values("x-penstock-route"), ["v2"], "a trailer is no header");
    }
    assert_eq!(upstream.requests(), 2);
    envoy.check_healthy()
}

#[test]
fn trailers_of_a_response_are_forwarded_and_change_nothing() -> Result<()> {
    // A status of gRPC, in a response that is not gRPC, is no failure.
    let upstream = HeadServer::start(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nconnection: close\r\n\r\n\
          2\r\nok\r\n0\r\nx-sum: 1\r\ngrpc-status: 14\r\n\r\n",
    )?;
    let mut envoy = envoy(upstream.address)?;
    let trailers = [("x-sum", "1"), ("grpc-status", "14")];
    let trailers = trailers.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    for protocol in Protocol::ALL.repeat(2) {
        let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/").header("te", "trailers"))?;
        assert_eq!((response.status, response.text()), (200, "ok".to_owned()), "{protocol}: {response:?}");
        assert_eq!(response.trailers, trailers, "{protocol}: {response:?}");
        assert_eq!(response.values("set-cookie").count(), 1, "{protocol}: {response:?}");
    }
    assert_eq!(envoy.transitions()?, [""; 0]);
    envoy.check_healthy()
}

#[test]
fn a_client_that_leaves_consumes_its_limit_and_is_not_a_failure() -> Result<()> {
    let upstream = Upstream::start(|request| match request.path().as_str() {
        "/hang" => UpstreamReply::Hang,
        _ => UpstreamReply::Echo,
    })?;
    let mut envoy = envoy(upstream.address())?;
    for protocol in Protocol::ALL.repeat(2) {
        let before = upstream.requests();
        let mut connection = ClientConnection::open(protocol, envoy.ingress()?)?;
        connection.abandon(&HttpRequest::get("/hang"), || {
            wait_until("the upstream has it", || Ok(upstream.requests() > before))
        })?;
        wait_until("Envoy has seen it leave", || Ok(envoy.admin().stat("http.ingress.downstream_rq_active")? == 0))?;
    }
    let response = http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/"))?;
    assert_eq!((response.status, remaining(&response)), (200, Some(95)), "{response:?}");
    assert_eq!(envoy.transitions()?, [""; 0]);
    envoy.check_healthy()
}
