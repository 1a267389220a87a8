//! gRPC responses, whose result is in `grpc-status`.

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Answer, Bootstrap, GrpcServer, Listener, Route, WasmFilter, grpc_cluster};
use serde_json::json;

use crate::wait_until;

#[test]
fn a_call_that_fails_in_its_trailers_or_headers_is_a_failure_for_breakers() -> Result<()> {
    let policy = json!({"routes": {"rules": [{"name": "calls", "route": "eu",
        "failover": {"route": "us", "errorPercent": 50, "window": "60s", "minRequests": 6, "cooldown": "1h"}}]}});
    for (answer, content_type, fails) in [
        (Answer::Grpc(14), "application/grpc", true),
        (Answer::Trailers(14), "application/grpc+proto", true),
        (Answer::Trailers(13), "application/grpc", true),
        // Success, and errors that the caller caused.
        (Answer::Trailers(5), "application/grpc", false),
        (Answer::Grpc(16), "application/grpc", false),
        (Answer::Trailers(0), "application/grpc", false),
        // This is not a gRPC call, so the header has no meaning.
        (Answer::Trailers(14), "application/json", false),
    ] {
        let server = GrpcServer::start(answer.clone())?;
        let listener = Listener::new("ingress")
            .wasm(&WasmFilter::new("suite", &policy)?)
            .route(Route::named("us"))
            .route(Route::any().to("calls"));
        let mut envoy = Bootstrap::new()?
            .concurrency(1)
            .any_cluster(grpc_cluster("calls", server.address()))
            .listener(listener)
            .start()?;
        let request = HttpRequest::new("POST", "calls.test", "/shop.Cart/Add")
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(b"\0\0\0\0\0");
        for _ in 0..6 {
            assert_eq!(http::send(Protocol::Http2, envoy.ingress()?, &request)?.status, 200);
        }
        let what = format!("{answer:?} as {content_type}");
        if fails {
            wait_until(&what, || Ok(envoy.transitions()?.len() == 1))?;
            let line = "rule calls: route eu: 6 of 6 requests failed: all go to us, a probe follows in 3600 s";
            assert_eq!(envoy.transitions()?, [line], "{what}");
        } else {
            assert_eq!(http::send(Protocol::Http2, envoy.ingress()?, &request)?.status, 200);
            assert_eq!((envoy.transitions()?, server.calls()), (vec![], 7), "{what}");
        }
        envoy.check_healthy()?;
    }
    Ok(())
}
