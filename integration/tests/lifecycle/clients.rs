//! The client's address behind proxies, and the request's path, as limits in a real Envoy count them.

use std::net::SocketAddr;

use anyhow::Result;
use penstock_integration::http::{ClientConnection, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, WasmFilter};
use serde_json::{Value, json};

/// A limit of one request a day for each client.
fn one_each(settings: &Value, key: &Value) -> Value {
    json!({"settings": settings, "rateLimits": [{"name": "l", "key": key, "limit": {"requests": 1, "per": "24h"}}]})
}

/// The peer is on loopback, or is the one in the PROXY line.
fn envoy(policy: &Value, uses_remote_address: bool, is_proxied: bool) -> Result<Envoy> {
    let mut listener = Listener::new("ingress")
        .manager("use_remote_address", json!(uses_remote_address))
        .wasm(&WasmFilter::new("rate-limit", policy)?)
        .route(Route::any());
    if is_proxied {
        listener = listener.proxy_protocol();
    }
    Bootstrap::new()?.concurrency(1).listener(listener).start()
}

/// The statuses of requests with these values of `x-forwarded-for`.
fn statuses(address: SocketAddr, protocol: Protocol, peer: Option<&str>, forwarded: &[&str]) -> Result<Vec<u16>> {
    let hello = peer.map(|peer| format!("PROXY TCP4 {peer} 192.0.2.1 40000 80\r\n")).unwrap_or_default();
    let ask = |forwarded: &&str| -> Result<u16> {
        let mut connection = ClientConnection::open_after(protocol, address, hello.as_bytes())?;
        let request = HttpRequest::get("/");
        let request = if forwarded.is_empty() { request } else { request.header("x-forwarded-for", forwarded) };
        Ok(connection.request(&request)?.status)
    };
    forwarded.iter().map(ask).collect()
}

#[test]
fn the_clients_of_a_proxy_on_loopback_are_told_apart_by_hops() -> Result<()> {
    let policy = one_each(&json!({"sourceAddress": {"trustedHops": 1}}), &json!([{"sourceAddress": {}}]));
    let mut envoy = envoy(&policy, true, false)?;
    for (protocol, net) in Protocol::ALL.into_iter().zip(["203.0.113", "198.51.100"]) {
        let forwarded: Vec<String> = (1..=3).map(|host| format!("{net}.{host}")).collect();
        let forwarded: Vec<&str> = forwarded.iter().map(String::as_str).collect();
        assert_eq!(statuses(envoy.ingress()?, protocol, None, &forwarded)?, [200; 3], "{protocol}");
        assert_eq!(statuses(envoy.ingress()?, protocol, None, &forwarded)?, [429; 3], "{protocol}");
        let forged = format!("192.0.2.77, {net}.1");
        assert_eq!(
            statuses(envoy.ingress()?, protocol, None, &[&forged])?,
            [429],
            "what a client writes is not its address"
        );
    }
    envoy.check_healthy()
}

#[test]
fn ranges_of_trusted_proxies_find_the_client_whatever_envoy_appends() -> Result<()> {
    let settings = json!({"sourceAddress": {"trustedProxies": ["10.0.0.0/8", "127.0.0.0/8"]}});
    let policy = one_each(&settings, &json!([{"sourceAddress": {}}]));
    for uses_remote_address in [true, false] {
        let mut envoy = envoy(&policy, uses_remote_address, true)?;
        let address = envoy.ingress()?;
        for (protocol, net) in Protocol::ALL.into_iter().zip(["203.0.113", "198.51.100"]) {
            let behind = |chain: &str| chain.replace("client", net);
            let (one, two) = (behind("client.1"), behind("client.2, 10.0.0.5, 10.9.9.9"));
            let proxy = Some("10.0.0.6");
            assert_eq!(
                statuses(address, protocol, proxy, &[&one, &two])?,
                [200; 2],
                "{uses_remote_address} {protocol}"
            );
            // Requests through fewer proxies than trusted, with entries that the client wrote itself.
            let forged = behind("192.0.2.77, client.2, 10.0.0.5");
            assert_eq!(
                statuses(address, protocol, proxy, &[&one, &forged])?,
                [429; 2],
                "{uses_remote_address} {protocol}"
            );
        }
        if uses_remote_address {
            // A peer that is not a trusted proxy is the client, whatever its header says.
            let peer = Some("192.0.2.200");
            let forwarded = ["203.0.113.50", "203.0.113.51"];
            assert_eq!(statuses(address, Protocol::Http1, peer, &forwarded)?, [200, 429]);
        }
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn a_canonical_path_is_counted_and_the_received_one_forwarded() -> Result<()> {
    let upstream = Upstream::echo()?;
    let mut policy = one_each(&json!({"path": "Canonical"}), &json!([{"path": {}}]));
    policy["rateLimits"][0]["matches"] = json!([{"path": {"type": "Exact", "value": "/login"}}]);
    let listener =
        Listener::new("ingress").wasm(&WasmFilter::new("suite", &policy)?).route(Route::any().to("upstream"));
    let mut envoy = Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener).start()?;
    let ask = |protocol, path: &str| -> Result<u16> {
        Ok(penstock_integration::http::send(protocol, envoy.ingress()?, &HttpRequest::get(path))?.status)
    };
    assert_eq!(ask(Protocol::Http1, "/x/..//%6cogin;v=1?q=%41")?, 200);
    let received = upstream.last().map(|request| request.path());
    assert_eq!(received.as_deref(), Some("/x/..//%6cogin;v=1?q=%41"), "nothing is rewritten by it");
    for protocol in Protocol::ALL {
        for path in ["/login", "//login", "/%6cogin", "/login;x=1", "/./login", "/a/../login?q"] {
            assert_eq!(ask(protocol, path)?, 429, "{protocol} {path}");
        }
        // A path without a canonical form is matched as received.
        for path in ["/login%2f", "/LOGIN", "/login/x"] {
            assert_eq!(ask(protocol, path)?, 200, "{protocol} {path}");
        }
    }
    envoy.check_healthy()
}
