//! `penstock diff` reports every loosening, and reports no other change as one.

use serde_json::{Value, json};

use super::*;
use crate::widened_rules;

mod proofs;
mod properties;

fn file(policy: &Value) -> PolicyFile {
    PolicyFile::compile(&policy.to_string().as_str().into()).unwrap_or_else(|findings| panic!("{policy}: {findings:?}"))
}

/// The changes from one policy to another, as `class path: message`.
fn changes(old: &Value, new: &Value) -> Vec<String> {
    let time = Timestamp::parse("2026-06-01T00:00:00Z").unwrap();
    let (changes, _) = compare(&file(old), &file(new), time);
    changes.0.iter().map(|change| format!("{:?} {}: {}", change.class, change.path, change.message)).collect()
}

/// The changes from one rule to another, both named `r`.
fn rule(old: Value, new: Value) -> Vec<String> {
    let policy = |mut rule: Value| {
        rule["name"] = json!("r");
        json!({"egress": {"rules": [rule]}})
    };
    changes(&policy(old), &policy(new))
}

/// The classes of the changes from one limit to another, both named `l`, with what changes.
fn limit(old: Value, new: Value) -> Vec<String> {
    let policy = |change: Value| {
        let mut limit =
            json!({"name": "l", "key": [{"header": "x"}], "limit": {"requests": 100, "per": "1m", "burst": 20}});
        for (field, value) in change.as_object().unwrap() {
            limit[field] = value.clone();
        }
        json!({"rateLimits": [limit]})
    };
    let short = |line: String| line.split(": ").next().unwrap().replace("rateLimits[l].", "");
    changes(&policy(old), &policy(new)).into_iter().map(short).collect()
}

#[test]
fn the_same_policy_written_in_another_way_has_no_loosening() {
    let policy = json!({"egress": {"rules": [{"name": "a", "to": [{"host": "a.test", "ports": [443, 80]}], "methods": ["GET", "PUT"]}]}});
    assert_eq!(changes(&policy, &policy), [] as [&str; 0]);
    let turned = json!({"egress": {"rules": [{"name": "a", "to": [{"host": "a.test", "ports": [80]}, {"host": "a.test", "ports": [443]}], "methods": ["PUT", "GET"]}]}});
    assert!(
        changes(&policy, &turned).iter().all(|line| line.starts_with("Changed")),
        "{:?}",
        changes(&policy, &turned)
    );
    let split = json!({"egress": {"rules": [
        {"name": "get", "to": [{"host": "a.test", "ports": [443, 80]}], "methods": ["GET"]},
        {"name": "put", "to": [{"host": "a.test", "ports": [80, 443]}], "methods": ["PUT"]}]}});
    // This differs: with one rule for both methods, a header may name the other one.
    let merged = changes(&split, &policy);
    assert!(
        merged[0].starts_with("Loosened egress.rules[a]: is new: allows a.test port 443, a.test port 80 with GET, PUT"),
        "{merged:?}"
    );
    assert!(
        merged[0].ends_with("together: a request with one of the methods and another in x-http-method-override"),
        "{merged:?}"
    );
    assert!(changes(&policy, &split).iter().any(|line| line.starts_with("Tightened egress.rules[a]: is gone")));
    let by_port = json!({"egress": {"rules": [
        {"name": "tls", "to": [{"host": "a.test", "ports": [443]}], "methods": ["GET", "PUT"]},
        {"name": "plain", "to": [{"host": "a.test", "ports": [80]}], "methods": ["PUT", "GET"]}]}});
    for (old, new) in [(&policy, &by_port), (&by_port, &policy)] {
        assert!(changes(old, new).iter().all(|line| line.starts_with("Changed")), "{:?}", changes(old, new));
    }
}

#[test]
fn a_rule_is_loosened_by_whatever_widens_it_and_tightened_by_the_reverse() {
    let base = widened_rules::base();
    for (field, wider) in widened_rules::wider() {
        let (forth, back) = (rule(base.clone(), wider.clone()), rule(wider, base.clone()));
        assert!(forth.iter().any(|line| line.starts_with("Loosened")), "{field}: {forth:?}");
        assert!(!forth.iter().any(|line| line.starts_with("Tightened")), "{field}: {forth:?}");
        assert!(back.iter().any(|line| line.starts_with("Tightened")), "{field}: {back:?}");
        assert!(!back.iter().any(|line| line.starts_with("Loosened")), "{field}: {back:?}");
    }
    // The rule lists methods and paths, which no tunnel has.
    let tunnel = rule(base.clone(), widened_rules::with("connect", json!(true)));
    assert_eq!(
        tunnel,
        ["Changed egress.rules[r].connect: opens CONNECT tunnels; no request passes that was refused before"]
    );
    let owner = rule(base.clone(), widened_rules::with("owner", json!("somebody")));
    assert_eq!(owner, ["Changed egress.rules[r].owner: \"nobody said\" → \"somebody\""]);
}

#[test]
fn added_and_removed_rules_are_judged_by_what_other_rules_allow() {
    let policy = |rules: Value| json!({"egress": {"rules": rules}});
    let wide = json!({"name": "wide", "to": [{"host": "*.a.test"}]});
    let narrow = json!({"name": "narrow", "to": [{"host": "b.a.test", "ports": [443]}]});
    let (one, both) = (policy(json!([wide])), policy(json!([wide, narrow])));
    assert_eq!(
        changes(&one, &both),
        ["Changed egress.rules[narrow]: is new, but other rules allowed all of it already"]
    );
    assert_eq!(changes(&both, &one), ["Changed egress.rules[narrow]: is gone, but other rules still allow all of it"]);
    let only_narrow = policy(json!([narrow]));
    assert_eq!(changes(&only_narrow, &both), ["Loosened egress.rules[wide]: is new: allows *.a.test for any caller"]);
    assert_eq!(
        changes(&both, &only_narrow),
        ["Tightened egress.rules[wide]: is gone: no longer allows *.a.test for any caller"]
    );
    // A different rule with the same name.
    let other = policy(json!([{"name": "narrow", "to": [{"host": "evil.test"}]}]));
    let swapped = changes(&only_narrow, &other);
    assert!(swapped[0].starts_with("Loosened egress.rules[narrow].to: allows evil.test"), "{swapped:?}");
    assert!(
        swapped[1].starts_with("Tightened egress.rules[narrow].to: no longer allows b.a.test port 443"),
        "{swapped:?}"
    );
}

#[test]
fn a_rule_with_paths_that_goes_may_open_ambiguous_paths_of_another() {
    let policy = |rules: Value| json!({"egress": {"rules": rules}});
    let any = json!({"name": "any", "to": [{"host": "a.test"}]});
    let scoped = json!({"name": "scoped", "to": [{"host": "a.test"}], "paths": [{"value": "/v1"}]});
    let gone = changes(&policy(json!([any, scoped])), &policy(json!([any])));
    assert!(gone.iter().any(|line| line.starts_with("Loosened egress.rules[scoped].paths")), "{gone:?}");
    let kept = changes(
        &policy(json!([any, scoped])),
        &policy(
            json!([any, {"name": "other", "to": [{"host": "*.a.test"}, {"host": "a.test"}], "paths": [{"value": "/v1"}]}]),
        ),
    );
    assert!(!kept.iter().any(|line| line.contains("scoped].paths")), "{kept:?}");
}

#[test]
fn the_rest_of_egress_is_classed_too() {
    let base = json!({"egress": {"verifySni": true, "deny": [{"host": "x.a.test"}], "rules": [{"name": "a", "to": [{"host": "*.a.test"}], "from": ["spiffe://c/a"]}]}});
    let with = |field: &str, value: Value| {
        let mut policy = base.clone();
        policy["egress"][field] = value;
        changes(&base, &policy)
    };
    for (found, expected) in [
        (
            with("mode", json!("Audit")),
            "Loosened egress.mode: Enforce → Audit: requests that were refused with 403 pass",
        ),
        (with("verifySni", json!(false)), "Loosened egress.verifySni: connections opened for another server name pass"),
        (with("deny", json!([])), "Loosened egress.deny: x.a.test is no longer denied, and rule `a` allows some of it"),
        (
            with("deny", json!([{"host": "x.a.test", "ports": [443]}])),
            "Loosened egress.deny: x.a.test is no longer denied, and rule `a` allows some of it",
        ),
        (with("deny", json!([{"host": "*.a.test"}])), "Tightened egress.deny: *.a.test is denied"),
        (
            with("deny", json!([{"host": "x.a.test"}, {"host": "b.test"}])),
            "Changed egress.deny: b.test is denied; no rule allowed it",
        ),
        (
            with("identity", json!({"filterState": "x"})),
            "Loosened egress.identity: callers are identified in another way: rules with `from` may apply to other callers",
        ),
        (changes(&base, &json!({})), "Loosened egress: is gone: no request is refused any more"),
        (
            changes(&json!({}), &base),
            "Tightened egress: is new: requests that no rule allows, and malformed requests, are refused",
        ),
    ] {
        assert_eq!(found, [expected]);
    }
    // An IPv4 range also denies its addresses mapped to IPv6.
    let policy = |deny: Value| json!({"egress": {"deny": deny, "rules": [{"name": "a", "to": [{"cidr": "::/0"}]}]}});
    let opened = changes(&policy(json!([{"cidr": "10.0.0.0/8"}])), &policy(json!([])));
    assert!(opened[0].starts_with("Loosened egress.deny"), "{opened:?}");
}

#[test]
fn limits_are_loosened_and_tightened_by_the_right_things() {
    for (old, new, forth, back) in [
        (json!({}), json!({"mode": "Shadow"}), "Loosened mode", "Tightened mode"),
        (json!({}), json!({"limit": {"requests": 200, "per": "1m", "burst": 20}}), "Loosened limit", "Tightened limit"),
        (
            json!({}),
            json!({"limit": {"requests": 100, "per": "30s", "burst": 20}}),
            "Loosened limit",
            "Tightened limit",
        ),
        (json!({}), json!({"limit": {"requests": 200, "per": "2m", "burst": 20}}), "Changed limit", "Changed limit"),
        (
            json!({}),
            json!({"limit": {"requests": 100, "per": "1m", "burst": 30}}),
            "Loosened limit.burst",
            "Tightened limit.burst",
        ),
        (json!({}), json!({"limit": {"requests": 100, "per": "1m"}}), "Loosened limit.burst", "Tightened limit.burst"),
        (json!({"cost": {"default": 5}}), json!({}), "Loosened cost.default", "Tightened cost.default"),
        // A header may contain 1.
        (json!({}), json!({"cost": {"header": "c"}}), "Changed cost.header", "Loosened cost.header"),
        (
            json!({"cost": {"default": 2}}),
            json!({"cost": {"header": "c", "default": 2}}),
            "Loosened cost.header",
            "Loosened cost.header",
        ),
        (
            json!({"cost": {"header": "c"}}),
            json!({"cost": {"header": "c", "max": 9}}),
            "Loosened cost.max",
            "Tightened cost.max",
        ),
        (json!({}), json!({"onMissingKey": "Skip"}), "Loosened onMissingKey", "Tightened onMissingKey"),
        (json!({"onMissingKey": "Deny"}), json!({}), "Loosened onMissingKey", "Tightened onMissingKey"),
        (json!({}), json!({"matches": [{"method": "POST"}]}), "Loosened matches", "Tightened matches"),
        (
            json!({"matches": [{"method": "GET"}]}),
            json!({"matches": [{"method": "POST"}]}),
            "Loosened matches",
            "Loosened matches",
        ),
        (json!({}), json!({"capacity": 100_000}), "Loosened capacity", "Tightened capacity"),
        (json!({}), json!({"exact": true}), "Changed exact", "Changed exact"),
        (json!({}), json!({"key": [{"header": "x"}, {"path": {}}]}), "Loosened key", "Tightened key"),
        // Requests without `y` shared one bucket, or were refused, or were not limited.
        (json!({}), json!({"key": [{"header": "x"}, {"header": "y"}]}), "Loosened key", "Loosened key"),
        (
            json!({"onMissingKey": "Deny"}),
            json!({"onMissingKey": "Deny", "key": [{"header": "x"}, {"cookie": "y"}]}),
            "Loosened key",
            "Loosened key",
        ),
        (
            json!({"onMissingKey": "Skip"}),
            json!({"onMissingKey": "Skip", "key": [{"header": "x"}, {"header": "y"}]}),
            "Loosened key",
            "Tightened key",
        ),
        (json!({}), json!({"key": []}), "Tightened key", "Loosened key"),
        (json!({}), json!({"key": [{"header": "y"}]}), "Loosened key", "Loosened key"),
        (
            json!({"key": [{"sourceAddress": {"ipv6Prefix": 64}}]}),
            json!({"key": [{"sourceAddress": {}}]}),
            "Loosened key",
            "Tightened key",
        ),
        (json!({}), json!({"quotaHeaders": "IETF"}), "Changed quotaHeaders", "Changed quotaHeaders"),
        (json!({}), json!({"response": {"status": 503}}), "Changed response", "Changed response"),
    ] {
        assert_eq!(limit(old.clone(), new.clone()), [forth], "{old} {new}");
        assert_eq!(limit(new.clone(), old.clone()), [back], "{new} {old}");
    }
    // A limit that refuses nothing loosens nothing.
    let shadow = |burst: u32| json!({"mode": "Shadow", "limit": {"requests": 100, "per": "1m", "burst": burst}});
    assert_eq!(limit(shadow(1), shadow(9)), ["Changed limit.burst"]);
}

#[test]
fn limits_that_come_and_go() {
    let policy = |name: &str, mode: &str| json!({"rateLimits": [{"name": name, "key": [], "mode": mode, "limit": {"requests": 1000, "per": "1h"}}]});
    let none = json!({});
    assert_eq!(
        changes(&none, &policy("a", "Enforce")),
        ["Tightened rateLimits[a]: is new: 1,000 in 1h, at most 1,000 at once"]
    );
    assert_eq!(
        changes(&policy("a", "Enforce"), &none),
        ["Loosened rateLimits[a]: is gone: no longer 1,000 in 1h, at most 1,000 at once"]
    );
    assert_eq!(changes(&none, &policy("a", "Shadow")), ["Changed rateLimits[a]: is new, in Shadow: refuses nothing"]);
    assert_eq!(
        changes(&policy("a", "Enforce"), &policy("b", "Enforce")),
        ["Changed rateLimits[b]: was called `a`; its buckets start full"]
    );
    let hops = |hops: u32| {
        let mut with = policy("a", "Enforce");
        with["settings"] = json!({"sourceAddress": {"trustedHops": hops}});
        with
    };
    // No limit counts by address.
    assert_eq!(
        changes(&hops(0), &hops(1)),
        ["Changed settings.sourceAddress: {\"trustedHops\":0} → {\"trustedHops\":1}"]
    );
    let by_address = |settings: Value| {
        let mut with = policy("a", "Enforce");
        with["rateLimits"][0]["key"] = json!([{"sourceAddress": {}}]);
        with["settings"] = settings;
        with
    };
    let hops = |hops: u32| by_address(json!({"sourceAddress": {"trustedHops": hops}}));
    for (old, new) in [(hops(0), hops(1)), (hops(2), hops(1)), (hops(1), by_address(json!({})))] {
        assert!(changes(&old, &new)[0].starts_with("Loosened settings.sourceAddress: "), "{:?}", changes(&old, &new));
    }
    assert_eq!(changes(&hops(0), &by_address(json!({}))), [] as [&str; 0]);
}

#[test]
fn routing_is_changed_and_never_loosened() {
    let rule = |name: &str, route: &str| json!({"name": name, "route": route, "matches": [{"path": {"value": format!("/{name}")}}]});
    let old = json!({"routes": {"default": "x", "rules": [rule("a", "1"), rule("b", "2"), rule("c", "3")]},
        "canaries": [{"name": "k", "stickiness": {"header": "id"}, "variants": [{"name": "v1", "weight": 95}, {"name": "v2", "weight": 5}]}]});
    let new = json!({"routes": {"default": "y", "rules": [rule("c", "3"), rule("a", "9"), rule("d", "4")]},
        "canaries": [{"name": "k", "stickiness": {"header": "id"}, "variants": [{"name": "v1", "weight": 75}, {"name": "v2", "weight": 25}]}]});
    assert_eq!(
        changes(&old, &new),
        [
            "Changed routes.default: \"x\" → \"y\"",
            "Changed routes.rules[d]: is new, number 3 of 3, to route \"4\"",
            "Changed routes.rules[b]: is gone, to route \"2\"",
            "Changed routes.rules: `c` moved: if several match, the first applies",
            "Changed routes.rules[a].route: \"1\" → \"9\"",
            "Changed canaries[k].variants: `v1` 95 % → 75 %, `v2` 5 % → 25 %: 20 % of users move",
        ]
    );
}

#[test]
fn another_default_port_loosens_when_ports_are_listed() {
    let with = |port: Value, ports: Value| {
        let mut egress = json!({"rules": [{"name": "a", "to": [{"host": "a.test"}]}]});
        for (at, value) in [("defaultPort", port), ("ports", ports)] {
            match at {
                "ports" if !value.is_null() => egress["rules"][0]["to"][0]["ports"] = value,
                "defaultPort" if !value.is_null() => egress["defaultPort"] = value,
                _ => {}
            }
        }
        json!({"egress": egress})
    };
    let null = Value::Null;
    let listed = changes(&with(null.clone(), json!([8443])), &with(json!(8443), json!([8443])));
    assert!(listed[0].starts_with("Loosened egress.defaultPort: an authority without a port has 8443"), "{listed:?}");
    let any = changes(&with(json!(80), null.clone()), &with(json!(443), null));
    assert!(any[0].starts_with("Changed egress.defaultPort"), "{any:?}");
}

#[test]
fn what_is_no_longer_denied_is_looked_for_in_every_form_and_without_a_port() {
    let policy = |deny: Value, to: Value| json!({"egress": {"deny": deny, "rules": [{"name": "a", "to": [to]}]}});
    for (denied, to) in [
        (json!({"cidr": "169.254.0.0/16"}), json!({"cidr": "64:ff9b::/96"})),
        (json!({"cidr": "169.254.0.0/16"}), json!({"cidr": "2002:a9fe::/32"})),
        (json!({"cidr": "169.254.0.0/16"}), json!({"cidr": "2001:db8::/48"})),
        (json!({"host": "a.test", "ports": [8080]}), json!({"host": "a.test", "ports": [443]})),
    ] {
        let found = changes(&policy(json!([denied]), to.clone()), &policy(json!([]), to.clone()));
        assert!(found[0].starts_with("Loosened egress.deny"), "{to}: {found:?}");
    }
}
