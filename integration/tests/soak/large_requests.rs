//! Requests of the largest size that Envoy allows, and larger ones. `hostile.rs` tests an Envoy that allows mebibytes.

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

use crate::beside_others;

/// Envoy's default limits for the size of all headers (`max_request_headers_kb`) and for their number.
const KIB: usize = 60;
const COUNT: usize = 100;

fn policy() -> Value {
    json!({
        "egress": {"rules": [{"name": "known", "to": [{"host": "always.test"}], "paths": [{"type": "PathPrefix", "value": "/a"}]}]},
        "rateLimits": [{"name": "by-key", "key": [{"header": "x-key"}], "limit": {"requests": 1000, "per": "1s"}}],
        "routes": {"default": "stable", "rules": [
            {"name": "last", "route": "last", "matches": [{"headers": [{"name": "x-last", "value": "yes"}]}]},
            {"name": "long", "route": "long", "matches": [{"queryParams": [{"name": "q", "type": "Suffix", "value": "z"}]}]},
        ]},
    })
}

fn envoy(upstream: &Upstream) -> Result<Envoy> {
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", policy())?)
        .route(Route::any().to("upstream").echo(&["x-penstock-route"]));
    Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener).start()
}

/// The result of a request: the route, or the status.
fn outcome(envoy: &Envoy, protocol: Protocol, request: &HttpRequest) -> Result<String> {
    // Over HTTP/2, Envoy may reset a stream that is too large instead of responding.
    let Ok(response) = http::send(protocol, envoy.ingress()?, request) else { return Ok("reset".to_owned()) };
    Ok(match response.status {
        200 => response.header("x-saw-x-penstock-route").unwrap_or_default(),
        status => status.to_string(),
    })
}

#[test]
fn requests_up_to_envoys_limits_are_decided_and_larger_ones_are_not_forwarded() -> Result<()> {
    let _others = beside_others();
    let upstream = Upstream::forgetful(|_| UpstreamReply::Status(200, vec![]))?;
    let mut envoy = envoy(&upstream)?;
    let to = |host: &str, path: &str| HttpRequest::new("GET", host, path);
    // The header that decides comes last, after all the others.
    let padded =
        |host: &str, kib: usize| to(host, "/a").header("x-key", "k".repeat(kib * 1024)).header("x-last", "yes");
    let many = |host: &str, count: usize| {
        let request = (0..count).fold(to(host, "/a"), |request, number| request.header(format!("x-{number}"), "v"));
        request.header("x-last", "yes")
    };
    let long = |host: &str, kib: usize| to(host, &format!("/a/?q={}z", "p".repeat(kib * 1024)));
    let too_large = &["431", "reset"][..];
    let rows: [(&str, HttpRequest, &[&str]); 11] = [
        ("a header of 58 KiB", padded("always.test", KIB - 2), &["last"]),
        ("a header of 58 KiB, denied", padded("evil.test", KIB - 2), &["403"]),
        ("a header of 61 KiB", padded("always.test", KIB + 1), too_large),
        ("a header of 61 KiB, denied", padded("evil.test", KIB + 1), too_large),
        ("90 headers", many("always.test", COUNT - 10), &["last"]),
        ("90 headers, denied", many("evil.test", COUNT - 10), &["403"]),
        ("120 headers", many("always.test", COUNT + 20), too_large),
        ("a path of 58 KiB", long("always.test", KIB - 2), &["long"]),
        ("a path of 58 KiB, denied", long("evil.test", KIB - 2), &["403"]),
        ("a path of 61 KiB", long("always.test", KIB + 1), &["431", "414", "reset"]),
        ("a path of 58 KiB that climbs out", to("always.test", &format!("/a{}/b", "/..".repeat(19_000))), &["400"]),
    ];
    let mut wrong = Vec::new();
    for protocol in Protocol::ALL {
        for (what, request, expected) in &rows {
            let before = upstream.requests();
            let outcome = outcome(&envoy, protocol, request)?;
            println!("{protocol}, {what}: {outcome}");
            let forwarded = upstream.requests() - before;
            let passes = ["last", "long"].contains(&outcome.as_str());
            if !expected.contains(&outcome.as_str()) || forwarded != usize::from(passes) {
                wrong.push(format!("{protocol}, {what}: {outcome}, forwarded {forwarded} times"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    envoy.check_healthy()
}
