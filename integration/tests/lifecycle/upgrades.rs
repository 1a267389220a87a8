//! Upgrades and CONNECT with canaries, limits and breakers.

use anyhow::Result;
use penstock_integration::http::{self, ClientConnection, HttpRequest, Protocol, h1};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, WasmFilter};
use serde_json::{Value, json};

use crate::{HeadServer, wait_until};

const SWITCHES: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhello";

/// Two upgrades pass; all users are on v2 unless it fails.
fn policy() -> Value {
    json!({
        "rateLimits": [{"name": "all", "key": [{"hostname": {}}], "limit": {"requests": 2, "per": "24h"}}],
        "routes": {"rules": [{"name": "r", "canary": "chat", "requestHeaders": {
            "set": [{"name": "x-plan", "value": "free"}], "add": [{"name": "x-tag", "value": "policy"}]}}]},
        "canaries": [{"name": "chat", "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
            "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": 2, "errorPercent": 10}}],
    })
}

fn envoy(upstream: &HeadServer) -> Result<Envoy> {
    let listener = Listener::new("ingress")
        .manager("upgrade_configs", json!([{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}]))
        .manager("http2_protocol_options", json!({"allow_connect": true}))
        .wasm(&WasmFilter::new("suite", policy())?)
        .route(Route::named("v1"))
        .route(Route::any().to("upstream"));
    Bootstrap::new()?.concurrency(1).cluster("upstream", upstream.address).listener(listener).start()
}

#[test]
fn an_upgrade_is_counted_once_is_no_failure_and_keeps_the_headers_of_the_policy() -> Result<()> {
    let upstream = HeadServer::start(SWITCHES)?;
    let mut envoy = envoy(&upstream)?;
    let request = HttpRequest::get("/")
        .header("connection", "Upgrade, X-Plan, x-penstock-route,x-tag, x-mine")
        .header("upgrade", "websocket")
        .header("x-plan", "unlimited")
        .header("x-mine", "1");
    for _ in 0..2 {
        let mut connection = h1::Http1Connection::open(envoy.ingress()?)?;
        let response = connection.request(&request)?;
        assert_eq!(response.status, 101, "{response:?}");
        let head = upstream.last();
        let of = |name: &str| -> Vec<String> {
            let prefix = format!("{name}: ");
            head.iter().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
        };
        // The headers that the policy sets are no longer listed in `connection`: a proxy behind this one would drop them.
        assert_eq!(of("connection"), ["Upgrade, x-mine"], "{head:?}");
        assert_eq!(of("x-plan"), ["free"]);
        assert_eq!(of("x-tag"), ["policy"]);
        assert_eq!(of("x-penstock-route"), ["v2"]);
        assert_eq!(of("upgrade"), ["websocket"]);
    }
    assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &request)?.status, 429);
    assert_eq!(upstream.requests(), 2);
    // The breaker counts upgraded connections when they close, which they do here.
    wait_until("the tunnels have ended", || Ok(envoy.admin().stat("http.ingress.downstream_cx_active")? == 0))?;
    assert_eq!(envoy.transitions()?, [""; 0]);
    envoy.check_healthy()
}

#[test]
fn an_extended_connect_is_decided_as_an_upgrade() -> Result<()> {
    let upstream = HeadServer::start(SWITCHES)?;
    let mut envoy = envoy(&upstream)?;
    for number in 1..=2 {
        let mut connection = ClientConnection::open(Protocol::Http2, envoy.ingress()?)?;
        let mut request = HttpRequest::new("CONNECT", "chat.test", "/");
        request.protocol = Some(b"websocket".to_vec());
        connection.abandon(&request, || wait_until("the upstream has it", || Ok(upstream.requests() == number)))?;
        let head = upstream.last();
        for line in ["x-penstock-route: v2", "x-plan: free", "upgrade: websocket"] {
            assert!(head.iter().any(|found| found == line), "{line}: {head:?}");
        }
    }
    let mut request = HttpRequest::new("CONNECT", "chat.test", "/");
    request.protocol = Some(b"websocket".to_vec());
    assert_eq!(http::send(Protocol::Http2, envoy.ingress()?, &request)?.status, 429);
    envoy.check_healthy()
}

#[test]
fn a_connect_is_limited_like_any_request() -> Result<()> {
    let upstream = HeadServer::start(SWITCHES)?;
    let mut envoy = envoy(&upstream)?;
    for (protocol, host) in [(Protocol::Http1, "one.test:443"), (Protocol::Http2, "two.test:443")] {
        let path = if protocol == Protocol::Http1 { host } else { "" };
        let statuses: Vec<u16> = (0..3)
            .map(|_| Ok(http::send(protocol, envoy.ingress()?, &HttpRequest::new("CONNECT", host, path))?.status))
            .collect::<Result<_>>()?;
        assert_eq!(statuses, [200, 200, 429], "{protocol}");
    }
    envoy.check_healthy()
}
