//! `routes` with the suite in a real Envoy: which route takes a request, over HTTP/1.1 and HTTP/2.

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol, h1, h2};
use penstock_integration::{Bootstrap, Listener, NONE, Route, Upstream, WasmFilter, check_routes};
use serde_json::{Value, json};

/// A policy with these rules, whose routes are their numbers.
fn rules(rules: Value) -> Value {
    let rules = rules.as_array().into_iter().flatten().zip(0..).map(|(rule, number)| {
        let mut rule = rule.as_object().cloned().unwrap_or_default();
        rule.insert("name".to_owned(), json!(format!("rule-{number}")));
        rule
    });
    json!({"routes": {"rules": rules.collect::<Vec<_>>()}})
}

fn get(path: &str) -> HttpRequest {
    HttpRequest::get(path)
}

fn with(name: &str, value: &str) -> HttpRequest {
    HttpRequest::get("/").header(name, value)
}

#[test]
fn a_path_matches_exactly_by_whole_segments_or_as_a_whole_regular_expression() -> Result<()> {
    let policy = rules(json!([
        {"route": "exact", "matches": [{"path": {"type": "Exact", "value": "/exact"}}]},
        {"route": "prefix", "matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}]},
        {"route": "regex", "matches": [{"path": {"type": "RegularExpression", "value": "/items/[0-9]+(/.*)?"}}]},
    ]));
    let mut envoy = Bootstrap::suite(&policy, &["exact", "prefix", "regex"])?.start()?;
    check_routes(
        &mut envoy,
        &[
            (get("/exact"), "exact"),
            (get("/exact?query=1"), "exact"),
            (get("/exact?"), "exact"),
            (get("/exact/"), NONE),
            (get("/Exact"), NONE),
            (get("/v2"), "prefix"),
            (get("/v2/"), "prefix"),
            (get("/v2/x/y?z"), "prefix"),
            (get("/v2example"), NONE),
            (get("/v"), NONE),
            (get("/items/42"), "regex"),
            (get("/items/42/details?page=/"), "regex"),
            (get("/items/x42"), NONE),
            (get("/my/items/42"), NONE),
            (get("/"), NONE),
        ],
    )
}

#[test]
fn a_host_matches_without_port_and_case_and_a_wildcard_matches_one_or_more_labels() -> Result<()> {
    let policy = rules(json!([
        {"route": "apex", "matches": [{"hostnames": ["shop.example.com", "shop.example.org"]}]},
        {"route": "star", "matches": [{"hostnames": ["*.shop.example.com"]}]},
    ]));
    let mut envoy = Bootstrap::suite(&policy, &["apex", "star"])?.start()?;
    check_routes(
        &mut envoy,
        &[
            (get("/").at("shop.example.com"), "apex"),
            (get("/").at("shop.example.com:8080"), "apex"),
            (get("/").at("SHOP.Example.COM"), "apex"),
            (get("/").at("shop.example.org"), "apex"),
            (get("/").at("a.shop.example.com"), "star"),
            (get("/").at("a.b.shop.example.com:443"), "star"),
            (get("/").at("ashop.example.com"), NONE),
            (get("/").at("shop.example.com.evil.test"), NONE),
            (get("/").at("example.com"), NONE),
        ],
    )
}

#[test]
fn a_header_matches_in_seven_ways_and_inverted() -> Result<()> {
    let policy = rules(json!([
        {"route": "exact", "matches": [{"headers": [{"name": "X-Exact", "value": "Yes"}]}]},
        {"route": "prefix", "matches": [{"headers": [{"name": "x-prefix", "type": "Prefix", "value": "ab"}]}]},
        {"route": "suffix", "matches": [{"headers": [{"name": "x-suffix", "type": "Suffix", "value": "yz"}]}]},
        {"route": "contains", "matches": [{"headers": [{"name": "x-contains", "type": "Contains", "value": "mid"}]}]},
        {"route": "regex", "matches": [{"headers": [{"name": "x-regex", "type": "RegularExpression", "value": "[a-c]+"}]}]},
        {"route": "in", "matches": [{"headers": [{"name": "x-in", "type": "In", "values": ["gold", "silver"]}]}]},
        {"route": "present", "matches": [{"headers": [{"name": "x-present", "type": "Present"}]}]},
        {"route": "not", "matches": [{"headers": [
            {"name": "x-not", "type": "Present"},
            {"name": "x-not", "type": "Exact", "value": "this", "invert": true},
        ]}]},
    ]));
    let routes = ["exact", "prefix", "suffix", "contains", "regex", "in", "present", "not"];
    let mut envoy = Bootstrap::suite(&policy, &routes)?.start()?;
    check_routes(
        &mut envoy,
        &[
            (with("x-exact", "Yes"), "exact"),
            (with("x-exact", "yes"), NONE),
            (with("x-exact", "Yes."), NONE),
            (with("x-prefix", "abc"), "prefix"),
            (with("x-prefix", "cab"), NONE),
            (with("x-suffix", "xyz"), "suffix"),
            (with("x-suffix", "yzx"), NONE),
            (with("x-contains", "amidst"), "contains"),
            (with("x-contains", "MID"), NONE),
            (with("x-regex", "abcabc"), "regex"),
            (with("x-regex", "abcd"), NONE),
            (with("x-in", "silver"), "in"),
            (with("x-in", "gold,silver"), NONE),
            (with("x-present", ""), "present"),
            (with("x-not", "that"), "not"),
            (with("x-not", "this"), NONE),
        ],
    )?;
    // Header names are case-insensitive. HTTP/2 only allows lower case, so this request uses HTTP/1.1.
    let mut connection = h1::Http1Connection::open(envoy.ingress()?)?;
    connection.send(b"GET / HTTP/1.1\r\nHOST: example.com\r\nX-eXACT: Yes\r\n\r\n")?;
    assert_eq!(connection.receive(false)?.text(), "exact");
    Ok(())
}

#[test]
fn a_repeated_header_matches_if_any_of_its_values_does_and_inverted_if_none_does() -> Result<()> {
    let policy = rules(json!([
        {"route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}]},
        {"route": "not-out", "matches": [{"headers": [
            {"name": "x-group", "type": "Present"},
            {"name": "x-group", "type": "Prefix", "value": "out", "invert": true},
        ]}]},
    ]));
    let mut envoy = Bootstrap::suite(&policy, &["beta", "not-out"])?.start()?;
    let groups = |values: &[&str]| values.iter().fold(get("/"), |request, value| request.header("x-group", value));
    check_routes(
        &mut envoy,
        &[
            (groups(&["beta"]), "beta"),
            (groups(&["alpha", "beta"]), "beta"),
            (groups(&["alpha", "gamma", "beta", "delta"]), "beta"),
            (groups(&["alpha", "gamma"]), "not-out"),
            (groups(&["alpha", "outside"]), NONE),
            (groups(&["outside", "alpha"]), NONE),
            (groups(&[]), NONE),
        ],
    )
}

#[test]
fn query_parameters_cookies_and_methods_match() -> Result<()> {
    let policy = rules(json!([
        {"route": "post", "matches": [{"method": "POST"}]},
        {"route": "query", "matches": [{"queryParams": [{"name": "version", "value": "two"}]}]},
        {"route": "flag", "matches": [{"queryParams": [{"name": "flag", "type": "Present"}]}]},
        {"route": "plan", "matches": [{"cookies": [{"name": "plan", "type": "In", "values": ["gold", "silver"]}]}]},
    ]));
    let mut envoy = Bootstrap::suite(&policy, &["post", "query", "flag", "plan"])?.start()?;
    check_routes(
        &mut envoy,
        &[
            (HttpRequest::new("POST", "a.test", "/"), "post"),
            (HttpRequest::new("PUT", "a.test", "/"), NONE),
            (get("/?version=two"), "query"),
            (get("/?a=b&version=two&c"), "query"),
            (get("/?version=two&version=one"), "query"),
            (get("/?version=one&version=two"), NONE),
            (get("/?Version=two"), NONE),
            (get("/?x=version=two"), NONE),
            (get("/?flag"), "flag"),
            (get("/?flag="), "flag"),
            (get("/flag"), NONE),
            (with("cookie", "plan=gold"), "plan"),
            (with("cookie", "a=b; plan=silver; c=d"), "plan"),
            (with("cookie", "plan=bronze"), NONE),
            (with("cookie", "xplan=gold"), NONE),
            (with("cookie", "a=b").header("cookie", "plan=gold"), "plan"),
        ],
    )
}

#[test]
fn everything_in_one_match_must_hold_and_one_match_of_a_rule_is_enough() -> Result<()> {
    let policy = rules(json!([
        {"route": "both", "matches": [
            {"method": "GET", "path": {"type": "PathPrefix", "value": "/cart"}, "headers": [
                {"name": "x-a", "value": "1"},
                {"name": "x-b", "value": "2"},
            ]},
            {"hostnames": ["both.test"]},
        ]},
        {"route": "rest"},
    ]));
    let mut envoy = Bootstrap::suite(&policy, &["both", "rest"])?.start()?;
    check_routes(
        &mut envoy,
        &[
            (get("/cart/1").header("x-a", "1").header("x-b", "2"), "both"),
            (get("/cart/1").header("x-a", "1").header("x-b", "3"), "rest"),
            (get("/cart/1").header("x-a", "1"), "rest"),
            (get("/other").header("x-a", "1").header("x-b", "2"), "rest"),
            (HttpRequest::new("POST", "a.test", "/cart").header("x-a", "1").header("x-b", "2"), "rest"),
            (get("/other").at("both.test"), "both"),
        ],
    )
}

#[test]
fn the_first_rule_wins_unless_the_policy_asks_for_the_order_of_the_gateway_api() -> Result<()> {
    let rules = json!([
        {"name": "any", "route": "any", "matches": [{"path": {"value": "/"}}]},
        {"name": "short", "route": "short", "matches": [{"path": {"value": "/a"}}]},
        {"name": "headers", "route": "headers", "matches": [{"path": {"value": "/a/b"}, "headers": [{"name": "x", "value": "1"}]}]},
        {"name": "method", "route": "method", "matches": [{"path": {"value": "/a/b"}, "method": "PUT"}]},
        {"name": "long", "route": "long", "matches": [{"path": {"value": "/a/b"}}]},
        {"name": "exact", "route": "exact", "matches": [{"path": {"type": "Exact", "value": "/a/b/c"}}]},
    ]);
    let routes = ["any", "short", "headers", "method", "long", "exact"];
    let put = HttpRequest::new("PUT", "a.test", "/a/b/x").header("x", "1");
    let requests = [get("/a/b/c"), put, get("/a/b/x").header("x", "1"), get("/a/b/x"), get("/a/x"), get("/x")];

    let policy = |precedence| json!({"routes": {"precedence": precedence, "rules": rules}});
    let mut envoy = Bootstrap::suite(&policy("FirstMatch"), &routes)?.start()?;
    check_routes(&mut envoy, &requests.clone().map(|request| (request, "any")))?;

    envoy.must_reload("penstock", policy("GatewayAPI"))?;
    let right = ["exact", "method", "headers", "long", "short", "any"];
    check_routes(&mut envoy, &requests.into_iter().zip(right).collect::<Vec<_>>())
}

#[test]
fn requests_that_no_rule_matches_take_the_default_route() -> Result<()> {
    let policy = json!({"routes": {"default": "stable", "rules": [
        {"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}]},
    ]}});
    let mut envoy = Bootstrap::suite(&policy, &["stable", "beta"])?.start()?;
    check_routes(
        &mut envoy,
        &[(get("/"), "stable"), (with("x-group", "beta"), "beta"), (with("x-group", "x"), "stable")],
    )
}

#[test]
fn a_client_never_chooses_the_route() -> Result<()> {
    let beta =
        json!([{"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}]}]);
    let mut envoy = Bootstrap::suite(&json!({"routes": {"rules": beta}}), &["stable", "beta"])?.start()?;
    let spoof = || with("x-penstock-route", "beta");
    let repeated = || spoof().header("x-penstock-route", "beta").header("x-penstock-route", "stable");
    let rows = |rest| [(spoof(), rest), (repeated(), rest), (spoof().header("x-group", "beta"), "beta")];
    check_routes(&mut envoy, &rows(NONE))?;
    let mixed_case = b"GET / HTTP/1.1\r\nhost: a\r\nX-Penstock-Route: beta\r\nX-PENSTOCK-ROUTE: beta\r\n\r\n";
    let mut connection = h1::Http1Connection::open(envoy.ingress()?)?;
    connection.send(mixed_case)?;
    assert_eq!(connection.receive(false)?.text(), NONE);

    envoy.must_reload("penstock", json!({"routes": {"default": "stable", "rules": beta}}))?;
    check_routes(&mut envoy, &rows("stable"))?;
    connection.send(mixed_case)?;
    assert_eq!(connection.receive(false)?.text(), "stable");
    Ok(())
}

#[test]
fn a_spoofed_route_header_does_not_reach_the_upstream() -> Result<()> {
    let upstream = Upstream::echo()?;
    let filter = WasmFilter::new(
        "suite",
        json!({"routes": {"rules": [
            {"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}]},
        ]}}),
    )?;
    let listener = Listener::new("ingress").wasm(&filter).route(Route::any().to("echo"));
    let envoy = Bootstrap::new()?.cluster("echo", upstream.address()).listener(listener).start()?;
    for protocol in Protocol::ALL {
        let spoof = with("x-penstock-route", "beta").header("x-penstock-route", "admin");
        http::send(protocol, envoy.ingress()?, &spoof)?;
        assert_eq!(upstream.last().unwrap().values("x-penstock-route"), [""; 0], "{protocol}");
        http::send(protocol, envoy.ingress()?, &spoof.header("x-group", "beta"))?;
        assert_eq!(upstream.last().unwrap().values("x-penstock-route"), ["beta"], "{protocol}");
    }
    Ok(())
}

#[test]
fn the_route_header_has_the_name_that_the_settings_give_it() -> Result<()> {
    let policy = json!({"settings": {"routeHeader": "x-lane"}, "routes": {"rules": [
        {"name": "fast", "route": "fast", "matches": [{"headers": [{"name": "x-hurry", "type": "Present"}]}]},
    ]}});
    let filter = WasmFilter::new("suite", policy)?;
    let listener = Listener::new("ingress").wasm(&filter).route(Route::header("x-lane", "fast")).route(Route::any());
    let mut envoy = Bootstrap::new()?.listener(listener).start()?;
    check_routes(&mut envoy, &[(with("x-hurry", "1"), "fast"), (with("x-lane", "fast"), NONE)])
}

#[test]
fn bytes_that_are_not_utf_8_match_byte_for_byte() -> Result<()> {
    let policy = rules(json!([
        {"route": "prefix", "matches": [{"headers": [{"name": "x-raw", "type": "Prefix", "value": "ok"}]}]},
        {"route": "umlaut", "matches": [{"headers": [{"name": "x-raw", "value": "größe"}]}]},
        {"route": "present", "matches": [{"headers": [{"name": "x-raw", "type": "Present"}]}]},
    ]));
    let mut envoy = Bootstrap::suite(&policy, &["prefix", "umlaut", "present"])?.start()?;
    let raw = |value: &[u8]| get("/").header("x-raw", value);
    check_routes(
        &mut envoy,
        &[
            (raw(b"ok\xff\xfe"), "prefix"),
            (raw("größe".as_bytes()), "umlaut"),
            (raw(b"gr\xf6\xdfe"), "present"),
            (raw(b"\x80"), "present"),
            (raw(b"\xc3"), "present"),
        ],
    )
}

#[test]
fn an_odd_authority_or_path_is_decided_or_refused_and_never_traps() -> Result<()> {
    let policy = rules(json!([
        {"route": "rule", "matches": [{"hostnames": ["a.test"], "path": {"type": "PathPrefix", "value": "/a"}}]},
    ]));
    let mut envoy = Bootstrap::suite(&policy, &["rule"])?.start()?;
    let authorities =
        ["", ":", ":80", "[", "[::1", "[::1]:x", "a.test:", "a.test:99999999", "..", "%41", "a.test:80:80"];
    let paths = ["*", "", "//", "/a?", "/a#b", "/%", "/\u{e4}", "http://a.test/a", "?", "/a/../b", "/a;b=c"];
    for authority in authorities {
        for path in paths {
            let request = HttpRequest::get(path).at(authority);
            // Envoy's codec refuses some of these itself, with status 400 or by closing the connection; the filter must
            // handle the others without a trap.
            for protocol in Protocol::ALL {
                if let Ok(response) = http::send(protocol, envoy.ingress()?, &request) {
                    assert_ne!(response.status / 100, 5, "{protocol} {request:?}: {response:?}");
                }
            }
        }
    }
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let bare = [field(":method", "GET"), field(":scheme", "http"), field(":path", "/")];
    let _ = h2::Http2Connection::open(envoy.ingress()?)?.send(&bare, b"");
    check_routes(&mut envoy, &[(get("/a").at("a.test"), "rule")])
}
