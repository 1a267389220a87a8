//! A proxy whose functions fail: every outcome is explicit, and none bypasses the policy.

use penstock_policy::{Action, Decision, HeaderOp, Request, Response, Section};

use super::*;
use crate::apply::apply;
use crate::failure::Failure;
use crate::plugin_log::PluginLog;
use crate::testing::Broken;

#[test]
fn a_request_without_a_policy_is_refused() {
    fresh();
    assert_eq!(Failure::NoPolicy.refuse(&PluginLog::default(), &FakeHost, &mut FakeRequest), Flow::Pause);
    assert_eq!(with(|proxy| proxy.sent.clone()), refused("noPolicy", "no policy is loaded"));
    assert_eq!(metric("penstock.internal_errors_total.operation.noPolicy"), Some(1));
}

#[test]
fn an_empty_or_broken_header_map_is_refused() {
    for raw in [Some(vec![1]), None] {
        fresh();
        let plugin = configured(ROUTES);
        with(|proxy| proxy.raw_headers = raw);
        let (flow, _) = Exchange::begin(&plugin);
        assert_eq!(flow, Flow::Pause);
        assert_eq!(with(|proxy| proxy.sent.clone()), refused("readHeaders", "cannot read the request's headers"));
        assert_eq!(metric("penstock.internal_errors_total.operation.readHeaders"), Some(1));
        with(|proxy| assert!(proxy.log[0].1.contains("malformed header map"), "{:?}", proxy.log));
    }
}

#[test]
fn a_response_carries_its_details_headers_and_body() {
    fresh();
    let plugin = configured(r#"{"egress":{"rules":[]}}"#);
    assert_eq!(request(&plugin, &[]), Flow::Pause);
    let sent = with(|proxy| proxy.sent.clone()).unwrap();
    assert_eq!((sent.status, &*sent.details), (403, "penstock_egress_hostNotAllowed"));
    assert!(sent.headers.contains(&("content-type".to_owned(), "application/json".to_owned())), "{sent:?}");
    assert!(sent.body.contains("hostNotAllowed"), "{sent:?}");
}

#[test]
fn a_response_that_cannot_be_given_is_a_reset() {
    fresh();
    let plugin = configured(r#"{"egress":{"rules":[]}}"#);
    with(|proxy| proxy.broken.push(("respond", 10)));
    assert_eq!(request(&plugin, &[]), Flow::Pause);
    assert!(with(|proxy| proxy.was_reset && proxy.sent.is_none()));
    assert_eq!(metric("penstock.internal_errors_total.operation.respond"), Some(1));
}

#[test]
fn a_proxy_that_cannot_remove_a_header_refuses_only_requests_that_have_it() {
    let headers = [(&b"b"[..], &b"1"[..])];
    for (request, expected) in [(&[][..], Ok(Flow::Continue)), (&headers, Err(Failure::Unwritable(Broken(6))))] {
        fresh();
        with(|proxy| proxy.broken.push(("change_header", 6)));
        let mut decision = Decision::default();
        decision.headers.push(HeaderOp::Remove("b"));
        assert_eq!(apply::<FakeHost>(&Request::new(request), &decision, &mut FakeRequest), expected);
    }
}

#[test]
fn the_first_change_that_fails_refuses_the_request() {
    fresh();
    let plugin = configured(ROUTES);
    with(|proxy| proxy.broken.push(("change_header", 6)));
    assert_eq!(request(&plugin, &[("x-user-group", "beta")]), Flow::Pause);
    assert_eq!(with(|proxy| proxy.sent.clone()), refused("writeHeaders", "cannot change the request's headers"));
}

#[test]
fn a_response_whose_header_cannot_be_added_goes_on() {
    fresh();
    let plugin = configured(COOKIE);
    with(|proxy| proxy.broken.push(("change_response_header", 2)));
    set_headers(&[]);
    let (flow, mut exchange) = Exchange::begin(&plugin);
    assert_eq!(flow, Flow::Continue);
    exchange.response();
    exchange.end();
    assert_eq!(metric("penstock.internal_errors_total.operation.responseHeaders"), Some(1));
    with(|proxy| {
        assert_eq!(proxy.sent, None);
        assert!(proxy.log[0].1.contains("cannot add the response header set-cookie (status 2)"), "{:?}", proxy.log);
    });
}

/// All sections, with conditions on claims, a variant that is watched, and a limit that a service counts.
const EVERYTHING: &str = r#"{"settings":{"filterState":true},
    "egress":{"rules":[{"name":"a","to":[{"host":"a.test"}]}]},
    "rateLimits":[{"name":"l","key":[{"header":"x-key"}],"limit":{"requests":1000,"per":"1m"}},
        {"name":"g","key":[],"limit":{"requests":5,"per":"1m"},
            "scope":{"global":{"cluster":"rl","domain":"shop","onFailure":"Deny"}}}],
    "routes":{"rules":[{"name":"pro","matches":[{"claims":[{"name":"tier","value":"pro"}]}],"route":"pro"}]},
    "canaries":[{"name":"c","stickiness":{"cookie":{"name":"id"}},
        "variants":[{"name":"v1","weight":0},{"name":"v2","weight":1}],
        "rollback":{"variant":"v2","to":"v1","errorPercent":5}}]}"#;

/// The status of the refusal when this function of the proxy fails; `None`: the request is forwarded all the same.
const OUTCOMES: [(&str, Option<u32>); 19] = [
    ("headers", Some(503)),
    ("now", Some(503)),
    ("random", Some(503)),
    ("update", Some(503)),
    ("read", Some(503)),
    ("facts", Some(503)),
    ("call", Some(429)),
    ("resume", Some(503)),
    ("change_header", Some(503)),
    ("respond", None),
    ("reset", None),
    ("cancel", None),
    ("log", None),
    ("define_metric", None),
    ("increment", None),
    ("record", None),
    ("set_filter_state", None),
    ("change_response_header", None),
    ("response_status", None),
];

/// A request that a service lets pass, if it is called, and the response. Returns whether it was forwarded.
fn is_forwarded(plugin: &Rc<TestPlugin>) -> bool {
    set_headers(&[]);
    let (flow, mut exchange) = Exchange::begin(plugin);
    if matches!(exchange.rest, Rest::Call(_)) {
        exchange.reply(Some(&[8, 1]));
    }
    exchange.response();
    exchange.end();
    plugin.tick();
    flow == Flow::Continue || with(|proxy| proxy.continued > 0)
}

/// Each function of the proxy fails. A request is decided or refused, and never forwarded without a decision.
#[test]
fn whatever_fails_the_outcome_is_known() {
    for (function, refusal) in OUTCOMES {
        for second in [None, Some("respond"), Some("define_metric"), Some("log")] {
            fresh();
            let plugin = configured(EVERYTHING);
            with(|proxy| proxy.broken = [Some(function), second].into_iter().flatten().map(|f| (f, 10)).collect());
            let was_forwarded = is_forwarded(&plugin);
            let (status, was_reset) = with(|proxy| (proxy.sent.as_ref().map(|sent| sent.status), proxy.was_reset));
            let expected = match refusal {
                // The refusal cannot be sent either.
                Some(_) if second == Some("respond") => (false, None, true),
                refusal => (refusal.is_none(), refusal, false),
            };
            assert_eq!((was_forwarded, status, was_reset), expected, "{function} {second:?}");
            assert!(!was_forwarded || route() == ["v2"], "{function} {second:?}: {:?}", route());
        }
    }
}

#[test]
fn a_proxy_that_loses_its_shared_state_refuses_rather_than_opens() {
    fresh();
    let plugin = configured(LIMIT);
    with(|proxy| proxy.broken.push(("update", 10)));
    assert_eq!(request(&plugin, &[]), Flow::Pause);
    let expected = refused("environment", "cannot read the clock, random numbers, shared data or metadata");
    assert_eq!(with(|proxy| proxy.sent.clone()), expected);
}

#[test]
fn a_proxy_that_does_not_show_metadata_refuses_the_requests_that_need_it() {
    fresh();
    let plugin = configured(
        r#"{"routes":{"default":"free","rules":[{"name":"pro","route":"pro",
            "matches":[{"headers":[{"name":"x-at","value":"app"}],"claims":[{"name":"tier","value":"pro"}]}]}]}}"#,
    );
    with(|proxy| proxy.broken.push(("facts", 10)));
    assert_eq!(request(&plugin, &[("x-at", "other")]), Flow::Continue);
    assert_eq!(request(&plugin, &[("x-at", "app")]), Flow::Pause);
    let expected = refused("environment", "cannot read the clock, random numbers, shared data or metadata");
    assert_eq!(with(|proxy| proxy.sent.clone()), expected);
}

#[test]
fn failures_name_the_platforms_error() {
    fresh();
    Failure::Unreadable(Broken(7)).refuse(&PluginLog::default(), &FakeHost, &mut FakeRequest);
    with(|proxy| assert!(proxy.log[0].1.ends_with("(status 7): request refused with 503"), "{:?}", proxy.log));
}

#[test]
fn a_decision_names_section_and_reason_in_the_details() {
    fresh();
    let response = Response { status: 403, headers: Default::default(), body: b""[..].into(), grpc_status: None };
    let decision =
        Decision { action: Action::Respond(response), section: Some(Section::Egress), ..Decision::default() };
    assert_eq!(apply::<FakeHost>(&Request::new(&[]), &decision, &mut FakeRequest), Ok(Flow::Pause));
    with(|proxy| assert_eq!(proxy.sent.as_ref().map(|sent| &*sent.details), Some("penstock_egress")));
}
