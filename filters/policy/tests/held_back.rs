//! What Audit or Shadow held back is told whatever a later section decides.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Decision, EgressVerdict, Policy, Reason, Request, Section, Timestamp};
use serde_json::json;

const EGRESS: &str = r#""egress":{"mode":"Audit","rules":[
    {"name":"listed","owner":"web","to":[{"host":"a.test"}],"methods":["GET"]}]}"#;

/// The sections after egress, none of which forwards the request as it would without them.
const LATER: [(&str, &str); 7] = [
    ("nothing", ""),
    ("limit", r#","rateLimits":[{"name":"l","key":[],"limit":{"requests":1,"per":"1h"}}]"#),
    (
        "no key",
        r#","rateLimits":[{"name":"l","key":[{"header":"x-k"}],"onMissingKey":"Deny","limit":{"requests":1,"per":"1h"}}]"#,
    ),
    ("shadow", r#","rateLimits":[{"name":"l","mode":"Shadow","key":[],"limit":{"requests":1,"per":"1h"}}]"#),
    (
        "service",
        r#","rateLimits":[{"name":"l","key":[],"limit":{"requests":1,"per":"1h"},
        "scope":{"global":{"cluster":"c","domain":"d","onFailure":"Deny"}}}]"#,
    ),
    ("route", r#","routes":{"rules":[{"name":"r","route":"a"}]}"#),
    ("canary", r#","canaries":[{"name":"c","variants":[{"name":"v","weight":1}]}]"#),
];

/// Shows the decision on the second of two equal requests, and the counters that it adds to.
fn second(policy: &str, request: &serde_json::Value, show: impl FnOnce(&Decision<'_>, Vec<&str>)) {
    let policy: Policy = Policy::from_json(policy.as_bytes()).unwrap();
    let wire: WireRequest = serde_json::from_value(request.clone()).unwrap();
    let mut world = World::new(Timestamp(1_000_000_000), 1);
    wire.decide(&policy, &mut world);
    let map = wire.header_map();
    let headers: Vec<_> = map.iter().map(|(name, value)| (&**name, &**value)).collect();
    let request = Request::new(&headers);
    let mut environment = wire.environment(&mut world);
    let pending;
    let decision = match policy.decide(&request, &mut environment) {
        Ok(decision) => decision,
        Err(mut asked) => {
            while policy.rls_request(&asked).is_some() {
                asked.on_reply(penstock_policy::rate_limits::RlsReply::failed(
                    penstock_policy::rate_limits::ServiceFailure::Error,
                ));
            }
            pending = asked;
            policy.resume(&request, &pending, &mut environment)
        }
    };
    let counted =
        decision.counts.iter().map(|metric| policy.metrics().name(metric.index()).unwrap()).collect::<Vec<_>>();
    show(&decision, counted.iter().map(String::as_str).collect());
}

#[test]
fn what_egress_audited_stays_audited_whatever_a_later_section_decides() {
    for (request, reason, rule, counter) in [
        (
            json!({"method": "GET", "authority": "evil.test", "path": "/"}),
            Reason::HostNotAllowed,
            None,
            "penstock.egress_reasons_total.reason.hostNotAllowed.outcome.audited",
        ),
        (
            json!({"method": "POST", "authority": "a.test", "path": "/"}),
            Reason::MethodNotAllowed,
            Some("listed"),
            "penstock.requests_total.section.egress.rule.listed.outcome.audited",
        ),
    ] {
        for (name, later) in LATER {
            second(&format!("{{{EGRESS}{later}}}"), &request, |decision, counted| {
                let egress = decision.egress.as_ref().unwrap();
                assert_eq!((egress.verdict, egress.reason), (EgressVerdict::Audit, Some(reason)), "{name}");
                assert_eq!((egress.rule, egress.id.is_some()), (rule, true), "{name}");
                assert_eq!(decision.would_respond(), Some(403), "{name}");
                let first = decision.held_back[0];
                assert_eq!((first.section, first.rule, first.reason), (Section::Egress, rule, reason), "{name}");
                assert!(counted.contains(&counter), "{name}: {counted:?}");
                let line = penstock_policy::egress::log_line(
                    &Request::new(&[(b":authority", b"evil.test")]),
                    egress,
                    &mut serde_json::from_value::<WireRequest>(request.clone())
                        .unwrap()
                        .environment(&mut World::new(Timestamp(0), 0)),
                );
                assert!(line.starts_with(&format!(r#"{{"egress":"audit","why":"{reason}","#)), "{name}: {line}");
            });
        }
    }
}

#[test]
fn what_a_limit_in_shadow_held_back_stays_when_another_limit_refuses() {
    let limit = |name: &str, mode: &str, status: u16| {
        format!(
            r#"{{"name":"{name}","mode":"{mode}","key":[],"limit":{{"requests":1,"per":"1h"}},"response":{{"status":{status}}}}}"#
        )
    };
    for limits in [
        [limit("soft", "Shadow", 429), limit("hard", "Enforce", 503)],
        [limit("hard", "Enforce", 503), limit("soft", "Shadow", 429)],
    ] {
        let policy = format!(r#"{{{EGRESS},"rateLimits":[{}]}}"#, limits.join(","));
        let allowed = json!({"method": "GET", "authority": "a.test", "path": "/"});
        second(&policy, &allowed, |decision, counted| {
            assert_eq!((decision.section, decision.rule), (Some(Section::RateLimits), Some("hard")));
            let held_back: Vec<_> =
                decision.held_back.iter().map(|held| (held.rule, held.reason, held.status)).collect();
            assert_eq!(held_back, [(Some("soft"), Reason::Limited, 429)]);
            assert_eq!(decision.egress.as_ref().unwrap().verdict, EgressVerdict::Allow);
            assert!(
                counted.contains(&"penstock.requests_total.section.rateLimits.rule.soft.outcome.wouldLimit"),
                "{counted:?}"
            );
        });
        let refused = json!({"method": "GET", "authority": "evil.test", "path": "/"});
        second(&policy, &refused, |decision, _| {
            let held_back: Vec<_> = decision.held_back.iter().map(|held| (held.section, held.rule)).collect();
            assert_eq!(held_back, [(Section::Egress, None), (Section::RateLimits, Some("soft"))]);
            assert_eq!((decision.would_respond(), decision.reason), (Some(403), Some(Reason::Limited)));
        });
    }
}

#[test]
fn without_a_later_refusal_the_decision_names_what_was_held_back_first() {
    let shadow = r#"{"name":"soft","mode":"Shadow","key":[],"limit":{"requests":1,"per":"1h"}}"#;
    let policy = format!(r#"{{{EGRESS},"rateLimits":[{shadow}],"routes":{{"rules":[{{"name":"r","route":"a"}}]}}}}"#);
    second(&policy, &json!({"method": "GET", "authority": "evil.test", "path": "/"}), |decision, _| {
        assert_eq!((decision.section, decision.reason), (Some(Section::Egress), Some(Reason::HostNotAllowed)));
        assert_eq!((decision.route, decision.held_back.len()), (Some("a"), 2));
    });
    second(&policy, &json!({"method": "GET", "authority": "a.test", "path": "/"}), |decision, _| {
        assert_eq!((decision.section, decision.rule), (Some(Section::RateLimits), Some("soft")));
        assert_eq!((decision.route, decision.would_respond()), (Some("a"), Some(429)));
    });
}
