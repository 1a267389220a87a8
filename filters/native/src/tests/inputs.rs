//! Every input in the schema that a policy may use: the native body decides by it, or refuses the policy when it loads,
//! with the reason. No input is silently absent.

use std::collections::BTreeSet;

use super::suite;
use crate::abi::fake::{FakeExchange, Fate, LoadedFilter, log};

/// An input of a request or its response.
#[derive(Clone, Copy, Debug)]
enum Has {
    Header(&'static str, &'static str),
    Text(u32, &'static str),
    State(&'static str, &'static str),
    Response(&'static [(&'static str, &'static str)]),
}
use Has::{Header, Response, State, Text};

const SOURCE: u32 = 24;
const SNI: u32 = 30;
const TLS: u32 = 31;
const PEER: u32 = 37;

/// Where another filter copies the claims, and the metadata of the namespace `n`.
const CLAIMS: &str = "penstock.metadata.envoy.filters.http.jwt_authn";
const METADATA: &str = "penstock.metadata.n";

type Steps = &'static [(&'static [Has], &'static str)];

/// The requests that a policy distinguishes in order, with the route or the status that each gets.
struct Input {
    /// The path in the schema.
    places: &'static [&'static str],
    policy: String,
    steps: Steps,
}

fn input(places: &'static [&'static str], policy: impl Into<String>, steps: Steps) -> Input {
    Input { places, policy: policy.into(), steps }
}

fn condition(json: &str) -> String {
    format!(r#"{{"routes": {{"default": "no", "rules": [{{"name": "r", "route": "yes", "matches": [{json}]}}]}}}}"#)
}

fn key(json: &str, settings: &str) -> String {
    format!(
        r#"{{"settings": {settings}, "rateLimits": [{{"name": "l", "key": [{json}], "limit": {{"requests": 1, "per": "24h"}}}}]}}"#
    )
}

fn cost(json: &str) -> String {
    format!(
        r#"{{"rateLimits": [{{"name": "l", "key": [], "limit": {{"requests": 5, "per": "24h"}}, "cost": {json}}}]}}"#
    )
}

fn rule(json: &str, settings: &str) -> String {
    format!(
        r#"{{"settings": {settings}, "egress": {{"rules": [{{"name": "r", "to": [{{"host": "shop.test"}}], {json}}}]}}}}"#
    )
}

fn inputs() -> Vec<Input> {
    const SPIFFE: &[Has] = &[Text(PEER, "spiffe://a/x")];
    vec![
        input(
            &["matching.RequestMatch.hostnames"],
            condition(r#"{"hostnames": ["a.test"]}"#),
            &[(&[Header(":authority", "a.test")], "yes"), (&[], "no")],
        ),
        input(
            &["matching.RequestMatch.path"],
            condition(r#"{"path": {"type": "PathPrefix", "value": "/x"}}"#),
            &[(&[Header(":path", "/x/y")], "yes"), (&[], "no")],
        ),
        input(
            &["matching.RequestMatch.method"],
            condition(r#"{"method": "PUT"}"#),
            &[(&[Header(":method", "PUT")], "yes"), (&[], "no")],
        ),
        input(
            &["matching.RequestMatch.headers"],
            condition(r#"{"headers": [{"name": "x-g", "value": "1"}]}"#),
            &[(&[Header("x-g", "1")], "yes"), (&[Header("x-g", "2")], "no")],
        ),
        input(
            &["matching.RequestMatch.queryParams"],
            condition(r#"{"queryParams": [{"name": "v", "value": "1"}]}"#),
            &[(&[Header(":path", "/?v=1")], "yes"), (&[Header(":path", "/?v=2")], "no")],
        ),
        input(
            &["matching.RequestMatch.cookies"],
            condition(r#"{"cookies": [{"name": "c", "value": "1"}]}"#),
            &[(&[Header("cookie", "a=b; c=1")], "yes"), (&[Header("cookie", "c=2")], "no")],
        ),
        input(&["rate_limits.KeyPart.constant"], key(r#"{"constant": "c"}"#, "{}"), &[(&[], ""), (&[], "429")]),
        input(
            &["rate_limits.KeyPart.header"],
            key(r#"{"header": "x-g"}"#, "{}"),
            &[(&[Header("x-g", "1")], ""), (&[Header("x-g", "1")], "429"), (&[Header("x-g", "2")], "")],
        ),
        input(
            &["rate_limits.KeyPart.cookie"],
            key(r#"{"cookie": "c"}"#, "{}"),
            &[(&[Header("cookie", "c=1")], ""), (&[Header("cookie", "c=1")], "429"), (&[Header("cookie", "c=2")], "")],
        ),
        input(
            &["rate_limits.KeyPart.queryParam"],
            key(r#"{"queryParam": "v"}"#, "{}"),
            &[
                (&[Header(":path", "/?v=1")], ""),
                (&[Header(":path", "/?v=1")], "429"),
                (&[Header(":path", "/?v=2")], ""),
            ],
        ),
        input(
            &["rate_limits.KeyPart.path"],
            key(r#"{"path": {}}"#, "{}"),
            &[(&[Header(":path", "/1")], ""), (&[Header(":path", "/1")], "429"), (&[Header(":path", "/2")], "")],
        ),
        input(
            &["rate_limits.KeyPart.method"],
            key(r#"{"method": {}}"#, "{}"),
            &[(&[], ""), (&[], "429"), (&[Header(":method", "PUT")], "")],
        ),
        input(
            &["rate_limits.KeyPart.hostname"],
            key(r#"{"hostname": {}}"#, "{}"),
            &[(&[], ""), (&[], "429"), (&[Header(":authority", "a.test")], "")],
        ),
        input(
            &["rate_limits.KeyPart.sourceAddress"],
            key(r#"{"sourceAddress": {}}"#, "{}"),
            &[
                (&[Text(SOURCE, "192.0.2.1:1")], ""),
                (&[Text(SOURCE, "192.0.2.1:2")], "429"),
                (&[Text(SOURCE, "[2001:db8::1]:1")], ""),
            ],
        ),
        input(
            &["client.SourceAddress.trustedHops"],
            key(r#"{"sourceAddress": {}}"#, r#"{"sourceAddress": {"trustedHops": 1}}"#),
            &[
                (&[Header("x-forwarded-for", "203.0.113.1")], ""),
                (&[Header("x-forwarded-for", "203.0.113.1")], "429"),
                (&[Header("x-forwarded-for", "203.0.113.2")], ""),
            ],
        ),
        input(
            &["client.SourceAddress.trustedProxies"],
            key(r#"{"sourceAddress": {}}"#, r#"{"sourceAddress": {"trustedProxies": ["192.0.2.0/24"]}}"#),
            &[
                (&[Header("x-forwarded-for", "203.0.113.1, 192.0.2.9")], ""),
                (&[Header("x-forwarded-for", "203.0.113.1")], "429"),
                (&[Header("x-forwarded-for", "203.0.113.2")], ""),
                // From a client that is not a trusted proxy, the header is ignored.
                (&[Header("x-forwarded-for", "203.0.113.3"), Text(SOURCE, "198.51.100.1:9")], ""),
                (&[Header("x-forwarded-for", "203.0.113.4"), Text(SOURCE, "198.51.100.1:9")], "429"),
            ],
        ),
        input(
            &["rate_limits.KeyPart.peer", "egress.IdentitySource.peerCertificate"],
            key(r#"{"peer": {}}"#, r#"{"identity": {"peerCertificate": {}}}"#),
            &[(SPIFFE, ""), (SPIFFE, "429"), (&[Text(PEER, "spiffe://b/x")], "")],
        ),
        input(
            &["egress.IdentitySource.filterState"],
            key(r#"{"peer": {}}"#, r#"{"identity": {"filterState": "peer"}}"#),
            &[(&[State("peer", "a")], ""), (&[State("peer", "a")], "429"), (&[State("peer", "b")], "")],
        ),
        input(
            &["rate_limits.Cost.header"],
            cost(r#"{"header": "x-cost"}"#),
            &[(&[Header("x-cost", "4")], ""), (&[Header("x-cost", "2")], "429"), (&[], ""), (&[], "429")],
        ),
        input(
            &["rate_limits.Cost.responseHeader"],
            cost(r#"{"responseHeader": "x-cost", "reserve": 1}"#),
            &[(&[Response(&[(":status", "200"), ("x-cost", "5")])], ""), (&[], "429")],
        ),
        input(
            &["egress.Destination.host", "egress.EgressRule.to"],
            rule(r#""methods": ["GET"]"#, "{}"),
            &[(&[], ""), (&[Header(":authority", "a.test")], "403")],
        ),
        input(
            &["egress.Destination.cidr"],
            r#"{"egress": {"rules": [{"name": "r", "to": [{"cidr": "192.0.2.0/24"}]}]}}"#,
            &[(&[Header(":authority", "192.0.2.5")], ""), (&[Header(":authority", "198.51.100.1")], "403")],
        ),
        // The port of an authority without one is that of the connection's scheme.
        input(
            &["egress.Destination.ports"],
            r#"{"egress": {"rules": [{"name": "r", "to": [{"host": "shop.test", "ports": [443, 8443]}]}]}}"#,
            &[
                (&[], "403"),
                (&[Text(TLS, "TLSv1.3")], ""),
                (&[Header(":authority", "shop.test:8443")], ""),
                (&[Header(":authority", "shop.test:80"), Text(TLS, "TLSv1.3")], "403"),
            ],
        ),
        input(
            &["egress.Egress.verifySni"],
            r#"{"egress": {"verifySni": true, "rules": [{"name": "r", "to": [{"host": "shop.test"}]}]}}"#,
            &[
                (&[Text(TLS, "TLSv1.3"), Text(SNI, "shop.test")], ""),
                (&[Text(TLS, "TLSv1.3"), Text(SNI, "a.test")], "421"),
            ],
        ),
        input(
            &["egress.EgressRule.from"],
            rule(r#""from": ["spiffe://a/x"]"#, "{}"),
            &[(SPIFFE, ""), (&[Text(PEER, "spiffe://b/x")], "403"), (&[], "403")],
        ),
        input(
            &["egress.EgressRule.methods"],
            rule(r#""methods": ["GET"]"#, "{}"),
            &[(&[], ""), (&[Header(":method", "PUT")], "403")],
        ),
        input(
            &["egress.EgressRule.paths"],
            rule(r#""paths": [{"type": "PathPrefix", "value": "/x"}]"#, "{}"),
            &[(&[Header(":path", "/x/y")], ""), (&[], "403")],
        ),
        input(
            &["egress.EgressRule.upgrades"],
            rule(r#""upgrades": ["websocket"]"#, "{}"),
            &[
                (&[Header("connection", "upgrade"), Header("upgrade", "websocket")], ""),
                (&[Header("connection", "upgrade"), Header("upgrade", "h2c")], "403"),
            ],
        ),
        input(
            &["egress.EgressRule.connect"],
            r#"{"egress": {"rules": [{"name": "r", "to": [{"host": "shop.test"}], "connect": true}, {"name": "n", "to": [{"host": "a.test"}]}]}}"#,
            &[
                (&[Header(":method", "CONNECT"), Header(":authority", "shop.test:443")], ""),
                (&[Header(":method", "CONNECT"), Header(":authority", "a.test:443")], "403"),
            ],
        ),
        input(
            &["matching.RequestMatch.claims"],
            condition(r#"{"claims": [{"name": "sub", "value": "u"}]}"#),
            &[
                (&[State(CLAIMS, r#"{"payload": {"sub": "u"}}"#)], "yes"),
                (&[State(CLAIMS, r#"{"payload": {"sub": "v"}}"#)], "no"),
                (&[State(CLAIMS, "-")], "no"),
                (&[], "503"),
            ],
        ),
        input(
            &["matching.RequestMatch.metadata"],
            condition(r#"{"metadata": [{"namespace": "n", "path": ["p"], "value": "v"}]}"#),
            &[(&[State(METADATA, r#"{"p": "v"}"#)], "yes"), (&[State(METADATA, "{}")], "no"), (&[], "503")],
        ),
        input(
            &["rate_limits.KeyPart.claim"],
            key(r#"{"claim": "sub"}"#, "{}"),
            &[
                (&[State(CLAIMS, r#"{"payload": {"sub": "u"}}"#)], ""),
                (&[State(CLAIMS, r#"{"payload": {"sub": "u"}}"#)], "429"),
                (&[State(CLAIMS, r#"{"payload": {"sub": "v"}}"#)], ""),
                (&[], "503"),
            ],
        ),
        input(
            &["rate_limits.KeyPart.metadata"],
            key(r#"{"metadata": {"namespace": "n", "path": ["p"]}}"#, "{}"),
            &[
                (&[State(METADATA, r#"{"p": 1}"#)], ""),
                (&[State(METADATA, r#"{"p": 1}"#)], "429"),
                (&[State(METADATA, r#"{"p": 2}"#)], ""),
            ],
        ),
        // Decided by the clock.
        input(&["egress.EgressRule.expires"], rule(r#""expires": "2020-01-01T00:00:00Z""#, "{}"), &[(&[], "403")]),
        input(&["egress.EgressRule.expires"], rule(r#""expires": "2250-01-01T00:00:00Z""#, "{}"), &[(&[], "")]),
        input(&["egress.EgressRule.notBefore"], rule(r#""notBefore": "2250-01-01T00:00:00Z""#, "{}"), &[(&[], "403")]),
        input(&["egress.EgressRule.notBefore"], rule(r#""notBefore": "2020-01-01T00:00:00Z""#, "{}"), &[(&[], "")]),
        input(
            &["canaries.Override.header", "canaries.Override.cookie"],
            r#"{"canaries": [{"name": "c", "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 0}], "overrides": [
                {"header": {"name": "x-g", "value": "1"}, "variant": "v2"}, {"cookie": {"name": "c", "value": "1"}, "variant": "v2"}]}]}"#,
            &[(&[Header("x-g", "1")], "v2"), (&[Header("cookie", "c=1")], "v2"), (&[], "v1")],
        ),
    ]
}

/// Keys by which a canary is sticky; `*` stands for a client's value.
const STICKY: [(&str, &str, &str); 6] = [
    ("canaries.Stickiness.header", r#"{"header": "x-user"}"#, "x-user"),
    ("canaries.Stickiness.cookie", r#"{"cookie": {"name": "c", "maxAge": "1h"}}"#, "cookie"),
    ("canaries.Stickiness.sourceAddress", r#"{"sourceAddress": {}}"#, "address"),
    ("canaries.Stickiness.peer", r#"{"peer": {}}"#, "peer"),
    ("canaries.Stickiness.claim", r#"{"claim": "sub"}"#, "claim"),
    ("canaries.Stickiness.metadata", r#"{"metadata": {"namespace": "n", "path": ["p"]}}"#, "metadata"),
];

/// Policies that are refused, with the text in the log.
fn refused() -> Vec<(&'static str, String, &'static str)> {
    const WORKLOAD: &str = "identity: the native body cannot read the proxy's node, so it cannot know a `workload`";
    const NODE: &str = r#"{"workload": {"trustDomain": "cluster.local"}}"#;
    vec![
        ("egress.IdentitySource.workload", key(r#"{"peer": {}}"#, &format!(r#"{{"identity": {NODE}}}"#)), WORKLOAD),
        (
            "egress.IdentitySource.workload",
            format!(
                r#"{{"egress": {{"identity": {NODE}, "rules": [{{"name": "r", "to": [{{"host": "a.test"}}]}}]}}}}"#
            ),
            WORKLOAD,
        ),
    ]
}

fn exchange(loaded: &LoadedFilter, has: &[Has]) -> FakeExchange {
    let headers: Vec<(&str, &str)> =
        has.iter().filter_map(|has| if let Header(name, value) = has { Some((*name, *value)) } else { None }).collect();
    let exchange = FakeExchange::new(loaded, &headers);
    for has in has {
        match has {
            Text(attribute, value) => exchange.set_text(*attribute, value),
            State(name, value) => exchange.set_state(name, value),
            Header(..) | Response(_) => {}
        }
    }
    exchange.request_headers(true);
    exchange
}

/// The route, or the status.
fn outcome(exchange: &FakeExchange) -> String {
    match exchange.fate() {
        Fate::Forwarded => exchange.values(0, "x-penstock-route").join(","),
        Fate::Answered(status) => status.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_policy_is_decided_by_what_it_goes_by() {
    for (number, Input { places, policy, steps }) in inputs().iter().enumerate() {
        let loaded = suite(&format!("inputs-{number}"), policy);
        for (step, (has, expected)) in steps.iter().enumerate() {
            let exchange = exchange(&loaded, has);
            assert_eq!(outcome(&exchange), *expected, "{places:?}, request {step}: {has:?}");
            for has in *has {
                if let Response(headers) = has {
                    exchange.response(headers, &[]);
                }
            }
        }
    }
}

#[test]
fn a_client_stays_with_its_variant_by_what_the_canary_goes_by() {
    for (place, sticky, by) in STICKY {
        let policy = format!(
            r#"{{"canaries": [{{"name": "c", "stickiness": {sticky},
                "variants": [{{"name": "v1", "weight": 50}}, {{"name": "v2", "weight": 50}}]}}]}}"#
        );
        let loaded = suite(place, &policy);
        let variant = |client: usize| {
            let cookie = format!("c={client:032x}");
            let user = format!("u-{client}");
            let exchange = match by {
                "x-user" => FakeExchange::new(&loaded, &[("x-user", &user)]),
                "cookie" => FakeExchange::new(&loaded, &[("cookie", &cookie)]),
                _ => FakeExchange::new(&loaded, &[]),
            };
            match by {
                "address" => exchange.set_text(SOURCE, &format!("192.0.2.{client}:1")),
                "peer" => exchange.set_text(PEER, &format!("spiffe://a/{client}")),
                "claim" => exchange.set_state(CLAIMS, &format!(r#"{{"payload": {{"sub": "u-{client}"}}}}"#)),
                "metadata" => exchange.set_state(METADATA, &format!(r#"{{"p": "u-{client}"}}"#)),
                _ => {}
            }
            exchange.request_headers(true);
            outcome(&exchange)
        };
        let clients = if cfg!(miri) { 12 } else { 40 };
        let variants: Vec<String> = (1..clients).map(variant).collect();
        assert_eq!((1..clients).map(variant).collect::<Vec<_>>(), variants, "{place}");
        assert_eq!(variants.iter().collect::<BTreeSet<_>>().len(), 2, "{place}: {variants:?}");
    }
}

#[test]
fn a_policy_that_goes_by_what_this_body_cannot_know_is_refused_with_words() {
    for (place, policy, words) in refused() {
        log();
        assert!(LoadedFilter::http("suite/inputs-refused", &policy).is_none(), "{place}");
        let lines = log();
        assert!(lines.iter().any(|(level, line)| *level == 4 && line.contains(words)), "{place}: {lines:?}");
    }
}

/// How breakers learn how an exchange ended: without each of these, none would fail.
#[test]
fn a_breaker_sees_each_way_in_which_a_response_fails() {
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    const FLAGS: u32 = 17;
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(&str, Headers, Headers, u64, bool); 6] = [
        ("the status", &[(":status", "503")], &[], 0, true),
        ("grpc-status in headers", &[(":status", "200"), ("grpc-status", "14")], &[], 0, true),
        ("grpc-status in trailers", &[(":status", "200")], &[("grpc-status", "14")], 0, true),
        ("the flags", &[(":status", "200")], &[], 1 << 4, true),
        ("the client has gone", &[(":status", "200")], &[], 1 << 4 | 1 << 14, false),
        ("nothing", &[(":status", "200")], &[], 0, false),
    ];
    for (number, (what, headers, trailers, flags, fails)) in cases.into_iter().enumerate() {
        let policy = r#"{"routes": {"rules": [{"name": "r", "route": "eu",
            "failover": {"route": "us", "errorPercent": 50, "minRequests": 20, "window": "1h", "cooldown": "1h"}}]}}"#;
        let loaded = suite(&format!("inputs-breaker-{number}"), policy);
        let routes: Vec<String> = (0..30)
            .map(|_| {
                let exchange = FakeExchange::new(&loaded, &[GRPC]);
                exchange.set_number(FLAGS, flags);
                exchange.request_headers(true);
                exchange.response(headers, trailers);
                outcome(&exchange)
            })
            .collect();
        assert_eq!(routes.last().map(String::as_str), Some(if fails { "us" } else { "eu" }), "{what}");
    }
}

/// Other fields of the schema are not inputs: names, numbers, effects on a request.
#[test]
fn no_input_of_the_schema_is_left_out() {
    const ALL_INPUTS: [&str; 5] = [
        "matching.RequestMatch",
        "rate_limits.KeyPart",
        "canaries.Stickiness",
        "egress.IdentitySource",
        "client.SourceAddress",
    ];
    const SOME: [(&str, &[&str]); 5] = [
        ("canaries.Override", &["variant"]),
        ("rate_limits.Cost", &["default", "max", "reserve"]),
        ("egress.Destination", &[]),
        ("egress.EgressRule", &["name", "owner", "reason"]),
        ("egress.Egress", &["defaultPort", "deny", "identity", "mode", "rules"]),
    ];
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/penstock.schema.json")).unwrap();
    let mut shown: BTreeSet<String> = refused().iter().map(|(place, ..)| (*place).to_owned()).collect();
    shown.extend(inputs().iter().flat_map(|input| input.places.iter().map(|place| (*place).to_owned())));
    shown.extend(STICKY.map(|(place, ..)| place.to_owned()));
    let none: &[&str] = &[];
    let mut expected = BTreeSet::new();
    for (object, others) in ALL_INPUTS.into_iter().map(|object| (object, none)).chain(SOME) {
        let properties = schema["$defs"][object]["properties"].as_object().unwrap();
        let fields = properties.keys().filter(|field| !others.contains(&field.as_str()));
        expected.extend(fields.map(|field| format!("{object}.{field}")));
    }
    assert_eq!(shown, expected);
}
