//! Large or malformed input: the response is correct or a clear refusal, and the VM does not trap.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_integration::http::{self, ClientConnection, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, WasmFilter, check_routes, check_routes_over};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

fn suite() -> Result<(Envoy, Upstream)> {
    let upstream = Upstream::echo()?;
    let filter = WasmFilter::new(
        "suite",
        json!({"routes": {"default": "stable", "rules": [
            {"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}]},
            {"name": "big", "route": "big", "matches": [{"headers": [{"name": "x-big", "type": "Suffix", "value": "!"}]}]},
            {"name": "regex", "route": "regex", "matches": [
                {"headers": [{"name": "x-regex", "type": "RegularExpression", "value": "(a|aa)+b"}]},
            ]},
            {"name": "plan", "route": "plan", "matches": [{"cookies": [{"name": "plan", "value": "gold"}]}]},
        ]}}),
    )?;
    let listener = Listener::new("ingress")
        .large_headers()
        .wasm(&filter)
        .routes_named(&["beta", "big", "regex", "plan", "stable"])
        .route(Route::any().to("echo"));
    let envoy = Bootstrap::new()?.cluster("echo", upstream.address()).listener(listener).start()?;
    Ok((envoy, upstream))
}

#[test]
fn a_thousand_headers_are_decided_like_one() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    let many = || (0..1000).fold(HttpRequest::get("/"), |request, n| request.header(format!("x-h{n}"), format!("{n}")));
    let same = (0..1000).fold(HttpRequest::get("/"), |request, n| request.header("x-group", format!("g{n}")));
    check_routes(
        &mut envoy,
        &[(many(), "stable"), (many().header("x-group", "beta"), "beta"), (same.header("x-group", "beta"), "beta")],
    )
}

#[test]
fn a_header_value_of_a_mebibyte_is_decided_like_a_short_one() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    // Over HTTP/2, Envoy accepts at most 256 KiB a field, but joins cookies.
    for (protocol, size) in [(Protocol::Http1, MIB), (Protocol::Http2, MIB / 5)] {
        let long = |last: &str| format!("{}{last}", "a".repeat(size));
        let cookies = (0..5)
            .fold(HttpRequest::get("/"), |request, _| request.header("cookie", "c=".to_owned() + &"x".repeat(MIB / 5)));
        check_routes_over(
            &[protocol],
            &mut envoy,
            &[
                (HttpRequest::get("/").header("x-big", long("!")), "big"),
                (HttpRequest::get("/").header("x-big", long("?")), "stable"),
                // The value is too long for a regular expression.
                (HttpRequest::get("/").header("x-regex", long("b")), "stable"),
                (HttpRequest::get("/").header("x-regex", "a".repeat(8191) + "b"), "regex"),
                (HttpRequest::get("/").header("x-regex", long("c")), "stable"),
                (HttpRequest::get(&format!("/{}", long(""))).header("x-group", "beta"), "beta"),
                (cookies.clone(), "stable"),
                (cookies.header("cookie", "plan=gold"), "plan"),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn more_headers_than_the_proxy_accepts_are_refused_by_the_proxy() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    let huge = HttpRequest::get("/").header("x-big", "a".repeat(9 * MIB));
    for protocol in Protocol::ALL {
        if let Ok(response) = http::send(protocol, envoy.ingress()?, &huge) {
            assert_eq!(response.status, 431, "{protocol}");
        }
    }
    check_routes(&mut envoy, &[(HttpRequest::get("/"), "stable")])
}

/// The policies and requests that are designed to be slow, as in the meter (`meter/src/scenarios.rs`), with the largest
/// requests that Envoy accepts by default.
fn slow_requests() -> Vec<(&'static str, Value, HttpRequest)> {
    const SIZE: usize = 54 << 10;
    let filled = |make: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for piece in (0..).map(make).take_while(|piece| !piece.is_empty()) {
            if text.len() + piece.len() > SIZE {
                break;
            }
            text.push_str(&piece);
        }
        text
    };
    let rules = |count: usize, entry: &dyn Fn(usize) -> Value| {
        let rule = |i: usize| json!({"name": format!("r{i}"), "route": "beta", "matches": [entry(i)]});
        json!({"routes": {"default": "stable", "rules": (0..count).map(rule).collect::<Vec<_>>()}})
    };
    let told_apart = |field: &str| rules(2_000, &|i| json!({field: [{"name": "v", "value": format!("v{i}")}]}));
    let expression =
        |pattern: String| json!({"headers": [{"name": "x-agent", "type": "RegularExpression", "value": pattern}]});
    let robots = rules(20, &|i| expression(format!(".*(Bot{i}|crawler{i}|spider{i}).*")));
    let agents = |piece: &str| {
        let value = piece.repeat(7_900 / piece.len());
        (0..7).fold(HttpRequest::get("/"), |request, _| request.header("x-agent", value.clone()))
    };
    let over = |i: usize| json!({"cookie": {"name": "user", "value": format!("u{i}")}, "variant": "beta"});
    let overridden = json!({"canaries": [{"name": "c", "stickiness": {"header": "x-id"}, "overrides": (0..5_000).map(over).collect::<Vec<_>>(),
        "variants": [{"name": "stable", "weight": 1}, {"name": "beta", "weight": 0}]}]});
    let named =
        rules(2_000, &|i| json!({"cookies": [{"name": format!("n{i}"), "type": "RegularExpression", "value": "y.*"}]}));
    let cookies = |make: &dyn Fn(usize) -> String| HttpRequest::get("/").header("cookie", filled(make));
    vec![
        (
            "a query parameter repeated",
            told_apart("queryParams"),
            HttpRequest::get(&format!("/?{}", filled(&|i| format!("v=x{i}&")))),
        ),
        ("a cookie repeated", told_apart("cookies"), cookies(&|i| format!("v=x{i};"))),
        ("twenty expressions", robots, agents("Bot crawler spide ")),
        ("a counted repetition", rules(1, &|_| expression("(?i).*[a-z0-9]{1,200}x.*".into())), agents("a")),
        ("five thousand overrides", overridden, cookies(&|i| format!("user=x{i};"))),
        ("thousands of cookies with expressions", named, cookies(&|i| format!("n{i}=yx;"))),
    ]
}

#[test]
fn the_worst_request_delays_its_neighbour_on_the_worker_by_less_than_two_milliseconds() -> Result<()> {
    const ROUNDS: usize = 40;
    const MOST: Duration = Duration::from_millis(2);
    let upstream = Upstream::echo()?;
    for (what, policy, hostile) in slow_requests() {
        let listener = Listener::new("ingress")
            .wasm(&WasmFilter::new("suite", policy)?)
            .routes_named(&["beta", "stable"])
            .route(Route::any().to("echo"));
        let mut envoy =
            Bootstrap::new()?.concurrency(1).cluster("echo", upstream.address()).listener(listener).start()?;
        // The same bytes in a header that no rule reads: the time that Envoy and the upstream need for them.
        let size =
            hostile.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + hostile.path.len();
        let harmless = HttpRequest::get("/").header("x-padding", "x".repeat(size));
        let mut connection = ClientConnection::open(Protocol::Http1, envoy.ingress()?)?;
        let mut took = |request: &HttpRequest| -> Result<Duration> {
            let begun = Instant::now();
            let response = connection.request(request)?;
            ensure!(response.status == 200, "{what}: {}", response.status);
            Ok(begun.elapsed())
        };
        // A worker handles one event at a time, so the time that one request takes is a delay for others. The fastest
        // of many rounds excludes other work of the machine; when it is loaded, there are more rounds.
        let (mut with, mut without) = (Duration::MAX, Duration::MAX);
        for round in 0..10 * ROUNDS {
            with = with.min(took(&hostile)?);
            without = without.min(took(&harmless)?);
            if round >= ROUNDS && with.saturating_sub(without) < MOST {
                break;
            }
        }
        let delay = with.saturating_sub(without);
        println!("{what}: {size} bytes hold the worker {delay:?} longer than harmless ones ({with:?}, {without:?})");
        assert!(delay < MOST, "{what}: {delay:?}");
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn header_values_that_are_not_utf_8_change_nothing_for_the_others() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    let odd = |value: &[u8]| HttpRequest::get("/").header("x-odd", value).header("x-group", "beta");
    let rows: Vec<_> = [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"a\xffb\tc"]
        .into_iter()
        .map(|value| (odd(value), "beta"))
        .collect();
    check_routes(&mut envoy, &rows)
}

#[test]
fn hostile_input_never_causes_a_trap() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    let before = envoy.admin().stats("wasm.")?;
    let all = (0..=255_u8).filter(|byte| !matches!(byte, 0 | b'\r' | b'\n')).collect::<Vec<_>>();
    for protocol in Protocol::ALL {
        for size in [0, 1, 100, 10_000, 100_000] {
            let value = all.iter().copied().cycle().take(size).collect::<Vec<_>>();
            for name in ["x-group", "cookie", "x-penstock-route", "x-regex"] {
                // Envoy itself refuses control characters.
                let _ = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/").header(name, &value));
            }
        }
    }
    check_routes(&mut envoy, &[(HttpRequest::get("/").header("x-group", "beta"), "beta")])?;
    assert_eq!(envoy.admin().stats("wasm.")?, before, "VMs came or went");
    Ok(())
}
