//! Every reported loosening is shown by requests that both policies decide.

use penstock_policy::wire::{WireRequest, World};
use serde_json::{Value, json};

use super::verdict::Strictness;
use super::*;
use crate::widened_rules;
use crate::within::Witness;

/// The time of requests without one.
const NOW: Timestamp = Timestamp(0);

/// Whether all requests of a proof pass the new policy, and the old one decides one of them more strictly.
fn is_proof(proof: &super::change::Proof, old: &Value, new: &Value, now: Timestamp) -> bool {
    let requests = match &proof.passes {
        Witness::Request(request) => vec![request.clone()],
        Witness::Sequence(requests) => requests.clone(),
    };
    let (old, new) = (file(old), file(new));
    let (mut was, mut is) = (World::new(now, 0), World::new(now, 0));
    let mut is_shown = false;
    for request in requests {
        let request: WireRequest = serde_json::from_value(request).unwrap();
        let (before, after) = (request.decide(&old.policy, &mut was), request.decide(&new.policy, &mut is));
        let (before, after) = (Strictness::of(&before), Strictness::of(&after));
        if after == Strictness::Refused {
            return false;
        }
        is_shown |= after < before;
    }
    is_shown
}

/// The loosenings without a proof.
pub(super) fn unproved(old: &Value, new: &Value, changes: &Changes) -> Vec<String> {
    let loosened = changes.0.iter().filter(|change| change.class == ChangeClass::Loosened);
    let unproved = loosened.filter(|change| !change.proof.as_ref().is_some_and(|proof| is_proof(proof, old, new, NOW)));
    unproved.map(|change| format!("{change:?}")).collect()
}

/// Compares two policies, checks that each loosened change has a proof, and returns the paths of these changes.
fn loosened(old: &Value, new: &Value) -> Vec<String> {
    let (changes, _) = compare(&file(old), &file(new), NOW);
    let unproved = unproved(old, new, &changes);
    assert!(unproved.is_empty(), "{unproved:#?}\n{old}\n{new}");
    let loosened = changes.0.iter().filter(|change| change.class == ChangeClass::Loosened);
    loosened.map(|change| change.path.clone()).collect()
}

#[test]
fn every_loosening_of_egress_comes_with_a_request() {
    let base = widened_rules::base();
    let policy = |mut rule: Value| {
        rule["name"] = json!("r");
        json!({"egress": {"rules": [rule]}})
    };
    for (field, wider) in widened_rules::wider() {
        let found = loosened(&policy(base.clone()), &policy(wider.clone()));
        assert!(found.contains(&format!("egress.rules[r].{field}")), "{field}: {found:?}");
        assert!(loosened(&policy(wider), &policy(base.clone())).is_empty(), "{field}");
    }
    let tunnel = json!({"to": [{"host": "a.test"}], "connect": true});
    assert_eq!(loosened(&policy(json!({"to": [{"host": "a.test"}]})), &policy(tunnel)), ["egress.rules[r].connect"]);
}

#[test]
fn so_does_whatever_else_egress_is_loosened_by() {
    let base = json!({"egress": {"verifySni": true, "deny": [{"host": "x.a.test"}, {"cidr": "10.0.0.0/8"}], "rules": [
        {"name": "a", "to": [{"host": "*.a.test"}, {"cidr": "::/0"}], "paths": [{"value": "/"}]}]}});
    let without_sni = {
        let mut policy = base.clone();
        policy["egress"]["verifySni"] = json!(false);
        policy
    };
    let with = |field: &str, value: Value| {
        let mut policy = without_sni.clone();
        policy["egress"][field] = value;
        loosened(&without_sni, &policy)
    };
    assert_eq!(with("mode", json!("Audit")), ["egress.mode"]);
    assert_eq!(with("deny", json!([{"cidr": "10.0.0.0/8"}])), ["egress.deny"]);
    assert_eq!(with("deny", json!([{"host": "x.a.test"}])), ["egress.deny"]);
    assert_eq!(with("deny", json!([{"host": "x.a.test", "ports": [443]}, {"cidr": "10.0.0.0/8"}])), ["egress.deny"]);
    assert_eq!(loosened(&base, &without_sni), ["egress.verifySni"]);
    assert_eq!(loosened(&base, &json!({})), ["egress"]);
    let port = |port: u16| json!({"egress": {"defaultPort": port, "rules": [{"name": "a", "to": [{"host": "a.test", "ports": [443]}]}]}});
    assert_eq!(loosened(&port(80), &port(443)), ["egress.defaultPort"]);
    let rules = |rules: Value| json!({"egress": {"rules": rules}});
    let (any, scoped) = (
        json!({"name": "any", "to": [{"host": "a.test"}]}),
        json!({"name": "scoped", "to": [{"host": "a.test"}], "paths": [{"value": "/v1"}]}),
    );
    assert_eq!(loosened(&rules(json!([any, scoped])), &rules(json!([any]))), ["egress.rules[scoped].paths"]);
    // In Audit, rules refused nothing; only the reports end.
    let audit = |rules: Value| json!({"egress": {"mode": "Audit", "rules": rules}});
    assert_eq!(loosened(&audit(json!([])), &audit(json!([any]))), ["egress.rules[any]"]);
    // A request with one method and another in a header only passes with one rule for both.
    let by_method = |methods: Value| json!([{"name": "a", "to": [{"host": "a.test"}], "methods": methods}]);
    let split = json!([{"name": "b", "to": [{"host": "a.test"}], "methods": ["GET"]}, {"name": "c", "to": [{"host": "a.test"}], "methods": ["PUT"]}]);
    assert_eq!(loosened(&rules(split), &rules(by_method(json!(["GET", "PUT"])))), ["egress.rules[a]"]);
}

#[test]
fn every_loosening_of_a_limit_comes_with_requests() {
    let limit = |change: &Value| {
        let mut limit =
            json!({"name": "l", "key": [{"header": "x"}], "limit": {"requests": 10, "per": "1m", "burst": 5}});
        for (field, value) in change.as_object().unwrap() {
            limit[field] = value.clone();
        }
        json!({"rateLimits": [limit]})
    };
    for (old, new, field) in [
        (json!({}), json!({"mode": "Shadow"}), "mode"),
        (json!({}), json!({"limit": {"requests": 20, "per": "1m", "burst": 5}}), "limit"),
        (json!({}), json!({"limit": {"requests": 10, "per": "30s", "burst": 5}}), "limit"),
        (json!({}), json!({"limit": {"requests": 10, "per": "1m", "burst": 6}}), "limit.burst"),
        (json!({"cost": {"default": 5}}), json!({}), "cost.default"),
        (json!({"cost": {"default": 2}}), json!({"cost": {"header": "c", "default": 2}}), "cost.header"),
        (json!({"cost": {"header": "c"}}), json!({}), "cost.header"),
        (json!({"cost": {"header": "c"}}), json!({"cost": {"header": "c", "max": 3}}), "cost.max"),
        (json!({"cost": {"responseHeader": "c"}}), json!({}), "cost.header"),
        (json!({}), json!({"onMissingKey": "Skip"}), "onMissingKey"),
        (json!({"onMissingKey": "Deny"}), json!({}), "onMissingKey"),
        (json!({}), json!({"matches": [{"method": "POST"}]}), "matches"),
        (json!({"matches": [{"method": "GET"}]}), json!({"matches": [{"method": "POST"}]}), "matches"),
        (
            json!({"matches": [{"headers": [{"name": "h", "type": "RegularExpression", "value": "a[0-9]*"}]}]}),
            json!({"matches": [{"headers": [{"name": "h", "type": "RegularExpression", "value": "a[0-9]+|a"}, {"name": "i", "value": "1", "invert": true}]}]}),
            "matches",
        ),
        (
            json!({"matches": [{"headers": [{"name": "h", "type": "RegularExpression", "value": "a[0-9]*"}]}]}),
            json!({"matches": [{"headers": [{"name": "h", "type": "RegularExpression", "value": "a[0-8]*"}]}]}),
            "matches",
        ),
        (
            json!({"matches": [{"hostnames": ["a.test", "b.test"]}]}),
            json!({"matches": [{"hostnames": ["a.test"]}]}),
            "matches",
        ),
        (
            json!({"matches": [{"path": {"type": "RegularExpression", "value": "/[ab]"}}]}),
            json!({"matches": [{"path": {"value": "/a"}}]}),
            "matches",
        ),
        (
            json!({"matches": [{"queryParams": [{"name": "q", "type": "Prefix", "value": "a"}]}]}),
            json!({"matches": [{"queryParams": [{"name": "q", "type": "Prefix", "value": "aa"}]}]}),
            "matches",
        ),
        (
            json!({"matches": [{"cookies": [{"name": "q", "type": "In", "values": ["a", "b"]}, {"name": "r", "type": "Present"}]}]}),
            json!({"matches": [{"cookies": [{"name": "q", "value": "a"}, {"name": "r", "type": "Present"}]}]}),
            "matches",
        ),
        (json!({"capacity": 64}), json!({"capacity": 128}), "capacity"),
        (json!({}), json!({"key": [{"header": "x"}, {"path": {}}]}), "key"),
        (json!({}), json!({"key": [{"header": "x"}, {"header": "y"}]}), "key"),
        (json!({"key": [{"header": "x"}, {"header": "y"}]}), json!({}), "key"),
        (
            json!({"onMissingKey": "Deny", "key": [{"header": "x"}, {"cookie": "y"}]}),
            json!({"onMissingKey": "Deny"}),
            "key",
        ),
        (json!({"key": []}), json!({}), "key"),
        (json!({}), json!({"key": [{"header": "y"}]}), "key"),
        (json!({"key": [{"sourceAddress": {"ipv6Prefix": 64}}]}), json!({"key": [{"sourceAddress": {}}]}), "key"),
        (
            json!({"limit": {"requests": 10, "per": "1m"}}),
            json!({"limit": {"requests": 10, "per": "1m"}, "scope": {"global": {"cluster": "rls", "domain": "d"}}}),
            "scope",
        ),
        (
            json!({"limit": {"requests": 10, "per": "1m"}, "scope": {"global": {"cluster": "rls", "domain": "d"}}}),
            json!({"limit": {"requests": 10, "per": "1m"}}),
            "scope",
        ),
    ] {
        let found = loosened(&limit(&old), &limit(&new));
        assert!(found.contains(&format!("rateLimits[l].{field}")), "{field}: {found:?} {old} {new}");
    }
    assert_eq!(loosened(&limit(&json!({})), &json!({})), ["rateLimits[l]"]);
}

#[test]
fn every_setting_that_loosens_a_limit_comes_with_requests() {
    let policy = |settings: Value, part: Value| json!({"settings": settings, "rateLimits": [{"name": "l", "key": [part], "limit": {"requests": 2, "per": "1h"}}]});
    let hops = |hops: u32| json!({"sourceAddress": {"trustedHops": hops}});
    let proxies = |range: &str| json!({"sourceAddress": {"trustedProxies": [range]}});
    let claims = |path: &str| json!({"claims": {"namespace": "jwt", "path": [path]}});
    for (old, new, part, field) in [
        (hops(0), hops(1), json!({"sourceAddress": {}}), "sourceAddress"),
        (hops(1), hops(2), json!({"sourceAddress": {}}), "sourceAddress"),
        (hops(2), hops(1), json!({"sourceAddress": {}}), "sourceAddress"),
        (hops(1), hops(0), json!({"sourceAddress": {}}), "sourceAddress"),
        (proxies("10.0.0.0/8"), proxies("192.168.0.0/16"), json!({"sourceAddress": {}}), "sourceAddress"),
        (hops(0), proxies("10.0.0.0/8"), json!({"sourceAddress": {}}), "sourceAddress"),
        (json!({"path": "Canonical"}), json!({"path": "Received"}), json!({"path": {}}), "path"),
        (claims("a"), claims("b"), json!({"claim": "sub"}), "claims"),
        (json!({}), claims("b"), json!({"claim": "sub"}), "claims"),
    ] {
        let found = loosened(&policy(old.clone(), part.clone()), &policy(new.clone(), part));
        assert_eq!(found, [format!("settings.{field}")], "{old} {new}");
    }
    let by_path = |path: &str| json!({"settings": {"path": path}, "rateLimits": [{"name": "l", "key": [], "limit": {"requests": 2, "per": "1h"}, "matches": [{"path": {"value": "/a"}}]}]});
    assert_eq!(loosened(&by_path("Received"), &by_path("Canonical")), ["settings.path"]);
    assert_eq!(loosened(&by_path("Canonical"), &by_path("Received")), ["settings.path"]);
}

#[test]
fn requests_pass_the_other_sections_too() {
    let policy = |methods: Value, requests: u32| {
        json!({
        "egress": {"rules": [{"name": "r", "to": [{"host": "a.test"}], "methods": methods, "paths": [{"value": "/v1"}], "from": ["spiffe://c/a"]}]},
        "rateLimits": [{"name": "l", "key": [{"header": "x-team"}], "onMissingKey": "Deny", "limit": {"requests": requests, "per": "1m"}}]})
    };
    let found = loosened(&policy(json!(["GET"]), 2), &policy(json!(["GET", "PUT"]), 4));
    assert_eq!(found, ["egress.rules[r].methods", "rateLimits[l].limit", "rateLimits[l].limit.burst"]);
}

#[test]
fn a_change_that_passes_nothing_new_is_not_called_loosened() {
    let rule = |paths: Value| json!({"egress": {"rules": [{"name": "r", "to": [{"host": "a.test"}], "paths": paths}]}});
    let expression = |text: &str| json!([{"type": "RegularExpression", "value": text}]);
    for (old, new) in [
        (expression("/v[0-9]+"), expression("/v[1-9][0-9]*")),
        (expression("/(a|b|c)"), json!([{"type": "Exact", "value": "/a"}, {"type": "Exact", "value": "/c"}])),
        (json!([{"value": "/a"}]), expression("/a(/.*)?")),
        // Only together.
        (json!([{"type": "Exact", "value": "/a"}, {"value": "/b"}]), expression("/a|/b/[a-z]+")),
    ] {
        assert_eq!(loosened(&rule(old.clone()), &rule(new.clone())), [] as [&str; 0], "{old} {new}");
        assert!(!loosened(&rule(new), &rule(old)).is_empty());
    }
    // Another limit still refuses as much.
    let limits = |requests: u32| {
        json!({"rateLimits": [
        {"name": "a", "key": [], "limit": {"requests": requests, "per": "1m"}},
        {"name": "b", "key": [], "limit": {"requests": 3, "per": "1m"}}]})
    };
    assert_eq!(loosened(&limits(5), &limits(9)), [] as [&str; 0]);
}

/// In Audit, an ambiguous path is refused only where a rule with `paths` selects the request.
#[test]
fn what_is_no_longer_path_scoped_in_audit_comes_with_a_request() {
    let policy = |rules: Value, others: Value| {
        let mut egress = json!({"mode": "Audit", "rules": rules});
        others.as_object().unwrap().iter().for_each(|(field, value)| egress[field] = value.clone());
        json!({"egress": egress})
    };
    let scoped = |to: Value| json!([{"name": "r", "to": [to], "paths": [{"value": "/a"}]}]);
    let rules = scoped(json!({"host": "a.test", "ports": [443]}));
    let (old, new) = (policy(rules.clone(), json!({})), policy(rules, json!({"defaultPort": 8443})));
    assert_eq!(loosened(&old, &new), ["egress.defaultPort"]);
    assert_eq!(loosened(&new, &old), ["egress.defaultPort"]);
    // An address that a rule allows has no server name and is refused, one that none allows passes.
    let others = json!({"verifySni": true, "deny": [{"cidr": "::/0"}]});
    let (old, new) = (policy(scoped(json!({"cidr": "::/0"})), others.clone()), policy(json!([]), others));
    assert_eq!(loosened(&old, &new), ["egress.rules[r].paths"]);
    // An ambiguous path is refused by the new policy, but other paths pass with any server name.
    let rules = json!([{"name": "r", "to": [{"host": "a.test", "ports": [443]}]}]);
    let old = json!({"egress": {"verifySni": true, "rules": rules}});
    let new = policy(scoped(json!({"host": "a.test"})), json!({"verifySni": true}));
    assert_eq!(loosened(&old, &new), ["egress.mode", "egress.rules[r].to", "egress.verifySni"]);
}

#[test]
fn without_an_example_the_reason_is_given() {
    let policy = |change: &str| -> Value { serde_json::from_str(change).unwrap() };
    for (old, new, reason) in [
        (
            r#"{"egress":{"rules":[{"name":"r","to":[{"host":"a.test"}],"paths":[{"type":"RegularExpression","value":"/.*[ab].{9}"}]}]}}"#,
            r#"{"egress":{"rules":[{"name":"r","to":[{"host":"a.test"}],"paths":[{"type":"RegularExpression","value":"/.*a.{9}"}]}]}}"#,
            "the expressions in `paths` are too large to compare",
        ),
        (
            r#"{"settings":{"identity":{"filterState":"x"}},"egress":{"rules":[{"name":"r","to":[{"host":"a.test"}],"from":["spiffe://c/a"]}]}}"#,
            r#"{"egress":{"rules":[{"name":"r","to":[{"host":"a.test"}],"from":["spiffe://c/a"]}]}}"#,
            "a recorded request does not contain where the proxy found its identity: compare both identities of the same connections in the access log",
        ),
        (
            r#"{"rateLimits":[{"name":"l","key":[{"header":"x"}],"limit":{"requests":1,"per":"1h"}}]}"#,
            r#"{"rateLimits":[{"name":"l","key":[{"header":"x"}],"limit":{"requests":1,"per":"1h"},"capacity":100000}]}"#,
            "it takes more different keys at once than are tried here: compare the capacities with how many keys are busy within `limit.per`",
        ),
    ] {
        let (changes, _) = compare(&file(&policy(old)), &file(&policy(new)), NOW);
        let loosened: Vec<_> = changes.0.iter().filter(|change| change.class == ChangeClass::Loosened).collect();
        assert!(!loosened.is_empty(), "{changes:?}");
        assert!(loosened.iter().all(|change| change.no_proof == Some(reason)), "{loosened:?}");
    }
}
