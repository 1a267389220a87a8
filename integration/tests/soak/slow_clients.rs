//! Clients that send a byte now and then: headers that never end, bodies that never end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Traffic, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

use crate::{PATIENCE, assert_flawless, beside_others, wait_until};

const SLOW: usize = 200;
const LIMIT: usize = 10;

fn policy() -> Value {
    let host = |name: &str| json!({"host": name});
    json!({
        "egress": {"rules": [{"name": "known", "to": [host("always.test"), host("limited.test")]}]},
        "rateLimits": [{"name": "few", "key": [], "matches": [{"hostnames": ["limited.test"]}],
            "limit": {"requests": LIMIT, "per": "24h"}}],
    })
}

/// An Envoy with timeouts for request headers and for idle streams.
fn envoy(upstream: &Upstream) -> Result<Envoy> {
    let listener = Listener::new("ingress")
        .manager("request_headers_timeout", json!("2s"))
        .manager("stream_idle_timeout", json!("4s"))
        .wasm(&WasmFilter::new("suite", policy())?)
        .route(Route::any().to("upstream"));
    Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener).start()
}

/// Connections that have sent these bytes and then stay silent.
fn connections(address: SocketAddr, count: usize, start: &str) -> Result<Vec<TcpStream>> {
    let open = |_| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(start.as_bytes())?;
        Ok(stream)
    };
    (0..count).map(open).collect()
}

/// The status line of the response, or nothing when the connection ends without one.
fn status(stream: &mut TcpStream) -> String {
    let mut bytes = [0; 12];
    // The proxy may close the connection.
    let read = stream.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).replace("HTTP/1.1 ", "")
}

/// Fast clients meanwhile, which must not notice anything.
fn quick(envoy: &Envoy) -> Result<Traffic> {
    Ok(Traffic::of(2, envoy.ingress()?, |client, number| {
        thread::sleep(Duration::from_millis(2));
        let (host, status) = [("always.test", 200), ("evil.test", 403)][(client + number) % 2];
        (HttpRequest::get("/").at(host), move |response: &HttpResponse| {
            ensure!(response.status == status, "{host}: {response:?}");
            Ok(())
        })
    }))
}

#[test]
fn headers_that_never_end_reach_no_decision_and_delay_no_other_client() -> Result<()> {
    let _others = beside_others();
    let upstream = Upstream::forgetful(|_| UpstreamReply::Status(200, vec![]))?;
    let mut envoy = envoy(&upstream)?;
    let before = envoy.resident()?;
    let mut slow = connections(envoy.ingress()?, SLOW, "GET / HTTP/1.1\r\nhost: limited.test\r\nx-slow: ")?;
    let traffic = quick(&envoy)?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        for stream in &mut slow {
            stream.write_all(b"z")?;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let memory = envoy.resident()?;
    let answers: Vec<String> = slow.iter_mut().map(status).collect();
    let ended = started.elapsed();
    let tally = traffic.stop()?;
    assert_flawless(&tally, 100);
    assert!(answers.iter().all(|status| status == "408"), "{answers:?}");
    // No slow client has consumed the limit or was counted.
    let passed = (0..2 * LIMIT)
        .map(|_| Ok(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/").at("limited.test"))?.status));
    let passed = passed.collect::<Result<Vec<_>>>()?.into_iter().filter(|&status| status == 200).count();
    assert_eq!(passed, LIMIT);
    println!(
        "slow headers: {SLOW} clients, all 408 after {ended:?}, no decision; {} quick requests, none failed; {before} KiB before, \
         {memory} KiB with them",
        tally.good
    );
    envoy.check_healthy()
}

#[test]
fn bodies_that_never_end_are_refused_before_they_are_read_and_count_once() -> Result<()> {
    let _others = beside_others();
    let upstream = Upstream::forgetful(|_| UpstreamReply::Status(200, vec![]))?;
    let mut envoy = envoy(&upstream)?;
    let before = envoy.resident()?;
    let traffic = quick(&envoy)?;
    let head = |host: &str| format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\nbody");
    let started = Instant::now();
    let mut denied = connections(envoy.ingress()?, SLOW, &head("evil.test"))?;
    let answers: Vec<String> = denied.iter_mut().map(status).collect();
    assert!(answers.iter().all(|status| status == "403"), "{answers:?}");
    let refused = started.elapsed();
    // Twice as many as the limit passes. Those that pass continue to send for a while.
    let mut limited = connections(envoy.ingress()?, 2 * LIMIT, &head("limited.test"))?;
    let stat = |outcome: &str| {
        envoy.admin().stat(&format!("wasmcustom.penstock.requests_total.section.rateLimits.rule.few.outcome.{outcome}"))
    };
    wait_until("the limit", || Ok([stat("passed")?, stat("limited")?] == [LIMIT as u64; 2]))?;
    for _ in 0..5 {
        for stream in &mut limited {
            // Half of them got a response, and were closed.
            let _ = stream.write_all(b"more");
        }
        thread::sleep(Duration::from_millis(100));
    }
    let mut answers: Vec<String> = limited.iter_mut().map(status).collect();
    answers.sort_unstable();
    let ended = started.elapsed();
    assert_eq!([stat("passed")?, stat("limited")?], [LIMIT as u64; 2], "each counts once");
    let refused_by_limit = answers.iter().filter(|status| *status == "429").count();
    assert_eq!(refused_by_limit, LIMIT, "{answers:?}");
    let tally = traffic.stop()?;
    assert_flawless(&tally, 100);
    println!(
        "slow bodies: {SLOW} denied in {refused:?} with the body unread; of {} limited {LIMIT} 429, the others {:?} after {ended:?}; \
         {} quick requests, none failed; {before} KiB before, {} KiB after",
        2 * LIMIT,
        answers.first(),
        tally.good,
        envoy.resident()?,
    );
    envoy.check_healthy()
}
