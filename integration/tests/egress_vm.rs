//! When the VM of the egress filter has trapped, nothing passes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Listener, PATIENCE, Route, Upstream, WasmFilter, greeted, greeter, workspace};
use serde_json::{Value, json};

fn policy() -> Value {
    json!({"egress": {"rules": [{"name": "r", "to": [{"host": "a.test"}, {"host": "*.example.com"}]}]}})
}

fn filter(name: &str, failure_policy: &str) -> Result<WasmFilter> {
    // A VM id of its own, so that a trap in another test's VM does not affect this one.
    let filter =
        WasmFilter::at(name, &workspace::module_that_traps("egress-allowlist")?, policy()).named(name).vm_id(name);
    Ok(filter.failure_policy(failure_policy))
}

#[test]
fn released_modules_do_not_contain_the_trap() -> Result<()> {
    for name in ["egress-allowlist", "suite"] {
        let bytes = std::fs::read(workspace::module(name)?)?;
        assert!(!bytes.windows(15).any(|window| window == b"x-penstock-trap"), "{name}");
    }
    Ok(())
}

#[test]
fn a_trapped_vm_answers_503_and_forwards_nothing() -> Result<()> {
    for failure_policy in ["FAIL_CLOSED", "FAIL_RELOAD"] {
        for protocol in Protocol::ALL {
            let upstream = Upstream::echo()?;
            let envoy = Bootstrap::new()?
                // One worker has one VM, so when it has trapped, no VM is left.
                .concurrency(1)
                .cluster("upstream", upstream.address())
                .listener(
                    Listener::new("egress").wasm(&filter("egress", failure_policy)?).route(Route::any().to("upstream")),
                )
                .start()?;
            let address = envoy.address("egress")?;
            let ask = |request: &HttpRequest| http::send(protocol, address, request).map(|response| response.status);
            assert_eq!(ask(&HttpRequest::new("GET", "a.test", "/"))?, 200);
            assert_eq!(ask(&HttpRequest::new("GET", "evil.test", "/"))?, 403);
            assert_eq!(upstream.requests(), 1);

            let trapped = HttpRequest::new("GET", "a.test", "/").header("x-penstock-trap", "1");
            assert_eq!(ask(&trapped)?, 503, "{failure_policy} {protocol}");
            assert!(envoy.log()?.contains("Function: proxy_on_request_headers failed"), "{}", envoy.log()?);
            assert_eq!(upstream.requests(), 1);

            match failure_policy {
                "FAIL_CLOSED" => {
                    for host in ["a.test", "evil.test", "127.1"] {
                        for _ in 0..5 {
                            assert_eq!(ask(&HttpRequest::new("GET", host, "/"))?, 503, "{protocol} {host}");
                        }
                    }
                    assert_eq!(upstream.requests(), 1);
                }
                _ => {
                    // After about a second, Envoy makes a new VM at the next request; until then, it responds with 503.
                    let started = Instant::now();
                    loop {
                        match ask(&HttpRequest::new("GET", "evil.test", "/"))? {
                            403 => break,
                            status => assert_eq!(status, 503, "{protocol}"),
                        }
                        assert!(started.elapsed() < PATIENCE, "no new VM");
                        thread::sleep(Duration::from_millis(100));
                    }
                    assert_eq!(upstream.requests(), 1);
                    assert_eq!(ask(&HttpRequest::new("GET", "a.test", "/"))?, 200);
                    assert_eq!(ask(&trapped)?, 503);
                    assert_eq!(upstream.requests(), 2);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_trapped_vm_closes_connections_and_opens_none() -> Result<()> {
    for failure_policy in ["FAIL_CLOSED", "FAIL_RELOAD"] {
        let (server, connections) = greeter()?;
        let listener = json!({
            "name": "egress",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "listener_filters": [{"name": "tls", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
            "filter_chains": [{"filters": [
                {"name": "egress", "typed_config": filter("egress", failure_policy)?.network_config()},
                {"name": "tcp", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "egress", "cluster": "upstream",
                }},
            ]}],
        });
        let envoy = Bootstrap::new()?.concurrency(1).cluster("upstream", server).any_listener(listener).start()?;
        let address = envoy.address("egress")?;
        assert!(greeted(address, "api.example.com")?);
        assert!(!greeted(address, "evil.test")?);
        assert!(!greeted(address, "trap.test")?);
        assert!(envoy.log()?.contains("Function: proxy_on_new_connection failed"), "{}", envoy.log()?);
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        let started = Instant::now();
        match failure_policy {
            "FAIL_CLOSED" => {
                for _ in 0..5 {
                    assert!(!greeted(address, "api.example.com")?);
                }
                assert_eq!(connections.load(Ordering::SeqCst), 1);
            }
            _ => {
                while !greeted(address, "api.example.com")? {
                    assert_eq!(connections.load(Ordering::SeqCst), 1);
                    assert!(started.elapsed() < PATIENCE, "no new VM");
                    thread::sleep(Duration::from_millis(100));
                }
                assert!(!greeted(address, "evil.test")?);
                assert_eq!(connections.load(Ordering::SeqCst), 2);
            }
        }
    }
    Ok(())
}
