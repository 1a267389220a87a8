//! No request passes a policy that is within a ceiling but not the ceiling, for random pairs and random requests.

use penstock_policy::Policy;
use penstock_policy::wire::{WireRequest, World};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{compare, compiled, egress, now, shows};

/// A rule made of few words, so that rules often overlap.
fn rule() -> impl Strategy<Value = Value> {
    let targets = vec![
        json!({"host": "a.test"}),
        json!({"host": "*.a.test"}),
        json!({"host": "b.a.test", "ports": [443]}),
        json!({"host": "a.test", "ports": [443, 80]}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "10.1.0.0/16", "ports": [443]}),
        json!({"cidr": "::ffff:10.1.0.0/112"}),
        json!({"cidr": "2001:db8::/32"}),
        json!({"cidr": "::/0"}),
        json!({"cidr": "64:ff9b::/96"}),
        json!({"cidr": "2001:db8:0:1::/64", "ports": [443]}),
    ];
    let paths = vec![
        json!({"value": "/"}),
        json!({"value": "/a"}),
        json!({"type": "Exact", "value": "/a/b"}),
        json!({"type": "RegularExpression", "value": "/a(/[a-z]*)?"}),
    ];
    let times = vec![None, Some("2026-06-15T00:00:00Z"), Some("2026-12-01T00:00:00Z")];
    let starts = vec![None, None, Some("2026-05-01T00:00:00Z"), Some("2026-06-10T00:00:00Z")];
    (
        subsequence(targets, 1..3),
        subsequence(vec!["GET", "POST", "CONNECT"], 0..4),
        subsequence(paths, 0..3),
        subsequence(vec!["spiffe://c/ns/a", "spiffe://c/ns/*", "spiffe://c/ns/b"], 0..3),
        any::<bool>(),
        subsequence(vec!["websocket", "h2c"], 0..3),
        (select(starts), select(times)),
    )
        .prop_map(|(to, methods, paths, from, connect, upgrades, (starts, expires))| {
            let mut rule = json!({"to": to, "connect": connect, "upgrades": upgrades});
            let lists = [("methods", json!(methods)), ("paths", json!(paths)), ("from", json!(from))];
            for (field, list) in lists.into_iter().filter(|(_, list)| !list.as_array().unwrap().is_empty()) {
                rule[field] = list;
            }
            for (field, time) in [("notBefore", starts), ("expires", expires)] {
                if let Some(time) = time {
                    rule[field] = json!(time);
                }
            }
            rule
        })
}

fn policy() -> impl Strategy<Value = Value> {
    let denied = vec![
        json!({"host": "b.a.test"}),
        json!({"host": "*.b.a.test"}),
        json!({"cidr": "10.1.2.0/24"}),
        json!({"host": "a.test", "ports": [80]}),
        json!({"cidr": "10.1.0.0/16", "ports": [443]}),
        json!({"cidr": "::ffff:0:0/96"}),
        json!({"cidr": "2001:db8:0:1::/64"}),
    ];
    (
        vec(rule(), 0..5),
        subsequence(denied, 0..4),
        select(vec!["Enforce", "Enforce", "Enforce", "Audit"]),
        any::<bool>(),
        select(vec![None, None, Some(80), Some(443)]),
    )
        .prop_map(|(rules, deny, mode, sni, port)| {
            let mut policy = egress(json!(rules));
            policy["egress"]["deny"] = json!(deny);
            policy["egress"]["mode"] = json!(mode);
            policy["egress"]["verifySni"] = json!(sni);
            if let Some(port) = port {
                policy["egress"]["defaultPort"] = json!(port);
            }
            policy
        })
}

/// Two policies that have much in common.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    (policy(), policy(), 0..7usize).prop_map(|(one, other, what)| {
        let mut two = one.clone();
        let (mine, theirs) = (&mut two["egress"], &other["egress"]);
        match what {
            0 => *mine = theirs.clone(),
            1 => mine["deny"] = theirs["deny"].clone(),
            2 => drop(mine["rules"].as_array_mut().unwrap().pop()),
            3 => mine["mode"] = theirs["mode"].clone(),
            4 => {
                if let (Some(rule), Some(their)) = (mine["rules"].get_mut(0), theirs["rules"].get(0)) {
                    let name = rule["name"].clone();
                    *rule = their.clone();
                    rule["name"] = name;
                }
            }
            5 => mine["verifySni"] = theirs["verifySni"].clone(),
            _ => match theirs.get("defaultPort") {
                Some(port) => mine["defaultPort"] = port.clone(),
                None => drop(mine.as_object_mut().unwrap().remove("defaultPort")),
            },
        }
        (one, two)
    })
}

fn request() -> impl Strategy<Value = Value> {
    let hosts = vec![
        "a.test",
        "b.a.test",
        "x.a.test",
        "y.b.a.test",
        "10.1.2.3",
        "10.1.9.9",
        "10.2.2.3",
        "[::ffff:10.1.2.3]",
        "[::ffff:10.1.9.9]",
        "[64:ff9b::a01:203]",
        "[2001:db8::5efe:a01:203]",
        "[2001:db8:0:1::7]",
        "c.test",
    ];
    (
        select(vec!["GET", "GET", "POST", "PUT", "CONNECT"]),
        (select(hosts), select(vec![":443", ":80", ":8080", ""])),
        select(vec!["/", "/a", "/a/b", "/a/b/c", "/a%2fb", "/a/../b", "/a/7", "/b", "//a", "/a/./b", "/a;x/b", "*"]),
        select(vec![None, Some("spiffe://c/ns/a"), Some("spiffe://c/ns/b"), Some("spiffe://c/ns/c")]),
        select(vec!["2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z", "2027-07-01T00:00:00Z"]),
        any::<bool>(),
        subsequence(vec!["websocket", "h2c"], 0..3),
        subsequence(vec!["GET", "POST", "PUT"], 0..3),
    )
        .prop_map(|(method, (host, port), path, peer, time, same_sni, upgrades, overrides)| {
            let mut request = json!({"method": method, "scheme": if same_sni { "https" } else { "http" }, "authority": format!("{host}{}", if method == "CONNECT" && port.is_empty() { ":443" } else { port }),
                "path": if method == "CONNECT" { "" } else { path }, "time": time,
                "sni": if same_sni { host } else { "other.test" }});
            if let Some(peer) = peer {
                request["peer"] = json!(peer);
            }
            let mut headers: Vec<(&str, String)> =
                overrides.iter().enumerate().map(|(i, m)| (["x-http-method-override", "x-http-method", "x-method-override"][i], (*m).to_owned())).collect();
            if !upgrades.is_empty() {
                headers.push(("connection", "upgrade".to_owned()));
                headers.push(("upgrade", upgrades.join(",")));
            }
            request["headers"] = json!(headers);
            request
        })
}

/// The default number of cases; `PROPTEST_CASES` sets more.
const CASES: u32 = 200;

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(CASES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_passes_a_policy_that_is_within_and_not_the_platforms(pair in pair(), requests in vec(request(), 1..80)) {
        let (platform, team) = &pair;
        let excesses = compare(platform, team);
        for excess in &excesses {
            if let Some(witness) = &excess.witness {
                prop_assert!(shows(witness, platform, team), "{excess:?}\n{platform}\n{team}");
            }
            // In Audit, only some requests with the wrong server name are tried.
            let is_searched = excess.path != "egress.verifySni" || platform["egress"]["mode"] == "Enforce";
            prop_assert!(excess.witness.is_some() || !is_searched, "{excess:?}\n{platform}\n{team}");
        }
        if excesses.is_empty() {
            let (platform, team) = (compiled(platform), compiled(team));
            for request in requests {
                let request: WireRequest = serde_json::from_value(request).unwrap();
                let refused = |policy: &Policy| request.decide(policy, &mut World::new(now(), 0)).action == Some("respond");
                prop_assert!(refused(&team) || !refused(&platform), "{request:?}\n{}\n{}", pair.0, pair.1);
            }
        }
    }

    #[test]
    fn a_policy_is_within_itself(policy in policy()) {
        prop_assert!(compare(&policy, &policy).is_empty(), "{policy} {:?}", compare(&policy, &policy));
    }

    #[test]
    fn what_passes_limits_that_are_within_passes_the_platforms(
        limits in [limit(), limit(), limit()],
        steps in vec((0..4000u64, 0..3u8, 0..3u8, any::<bool>()), 1..80),
    ) {
        let [one, two, three] = limits;
        let platform = json!({"rateLimits": [named("p", one)]});
        let team = json!({"rateLimits": [named("t", two), named("u", three)]});
        let excesses = compare(&platform, &team);
        for witness in excesses.iter().filter_map(|excess| excess.witness.as_ref()) {
            prop_assert!(shows(witness, &platform, &team), "{excesses:?}\n{platform}\n{team}");
        }
        if excesses.is_empty() {
            let (theirs, ours) = (compiled(&platform), compiled(&team));
            let (mut world, mut other) = (World::new(now(), 0), World::new(now(), 0));
            for (gap, x, y, get) in steps {
                world.now.0 += gap * 1_000_000;
                other.now = world.now;
                let mut headers = Vec::new();
                if x > 0 { headers.push(("x".to_owned(), x.to_string())); }
                if y > 0 { headers.push(("y".to_owned(), y.to_string())); }
                let request = WireRequest { method: if get { "GET" } else { "PUT" }.to_owned(), authority: "a".to_owned(), path: "/".to_owned(), headers, ..WireRequest::default() };
                if request.decide(&ours, &mut world).action == Some("continue") {
                    prop_assert!(request.decide(&theirs, &mut other).action == Some("continue"), "{request:?}\n{platform}\n{team}");
                }
            }
        }
    }
}

fn named(name: &str, mut limit: Value) -> Value {
    limit["name"] = json!(name);
    limit
}

fn limit() -> impl Strategy<Value = Value> {
    let keys = subsequence(vec![json!({"header": "x"}), json!({"header": "y"}), json!({"method": {}})], 0..4);
    let quota = (select(vec![2, 4, 6]), select(vec!["1s", "2s", "3s"]), select(vec![3, 4, 5]));
    (keys, quota, select(vec!["Share", "Skip", "Deny"]), 1..3u32, any::<bool>(), 0..10u8).prop_map(
        |(key, (requests, per, burst), missing, cost, everything, shadow)| {
            let mut limit = json!({"key": key, "limit": {"requests": requests, "per": per, "burst": burst}, "cost": {"default": cost}});
            if !key.is_empty() {
                limit["onMissingKey"] = json!(missing);
            }
            if !everything {
                limit["matches"] = json!([{"method": "GET"}]);
            }
            if shadow == 0 {
                limit["mode"] = json!("Shadow");
            }
            limit
        },
    )
}

/// The parts of a routing decision that the ceiling restricts.
fn routing() -> impl Strategy<Value = Value> {
    let routes = vec!["a", "b", "c"];
    let rule = (
        select(vec![None, Some("GET"), Some("POST")]),
        select(routes.clone()),
        select(vec![None, None, Some("one")]),
        select(vec![None, Some("x-a"), Some("x-b")]),
        select(vec![None, None, Some("v1.internal"), Some("v2.internal")]),
    );
    let variants = subsequence(routes.clone(), 1..3);
    (vec(rule, 0..4), select(vec![None, Some("a"), Some("b"), Some("c")]), variants, any::<bool>()).prop_map(
        |(rules, default, variants, has_canary)| {
            let mut policy = json!({"routes": {}});
            if let Some(default) = default {
                policy["routes"]["default"] = json!(default);
            }
            let rules: Vec<Value> = rules
                .into_iter()
                .enumerate()
                .map(|(i, (method, route, canary, header, host))| {
                    let mut rule = json!({"name": format!("r{i}")});
                    match canary.filter(|_| has_canary) {
                        Some(canary) => rule["canary"] = json!(canary),
                        None => rule["route"] = json!(route),
                    }
                    if let Some(method) = method {
                        rule["matches"] = json!([{"method": method}]);
                    }
                    if let Some(header) = header {
                        rule["requestHeaders"] = json!({"set": [{"name": header, "value": "1"}]});
                    }
                    if let Some(host) = host {
                        rule["rewrite"] = json!({"hostname": host});
                    }
                    rule
                })
                .collect();
            policy["routes"]["rules"] = json!(&rules);
            if has_canary {
                let variants: Vec<Value> = variants
                    .iter()
                    .map(|route| json!({"name": format!("v-{route}"), "weight": 1, "route": route}))
                    .collect();
                let mut canary = json!({"name": "one", "variants": variants});
                // A canary that a rule names has no matches of its own.
                if !rules.iter().any(|rule| rule.get("canary").is_some()) {
                    canary["matches"] = json!([{"headers": [{"name": "x-try", "value": "1"}]}]);
                }
                policy["canaries"] = json!([canary]);
            }
            policy
        },
    )
}

/// Everything that a policy names.
fn named_by(policy: &Value) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut routes, mut headers, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    routes.extend(text(&policy["routes"]["default"]));
    for rule in policy["routes"]["rules"].as_array().into_iter().flatten() {
        routes.extend(text(&rule["route"]));
        headers.extend(text(&rule["requestHeaders"]["set"][0]["name"]));
        hosts.extend(text(&rule["rewrite"]["hostname"]));
    }
    for variant in policy["canaries"][0]["variants"].as_array().into_iter().flatten() {
        routes.extend(text(&variant["route"]));
    }
    (routes, headers, hosts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn routes_that_are_within_lead_to_what_the_platform_names(
        platform in routing(),
        team in routing(),
        requests in vec((select(vec!["GET", "POST", "PUT"]), any::<bool>(), 0..50u32), 1..30),
    ) {
        let excesses = compare(&platform, &team);
        let (routes, headers, hosts) = named_by(&platform);
        let policy = compiled(&team);
        for (method, tries, user) in requests {
            let mut fields = vec![("x-user".to_owned(), user.to_string())];
            if tries { fields.push(("x-try".to_owned(), "1".to_owned())); }
            let request = WireRequest { method: method.to_owned(), authority: "a.test".to_owned(), path: "/".to_owned(), headers: fields, ..WireRequest::default() };
            let decision = request.decide(&policy, &mut World::new(now(), u64::from(user)));
            let set = |name: &str| decision.headers.set.iter().find(|(header, _)| header == name).map(|(_, value)| value);
            let mut is_named = decision.route.as_ref().is_none_or(|route| routes.contains(route));
            is_named &= ["x-a", "x-b"].iter().all(|name| set(name).is_none() || headers.iter().any(|header| header == name));
            is_named &= set(":authority").is_none_or(|host| hosts.contains(host));
            prop_assert!(is_named || !excesses.is_empty(), "{decision:?}\n{platform}\n{team}");
        }
    }
}
