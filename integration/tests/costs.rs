//! Limits whose cost is reported in the response, in a real Envoy: what is reserved when a request arrives, and how the
//! reservation is corrected.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{
    Bootstrap, Envoy, Listener, PATIENCE, RateLimitService, Route, Upstream, UpstreamReply, WasmFilter,
};
use serde_json::{Value, json};

/// An upstream that reports the cost which the request names.
fn upstream() -> Result<Upstream> {
    Upstream::start(|request| match request.header("x-say").unwrap_or_default().as_str() {
        "nothing" => UpstreamReply::Status(200, Vec::new()),
        "close" => UpstreamReply::Close,
        "hang" => UpstreamReply::Hang,
        "late" => UpstreamReply::After(Duration::from_millis(400), Box::new(said("600"))),
        cost => said(cost),
    })
}

fn said(cost: &str) -> UpstreamReply {
    UpstreamReply::Status(200, vec![("x-tokens-used".to_owned(), cost.to_owned())])
}

/// A limit of 1000 tokens that does not refill during a test.
fn limit(rest: Value) -> Value {
    let mut limit = json!({
        "name": "tokens", "key": [{"header": "x-user"}], "limit": {"requests": 1000, "per": "24h"},
        "cost": {"responseHeader": "x-tokens-used", "reserve": 100, "max": 5000}, "quotaHeaders": "IETF",
    });
    if let (Some(limit), Some(rest)) = (limit.as_object_mut(), rest.as_object()) {
        limit.extend(rest.clone());
    }
    limit
}

fn envoy(upstream: &Upstream, limit: Value, more: Option<Value>) -> Result<Envoy> {
    let filter = WasmFilter::new("suite", json!({"rateLimits": [limit]}))?;
    let listener = Listener::new("ingress").wasm(&filter).route(Route::any().to("upstream"));
    let mut bootstrap = Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener);
    if let Some(cluster) = more {
        bootstrap = bootstrap.any_cluster(cluster);
    }
    bootstrap.start()
}

fn request(user: &str, say: &str) -> HttpRequest {
    HttpRequest::get("/").header("x-user", user).header("x-say", say)
}

fn send(envoy: &Envoy, protocol: Protocol, user: &str, say: &str) -> Result<HttpResponse> {
    http::send(protocol, envoy.ingress()?, &request(user, say))
}

/// The tokens that a user has left, as reported to a request whose final cost is 0.
fn left(envoy: &Envoy, user: &str) -> Result<i64> {
    let response = send(envoy, Protocol::Http1, user, "0")?;
    let text = response.header("ratelimit").with_context(|| format!("no quota in {response:?}"))?;
    let left = text.split(";r=").nth(1).and_then(|rest| rest.split(';').next()).with_context(|| text.clone())?;
    Ok(left.parse::<i64>()? + 100)
}

#[test]
fn the_difference_to_the_reserved_cost_is_applied_when_the_response_headers_arrive() -> Result<()> {
    let upstream = upstream()?;
    let mut envoy = envoy(&upstream, limit(json!({})), None)?;
    for protocol in Protocol::ALL {
        for (say, status, expected) in [
            ("30", 200, 970),
            ("100", 200, 900),
            ("0", 200, 1000),
            ("700", 200, 300),
            ("late", 200, 400),
            // If the response has no usable cost, or none, or comes from the proxy itself, the reserved amount is kept.
            ("many", 200, 900),
            ("nothing", 200, 900),
            ("close", 503, 900),
        ] {
            let user = format!("{say}-{protocol}");
            let response = send(&envoy, protocol, &user, say)?;
            assert_eq!(response.status, status, "{user}");
            assert_eq!(left(&envoy, &user)?, expected, "{user}");
        }
        // The cost exceeds what is left, so the next request must wait.
        let user = format!("overdrawn-{protocol}");
        assert_eq!(send(&envoy, protocol, &user, "1500")?.status, 200);
        let refused = send(&envoy, protocol, &user, "0")?;
        assert_eq!((refused.status, refused.header("retry-after").as_deref()), (429, Some("51840")), "600 of 86.4 s");
    }
    envoy.check_healthy()
}

#[test]
fn the_reserved_cost_of_an_aborted_request_is_kept() -> Result<()> {
    let upstream = upstream()?;
    let mut envoy = envoy(&upstream, limit(json!({})), None)?;
    let mut connection = TcpStream::connect(envoy.ingress()?)?;
    connection.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-user: gone\r\nx-say: hang\r\n\r\n")?;
    let started = Instant::now();
    while upstream.requests() == 0 {
        ensure!(started.elapsed() < PATIENCE, "the request never reached the upstream");
        thread::sleep(Duration::from_millis(20));
    }
    drop(connection);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(left(&envoy, "gone")?, 900);
    envoy.check_healthy()
}

#[test]
fn a_service_is_charged_the_rest_of_the_cost_and_never_refunded() -> Result<()> {
    let Some(service) = RateLimitService::start(&["domain: shop\ndescriptors: []\n"])? else { return Ok(()) };
    let upstream = upstream()?;
    let global = json!({
        "scope": {"global": {"cluster": "ratelimit", "domain": "shop", "timeout": "5s", "onFailure": "Deny"}},
        "quotaHeaders": "Off",
    });
    let mut envoy = envoy(&upstream, limit(global), Some(service.cluster("ratelimit")))?;
    let passed = |user: &str, say: &str, count: usize| -> Result<usize> {
        let statuses = (0..count).map(|_| Ok(send(&envoy, Protocol::Http1, user, say)?.status));
        Ok(statuses.collect::<Result<Vec<_>>>()?.into_iter().filter(|status| *status == 200).count())
    };
    // The first costs 600, the others 100 each. The service gets the cost after the response, so the test waits a moment.
    let users: Vec<String> = (0..20).map(|user| format!("more-{user}")).collect();
    for user in &users {
        assert_eq!(passed(user, "600", 1)?, 1);
    }
    thread::sleep(Duration::from_millis(300));
    for user in &users {
        assert_eq!(passed(user, "100", 8)?, 4, "{user}");
    }
    assert_eq!(passed("nothing", "nothing", 12)?, 10, "the reserve stays");
    assert_eq!(passed("less", "1", 12)?, 10, "this service takes nothing back");
    envoy.check_healthy()
}
