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
fn a_header_that_is_not_there_costs_no_call() {
    fresh();
    let mut decision = Decision::default();
    decision.headers.push(HeaderOp::Remove("b"));
    let flow = apply::<FakeHost>(&Request::new(&[]), &decision, &mut FakeRequest);
    assert_eq!(flow, Ok(Flow::Continue));
    with(|proxy| assert!(proxy.calls.is_empty(), "{:?}", proxy.calls));
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

/// Each function of the proxy fails, with a policy that has all four sections. A request is decided or refused, and never
/// forwarded without a decision.
#[test]
fn whatever_fails_the_outcome_is_known() {
    const REFUSES: [&str; 2] = ["headers", "change_header"];
    const STATE: [&str; 4] = ["now", "random", "update", "read"];
    const GOES_ON: [&str; 11] = [
        "log",
        "define_metric",
        "increment",
        "record",
        "set_filter_state",
        "change_response_header",
        "response_status",
        "start_timer",
        "cancel",
        "resume",
        "reset",
    ];
    for function in REFUSES.into_iter().chain(STATE).chain(GOES_ON) {
        for second in [None, Some("respond"), Some("define_metric"), Some("log")] {
            fresh();
            let plugin = configured(SUITE);
            with(|proxy| proxy.broken = [Some(function), second].into_iter().flatten().map(|f| (f, 10)).collect());
            set_headers(&[]);
            let (flow, mut exchange) = Exchange::begin(&plugin);
            exchange.response();
            exchange.end();
            plugin.tick();
            let (is_answered, was_reset) = with(|proxy| (proxy.sent.is_some(), proxy.was_reset));
            let case = format!("{function} {second:?}");
            // Which of these functions a request uses depends on the state. If one that it uses fails, it is refused.
            let state_was_used = STATE.contains(&function) && with(|proxy| proxy.calls.contains(&function));
            if flow == Flow::Continue {
                assert!(!is_answered && !was_reset && !REFUSES.contains(&function), "{case}");
            } else {
                assert!(REFUSES.contains(&function) || state_was_used, "{case}");
                assert_eq!((is_answered, was_reset), (second != Some("respond"), second == Some("respond")), "{case}");
            }
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
