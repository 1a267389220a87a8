use crate::FixedEnvironment;
use crate::split_mix::split_mix;
use crate::wire::{WireDecision, WireRequest, World};
use crate::{Policy, Timestamp};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn suite(document: Value) -> Policy {
    Policy::from_json(document.to_string().as_bytes()).unwrap()
}

/// A policy with one canary: `fields` over a 90/10 split of v1 and v2.
fn policy(fields: Value) -> Policy {
    suite(json!({"canaries": [canary(fields)]}))
}

fn canary(fields: Value) -> Value {
    let mut canary = json!({"name": "shop", "variants": [{"name": "v1", "weight": 90}, {"name": "v2", "weight": 10}]});
    canary.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    canary
}

/// One request to `/` of `world` with `fields`.
fn ask(policy: &Policy, world: &mut World, fields: Value) -> WireDecision {
    let mut request = json!({"method": "GET", "authority": "a.test", "path": "/"});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value::<WireRequest>(request).unwrap().decide(policy, world)
}

fn world() -> World {
    World::new(Timestamp(0), 1)
}

fn variant(policy: &Policy, fields: Value) -> Option<String> {
    ask(policy, &mut world(), fields).variant
}

fn errors(canaries: Value) -> Vec<String> {
    match Policy::<crate::module::Suite>::from_json(json!({ "canaries": canaries }).to_string().as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn header(name: &str, value: &str) -> Value {
    json!({"headers": [[name, value]]})
}

#[test]
fn a_decision_names_section_canary_variant_and_route() {
    let policy = policy(json!({"variants": [{"name": "v2", "weight": 1, "route": "reviews-v2"}]}));
    let decision = ask(&policy, &mut world(), json!({}));
    assert_eq!(
        serde_json::to_value(decision).unwrap(),
        json!({"action": "continue", "section": "canaries", "rule": "shop", "variant": "v2", "route": "reviews-v2",
            "headers": {"set": [["x-penstock-route", "reviews-v2"]]}})
    );
}

#[test]
fn the_golden_users_keep_their_variants() {
    // Changing one of these moves users: never do that by accident.
    let policy = policy(json!({"name": "reviews", "stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": 50}, {"name": "v2", "weight": 30}, {"name": "v3", "weight": 20}]}));
    let chosen: String =
        (0..60).map(|i| variant(&policy, header("x-user", &format!("user-{i}"))).unwrap().split_off(1)).collect();
    assert_eq!(chosen, "311212311221122111121121112121311213133123121131131112131121");
}

#[test]
fn the_same_key_has_the_same_variant_and_the_order_of_variants_does_not_matter() {
    let sticky = json!({"stickiness": {"header": "x-user"}});
    let turned = json!({"stickiness": {"header": "x-user"},
        "variants": [{"name": "v2", "weight": 10}, {"name": "v1", "weight": 90}]});
    let (one, other) = (policy(sticky), policy(turned));
    for i in 0..200 {
        let user = header("x-user", &i.to_string());
        assert_eq!(variant(&one, user.clone()), variant(&other, user));
    }
}

#[test]
fn the_first_value_of_a_repeated_sticky_header_counts() {
    let policy = policy(json!({"stickiness": {"header": "X-User"}}));
    for i in 0..50 {
        let (first, second) = (i.to_string(), (i + 1000).to_string());
        let both = json!({"headers": [["x-user", first], ["x-user", second]]});
        assert_eq!(variant(&policy, both), variant(&policy, header("x-user", &first)));
    }
}

/// The variant that the policy's only canary has for these bytes. `tests/canary_statistics.rs` has the shares of many.
fn variant_of(policy: &Policy, key: &[u8]) -> String {
    policy.canaries().unwrap().iter().next().unwrap().variant_of(key, Timestamp(0)).unwrap().to_owned()
}

#[test]
fn without_a_sticky_key_each_request_gets_the_variant_of_a_random_one() {
    for fields in [json!({}), json!({"stickiness": {"header": "x-user"}}), json!({"stickiness": {"peer": {}}})] {
        let policy = policy(fields);
        let mut world = world();
        let mut random = world.random;
        let mut chosen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let expected = variant_of(&policy, &split_mix(&mut random).to_le_bytes());
            assert_eq!(ask(&policy, &mut world, header("x-user", "")).variant.as_ref(), Some(&expected));
            chosen.insert(expected);
        }
        assert_eq!(chosen.len(), 2, "the same user gets both: {chosen:?}");
    }
}

#[test]
fn overrides_beat_weights_in_document_order_with_any_comparison() {
    let policy = policy(json!({
    "variants": [{"name": "v1", "weight": 100}, {"name": "v2", "weight": 0}],
    "overrides": [
        {"header": {"name": "x-canary", "value": "always"}, "variant": "v2"},
        {"header": {"name": "x-canary", "value": "never"}, "variant": "v1"},
        {"header": {"name": "x-region", "type": "RegularExpression", "value": "eu-.*"}, "variant": "v2"},
        {"cookie": {"name": "canary", "type": "In", "values": ["always", "yes"]}, "variant": "v2"},
    ]}));
    for (headers, expected, reason) in [
        (json!([]), "v1", None),
        (json!([["x-canary", "always"]]), "v2", Some("override")),
        (json!([["x-canary", "Always"]]), "v1", None),
        (json!([["x-canary", "never"], ["cookie", "canary=always"]]), "v1", Some("override")),
        (json!([["x-canary", "other"], ["cookie", "canary=yes"]]), "v2", Some("override")),
        (json!([["x-region", "eu-west"]]), "v2", Some("override")),
        (json!([["x-region", "us-west"]]), "v1", None),
    ] {
        let decision = ask(&policy, &mut world(), json!({"headers": headers}));
        assert_eq!((decision.variant.as_deref(), decision.reason), (Some(expected), reason), "{headers}");
    }
}

#[test]
fn a_new_user_gets_a_random_id_and_keeps_its_variant_with_it() {
    let policy = policy(json!({"stickiness": {"cookie": {"name": "id", "maxAge": "1h", "path": "/shop"}}}));
    let mut world = world();
    let mut seen = std::collections::HashSet::new();
    for scheme in ["http", "https"].repeat(20) {
        let first = ask(&policy, &mut world, json!({"scheme": scheme}));
        let [(name, value)] = &first.response_headers[..] else { panic!("{first:?}") };
        assert_eq!(name, "set-cookie");
        let (id, attributes) = value.strip_prefix("id=").unwrap().split_once("; ").unwrap();
        let secure = if scheme == "https" { "; Secure" } else { "" };
        assert_eq!(attributes, format!("Path=/shop; Max-Age=3600; HttpOnly; SameSite=Lax{secure}"));
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
        assert!(seen.insert(id.to_owned()));
        let next = ask(&policy, &mut world, header("cookie", &format!("a=b; id={id}")));
        assert_eq!(next.variant, first.variant);
        assert!(next.response_headers.is_empty());
    }
    // Empty is missing.
    assert_eq!(ask(&policy, &mut world, header("cookie", "id=")).response_headers.len(), 1);
    // Whoever is told where to go needs no id.
    let policy = self::policy(json!({"stickiness": {"cookie": {"name": "id"}},
        "overrides": [{"cookie": {"name": "canary", "value": "never"}, "variant": "v1"}]}));
    assert!(ask(&policy, &mut world, header("cookie", "canary=never")).response_headers.is_empty());
}

#[test]
fn an_address_is_the_clients_and_cannot_be_spoofed() {
    let canaries = json!([canary(json!({"stickiness": {"sourceAddress": {}}}))]);
    let policy = suite(json!({"settings": {"sourceAddress": {"trustedHops": 1}}, "canaries": canaries}));
    let from = |peer: String, forwarded: String| {
        variant(&policy, json!({"sourceAddress": peer, "headers": [["x-forwarded-for", forwarded]]})).unwrap()
    };
    for i in 0..250 {
        let client = format!("192.0.2.{i}");
        let expected = variant_of(&policy, &[192, 0, 2, i]);
        assert_eq!(from("10.0.0.1".into(), client.clone()), expected);
        assert_eq!(from("10.0.0.2".into(), format!("198.51.100.7, {client}")), expected);
        assert_eq!(from(format!("::ffff:{client}"), String::new()), expected);
    }
}

#[test]
fn a_peer_keeps_its_variant() {
    let policy = policy(json!({"stickiness": {"peer": {}}}));
    for i in 0..50 {
        let peer = json!({"peer": format!("spiffe://cluster.local/ns/a/sa/{i}")});
        let header =
            variant(&self::policy(json!({"stickiness": {"header": "x"}})), header("x", peer["peer"].as_str().unwrap()));
        assert_eq!(variant(&policy, peer), header);
    }
}

#[test]
fn the_first_canary_that_matches_decides_after_rules_and_before_the_default() {
    let only = |name: &str, matches: Value, variant: &str| json!({"name": name, "matches": matches, "variants": [{"name": variant, "weight": 1}]});
    let policy = suite(json!({
    "routes": {"default": "stable", "rules": [
        {"name": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}], "route": "beta"}]},
    "canaries": [
        only("cart", json!([{"path": {"type": "PathPrefix", "value": "/cart"}}]), "cart-v2"),
        only("both", json!([{"path": {"type": "PathPrefix", "value": "/cart"}},
            {"path": {"type": "PathPrefix", "value": "/pay"}}]), "pay-v2"),
    ]}));
    for (path, group, route, section) in [
        ("/cart/1", "", "cart-v2", Some("canaries")),
        ("/pay", "", "pay-v2", Some("canaries")),
        ("/pay", "beta", "beta", Some("routes")),
        ("/", "", "stable", None),
    ] {
        let decision = ask(&policy, &mut world(), json!({"path": path, "headers": [["x-group", group]]}));
        assert_eq!((decision.route.as_deref(), decision.section), (Some(route), section), "{path} {group}");
    }
}

#[test]
fn a_client_cannot_choose_the_route() {
    let policy = policy(json!({"matches": [{"method": "POST"}]}));
    let decision = ask(&policy, &mut world(), header("x-penstock-route", "v2"));
    assert_eq!((decision.route, decision.headers.remove), (None, vec!["x-penstock-route".to_owned()]));
}

#[test]
fn a_ramp_follows_the_clock_to_the_nanosecond() {
    let policy = policy(json!({
        "stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": 30}, {"name": "v2", "weight": 7}, {"name": "v3", "weight": 10}],
        "ramp": {"variant": "v2", "startsAt": "2024-02-28T23:55:00Z",
            "steps": [{"weight": 5, "for": "10m"}, {"weight": 25, "for": "24h"}, {"weight": 100}]}}));
    let canary = policy.canaries().unwrap().iter().next().unwrap();
    let weights = |time: &str| canary.weights_at(Timestamp::parse(time).unwrap()).map(|(_, w)| w).collect::<Vec<_>>();
    for (time, percent) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-02-28T23:54:59.999999999Z", 0),
        ("2024-02-28T23:55:00Z", 5),
        ("2024-02-29T00:04:59.999999999Z", 5),
        ("2024-02-29T01:05:00+01:00", 25),
        ("2024-03-01T00:04:59.999999999Z", 25),
        ("2024-03-01T00:05:00Z", 100),
        ("2500-01-01T00:00:00Z", 100),
    ] {
        let [v1, v2, v3] = weights(time)[..] else { panic!() };
        assert_eq!(v2 * 100, percent * (v1 + v2 + v3), "{time}");
        assert_eq!(v1, 3 * v3, "{time}: the others keep their proportions");
    }
    let at = |time: &str, user: &str| variant(&policy, json!({"time": time, "headers": [["x-user", user]]})).unwrap();
    for i in 0..200 {
        let user = i.to_string();
        let [before, during, later, after] =
            ["2024-02-28T23:00:00Z", "2024-02-29T00:00:00Z", "2024-02-29T12:00:00Z", "2024-03-02T00:00:00Z"]
                .map(|time| at(time, &user));
        assert_ne!(before, "v2");
        assert!(during == before || during == "v2");
        assert!(later == during || later == "v2");
        assert_eq!(after, "v2");
    }
}

#[test]
fn a_ramp_that_never_ends_in_time_is_harmless() {
    let policy = policy(json!({"ramp": {"variant": "v2", "startsAt": "2554-01-01T00:00:00Z",
        "steps": [{"weight": 1, "for": "99999h99999h99999h99999h"}, {"weight": 100, "for": "1s"}]}}));
    let canary = policy.canaries().unwrap().iter().next().unwrap();
    let weights = canary.weights_at(Timestamp(u64::MAX - 1)).map(|(_, weight)| weight).collect::<Vec<_>>();
    assert_eq!(weights, [99 * 90, 90]);
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_remedy() {
    for (fields, expected) in [
        (json!({"variants": []}), "canaries[0].variants: is empty; give at least one variant"),
        (
            json!({"variants": [{"name": "v1", "weight": 1}, {"name": "v1", "weight": 2}]}),
            "canaries[0].variants[1].name: \"v1\": is already the name of canaries[0].variants[0]; name one of them differently",
        ),
        (
            json!({"variants": [{"name": "v1", "weight": 0}]}),
            "canaries[0].variants: have weights that sum to zero: nobody could be served; give at least one of them a weight of 1 or more",
        ),
        (
            json!({"variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 5}],
                "ramp": {"variant": "v2", "startsAt": "2026-01-01T00:00:00Z", "steps": [{"weight": 100}]}}),
            "canaries[0].variants: have no weight but that of `v2`: nobody could be served before the ramp begins; give at least one of them a weight of 1 or more",
        ),
        (
            json!({"variants": [{"name": "v1", "weight": 1_000_001}]}),
            "canaries[0].variants[0].weight: 1000001: is out of range; write a whole number from 0 to 1000000",
        ),
        (
            json!({"variants": [{"name": "v 1", "weight": 1}]}),
            "canaries[0].variants[0].name: \"v 1\": is not a route name; it becomes a header value: use 1 to 253 visible ASCII characters, no spaces",
        ),
        (
            json!({"overrides": [{"header": {"name": "x", "value": "y"}, "variant": "v3"}]}),
            "canaries[0].overrides[0].variant: \"v3\": is not the name of a variant; expected one of: v1, v2; did you mean `v1`?",
        ),
        (json!({"overrides": [{"variant": "v1"}]}), "canaries[0].overrides[0]: needs one of: header, cookie"),
        (
            json!({"overrides": [{"variant": "v1", "header": {"name": "x", "value": "y"}, "cookie": {"name": "x", "value": "y"}}]}),
            "canaries[0].overrides[0]: has both `header` and `cookie`; keep one",
        ),
        (
            json!({"stickiness": {}}),
            "canaries[0].stickiness: {}: is empty; give one of: header, cookie, sourceAddress, peer, claim, metadata",
        ),
        (
            json!({"stickiness": {"header": "x", "peer": {}}}),
            "canaries[0].stickiness: has both `header` and `peer`; keep one",
        ),
        (
            json!({"stickiness": {"peer": {"a": 1}}}),
            "canaries[0].stickiness.peer.a: unknown field `a`; this object has no fields: write {}",
        ),
        (
            json!({"stickiness": "x"}),
            "canaries[0].stickiness: \"x\": is a string, expected an object with one of: header, cookie, sourceAddress, peer, claim, metadata",
        ),
        (
            json!({"stickiness": {"header": "x-penstock-route"}}),
            "canaries[0].stickiness.header: \"x-penstock-route\": cannot be named here; it is the route header, which only penstock writes: use `route` or `settings.routeHeader`",
        ),
        (
            json!({"stickiness": {"cookie": {"name": "a b"}}}),
            "canaries[0].stickiness.cookie.name: \"a b\": is not a cookie's name; use letters, digits and !#$%&'*+-.^_`|~, at most 256 of them",
        ),
        (
            json!({"stickiness": {"cookie": {"name": "a", "maxAge": "1s1ms"}}}),
            "canaries[0].stickiness.cookie.maxAge: \"1s1ms\": is not a whole number of seconds; a cookie's lifetime is in seconds: write 1s or more",
        ),
        (
            json!({"stickiness": {"cookie": {"name": "a", "path": "/;Domain=x"}}}),
            "canaries[0].stickiness.cookie.path: \"/;Domain=x\": is not a cookie's path; begin with `/` and use visible ASCII without `;`",
        ),
        (
            json!({"ramp": {"variant": "v2", "startsAt": "2026-01-01T00:00:00Z", "steps": []}}),
            "canaries[0].ramp.steps: []: is empty; give at least one entry, or leave the field out",
        ),
        (
            json!({"ramp": {"variant": "v2", "startsAt": "2026-01-01T00:00:00Z", "steps": [{"weight": 5}, {"weight": 101}]}}),
            "canaries[0].ramp.steps[1].weight: 101: is out of range; write a whole number from 0 to 100",
        ),
        (
            json!({"ramp": {"variant": "v2", "startsAt": "2026-01-01T00:00:00Z", "steps": [{"weight": 5}, {"weight": 10}]}}),
            "canaries[0].ramp.steps[0].for: is required; only the last step has no end: give this one a duration such as 10m",
        ),
        (
            json!({"ramp": {"variant": "w", "startsAt": "2026-01-01T00:00:00Z", "steps": [{"weight": 5}]}}),
            "canaries[0].ramp.variant: \"w\": is not the name of a variant; expected one of: v1, v2",
        ),
        (json!({"matches": []}), "canaries[0].matches: []: is empty; give at least one entry, or leave the field out"),
        (
            json!({"sticky": {}}),
            "canaries[0].sticky: unknown field `sticky`; expected one of: name, matches, salt, stickiness, overrides, variants, ramp, rollback",
        ),
    ] {
        assert_eq!(errors(json!([canary(fields.clone())])), [expected], "{fields}");
    }
    let twice = errors(json!([canary(json!({})), canary(json!({}))]));
    assert_eq!(twice, ["canaries[1].name: \"shop\": is already the name of canaries[0]; name one of them differently"]);
}

#[test]
fn behind_a_header_routing_module_rules_win_and_defaults_give_way() {
    let document = json!({"canaries": [{"name": "shop", "matches": [{"method": "GET"}],
        "variants": [{"name": "v2", "weight": 1}]}]});
    let policy = Policy::<crate::module::Canary>::from_json(document.to_string().as_bytes()).unwrap();
    for (method, sent, left, expected) in [
        ("GET", Some("beta"), Some(&b"rule beta"[..]), "kept"),
        ("GET", Some("stable"), Some(b"default stable"), "v2"),
        ("POST", Some("stable"), Some(b"default stable"), "kept"),
        // Whoever lies about the route, or was not there.
        ("GET", Some("beta"), None, "v2"),
        ("GET", Some("beta"), Some(b"rule other"), "v2"),
        ("POST", Some("beta"), Some(b"rule bet"), "removed"),
        ("POST", Some("beta"), Some(b"beta"), "removed"),
        ("POST", None, Some(b"rule beta"), "kept"),
    ] {
        let mut map: Vec<crate::Header<'_>> = vec![(b":method", method.as_bytes())];
        map.extend(sent.map(|route| (&b"x-penstock-route"[..], route.as_bytes())));
        let request = crate::Request::new(&map);
        let decision = policy
            .decide(
                &request,
                &mut FixedEnvironment { earlier_route: left.map(<[u8]>::to_vec), ..FixedEnvironment::default() },
            )
            .unwrap();
        let done = match &decision.headers[..] {
            [] => "kept",
            [crate::HeaderOp::Remove(_)] => "removed",
            [crate::HeaderOp::Set(_, value)] => std::str::from_utf8(value).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(done, expected, "{method} {sent:?} {left:?}");
    }
}

#[test]
fn of_several_sources_the_first_that_the_request_has_counts() {
    let canary = |stickiness: &str| {
        format!(
            r#"{{"canaries":[{{"name":"c","stickiness":{stickiness},"variants":[{{"name":"v1","weight":1}},{{"name":"v2","weight":1}}]}}]}}"#
        )
    };
    let policy = |stickiness: &str| -> Policy { Policy::from_json(canary(stickiness).as_bytes()).unwrap() };
    let list =
        policy(r#"[{"header":"x-user-id"},{"cookie":{"name":"other"}},{"cookie":{"name":"id","sameSite":"Strict"}}]"#);
    let by_header = policy(r#"{"header":"x-user-id"}"#);
    let mut world = World::new(Timestamp(0), 1);
    let mut decide = |policy: &Policy, headers: &[(&str, &str)]| {
        let request = serde_json::json!({"method": "GET", "authority": "a", "path": "/", "headers": headers});
        serde_json::from_value::<WireRequest>(request).unwrap().decide(policy, &mut world)
    };
    for user in 0..50 {
        let user = user.to_string();
        let expected = decide(&by_header, &[("x-user-id", &user)]).variant;
        for headers in [
            &[("x-user-id", user.as_str()), ("cookie", "id=a; other=b")][..],
            &[("x-user-id", ""), ("cookie", &format!("other={user}; id=7"))],
            &[("cookie", &format!("other=; id={user}"))],
        ] {
            let decision = decide(&list, headers);
            assert_eq!(decision.variant, expected, "{headers:?}");
            assert!(decision.response_headers.is_empty(), "{headers:?}");
        }
    }
    let new = decide(&list, &[]).response_headers;
    assert!(new[0].1.starts_with("id=") && new[0].1.ends_with("; HttpOnly; SameSite=Strict"), "{new:?}");
    let none = policy(r#"[{"cookie":{"name":"id","sameSite":"None"}}]"#);
    let new = decide(&none, &[]).response_headers;
    assert!(new[0].1.ends_with("; HttpOnly; SameSite=None; Secure"), "{new:?}");
    let no_cookie_last = policy(r#"[{"cookie":{"name":"id"}},{"peer":{}}]"#);
    assert!(decide(&no_cookie_last, &[]).response_headers.is_empty(), "a cookie is made only by the last source");
    for (stickiness, expected) in [
        ("[]", "canaries[0].stickiness: []: is empty"),
        (r#"[{"header":"a","peer":{}}]"#, "canaries[0].stickiness[0]: has both `header` and `peer`"),
        ("\"header\"", "canaries[0].stickiness: \"header\": is a string, expected an object with one of"),
    ] {
        let found = Policy::<crate::module::Suite>::from_json(canary(stickiness).as_bytes()).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{found}");
    }
}
