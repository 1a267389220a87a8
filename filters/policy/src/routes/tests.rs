use super::*;
use crate::Policy;
use crate::decision::HeaderOp;
use crate::module::{HeaderRouting, Suite};
use crate::{Decision, FixedEnvironment};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The request `METHOD authority path` with `headers`, decided by the routes section `json`.
fn decide(json: &str, line: &str, headers: &[(&str, &str)]) -> (Option<String>, Option<String>, Vec<String>) {
    let policy = Policy::<HeaderRouting>::from_json(format!(r#"{{"routes":{json}}}"#).as_bytes()).unwrap();
    let mut parts = line.split(' ');
    let mut part = || parts.next().unwrap().as_bytes();
    let mut map = vec![(&b":method"[..], part()), (b":authority", part()), (b":path", part())];
    map.extend(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let request = Request::new(&map);
    let decision = decide_alone(&policy, &request);
    let ops = decision.headers.iter().map(|op| match op {
        HeaderOp::Set(name, value) => format!("set {name}={}", String::from_utf8_lossy(value)),
        HeaderOp::Add(name, value) => format!("add {name}={}", String::from_utf8_lossy(value)),
        HeaderOp::Remove(name) => format!("remove {name}"),
    });
    (decision.route.map(str::to_owned), decision.rule.map(str::to_owned), ops.collect())
}

fn route(json: &str, line: &str, headers: &[(&str, &str)]) -> Option<String> {
    decide(json, line, headers).0
}

fn decide_alone<'a, M: crate::Runs>(policy: &'a Policy<M>, request: &Request<'a>) -> Decision<'a> {
    policy.decide(request, &mut FixedEnvironment::default()).unwrap()
}

fn errors(json: &str) -> Vec<String> {
    match Policy::<Suite>::from_json(format!(r#"{{"routes":{json}}}"#).as_bytes()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_first_rule_that_matches_wins_and_the_default_catches_the_rest() {
    let json = r#"{"default":"stable","rules":[
        {"name":"a","route":"a","matches":[{"path":{"value":"/x"}},{"headers":[{"name":"X-A","value":"1"}]}]},
        {"name":"b","route":"b","matches":[{"path":{"value":"/"},"headers":[{"name":"x-b","type":"Present"}]}]}]}"#;
    assert_eq!(route(json, "GET h /x/y", &[("x-b", "")]).as_deref(), Some("a"));
    assert_eq!(route(json, "GET h /", &[("x-a", "1"), ("x-b", "")]).as_deref(), Some("a"));
    assert_eq!(route(json, "GET h /", &[("x-b", "")]).as_deref(), Some("b"));
    let (route, rule, ops) = decide(json, "GET h /", &[]);
    assert_eq!((route.as_deref(), rule), (Some("stable"), None));
    assert_eq!(ops, ["set x-penstock-route=stable"]);
}

/// A budget: each fact of the environment is a call of the proxy.
#[test]
fn routes_need_nothing_but_the_request() {
    let json = r#"{"routes":{"default":"d","rules":[
        {"name":"a","route":"a","timeout":"1s","retries":{"attempts":1,"on":["5xx"]},
            "requestHeaders":{"set":[{"name":"x-a","value":"1"}]},"rewrite":{"hostname":"b.test"},
            "matches":[{"method":"PUT","hostnames":["*.test"],"path":{"type":"RegularExpression","value":"/a.*"},
                "headers":[{"name":"x","value":"1"}],"cookies":[{"name":"c","value":"1"}],
                "queryParams":[{"name":"q","value":"1"}]}]},
        {"name":"b","redirect":{"scheme":"https"},"matches":[{"path":{"value":"/b"}}]}]}}"#;
    let policy = Policy::<HeaderRouting>::from_json(json.as_bytes()).unwrap();
    for (method, path, rule) in [("PUT", "/ax?q=1", Some("a")), ("GET", "/b", Some("b")), ("GET", "/", None)] {
        let map = [(":method", method), (":authority", "a.test"), (":path", path), ("x", "1"), ("cookie", "c=1")];
        let map = map.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut environment = FixedEnvironment::default();
        assert_eq!(policy.decide(&Request::new(&map), &mut environment).unwrap().rule, rule);
        assert_eq!(environment.asked, 0, "{path}");
    }
}

#[test]
fn a_rule_without_matches_takes_every_request() {
    let json = r#"{"rules":[{"name":"all","route":"r"}]}"#;
    assert_eq!(route(json, "CONNECT h:443 ", &[]).as_deref(), Some("r"));
    assert_eq!(route(json, "OPTIONS h *", &[]).as_deref(), Some("r"));
}

#[test]
fn an_inbound_route_header_is_removed_and_never_seen() {
    let json = r#"{"rules":[{"name":"a","route":"a","matches":[{"path":{"value":"/a"}}]}]}"#;
    let spoofed = [("x-penstock-route", "a"), ("x-penstock-route", "b")];
    assert_eq!(decide(json, "GET h /", &spoofed), (None, None, vec!["remove x-penstock-route".into()]));
    assert_eq!(decide(json, "GET h /a", &spoofed).2, ["set x-penstock-route=a"]);
    assert_eq!(decide(json, "GET h /", &[]).2, [] as [&str; 0]);
    let matching =
        r#"{"rules":[{"name":"a","route":"a","matches":[{"headers":[{"name":"X-Penstock-Route","value":"a"}]}]}]}"#;
    assert!(errors(matching)[0].contains("it is the route header"), "{:?}", errors(matching));
}

#[test]
fn the_gateway_api_prefers_the_more_specific_entry() {
    let rule = |name: &str, entry: &str| format!(r#"{{"name":"{name}","route":"{name}","matches":[{entry}]}}"#);
    let rules = [
        rule("prefix-short", r#"{"path":{"value":"/a"},"method":"GET","headers":[{"name":"x","value":"1"}]}"#),
        rule("regex", r#"{"path":{"type":"RegularExpression","value":"/a/b/c/.*"}}"#),
        rule(
            "two-headers",
            r#"{"path":{"value":"/a/b"},"headers":[{"name":"x","value":"1"},{"name":"y","value":"1"}]}"#,
        ),
        rule("method", r#"{"path":{"value":"/a/b"},"method":"GET"}"#),
        rule("one-header", r#"{"path":{"value":"/a/b/"},"headers":[{"name":"x","value":"1"}]}"#),
        rule("query", r#"{"path":{"value":"/a/b"},"queryParams":[{"name":"q","value":"1"}]}"#),
        rule("first-equal", r#"{"path":{"value":"/q"}}"#),
        rule("second-equal", r#"{"path":{"value":"/q"}}"#),
        rule("exact", r#"{"path":{"type":"Exact","value":"/a/b"}}"#),
    ];
    let json = format!(r#"{{"precedence":"GatewayAPI","rules":[{}]}}"#, rules.join(","));
    for (line, headers, expected) in [
        ("GET h /a/b?q=1", &[("x", "1"), ("y", "1")][..], "exact"),
        ("GET h /a/b/c?q=1", &[("x", "1"), ("y", "1")], "method"),
        ("POST h /a/b/c?q=1", &[("x", "1"), ("y", "1")], "two-headers"),
        ("POST h /a/b/c?q=1", &[("x", "1")], "one-header"),
        ("POST h /a/b/c?q=1", &[], "query"),
        ("GET h /a/b/c/d", &[("x", "1")], "regex"),
        ("GET h /a/c", &[("x", "1")], "prefix-short"),
        ("GET h /q", &[], "first-equal"),
    ] {
        assert_eq!(route(&json, line, headers).as_deref(), Some(expected), "{line} {headers:?}");
    }
}

#[test]
fn the_gateway_api_prefers_the_more_specific_host_before_anything_else() {
    let json = r#"{"precedence":"GatewayAPI","default":"none","rules":[
        {"name":"any","route":"any","matches":[{"path":{"type":"Exact","value":"/login"},"method":"GET"}]},
        {"name":"short","route":"short","matches":[{"hostnames":["*.test"],"path":{"type":"Exact","value":"/login"}}]},
        {"name":"long","route":"long","matches":[{"hostnames":["*.b.test"]}]},
        {"name":"both","route":"both","matches":[{"hostnames":["a.b.test","*.c.test"],"path":{"value":"/x"}}]},
        {"name":"one","route":"one","matches":[{"hostnames":["a.b.test"]}]},
        {"name":"star","route":"star","matches":[{"hostnames":["*.x.c.test"]}]}
    ]}"#;
    for (line, expected) in [
        ("GET a.b.test /login", "one"),
        ("GET a.b.test /x", "both"),
        ("GET z.b.test /login", "long"),
        ("GET z.test /login", "short"),
        ("GET z.test /", "none"),
        ("GET z.other /login", "any"),
        ("GET y.c.test /x", "both"),
        ("GET y.x.c.test /x", "star"),
    ] {
        assert_eq!(route(json, line, &[]).as_deref(), Some(expected), "{line}");
    }
}

#[test]
fn header_changes_come_in_the_order_remove_set_add() {
    let json = r#"{"rules":[{"name":"a","route":"a","timeout":"2s",
        "requestHeaders":{"add":[{"name":"X-Add","value":"1"}],"set":[{"name":"X-Set","value":"2"}],"remove":["X-Gone"]},
        "retries":{"attempts":2,"on":["5xx","reset",503,"unavailable"],"perTryTimeout":"250ms"}}]}"#;
    assert_eq!(
        decide(json, "GET h /", &[]).2,
        [
            "remove x-gone",
            "set x-set=2",
            "add x-add=1",
            "set x-envoy-upstream-rq-timeout-ms=2000",
            "set x-envoy-retriable-status-codes=503",
            "set x-envoy-retry-on=5xx,reset,retriable-status-codes",
            "set x-envoy-retry-grpc-on=unavailable",
            "set x-envoy-max-retries=2",
            "set x-envoy-upstream-rq-per-try-timeout-ms=250",
            "set x-penstock-route=a",
        ]
    );
}

#[test]
fn a_replaced_prefix_follows_the_table_of_the_gateway_api() {
    for (prefix, value, path, expected) in [
        ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz", "/foo", "/xyz"),
        ("/foo", "/xyz", "/foo/", "/xyz/"),
        ("/foo", "", "/foo/bar", "/bar"),
        ("/foo", "", "/foo/", "/"),
        ("/foo", "", "/foo", "/"),
        ("/foo", "/", "/foo/", "/"),
        ("/foo", "/", "/foo", "/"),
        ("/foo", "/xyz", "/foo?q=/foo", "/xyz?q=/foo"),
        ("/foo", "/", "/foo?q", "/?q"),
        ("/", "/v2", "/x?y=z", "/v2/x?y=z"),
    ] {
        let json = format!(
            r#"{{"rules":[{{"name":"a","route":"a","matches":[{{"path":{{"value":"{prefix}"}}}}],
                "rewrite":{{"path":{{"type":"ReplacePrefixMatch","value":"{value}"}}}}}}]}}"#
        );
        let ops = decide(&json, &format!("GET h {path}"), &[]).2;
        assert_eq!(ops[0], format!("set :path={expected}"), "{prefix} {value} {path}");
    }
}

#[test]
fn the_prefix_replaced_is_that_of_the_entry_that_matched() {
    let json = r#"{"rules":[{"name":"a","route":"a","rewrite":{"path":{"type":"ReplacePrefixMatch","value":"/n"}},
        "matches":[{"path":{"value":"/a/b"}},{"path":{"value":"/a"}}]}]}"#;
    assert_eq!(decide(json, "GET h /a/b/c", &[]).2[0], "set :path=/n/c");
    assert_eq!(decide(json, "GET h /a/c", &[]).2[0], "set :path=/n/c");
}

#[test]
fn the_full_path_is_replaced_and_the_query_stays() {
    let json = r#"{"rules":[{"name":"a","route":"a",
        "rewrite":{"path":{"type":"ReplaceFullPath","value":"/v2/"},"hostname":"v2.internal"}}]}"#;
    assert_eq!(decide(json, "GET h /x?a=b", &[]).2[..2], ["set :path=/v2/?a=b", "set :authority=v2.internal"]);
    assert_eq!(decide(json, "OPTIONS h *", &[]).2[0], "set :authority=v2.internal", "a `*` has no path to replace");
}

#[test]
fn the_route_header_can_have_another_name() {
    let policy = br#"{"settings":{"routeHeader":"X-My-Route"},"routes":{"default":"r"}}"#;
    let policy = Policy::<HeaderRouting>::from_json(policy).unwrap();
    let map = [(&b":path"[..], &b"/"[..]), (b"x-my-route", b"spoofed")];
    let decision = decide_alone(&policy, &Request::new(&map));
    assert_eq!(decision.headers[0], HeaderOp::Set("x-my-route", b"r".into()));
}

fn location(redirect: &str, matches: &str, request: (&str, &str, &str)) -> String {
    let json = format!(r#"{{"routes":{{"rules":[{{"name":"r","matches":[{matches}],"redirect":{redirect}}}]}}}}"#);
    let policy: Policy = Policy::from_json(json.as_bytes()).unwrap();
    let (scheme, authority, path) = request;
    let map = [(":method", "GET"), (":scheme", scheme), (":authority", authority), (":path", path)];
    let map = map.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let decision = decide_alone(&policy, &Request::new(&map));
    let crate::Action::Respond(response) = &decision.action else { panic!("{decision:?}") };
    assert_eq!(response.headers[0].0, "location");
    assert!(decision.headers.is_empty() && decision.route.is_none(), "nothing is forwarded");
    format!("{} {}", response.status, String::from_utf8_lossy(&response.headers[0].1))
}

#[test]
fn a_redirect_replaces_the_parts_of_the_url_that_it_gives() {
    const PREFIX: &str = r#"{"path":{"value":"/old"}}"#;
    let replaced = |value: &str| format!(r#"{{"path":{{"type":"ReplacePrefixMatch","value":"{value}"}}}}"#);
    for (redirect, request, expected) in [
        (r#"{"scheme":"https","statusCode":301}"#, ("http", "a.test", "/old?q=1"), "301 https://a.test/old?q=1"),
        (r#"{"scheme":"https","statusCode":308}"#, ("http", "a.test:8080", "/old"), "308 https://a.test/old"),
        (r#"{"scheme":"http","statusCode":307}"#, ("https", "a.test:8443", "/old"), "307 http://a.test/old"),
        (r#"{"scheme":"https","port":8443}"#, ("http", "a.test:8080", "/old"), "302 https://a.test:8443/old"),
        (r#"{"scheme":"http","port":443}"#, ("http", "a.test", "/old"), "302 http://a.test:443/old"),
        (r#"{"port":443}"#, ("https", "a.test:8443", "/old"), "302 https://a.test/old"),
        (r#"{"port":80,"statusCode":303}"#, ("http", "a.test:8080", "/old"), "303 http://a.test/old"),
        (r#"{"hostname":"b.test"}"#, ("https", "a.test:8443", "/old/"), "302 https://b.test:8443/old/"),
        (r#"{"hostname":"b.test"}"#, ("https", "a.test:443", "/old"), "302 https://b.test/old"),
        (r#"{"hostname":"b.test"}"#, ("HTTPS", "a.test.", "/old"), "302 https://b.test/old"),
        (r#"{"port":8443}"#, ("https", "[2001:db8::1]:443", "/old"), "302 https://[2001:db8::1]:8443/old"),
        (r#"{"scheme":"https"}"#, ("http", "[2001:db8::1]", "/old"), "302 https://[2001:db8::1]/old"),
        (&replaced("/new"), ("https", "a.test", "/old/x/y?q=1"), "302 https://a.test/new/x/y?q=1"),
        (&replaced("/new/"), ("https", "a.test", "/old/x"), "302 https://a.test/new/x"),
        (&replaced("/"), ("https", "a.test", "/old/x"), "302 https://a.test/x"),
        (&replaced(""), ("https", "a.test", "/old?q"), "302 https://a.test/?q"),
        (&replaced("/"), ("https", "a.test", "/old//evil.test"), "302 https://a.test//evil.test"),
        (
            r#"{"path":{"type":"ReplaceFullPath","value":"/new"}}"#,
            ("http", "a.test:8080", "/old/x?q=1"),
            "302 http://a.test:8080/new?q=1",
        ),
        // HTTP/1.0 without a host: a reference to the same one.
        (&replaced("/new"), ("http", "", "/old/x"), "302 /new/x"),
    ] {
        assert_eq!(location(redirect, PREFIX, request), expected, "{redirect} {request:?}");
    }
    let any = r#"{"method":"GET"}"#;
    let options = ("http", "a.test", "*");
    assert_eq!(location(r#"{"scheme":"https"}"#, any, options), "302 https://a.test/");
}

#[test]
fn a_redirect_that_leaves_the_url_as_it_is_is_refused() {
    for (rule, is_refused) in [
        (r#""redirect":{}"#, true),
        (r#""redirect":{"statusCode":301}"#, true),
        (r#""redirect":{"hostname":"a.test"},"matches":[{"hostnames":["a.test"]}]"#, true),
        (r#""redirect":{"hostname":"a.test"},"matches":[{"hostnames":["b.test"]},{"hostnames":["a.test"]}]"#, true),
        (r#""redirect":{"hostname":"a.test"},"matches":[{"hostnames":["a.test","b.test"]}]"#, false),
        (r#""redirect":{"hostname":"a.test"},"matches":[{"path":{"value":"/"}}]"#, false),
        (r#""redirect":{"hostname":"a.test","scheme":"https"},"matches":[{"hostnames":["a.test"]}]"#, false),
        (r#""redirect":{"port":8443},"matches":[{"hostnames":["a.test"]}]"#, false),
        (
            r#""redirect":{"path":{"type":"ReplacePrefixMatch","value":"/a/"}},"matches":[{"path":{"value":"/a"}}]"#,
            true,
        ),
        (r#""redirect":{"path":{"type":"ReplacePrefixMatch","value":"/"}},"matches":[{"path":{"value":"/"}}]"#, true),
        (
            r#""redirect":{"path":{"type":"ReplacePrefixMatch","value":"/b"}},"matches":[{"path":{"value":"/a"}}]"#,
            false,
        ),
        (
            r#""redirect":{"path":{"type":"ReplaceFullPath","value":"/a"}},"matches":[{"path":{"type":"Exact","value":"/a"}}]"#,
            true,
        ),
        (
            r#""redirect":{"path":{"type":"ReplaceFullPath","value":"/a"}},"matches":[{"path":{"type":"Exact","value":"/b"}}]"#,
            false,
        ),
    ] {
        let json = format!(r#"{{"routes":{{"rules":[{{"name":"r",{rule}}}]}}}}"#);
        let found = Policy::<crate::module::Suite>::from_json(json.as_bytes()).map(|_| ()).map_err(|e| e.to_string());
        let refused = found.as_ref().err().is_some_and(|text| text.contains("back to itself"));
        assert_eq!((refused, found.is_err()), (is_refused, is_refused), "{rule}: {found:?}");
    }
}

#[test]
fn a_rules_changes_of_the_response_are_kept_for_it_or_put_into_the_redirect() {
    let changes = r#""responseHeaders":{"set":[{"name":"X-A","value":"1"}],"add":[{"name":"vary","value":"x"}],"remove":["x-b"]}"#;
    let decided = |to: &str, show: &dyn Fn(&crate::Decision<'_>)| {
        let json = format!(r#"{{"routes":{{"rules":[{{"name":"r",{to},{changes}}}]}}}}"#);
        let policy: Policy = Policy::from_json(json.as_bytes()).unwrap();
        let map = [(&b":path"[..], &b"/"[..]), (b":authority", b"a.test")];
        show(&decide_alone(&policy, &Request::new(&map)));
    };
    let written = |name: &'static str, value: &'static str| (name, std::borrow::Cow::Borrowed(value.as_bytes()));
    decided(r#""route":"a""#, &|decision| {
        let [vary, a] = [written("vary", "x"), written("x-a", "1")];
        let expected = [HeaderOp::Remove("x-b"), HeaderOp::Set(a.0, a.1), HeaderOp::Add(vary.0, vary.1)];
        assert_eq!(decision.response_changes, expected);
        assert!(decision.response_headers.is_empty());
    });
    decided(r#""redirect":{"scheme":"https"}"#, &|decision| {
        let crate::Action::Respond(response) = &decision.action else { panic!("{decision:?}") };
        assert_eq!(response.headers[1..], [written("x-a", "1"), written("vary", "x")]);
        assert!(decision.response_changes.is_empty());
    });
}

#[test]
fn mistakes_are_explained_with_path_and_remedy() {
    for (json, expected) in [
        (r#"{"rules":[{"name":"a"}]}"#, "routes.rules[0]: needs one of: route, canary, redirect"),
        (r#"{"rules":[{"name":"a","route":"x y"}]}"#, "routes.rules[0].route: \"x y\": is not a route name"),
        (r#"{"rules":[{"name":"a","route":"a","matches":[]}]}"#, "routes.rules[0].matches: []: is empty"),
        (r#"{"rules":[{"name":"a","route":"a","matches":[{}]}]}"#, "routes.rules[0].matches[0]: has no condition"),
        (r#"{"rules":[{"name":"a","route":"a","matches":null}]}"#, "routes.rules[0].matches: is null"),
        (
            r#"{"rules":[{"name":"a","route":"a"},{"name":"a","route":"b"}]}"#,
            "routes.rules[1].name: \"a\": is already the name of routes.rules[0]",
        ),
        (r#"{"rules":[{"name":"a","route":"a","matchs":[]}]}"#, "did you mean `matches`?"),
        (
            r#"{"precedence":"gatewayapi"}"#,
            "routes.precedence: \"gatewayapi\": unknown value; expected one of: FirstMatch, GatewayAPI; did you mean `GatewayAPI`?",
        ),
        (
            r#"{"rules":[{"name":"a","route":"a","timeout":"2x"}]}"#,
            "routes.rules[0].timeout: \"2x\": is not a duration",
        ),
        (r#"{"rules":[{"name":"a","route":"a","timeout":2}]}"#, "write 2s or 2ms"),
        (
            r#"{"rules":[{"name":"a","route":"a","retries":{"attempts":1,"retryOn":["5x"]}}]}"#,
            "routes.rules[0].retries.retryOn[0]: \"5x\": is not a retry condition; expected one of: a status code from 400 to 599, 5xx,",
        ),
        (r#"{"rules":[{"name":"a","route":"a","retries":{"attempts":1,"on":[]}}]}"#, "retries.on: []: is empty"),
        (
            r#"{"rules":[{"name":"a","route":"a","timeout":"1s","retries":{"attempts":1,"on":["5xx"],"perTryTimeout":"2s"}}]}"#,
            "routes.rules[0].retries.perTryTimeout: is longer than the timeout",
        ),
        (
            r#"{"rules":[{"name":"a","route":"a","rewrite":{"path":{"type":"ReplacePrefixMatch","value":"/x"}}}]}"#,
            "routes.rules[0].rewrite.path: ReplacePrefixMatch has no prefix to replace",
        ),
        (
            r#"{"rules":[{"name":"a","route":"a","rewrite":{"hostname":"*.x.test"}}]}"#,
            "rewrite.hostname: \"*.x.test\": has a star",
        ),
        (
            r#"{"rules":[{"name":"a","route":"a","requestHeaders":{"set":[{"name":"x","value":"1"}],"remove":["X"]}}]}"#,
            "routes.rules[0].requestHeaders.remove[0]: changes `x`, as set[0] does",
        ),
        (
            r#"{"rules":[{"name":"a","route":"a","requestHeaders":{"set":[{"name":":path","value":"/"}]}}]}"#,
            "requestHeaders.set[0].name: \":path\": cannot be used as a header",
        ),
        (r#"{"default":""}"#, "routes.default: \"\": is not a route name"),
    ] {
        let errors = errors(json);
        assert!(errors.iter().any(|error| error.contains(expected)), "{json}: {errors:?}");
        assert_eq!(errors.len(), 1, "{json}: {errors:?}");
    }
}

#[test]
fn every_mistake_of_a_document_is_reported_at_once() {
    let json = r#"{"defualt":"x","rules":[{"name":"a","route":"","timeout":"1"},{"nam":"b","route":"b"}]}"#;
    assert_eq!(errors(json).len(), 5, "{:?}", errors(json));
}

#[test]
fn each_rule_counts_what_it_took_and_the_default_the_rest() {
    let policy = |default: &str| {
        let json = format!(
            r#"{{"routes":{{{default}"rules":[{{"name":"b","matches":[{{"method":"PUT"}}],"route":"b"}}]}},
                "canaries":[{{"name":"c","matches":[{{"method":"POST"}}],"variants":[{{"name":"v","weight":1}}]}}]}}"#
        );
        Policy::<Suite>::from_json(json.as_bytes()).unwrap()
    };
    let counted = |policy: &Policy<Suite>, method: &str| {
        let map = [(&b":method"[..], method.as_bytes()), (b":authority", b"a.test"), (b":path", b"/")];
        let request = Request::new(&map);
        let mut world = crate::wire::World::new(crate::Timestamp(0), 1);
        let wire = r#"{"method":"GET","authority":"a","path":"/"}"#;
        let wire: crate::wire::WireRequest = serde_json::from_str(wire).unwrap();
        let decision = policy.decide(&request, &mut wire.environment(&mut world)).unwrap();
        let names = decision.counts.iter().map(|metric| policy.metrics().names()[metric.index()].to_string());
        names.collect::<Vec<_>>()
    };
    for default in ["", r#""default":"stable","#] {
        let policy = policy(default);
        assert_eq!(counted(&policy, "PUT"), ["penstock.requests_total.section.routes.rule.b.outcome.matched"]);
        assert_eq!(counted(&policy, "POST"), ["penstock.variant_requests_total.rule.c.variant.v"]);
        assert_eq!(counted(&policy, "GET"), ["penstock.requests_total.section.routes.rule._default.outcome.matched"]);
    }
}

#[test]
fn a_canonical_path_is_matched_and_the_received_one_forwarded() {
    let decide = |settings: &str, path: &str| {
        let policy = format!(
            r#"{{"settings": {{"path": "{settings}"}}, "routes": {{"rules": [
                {{"name": "login", "matches": [{{"path": {{"type": "Exact", "value": "/login"}}}}], "route": "login"}},
                {{"name": "api", "matches": [{{"path": {{"value": "/api"}}}}], "route": "api",
                    "rewrite": {{"path": {{"type": "ReplacePrefixMatch", "value": "/v2"}}}}}}
            ]}}}}"#
        );
        let policy: crate::Policy = crate::Policy::from_json(policy.as_bytes()).unwrap();
        let request = crate::wire::WireRequest {
            method: "GET".to_owned(),
            authority: "a.test".to_owned(),
            path: path.to_owned(),
            ..Default::default()
        };
        let decision = request.decide(&policy, &mut crate::wire::World::new(crate::Timestamp(0), 0));
        let target = decision.headers.set.into_iter().find(|(name, _)| name == ":path").map(|(_, value)| value);
        (decision.route, target)
    };
    for (path, route, target) in [
        ("/login", Some("login"), None),
        ("//x/..//%6cogin;v=1?a=1", Some("login"), None),
        ("/a%2fb/../login", None, None),
        ("/a\\b/../login", None, None),
        ("/API", None, None),
        ("/%61pi;v/x//y/../z?q=/../", Some("api"), Some("/v2/x/z?q=/../")),
        ("/x/../api?q", Some("api"), Some("/v2?q")),
        ("*", None, None),
    ] {
        let found = decide("Canonical", path);
        assert_eq!((found.0.as_deref(), found.1.as_deref()), (route, target), "{path}");
    }
    assert_eq!(decide("Received", "//login"), (None, None));
}
