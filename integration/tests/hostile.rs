//! Input that is large or malformed: the answer is right or a clear refusal, and the VM lives on.

use anyhow::Result;
use penstock_integration::http::{self, Protocol, Request};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, WasmFilter, check_routes, check_routes_over};
use serde_json::json;

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
    let many = || (0..1000).fold(Request::get("/"), |request, n| request.header(format!("x-h{n}"), format!("{n}")));
    let same = (0..1000).fold(Request::get("/"), |request, n| request.header("x-group", format!("g{n}")));
    check_routes(
        &mut envoy,
        &[(many(), "stable"), (many().header("x-group", "beta"), "beta"), (same.header("x-group", "beta"), "beta")],
    )
}

#[test]
fn a_header_value_of_a_mebibyte_is_decided_like_a_short_one() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    // Over HTTP/2 Envoy takes 256 KiB a field at most, but joins cookies.
    for (protocol, size) in [(Protocol::Http1, MIB), (Protocol::Http2, MIB / 5)] {
        let long = |last: &str| format!("{}{last}", "a".repeat(size));
        let cookies = (0..5)
            .fold(Request::get("/"), |request, _| request.header("cookie", "c=".to_owned() + &"x".repeat(MIB / 5)));
        check_routes_over(
            &[protocol],
            &mut envoy,
            &[
                (Request::get("/").header("x-big", long("!")), "big"),
                (Request::get("/").header("x-big", long("?")), "stable"),
                // Too long for an expression.
                (Request::get("/").header("x-regex", long("b")), "stable"),
                (Request::get("/").header("x-regex", "a".repeat(8191) + "b"), "regex"),
                (Request::get("/").header("x-regex", long("c")), "stable"),
                (Request::get(&format!("/{}", long(""))).header("x-group", "beta"), "beta"),
                (cookies.clone(), "stable"),
                (cookies.header("cookie", "plan=gold"), "plan"),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn more_headers_than_the_proxy_accepts_are_its_own_refusal() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    let huge = Request::get("/").header("x-big", "a".repeat(9 * MIB));
    for protocol in Protocol::ALL {
        if let Ok(response) = http::send(protocol, envoy.ingress()?, &huge) {
            assert_eq!(response.status, 431, "{protocol}");
        }
    }
    check_routes(&mut envoy, &[(Request::get("/"), "stable")])
}

#[test]
fn header_values_that_are_not_utf_8_change_nothing_for_the_others() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    let odd = |value: &[u8]| Request::get("/").header("x-odd", value).header("x-group", "beta");
    let rows: Vec<_> = [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"a\xffb\tc"]
        .into_iter()
        .map(|value| (odd(value), "beta"))
        .collect();
    check_routes(&mut envoy, &rows)
}

#[test]
fn no_vm_is_lost_over_all_of_it() -> Result<()> {
    let (mut envoy, _upstream) = suite()?;
    let before = envoy.admin().stats("wasm.")?;
    let all = (0..=255_u8).filter(|byte| !matches!(byte, 0 | b'\r' | b'\n')).collect::<Vec<_>>();
    for protocol in Protocol::ALL {
        for size in [0, 1, 100, 10_000, 100_000] {
            let value = all.iter().copied().cycle().take(size).collect::<Vec<_>>();
            for name in ["x-group", "cookie", "x-penstock-route", "x-regex"] {
                // Envoy refuses control characters itself.
                let _ = http::send(protocol, envoy.ingress()?, &Request::get("/").header(name, &value));
            }
        }
    }
    check_routes(&mut envoy, &[(Request::get("/").header("x-group", "beta"), "beta")])?;
    assert_eq!(envoy.admin().stats("wasm.")?, before, "VMs came or went");
    Ok(())
}
