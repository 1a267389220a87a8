//! What counts as the upstream's time, and what does not.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use penstock_integration::http::{self, HttpRequest, Protocol, h1, h2};
use penstock_integration::{Answer, Bootstrap, GrpcServer, Listener, Route, Upstream, WasmFilter, grpc_cluster};
use serde_json::{Value, json};

/// A canary that is rolled back when half of its responses take longer than two seconds.
fn timed(minimum: u32, limits: Value) -> Value {
    json!({
        "rateLimits": limits,
        "canaries": [{"name": "shop", "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
            "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": minimum, "cooldown": "1h",
                "latency": {"percentile": 50, "above": "2s"}}}],
    })
}

#[test]
fn a_slow_upload_by_the_client_does_not_cause_a_rollback() -> Result<()> {
    let upstream = Upstream::forgetful(|_| penstock_integration::UpstreamReply::Echo)?;
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("canary", {
            let mut policy = timed(10, Value::Null);
            policy.as_object_mut().unwrap().remove("rateLimits");
            policy
        })?)
        .route(Route::named("v1"))
        .route(Route::any().to("upstream"));
    let mut envoy = Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener).start()?;
    let address = envoy.ingress()?;
    let pause = Duration::from_millis(2600);
    let clients: Vec<_> = Protocol::ALL
        .repeat(8)
        .into_iter()
        .map(|protocol| {
            thread::spawn(move || -> Result<u16> {
                match protocol {
                    Protocol::Http1 => {
                        let mut connection = h1::Http1Connection::open(address)?;
                        connection.send(b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 2\r\n\r\na")?;
                        thread::sleep(pause);
                        connection.send(b"b")?;
                        Ok(connection.receive(false)?.status)
                    }
                    Protocol::Http2 => {
                        let mut connection = h2::Http2Connection::open(address)?;
                        let request = HttpRequest::new("POST", "a.test", "/");
                        let trailers = [(b"x-sum".to_vec(), b"1".to_vec())];
                        Ok(connection.request_in_parts(&request, &[b"a", b"b"], pause, &trailers)?.status)
                    }
                }
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().map_err(|_| anyhow!("a client panicked"))??, 200);
    }
    for protocol in Protocol::ALL {
        assert_ne!(http::send(protocol, address, &HttpRequest::get("/"))?.text(), "v1");
    }
    assert_eq!(envoy.transitions()?, [""; 0]);
    envoy.check_healthy()
}

#[test]
fn a_slow_rate_limit_service_does_not_cause_a_rollback() -> Result<()> {
    let upstream = Upstream::forgetful(|_| penstock_integration::UpstreamReply::Echo)?;
    let service = GrpcServer::start(Answer::After(Duration::from_millis(2400), vec![0x08, 1]))?;
    let scope = json!({"global": {"cluster": "ratelimit", "domain": "d", "timeout": "5s", "onFailure": "Deny"}});
    let limits = json!([{"name": "g", "key": [], "limit": {"requests": 100, "per": "1m"}, "scope": scope}]);
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", timed(2, limits))?)
        .route(Route::named("v1"))
        .route(Route::any().to("upstream"));
    let mut envoy = Bootstrap::new()?
        .concurrency(1)
        .cluster("upstream", upstream.address())
        .any_cluster(grpc_cluster("ratelimit", service.address()))
        .listener(listener)
        .start()?;
    for protocol in Protocol::ALL {
        let response = http::send(protocol, envoy.ingress()?, &HttpRequest::new("POST", "a.test", "/").body("body"))?;
        assert_eq!(response.status, 200, "{protocol}: {response:?}");
    }
    assert_eq!((service.calls(), envoy.transitions()?), (2, vec![]));
    envoy.check_healthy()
}
