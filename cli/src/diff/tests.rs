//! No loosening is missed, and what is none is not called one.

use penstock_policy::wire::{WireRequest, World};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;

fn file(policy: &Value) -> PolicyFile {
    PolicyFile::compile(&policy.to_string().as_str().into()).unwrap_or_else(|findings| panic!("{policy}: {findings:?}"))
}

/// The changes from one policy to another, as `class path: message`.
fn changes(old: &Value, new: &Value) -> Vec<String> {
    let time = Timestamp::parse("2026-06-01T00:00:00Z").unwrap();
    let (changes, _) = compare(&file(old), &file(new), time);
    changes.0.iter().map(|change| format!("{:?} {}: {}", change.class, change.path, change.message)).collect()
}

/// The changes from one rule called `r` to another.
fn rule(old: Value, new: Value) -> Vec<String> {
    let policy = |mut rule: Value| {
        rule["name"] = json!("r");
        json!({"egress": {"rules": [rule]}})
    };
    changes(&policy(old), &policy(new))
}

/// The classes of the changes from one limit called `l` to another, with what changes.
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
    // Not the same: with one rule for both methods a header may ask for the other one.
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
    let base = json!({"to": [{"host": "a.test", "ports": [443]}], "from": ["spiffe://c/ns/a/sa/b"], "methods": ["GET"],
        "paths": [{"value": "/v1"}], "notBefore": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z"});
    let with = |field: &str, value: Value| {
        let mut rule = base.clone();
        if value.is_null() {
            rule.as_object_mut().unwrap().remove(field);
        } else {
            rule[field] = value;
        }
        rule
    };
    for (field, value) in [
        ("from", Value::Null),
        ("from", json!(["spiffe://c/ns/*/sa/b"])),
        ("methods", Value::Null),
        ("methods", json!(["GET", "DELETE"])),
        ("paths", Value::Null),
        ("paths", json!([{"value": "/"}])),
        ("paths", json!([{"value": "/v1"}, {"type": "Exact", "value": "/v2"}])),
        ("to", json!([{"host": "a.test"}])),
        ("to", json!([{"host": "*.a.test", "ports": [443]}, {"host": "a.test", "ports": [443]}])),
        ("to", json!([{"host": "a.test", "ports": [443, 80]}])),
        ("to", json!([{"host": "a.test", "ports": [443]}, {"cidr": "10.0.0.0/8"}])),
        ("connect", json!(true)),
        ("upgrades", json!(["websocket"])),
        ("notBefore", Value::Null),
        ("notBefore", json!("2025-01-01T00:00:00Z")),
        ("expires", Value::Null),
        ("expires", json!("2028-01-01T00:00:00Z")),
    ] {
        let wider = with(field, value);
        let (forth, back) = (rule(base.clone(), wider.clone()), rule(wider, base.clone()));
        assert!(forth.iter().any(|line| line.starts_with("Loosened")), "{field}: {forth:?}");
        assert!(!forth.iter().any(|line| line.starts_with("Tightened")), "{field}: {forth:?}");
        assert!(back.iter().any(|line| line.starts_with("Tightened")), "{field}: {back:?}");
        assert!(!back.iter().any(|line| line.starts_with("Loosened")), "{field}: {back:?}");
    }
    let owner = rule(base.clone(), with("owner", json!("somebody")));
    assert_eq!(owner, ["Changed egress.rules[r].owner: \"nobody said\" → \"somebody\""]);
}

#[test]
fn rules_that_come_and_go_are_judged_by_what_others_allow() {
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
    // The same name for something else.
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
        (with("mode", json!("Audit")), "Loosened egress.mode: Enforce → Audit: what would be refused with 403 passes"),
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
            "Loosened egress.identity: callers are identified in another way: rules with `from` may hold for others",
        ),
        (changes(&base, &json!({})), "Loosened egress: is gone: nothing is refused any more"),
        (
            changes(&json!({}), &base),
            "Tightened egress: is new: what no rule allows is refused, and so is every malformed request",
        ),
    ] {
        assert_eq!(found, [expected]);
    }
    // An IPv4 range denies its mapped addresses too.
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
        (json!({}), json!({"cost": {"header": "c"}}), "Loosened cost.header", "Loosened cost.header"),
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
        (json!({}), json!({"key": [{"header": "x"}, {"path": {}}]}), "Loosened key", "Tightened key"),
        // Who lacks `y` shared one bucket, or was refused; or was not limited.
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
    // What refuses nothing loosens nothing.
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
        ["Changed rateLimits[b]: was called `a`; its buckets begin full"]
    );
    let hops = |hops: u32| {
        let mut with = policy("a", "Enforce");
        with["settings"] = json!({"sourceAddress": {"trustedHops": hops}});
        with
    };
    // Nothing counts by address.
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
            "Changed routes.rules: `c` moved: of several that match, the first wins",
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
    let listed = changes(&with(null.clone(), json!([443])), &with(json!(8443), json!([443])));
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

fn egress() -> impl Strategy<Value = Value> {
    let destination = select(vec![
        json!({"host": "a.test"}),
        json!({"host": "a.test", "ports": [443]}),
        json!({"host": "b.a.test", "ports": [443, 80]}),
        json!({"host": "*.a.test"}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "10.1.0.0/16", "ports": [443]}),
        json!({"cidr": "::/0"}),
    ]);
    let optional = |values: Vec<Value>| select([vec![Value::Null; values.len()], values].concat());
    let rule = (
        vec(destination.clone(), 1..3),
        optional(vec![json!(["GET"]), json!(["GET", "POST"]), json!(["POST"]), json!(["POST", "PUT", "GET"])]),
        optional(vec![json!([{"value": "/a"}]), json!([{"type": "Exact", "value": "/a/b"}]), json!([{"type": "RegularExpression", "value": "/a.*"}])]),
        optional(vec![json!(["spiffe://c/ns/a"]), json!(["spiffe://c/ns/*"])]),
        optional(vec![json!("2026-06-01T00:00:00Z"), json!("2027-01-01T00:00:00Z")]),
        (any::<bool>(), optional(vec![json!(["websocket"]), json!(["websocket", "h2c"]), json!(["h2c"])])),
    )
        .prop_map(|(to, methods, paths, from, expires, (connect, upgrades))| {
            json!({"to": to, "methods": methods, "paths": paths, "from": from, "expires": expires, "connect": connect, "upgrades": upgrades})
        });
    let default_port = optional(vec![json!(80), json!(443), json!(8443)]);
    (vec(rule, 0..4), vec(destination, 0..2), prop::bool::weighted(0.1), any::<bool>(), default_port).prop_map(|(rules, deny, audit, sni, port)| {
        let mut egress = json!({"rules": rules, "deny": deny, "verifySni": sni, "mode": if audit { "Audit" } else { "Enforce" }});
        for (i, rule) in egress["rules"].as_array_mut().unwrap().iter_mut().enumerate() {
            rule["name"] = json!(format!("r{i}"));
            rule.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        if !port.is_null() {
            egress["defaultPort"] = port;
        }
        json!({"egress": egress})
    })
}

/// A policy and one that differs a little, as reviews see them, or wholly.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    (egress(), egress(), 0..8usize, any::<bool>()).prop_map(|(old, other, what, back)| {
        let mut new = old.clone();
        let (mine, theirs) = (&mut new["egress"], &other["egress"]);
        match what {
            0 => *mine = theirs.clone(),
            1 => mine["deny"] = theirs["deny"].clone(),
            // Rules merged, or split, by method or by upgrade.
            5 | 6 => {
                let field = if what == 5 { "methods" } else { "upgrades" };
                if let Some(rule) = mine["rules"].get(0).cloned()
                    && let Some(items) = rule[field].as_array().filter(|items| items.len() > 1)
                {
                    let split = items.iter().enumerate().map(|(i, item)| {
                        let mut part = rule.clone();
                        part["name"] = json!(format!("s{i}"));
                        part[field] = json!([item]);
                        part
                    });
                    let rules = split.chain(mine["rules"].as_array().unwrap().iter().skip(1).cloned()).collect();
                    mine["rules"] = Value::Array(rules);
                }
            }
            2 => drop(mine["rules"].as_array_mut().unwrap().pop()),
            3 => {
                if let (Some(rule), Some(their)) = (mine["rules"].get_mut(0), theirs["rules"].get(0)) {
                    *rule = their.clone();
                }
            }
            4 => mine["verifySni"] = theirs["verifySni"].clone(),
            _ => match theirs.get("defaultPort") {
                Some(port) => mine["defaultPort"] = port.clone(),
                None => drop(mine.as_object_mut().unwrap().remove("defaultPort")),
            },
        }
        if back { (new, old) } else { (old, new) }
    })
}

fn request() -> impl Strategy<Value = WireRequest> {
    (
        select(vec!["GET", "POST", "CONNECT"]),
        select(vec![
            "a.test",
            "b.a.test",
            "b.a.test:80",
            "10.1.2.3:443",
            "10.2.2.3",
            "[::ffff:10.1.2.3]",
            "[64:ff9b::10.1.2.3]",
            "[2001:db8::5efe:10.1.2.3]",
            "c.test",
        ]),
        select(vec!["/", "/a", "/a/b", "/a%2fb", "/a/../b"]),
        select(vec![None, Some("spiffe://c/ns/a"), Some("spiffe://c/ns/b")]),
        select(vec!["2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z", "2027-07-01T00:00:00Z"]),
        select(vec![None, Some("a.test")]),
        (
            select(vec![None, Some("websocket"), Some("websocket, h2c"), Some("h2c"), Some("H2C"), Some("other")]),
            vec(
                (
                    select(vec!["x-http-method-override", "x-http-method", "x-method-override"]),
                    select(vec!["GET", "POST", "PUT"]),
                ),
                0..3,
            ),
        ),
    )
        .prop_map(|(method, authority, path, peer, time, sni, (upgrade, overrides))| WireRequest {
            method: method.to_owned(),
            scheme: Some("https".to_owned()),
            authority: if method == "CONNECT" && !authority.ends_with("80") && !authority.ends_with("443") {
                format!("{authority}:443")
            } else {
                authority.to_owned()
            },
            path: if method == "CONNECT" { String::new() } else { path.to_owned() },
            headers: upgrade
                .map(|protocols| ("upgrade", protocols))
                .into_iter()
                .chain(overrides)
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            peer: peer.map(str::to_owned),
            sni: sni.map(str::to_owned),
            time: Timestamp::parse(time),
            ..WireRequest::default()
        })
}

/// Without what has no meaning: how requests lack an empty key, and nulls.
fn tidy(mut policy: Value) -> Value {
    let limit = policy["rateLimits"][0].as_object_mut().unwrap();
    if limit["key"].as_array().unwrap().is_empty() {
        limit.remove("onMissingKey");
    }
    limit.retain(|_, value| !value.is_null());
    policy
}

/// A policy with one limit.
fn limit_of_any_key() -> impl Strategy<Value = Value> {
    let part = select(vec![
        json!({"header": "x"}),
        json!({"header": "y"}),
        json!({"cookie": "c"}),
        json!({"queryParam": "q"}),
        json!({"path": {}}),
        json!({"method": {}}),
        json!({"hostname": {}}),
        json!({"peer": {}}),
        json!({"constant": "k"}),
        json!({"sourceAddress": {}}),
        json!({"sourceAddress": {"ipv6Prefix": 64}}),
    ]);
    let matches = select(vec![
        Value::Null,
        json!([{"method": "GET"}]),
        json!([{"path": {"value": "/a"}}]),
        json!([{"headers": [{"name": "x", "type": "Present"}]}]),
        json!([{"headers": [{"name": "x", "value": "1", "invert": true}]}]),
    ]);
    (vec(part, 0..3), select(vec!["Share", "Skip", "Deny"]), matches, 1..4u32, 0..3u32).prop_map(
        |(mut key, missing, matches, requests, hops)| {
            key.dedup();
            let mut limit =
                json!({"name": "l", "key": key, "onMissingKey": missing, "limit": {"requests": requests, "per": "1h"}});
            if !matches.is_null() {
                limit["matches"] = matches;
            }
            json!({"rateLimits": [limit], "settings": {"sourceAddress": {"trustedHops": hops}}})
        },
    )
}

/// A request with some of what limits count by.
fn counted() -> impl Strategy<Value = WireRequest> {
    let header = select(vec![
        ("x", "1"),
        ("x", "2"),
        ("y", "1"),
        ("cookie", "c=1"),
        ("x-forwarded-for", "203.0.113.1"),
        ("x-forwarded-for", "203.0.113.2, 203.0.113.3"),
    ]);
    (
        select(vec!["GET", "POST"]),
        select(vec!["/", "/a?q=1", "/a?q=2"]),
        select(vec![None, Some("10.0.0.1"), Some("2001:db8::1"), Some("2001:db8::2")]),
        select(vec![None, Some("spiffe://c/ns/a")]),
        vec(header, 0..4),
    )
        .prop_map(|(method, path, address, peer, headers)| WireRequest {
            method: method.to_owned(),
            scheme: Some("https".to_owned()),
            authority: "a.test".to_owned(),
            path: path.to_owned(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            peer: peer.map(str::to_owned),
            source_address: address.map(|address| address.parse().unwrap()),
            ..WireRequest::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_passes_or_is_refused_anew_without_a_word(pair in pair(), requests in vec(request(), 1..60)) {
        let (old, new) = (file(&pair.0), file(&pair.1));
        let (changes, _) = compare(&old, &new, Timestamp(0));
        for request in requests {
            let refused = |file: &PolicyFile| request.decide(&file.policy, &mut World::new(Timestamp(0), 0)).action == Some("respond");
            match (refused(&old), refused(&new)) {
                (true, false) => prop_assert!(changes.count(Class::Loosened) > 0, "{request:?}\n{}\n{}\n{changes:?}", pair.0, pair.1),
                (false, true) => prop_assert!(changes.count(Class::Tightened) > 0, "{request:?}\n{}\n{}\n{changes:?}", pair.0, pair.1),
                _ => {}
            }
        }
    }

    #[test]
    fn a_limit_that_is_not_loosened_lets_no_more_requests_pass_whatever_it_counts_by(
        pair in (limit_of_any_key(), limit_of_any_key(), 0..6usize).prop_map(|(old, other, what)| {
            let mut new = old.clone();
            match what {
                0 => new = other,
                1 => new["rateLimits"][0]["key"] = other["rateLimits"][0]["key"].clone(),
                2 => drop(new["rateLimits"][0]["key"].as_array_mut().unwrap().pop()),
                3 => new["settings"] = other["settings"].clone(),
                4 => new["rateLimits"][0]["onMissingKey"] = other["rateLimits"][0]["onMissingKey"].clone(),
                _ => new["rateLimits"][0]["matches"] = other["rateLimits"][0]["matches"].clone(),
            }
            (tidy(old), tidy(new))
        }),
        requests in vec(counted(), 1..40),
    ) {
        let passed = |policy: &Value| {
            let file = file(policy);
            let mut world = World::new(Timestamp(1_000_000_000), 0);
            requests.iter().filter(|request| request.decide(&file.policy, &mut world).action == Some("continue")).count()
        };
        let (changes, _) = compare(&file(&pair.0), &file(&pair.1), Timestamp(0));
        if changes.count(Class::Loosened) == 0 {
            prop_assert!(passed(&pair.1) <= passed(&pair.0), "{} {} {changes:?} {requests:?}", pair.0, pair.1);
        }
    }

    #[test]
    fn a_limit_that_is_not_loosened_lets_no_more_requests_pass(
        limits in [(1..9u32, 1..9u32, 1..9u32, 1..3u32), (1..9u32, 1..9u32, 1..9u32, 1..3u32)],
        gaps in vec(0..3000u64, 1..60),
    ) {
        let policy = |(requests, seconds, burst, cost): (u32, u32, u32, u32)| {
            json!({"rateLimits": [{"name": "l", "key": [], "limit": {"requests": requests, "per": format!("{seconds}s"), "burst": burst.max(cost)}, "cost": {"default": cost}}]})
        };
        let [old, new] = limits.map(|limit| file(&policy(limit)));
        let passed = |file: &PolicyFile| {
            let mut world = World::new(Timestamp(1_000_000_000), 0);
            let request = WireRequest { method: "GET".to_owned(), authority: "a".to_owned(), path: "/".to_owned(), ..WireRequest::default() };
            gaps.iter().filter(|gap| {
                world.now.0 += *gap * 1_000_000;
                request.decide(&file.policy, &mut world).action == Some("continue")
            }).count()
        };
        let (changes, _) = compare(&old, &new, Timestamp(0));
        if changes.count(Class::Loosened) == 0 {
            prop_assert!(passed(&new) <= passed(&old), "{limits:?} {changes:?}");
        }
    }
}
