//! Ordinary exchanges.

use super::{SUITE, fate, suite};
use crate::abi::fake::{FakeExchange, Fate, LoadedFilter, log};

#[test]
fn a_request_is_decided_changed_and_noted() {
    let loaded = suite("requests-changed", SUITE);
    let exchange =
        FakeExchange::sent(&loaded, &[("x-group", "beta"), ("x-secret", "s"), ("x-penstock-route", "spoofed")]);
    assert_eq!(exchange.fate(), Fate::Forwarded);
    assert_eq!(exchange.values(0, "x-penstock-route"), ["beta"]);
    assert_eq!((exchange.values(0, "x-set"), exchange.values(0, "x-secret")), (vec!["1".to_owned()], vec![]));
    // The policy for all changes.
    assert_eq!(exchange.routes_cleared(), 1);
    assert_eq!(exchange.state("wasm.penstock.rule").as_deref(), Some("routes/beta"));
    exchange.response(&[(":status", "200")], &[]);
}

#[test]
fn a_request_that_no_rule_knows_is_answered_with_the_reason() {
    let loaded = suite("requests-evil", SUITE);
    let exchange = FakeExchange::new(&loaded, &[(":authority", "evil.test")]);
    assert!(!exchange.request_headers(false));
    // Later parts of it are not forwarded.
    assert_eq!((exchange.request_body(true), exchange.request_trailers()), (3, 1));
    assert_eq!(exchange.fate(), Fate::Answered(403));
    let reply = exchange.reply().unwrap();
    assert_eq!(reply.details, "penstock_egress_hostNotAllowed");
    assert!(reply.headers.contains(&("content-type".to_owned(), b"application/json".to_vec())), "{reply:?}");
    assert!(String::from_utf8_lossy(&reply.body).contains("hostNotAllowed"), "{reply:?}");
}

#[test]
fn limits_count_and_metrics_reach_envoys_main_thread() {
    let loaded = suite("requests-limits", SUITE);
    let fates: Vec<_> = (0..5).map(|_| fate(&loaded, &[("x-user", "a")])).collect();
    assert_eq!(fates[..3], [Fate::Forwarded; 3]);
    assert_eq!(fates[3..], [Fate::Answered(429); 2]);
    assert_eq!(fate(&loaded, &[("x-user", "b")]), Fate::Forwarded);
    assert_eq!(loaded.metric("penstock.requests_total rateLimits few limited"), None);
    loaded.tick();
    assert_eq!(loaded.metric("penstock.requests_total rateLimits few limited"), Some(2));
    assert_eq!(loaded.metric("penstock.requests_total rateLimits few passed"), Some(4));
}

#[test]
fn a_variant_that_fails_is_rolled_back() {
    let loaded = suite("requests-rollback", &SUITE.replace("\"requests\": 3", "\"requests\": 1000"));
    let variant = |status: &str, trailers: &[(&str, &str)]| {
        let exchange = FakeExchange::sent(&loaded, &[("x-user", "user-1"), ("content-type", "application/grpc")]);
        let variant = exchange.values(0, "x-penstock-route").join(",");
        exchange.response(&[(":status", status), ("content-type", "application/grpc")], trailers);
        variant
    };
    let user = variant("200", &[]);
    if user == "v2" {
        // Failures in gRPC trailers count like others.
        let variants: Vec<_> = (0..12).map(|_| variant("200", &[("grpc-status", "14")])).collect();
        assert_eq!(variants.last().map(String::as_str), Some("v1"), "{variants:?}");
    }
    let variants = (0..20).map(|user| {
        let exchange = FakeExchange::sent(&loaded, &[("x-user", &format!("other-{user}"))]);
        let variant = exchange.values(0, "x-penstock-route").join(",");
        exchange.response(&[(":status", if variant == "v2" { "503" } else { "200" })], &[]);
        variant
    });
    assert!(variants.collect::<Vec<_>>().contains(&"v1".to_owned()));
    let after: Vec<_> = (0..10).map(|_| variant("503", &[])).collect();
    assert!(after.iter().all(|variant| variant == "v1"), "{after:?}");
}

#[test]
fn a_policy_that_is_wrong_is_refused_with_its_place_and_counted_by_the_one_that_serves() {
    let loaded = suite("requests-refused", SUITE);
    log();
    for policy in ["", "{", "[]", r#"{"egres": {}}"#, r#"{"routes": {"rules": [{"name": "r"}]}}"#] {
        assert!(LoadedFilter::http("suite/requests-refused", policy).is_none(), "{policy}");
        let lines = log();
        assert!(lines.iter().any(|(level, line)| *level == 4 && line.contains("configuration refused")), "{lines:?}");
    }
    let workload =
        r#"{"settings": {"identity": {"workload": {"trustDomain": "cluster.local"}}}, "egress": {"rules": []}}"#;
    assert!(LoadedFilter::http("suite/requests-unknown", workload).is_none());
    let lines = log();
    assert!(lines.iter().any(|(_, line)| line.contains("cannot know a `workload`")), "{lines:?}");
    assert!(LoadedFilter::of(false, b"suite/requests-refused", b"\xff\xfe").is_none());
    assert!(LoadedFilter::of(false, b"\xff", SUITE.as_bytes()).is_none());
    loaded.tick();
    assert_eq!(loaded.metric("penstock.policy_refusals_total requests-refused"), Some(6));
    assert_eq!(fate(&loaded, &[]), Fate::Forwarded);
}

/// A filter before this one copies metadata into filter state, or its requests are refused.
#[test]
fn requests_are_refused_when_the_policy_goes_by_metadata_that_nobody_has_copied() {
    let policy = r#"{"routes": {"default": "free", "rules": [{"name": "pro", "route": "pro",
        "matches": [{"path": {"value": "/app"}, "claims": [{"name": "tier", "value": "pro"}]}]}]}}"#;
    let loaded = suite("requests-metadata", policy);
    let copy = r#"{"payload": {"tier": "pro"}}"#;
    for (path, state, expected) in [
        ("/app", Some(copy), Fate::Forwarded),
        ("/app", Some("-"), Fate::Forwarded),
        ("/app", Some(&copy[..9]), Fate::Answered(503)),
        ("/app", None, Fate::Answered(503)),
        ("/other", None, Fate::Forwarded),
    ] {
        log();
        let exchange = FakeExchange::new(&loaded, &[(":path", path)]);
        if let Some(state) = state {
            exchange.set_state("penstock.metadata.envoy.filters.http.jwt_authn", state);
        }
        exchange.request_headers(true);
        assert_eq!(exchange.fate(), expected, "{path} {state:?}");
        let route = exchange.values(0, "x-penstock-route");
        match exchange.fate() {
            Fate::Forwarded => assert_eq!(route, [if state == Some(copy) { "pro" } else { "free" }]),
            _ => {
                let lines = log();
                assert!(lines.iter().any(|(_, line)| line.contains("metadata")), "{lines:?}");
            }
        }
    }
}

#[test]
fn the_caller_is_whom_another_filter_has_named() {
    let policy = r#"{"settings": {"identity": {"filterState": "peer"}},
        "egress": {"rules": [{"name": "r", "to": [{"host": "shop.test"}], "from": ["spiffe://a/x"]}]}}"#;
    let Some(loaded) = LoadedFilter::http("suite/requests-caller", policy) else {
        panic!("{:?}", log());
    };
    for (peer, expected) in
        [(Some("spiffe://a/x"), Fate::Forwarded), (Some("x"), Fate::Answered(403)), (None, Fate::Answered(403))]
    {
        let exchange = FakeExchange::new(&loaded, &[]);
        if let Some(peer) = peer {
            exchange.set_state("peer", peer);
        }
        exchange.request_headers(true);
        assert_eq!(exchange.fate(), expected, "{peer:?}");
    }
}
