//! `--within` finds every excess and invents none, and requests that both policies decide show each.

use penstock_policy::Policy;
use penstock_policy::wire::{WireRequest, World};
use serde_json::{Value, json};

use super::*;
use crate::widened_rules;

mod properties;

const NOW: &str = "2026-06-01T00:00:00Z";

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn node(policy: &Value) -> Node {
    Node::from_json(policy.to_string().as_bytes()).unwrap()
}

fn compiled(policy: &Value) -> Policy {
    Policy::from_node(&node(policy)).unwrap_or_else(|problems| panic!("{policy}: {problems}"))
}

fn compare(platform: &Value, team: &Value) -> Vec<Excess> {
    let (_, _) = (compiled(platform), compiled(team));
    Ceiling::new(node(platform)).excesses(&node(team), now())
}

/// Whether all requests of a witness pass `team`, and `platform` refuses the last.
fn shows(witness: &Witness, platform: &Value, team: &Value) -> bool {
    let requests = match witness {
        Witness::Request(request) => vec![request.clone()],
        Witness::Sequence(requests) => requests.clone(),
    };
    let (platform, team) = (compiled(platform), compiled(team));
    let (mut theirs, mut ours) = (World::new(now(), 0), World::new(now(), 0));
    let mut refused = false;
    for request in requests {
        let request: WireRequest = serde_json::from_value(request).unwrap();
        if refused || request.decide(&team, &mut ours).action == Some("respond") {
            return false;
        }
        refused = request.decide(&platform, &mut theirs).action == Some("respond");
    }
    refused
}

/// The places where the team's policy exceeds the platform's; each with a valid witness.
fn places(platform: &Value, team: &Value) -> Vec<String> {
    let excesses = compare(platform, team);
    for excess in &excesses {
        let witness = excess.witness.as_ref().unwrap_or_else(|| panic!("no witness: {excess:?}"));
        assert!(shows(witness, platform, team), "{excess:?}");
    }
    excesses.into_iter().map(|excess| excess.path).collect()
}

fn egress(rules: Value) -> Value {
    let mut rules = rules;
    for (i, rule) in rules.as_array_mut().unwrap().iter_mut().enumerate() {
        if rule.get("name").is_none() {
            rule["name"] = json!(format!("r{i}"));
        }
    }
    json!({"egress": {"rules": rules}})
}

/// Whether the team's rules exceed the platform's.
fn exceeds(platform: Value, team: Value) -> bool {
    !places(&egress(platform), &egress(team)).is_empty()
}

#[test]
fn each_dimension_of_a_rule_is_a_bound() {
    let base = widened_rules::base();
    assert!(!exceeds(json!([base]), json!([base])));
    for (field, wider) in widened_rules::wider() {
        assert!(exceeds(json!([base]), json!([wider])), "{field}");
        assert!(!exceeds(json!([wider]), json!([base])), "{field}");
    }
    let tunnel = json!({"to": [{"host": "a.test"}], "connect": true});
    let open = json!({"to": [{"host": "a.test"}]});
    assert!(exceeds(json!([open]), json!([tunnel])) && !exceeds(json!([tunnel]), json!([open])));
}

#[test]
fn several_rules_of_the_platform_may_cover_one_only_together() {
    let to = json!([{"host": "a.test"}]);
    // By port, caller, path, time and host.
    for (platform, team) in [
        (
            json!([{"to": [{"host": "a.test", "ports": [80]}]}, {"to": [{"host": "a.test", "ports": [443]}]}]),
            json!([{"to": [{"host": "a.test", "ports": [443, 80]}]}]),
        ),
        (
            json!([{"to": to, "from": ["spiffe://c/ns/a"]}, {"to": to, "from": ["spiffe://c/ns/b"]}]),
            json!([{"to": to, "from": ["spiffe://c/ns/b", "spiffe://c/ns/a"]}]),
        ),
        (
            json!([{"to": to, "paths": [{"value": "/a"}]}, {"to": to, "paths": [{"type": "RegularExpression", "value": "/b[0-9]*"}]}]),
            json!([{"to": to, "paths": [{"value": "/a/x"}, {"type": "RegularExpression", "value": "/b[0-4]+"}]}]),
        ),
        (
            json!([{"to": to, "expires": "2026-07-01T00:00:00Z"}, {"to": to, "notBefore": "2026-06-15T00:00:00Z"}]),
            json!([{"to": to}]),
        ),
        (
            json!([{"to": [{"host": "*.a.test"}]}, {"to": [{"cidr": "10.0.0.0/9"}]}, {"to": [{"cidr": "10.128.0.0/9"}]}]),
            json!([{"to": [{"host": "*.b.a.test"}, {"host": "x.a.test"}, {"cidr": "10.0.0.0/8"}]}]),
        ),
    ] {
        assert!(!exceeds(platform.clone(), team.clone()), "{platform} {team}");
        let mut fewer = platform.clone();
        fewer.as_array_mut().unwrap().remove(0);
        assert!(exceeds(fewer, team.clone()), "{team}");
    }
}

#[test]
fn a_prefix_has_longer_paths_than_any_expression() {
    let rule = |paths: Value| json!([{"to": [{"host": "a.test"}], "paths": paths}]);
    let expression = || rule(json!([{"type": "RegularExpression", "value": "/b(/.*)?"}]));
    assert!(exceeds(expression(), rule(json!([{"value": "/b"}]))));
    assert!(!exceeds(rule(json!([{"value": "/b"}])), expression()));
}

#[test]
fn a_method_and_its_override_need_one_rule() {
    let to = json!([{"host": "a.test"}]);
    let split = json!([{"to": to, "methods": ["GET"]}, {"to": to, "methods": ["PUT"]}]);
    let both = json!([{"to": to, "methods": ["GET", "PUT"]}]);
    assert!(exceeds(split.clone(), both.clone()));
    assert!(!exceeds(both, split));
}

#[test]
fn two_upgrades_named_together_need_one_rule() {
    let to = json!([{"host": "a.test"}]);
    let split = json!([{"to": to, "upgrades": ["websocket"]}, {"to": to, "upgrades": ["h2c"]}]);
    let both = json!([{"to": to, "upgrades": ["websocket", "h2c"]}]);
    assert!(exceeds(split.clone(), both.clone()));
    assert!(!exceeds(both, split));
}

#[test]
fn a_neighbouring_rule_with_paths_makes_ambiguous_paths_400() {
    let open = json!({"to": [{"host": "a.test"}]});
    let scoped = json!({"to": [{"host": "a.test"}], "paths": [{"value": "/a"}]});
    assert!(exceeds(json!([open, scoped]), json!([open])));
    assert!(!exceeds(json!([open, scoped]), json!([open, scoped])));
    assert!(!exceeds(json!([open]), json!([open, scoped])));
    // Only where it is selected.
    let of_post = json!({"to": [{"host": "a.test"}], "methods": ["POST"], "paths": [{"value": "/a"}]});
    let get = json!({"to": [{"host": "a.test"}], "methods": ["GET"]});
    assert!(!exceeds(json!([open, of_post]), json!([get])));
    assert!(exceeds(json!([open, of_post]), json!([{"to": [{"host": "a.test"}], "methods": ["GET", "POST"]}])));
}

#[test]
fn what_the_platform_denies_is_taken_out() {
    let rules = json!([{"name": "r", "to": [{"host": "*.a.test"}, {"cidr": "10.0.0.0/8"}, {"cidr": "::/0"}]}]);
    for (deny, from_team) in [
        (json!([{"host": "secret.a.test"}]), json!([{"host": "secret.a.test"}])),
        (json!([{"host": "*.b.a.test"}]), json!([{"host": "*.a.test"}])),
        (json!([{"host": "b.a.test", "ports": [80]}]), json!([{"host": "b.a.test"}])),
        (json!([{"cidr": "10.1.0.0/16"}]), json!([{"cidr": "10.0.0.0/15"}])),
    ] {
        let platform = json!({"egress": {"deny": deny, "rules": rules}});
        let team = json!({"egress": {"rules": rules}});
        assert!(!compare(&platform, &team).is_empty(), "{deny}");
        let team = json!({"egress": {"deny": from_team, "rules": rules}});
        assert_eq!(places(&platform, &team), [] as [&str; 0], "{deny}");
        let mut elsewhere = json!({"egress": {"rules": [{"name": "r", "to": [{"host": "c.a.test"}]}]}});
        assert_eq!(places(&platform, &elsewhere), [] as [&str; 0], "{deny}");
        elsewhere["egress"]["rules"][0]["to"] = json!([{"host": "x.b.a.test"}, {"host": "secret.a.test"}]);
        if !deny.to_string().contains("cidr") && !deny.to_string().contains("ports") {
            assert_eq!(places(&platform, &elsewhere), ["egress.rules[0]"], "{deny}");
        }
    }
}

#[test]
fn audit_verify_sni_and_identity_are_bounds_too() {
    let rules = json!([{"name": "r", "to": [{"host": "a.test"}], "from": ["spiffe://c/a"]}]);
    let policy = |more: Value| {
        let mut policy = json!({"egress": {"rules": rules}});
        more.as_object().unwrap().iter().for_each(|(field, value)| policy["egress"][field] = value.clone());
        policy
    };
    let plain = policy(json!({}));
    assert_eq!(places(&plain, &policy(json!({"mode": "Audit"}))), ["egress.mode"]);
    assert_eq!(places(&policy(json!({"mode": "Audit"})), &plain), [] as [&str; 0]);
    assert_eq!(places(&policy(json!({"verifySni": true})), &plain), ["egress.verifySni"]);
    assert_eq!(places(&plain, &policy(json!({"verifySni": true}))), [] as [&str; 0]);
    let nothing = json!({"egress": {"rules": []}});
    assert_eq!(places(&policy(json!({"verifySni": true})), &nothing), [] as [&str; 0]);
    assert!(!compare(&policy(json!({"identity": {"workload": {"trustDomain": "c"}}})), &plain).is_empty());
    assert_eq!(places(&plain, &json!({"routes": {"default": "a"}})), ["egress"]);
    assert_eq!(
        places(&json!({"routes": {"default": "a"}}), &json!({"routes": {"default": "a"}, "egress": plain["egress"]})),
        [] as [&str; 0]
    );
}

#[test]
fn in_audit_an_ambiguous_path_to_an_address_passes_a_policy_that_verifies_server_names() {
    let rules =
        json!([{"name": "r", "methods": ["POST"], "paths": [{"value": "/"}], "to": [{"cidr": "64:ff9b::/96"}]}]);
    let platform = json!({"egress": {"mode": "Audit", "rules": rules}});
    let team = json!({"egress": {"mode": "Audit", "rules": [], "verifySni": true}});
    assert_eq!(places(&platform, &team), ["egress.mode"]);
}

#[test]
fn in_audit_an_ambiguous_path_without_a_port_passes_a_policy_with_another_default_port() {
    let rules = json!([{"name": "r", "paths": [{"value": "/"}], "to": [{"host": "a.test", "ports": [443]}]}]);
    let platform = json!({"egress": {"mode": "Audit", "rules": rules}});
    let team = json!({"egress": {"mode": "Audit", "rules": rules, "defaultPort": 8443}});
    assert_eq!(places(&platform, &team), ["egress.mode"]);
    assert_eq!(places(&team, &platform), [] as [&str; 0]);
}

/// Whether a limit `t` exceeds a limit `p`, both modified from the same limit.
fn looser(platform: Value, team: Value) -> bool {
    let policy = |name: &str, change: &Value| {
        let mut limit =
            json!({"name": name, "key": [{"header": "x"}], "limit": {"requests": 10, "per": "1m", "burst": 5}});
        change.as_object().unwrap().iter().for_each(|(field, value)| limit[field] = value.clone());
        json!({"rateLimits": [limit]})
    };
    !places(&policy("p", &platform), &policy("t", &team)).is_empty()
}

#[test]
fn a_limit_is_bounded_in_rate_burst_key_cost_and_reach() {
    let same = json!({});
    assert!(!looser(same.clone(), same.clone()));
    let quota =
        |requests: u32, per: &str, burst: u32| json!({"limit": {"requests": requests, "per": per, "burst": burst}});
    for (wide, narrow) in [
        (quota(11, "1m", 5), same.clone()),
        (quota(10, "1m", 6), same.clone()),
        (same.clone(), quota(10, "61s", 5)),
        (json!({"key": [{"header": "x"}, {"header": "y"}]}), same.clone()),
        (json!({"key": [{"header": "y"}]}), same.clone()),
        (json!({"key": [{"sourceAddress": {}}]}), json!({"key": [{"sourceAddress": {"ipv6Prefix": 64}}]})),
        (json!({"mode": "Shadow"}), same.clone()),
        (json!({"matches": [{"method": "GET"}]}), same.clone()),
        (json!({"matches": [{"path": {"value": "/a"}}]}), json!({"matches": [{"path": {"value": "/"}}]})),
        (same.clone(), json!({"cost": {"default": 2}})),
        (json!({"cost": {"header": "c", "max": 2}}), json!({"cost": {"header": "c", "max": 3}})),
        (json!({"onMissingKey": "Skip"}), same.clone()),
        (same.clone(), json!({"onMissingKey": "Deny"})),
    ] {
        assert!(looser(narrow.clone(), wide.clone()), "{wide} in {narrow}");
        assert!(!looser(wide.clone(), narrow.clone()) || wide["key"] != Value::Null, "{narrow} in {wide}");
    }
}

#[test]
fn a_dropped_part_of_the_key_loosens_under_share_and_deny() {
    let two = |missing: &str| json!({"key": [{"header": "x"}, {"header": "y"}], "onMissingKey": missing});
    let one = |missing: &str| json!({"key": [{"header": "x"}], "onMissingKey": missing});
    assert!(looser(two("Share"), one("Share")));
    assert!(looser(two("Deny"), one("Deny")));
    assert!(!looser(two("Skip"), one("Skip")));
    // One bucket for all requests is as tight as a shared one, but refuses no request for a missing key.
    assert!(!looser(two("Share"), json!({"key": []})));
    assert!(looser(two("Deny"), json!({"key": []})));
    // A part that is never missing may be removed.
    assert!(!looser(json!({"key": [{"header": "x"}, {"method": {}}], "onMissingKey": "Deny"}), one("Deny")));
}

#[test]
fn several_limits_of_the_team_together_may_match_one_of_the_platform() {
    let quota = json!({"requests": 10, "per": "1m"});
    let platform = json!({"rateLimits": [{"name": "p", "key": [{"header": "x"}, {"header": "y"}], "onMissingKey": "Deny", "limit": quota}]});
    let limit =
        |name: &str, key: &str| json!({"name": name, "key": [{"header": key}], "onMissingKey": "Deny", "limit": quota});
    let team = json!({"rateLimits": [limit("a", "x"), limit("b", "y")]});
    assert_eq!(places(&platform, &team), [] as [&str; 0]);
    assert_eq!(places(&platform, &json!({"rateLimits": [limit("a", "x")]})).len(), 1);
    assert_eq!(places(&platform, &json!({"rateLimits": []})), ["rateLimits"]);
}

#[test]
fn routes_headers_and_hosts_are_those_that_the_platform_names() {
    let platform = json!({
        "routes": {"default": "stable", "rules": [{"name": "r", "route": "beta", "failover": {"route": "spare"},
            "requestHeaders": {"set": [{"name": "X-A", "value": "1"}]}, "rewrite": {"hostname": "v2.internal"}}]},
        "canaries": [{"name": "c", "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1, "route": "next"}]}],
    });
    let places =
        |team: Value| -> Vec<String> { compare(&platform, &team).into_iter().map(|excess| excess.path).collect() };
    assert_eq!(places(platform.clone()), [] as [&str; 0]);
    let within = json!({"routes": {"default": "next", "rules": [{"name": "q", "route": "v1", "requestHeaders": {"remove": ["x-a"]}}]}});
    assert_eq!(places(within), [] as [&str; 0]);
    let beyond = json!({
        "settings": {"routeHeader": "x-other"},
        "routes": {"default": "other", "rules": [{"name": "q", "route": "v2", "failover": {"route": "x"},
            "requestHeaders": {"add": [{"name": "x-b", "value": "1"}]}, "rewrite": {"hostname": "v3.internal"}}]},
        "canaries": [{"name": "d", "variants": [{"name": "v3", "weight": 1}]}],
    });
    assert_eq!(
        places(beyond),
        [
            "settings.routeHeader",
            "routes.default",
            "routes.rules[0].route",
            "routes.rules[0].failover.route",
            "canaries[0].variants[0].name",
            "routes.rules[0].requestHeaders.add[0]",
            "routes.rules[0].rewrite.hostname",
        ]
    );
}

#[test]
fn an_address_inside_one_of_any_network_is_denied_as_the_platform_does() {
    let rules = json!([{"name": "r", "to": [{"cidr": "::/0"}]}]);
    let platform = json!({"egress": {"deny": [{"cidr": "10.1.2.0/24"}], "rules": rules}});
    let forms =
        ["::ffff:0:0/96", "::/64", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0:0/96"];
    let mut deny: Vec<Value> = forms.iter().map(|form| json!({"cidr": form})).collect();
    deny.push(json!({"cidr": "0:0:0:1:0:5efe::/96"}));
    // Each network has its own ISATAP addresses.
    let team = json!({"egress": {"deny": deny, "rules": rules}});
    assert_eq!(places(&platform, &team), ["egress.rules[0]"]);
    deny.push(json!({"cidr": "10.1.2.0/24"}));
    assert_eq!(places(&platform, &json!({"egress": {"deny": deny, "rules": rules}})), [] as [&str; 0]);
}
