//! Requests and responses on a proxy without failures.

use super::*;
use crate::MetricKind;

#[test]
fn a_client_never_chooses_the_route() {
    fresh();
    let plugin = configured(ROUTES);
    let forged = ("x-penstock-route", "beta");
    assert_eq!(request(&plugin, &[forged, forged]), Flow::Continue);
    assert!(route().is_empty());
    assert_eq!(request(&plugin, &[forged, ("x-user-group", "beta"), forged]), Flow::Continue);
    assert_eq!(route(), ["beta"]);
}

#[test]
fn what_decided_is_left_for_the_access_log_only_where_the_policy_asks_for_it() {
    let canary = r#""canaries":[{"name":"c","variants":[{"name":"v","weight":1}],
        "overrides":[{"header":{"name":"x-canary","value":"v"},"variant":"v"}]}]"#;
    for (settings, expected) in [
        ("", vec![]),
        (r#""settings":{"filterState":true},"#, vec![("rule", "canaries/c"), ("variant", "v"), ("reason", "override")]),
    ] {
        fresh();
        request(&configured(&format!("{{{settings}{canary}}}")), &[("x-canary", "v")]);
        let own = |(name, value): (&str, &str)| (format!("penstock.{name}"), value.to_owned());
        with(|proxy| assert_eq!(proxy.filter_state, expected.into_iter().map(own).collect::<Vec<_>>()));
    }
}

#[test]
fn what_egress_decided_is_left_for_the_access_log_only_where_the_policy_asks_for_it() {
    const ASKS: &str = r#""settings":{"filterState":true},"#;
    let denied = [("rule", "r"), ("outcome", "deny"), ("reason", "methodNotAllowed")];
    // The request is a GET.
    for (settings, allowed, expected) in
        [("", "GET", &[][..]), ("", "PUT", &[]), (ASKS, "GET", &denied[..1]), (ASKS, "PUT", &denied)]
    {
        fresh();
        let rule = format!(r#"{{"name":"r","to":[{{"host":"a.test"}}],"methods":["{allowed}"]}}"#);
        request(&configured(&format!(r#"{{{settings}"egress":{{"rules":[{rule}]}}}}"#)), &[]);
        let state: Vec<(String, String)> = with(|proxy| proxy.filter_state.clone());
        let state = state.iter().filter_map(|(name, value)| Some((name.strip_prefix("penstock.egress.")?, &**value)));
        assert_eq!(state.collect::<Vec<_>>(), expected, "{settings} {allowed}");
    }
}

#[test]
fn what_audit_held_back_is_logged_as_such_when_a_limit_refuses_the_request() {
    fresh();
    let plugin = configured(
        r#"{"settings":{"filterState":true},"egress":{"mode":"Audit","rules":[]},
        "rateLimits":[{"name":"l","key":[],"limit":{"requests":1,"per":"1h"}}]}"#,
    );
    assert_eq!(request(&plugin, &[]), Flow::Continue);
    with(|proxy| {
        proxy.log.clear();
        proxy.filter_state.clear();
    });
    assert_eq!(request(&plugin, &[]), Flow::Pause);
    with(|proxy| {
        let start = r#"{"egress":"audit","why":"hostNotAllowed","#;
        let lines = proxy.log.iter().filter(|(level, line)| *level == 2 && line.starts_with(start));
        assert_eq!(lines.count(), 1, "{:?}", proxy.log);
        let state =
            |name: &str| proxy.filter_state.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(state("penstock.egress.outcome"), Some("audit"));
        assert_eq!(state("penstock.egress.reason"), Some("hostNotAllowed"));
        assert_eq!(state("penstock.rule"), Some("rateLimits/l"));
        assert_eq!(state("penstock.heldBack"), Some("egress/- hostNotAllowed"));
    });
    plugin.tick();
    assert_eq!(metric("penstock.egress_reasons_total.reason.hostNotAllowed.outcome.audited"), Some(2));
    assert_eq!(metric("penstock.requests_total.section.rateLimits.rule.l.outcome.limited"), Some(1));
}

#[test]
fn what_the_log_takes_is_asked_once_a_second_and_not_with_each_request() {
    fresh();
    let plugin = configured(r#"{"egress":{"rules":[{"name":"r","to":[{"host":"a.test"}]}]}}"#);
    let lines = || {
        with(|proxy| proxy.log.clear());
        assert_eq!(request(&plugin, &[]), Flow::Continue);
        with(|proxy| proxy.log.clone())
    };
    assert!(lines().is_empty());
    with(|proxy| proxy.lowest_level = Some(1));
    assert!(lines().is_empty());
    plugin.tick();
    let [(1, line)] = &lines()[..] else { panic!("no line at debug level") };
    assert!(line.starts_with(r#"{"egress":"allow""#), "{line}");
    with(|proxy| proxy.lowest_level = None);
    plugin.tick();
    assert!(lines().is_empty());
}

#[test]
fn one_plugins_flood_of_refusals_silences_no_other() {
    fresh();
    let policy = r#"{"egress":{"rules":[{"name":"r","to":[{"host":"b.test"}]}]}}"#;
    let (flooded, other) = (configured(policy), configured(policy));
    for _ in 0..200 {
        assert_eq!(request(&flooded, &[]), Flow::Pause);
    }
    assert_eq!(with(|proxy| proxy.log.len()), 100);
    request(&other, &[]);
    assert_eq!(with(|proxy| proxy.log.len()), 101);
}

#[test]
fn headers_of_the_response_are_added_when_it_comes() {
    fresh();
    let plugin = configured(COOKIE);
    let set = |cookie: &[(&str, &str)]| {
        set_headers(cookie);
        let (flow, mut exchange) = Exchange::begin(&plugin);
        assert_eq!(flow, Flow::Continue);
        assert_eq!(with(|proxy| proxy.response_headers.len()), 0);
        exchange.response();
        // A second response, such as the one after 100 or 103, is not changed again.
        exchange.response();
        exchange.end();
        with(|proxy| std::mem::take(&mut proxy.response_headers))
    };
    let headers = set(&[]);
    assert_eq!((headers.len(), &headers[0].0[..]), (1, &b"set-cookie"[..]));
    assert!(headers[0].1.starts_with(b"id=04040404040404040404040404040404; "), "{headers:?}");
    assert_eq!(set(&[("cookie", "id=x")]), vec![]);
}

#[test]
fn a_reload_that_leaves_a_limit_as_it_was_keeps_what_was_taken() {
    fresh();
    with(|proxy| proxy.properties.push(("plugin_name", b"edge".to_vec())));
    request(&configured(LIMIT), &[]);
    let reloaded = configured(&LIMIT.replace("}]}", r#","response":{"status":420}}]}"#));
    assert_eq!((request(&reloaded, &[]), request(&reloaded, &[])), (Flow::Continue, Flow::Pause));
}

const FAILOVER: &str = r#"{"routes":{"rules":[{"name":"pay","route":"eu","failover":{"route":"us"}}]}}"#;

/// A whole exchange: the response has the status `status`, if there is one, and `flags` are its response flags. Returns
/// the route that the request took.
fn exchange(plugin: &Rc<TestPlugin>, status: Option<&str>, flags: u64) -> String {
    set_headers(&[]);
    with(|proxy| {
        proxy.response_headers =
            status.iter().map(|status| (b":status".to_vec(), status.as_bytes().to_vec())).collect();
        proxy.properties = vec![("response\0flags", flags.to_le_bytes().to_vec())];
    });
    let (flow, mut exchange) = Exchange::begin(plugin);
    assert_eq!(flow, Flow::Continue);
    if status.is_some() {
        exchange.response();
    }
    exchange.end();
    route().concat()
}

#[test]
fn upstreams_that_fail_are_left_and_clients_that_leave_are_no_failures() {
    const REMOTE_RESET: u64 = 1 << 4;
    const CLIENT_LEFT: u64 = 1 << 14;
    for (status, flags, fails) in [
        (Some("200"), 0, false),
        (Some("404"), 0, false),
        (Some("503"), 0, true),
        (Some("504"), 0, true),
        (Some("200"), REMOTE_RESET, true),
        (Some("200"), REMOTE_RESET | CLIENT_LEFT, false),
        (Some("200"), CLIENT_LEFT, false),
        (None, CLIENT_LEFT, false),
        (None, 0, false),
    ] {
        fresh();
        with(|proxy| proxy.time = 1_700_000_000_000_000_000);
        let plugin = configured(FAILOVER);
        for _ in 0..20 {
            assert_eq!(exchange(&plugin, status, flags), "eu", "{status:?} {flags:x}");
        }
        assert_eq!(exchange(&plugin, status, flags), if fails { "us" } else { "eu" }, "{status:?} {flags:x}");
        with(|proxy| {
            let lines = proxy.log.iter().filter(|(level, line)| *level == 3 && line.contains("all go to us")).count();
            assert_eq!(lines, usize::from(fails), "{:?}", proxy.log);
        });
    }
}

#[test]
fn counts_reach_the_proxy_once_a_second_and_at_the_end() {
    fresh();
    let plugin = configured(LIMIT);
    assert_eq!(with(|proxy| proxy.tick_period), 1000);
    for _ in 0..5 {
        request(&plugin, &[]);
    }
    assert!(counted().is_empty());
    plugin.tick();
    let counter =
        |outcome: &str, count| (format!("penstock.requests_total.section.rateLimits.rule.l.outcome.{outcome}"), count);
    assert_eq!(counted(), [counter("passed", 2), counter("limited", 3)]);
    plugin.tick();
    assert_eq!(counted(), [counter("passed", 2), counter("limited", 3)], "no count is written twice");
    request(&plugin, &[]);
    drop(plugin);
    assert_eq!(counted(), [counter("passed", 2), counter("limited", 4)]);
}

#[test]
fn a_count_that_the_proxy_does_not_take_is_counted_later() {
    fresh();
    let plugin = configured(LIMIT);
    request(&plugin, &[]);
    for broken in ["define_metric", "increment"] {
        with(|proxy| proxy.broken = vec![(broken, 10)]);
        plugin.tick();
    }
    with(|proxy| proxy.broken.clear());
    plugin.tick();
    assert_eq!(counted(), [("penstock.requests_total.section.rateLimits.rule.l.outcome.passed".to_owned(), 1)]);
}

#[test]
fn the_first_decision_after_a_tick_is_timed_and_no_other() {
    fresh();
    with(|proxy| proxy.properties.push(("plugin_name", b"edge".to_vec())));
    const HISTOGRAM: &str = "penstock.decision_duration_nanos.plugin.edge";
    let plugin = configured(ROUTES);
    request(&plugin, &[]);
    assert_eq!(metric(HISTOGRAM), None);
    plugin.tick();
    assert_eq!(request(&plugin, &[]), Flow::Continue);
    assert_eq!(metric(HISTOGRAM), Some(0));
    // A second sample would replace this value.
    with(|proxy| proxy.metrics.iter_mut().filter(|(name, _)| name == HISTOGRAM).for_each(|(_, value)| *value = -1));
    request(&plugin, &[]);
    assert_eq!(metric(HISTOGRAM), Some(-1));
    // If the clock or the histograms fail, everything else works.
    for broken in ["now", "define_metric", "record"] {
        plugin.tick();
        with(|proxy| proxy.broken = vec![(broken, 10)]);
        assert_eq!(request(&plugin, &[("x-user-group", "beta")]), Flow::Continue);
        with(|proxy| proxy.broken.clear());
    }
}

#[test]
fn gauges_are_written_when_they_change_by_one_worker() {
    fresh();
    with(|proxy| {
        proxy.time = 1_000_000_000;
        proxy.properties.push(("plugin_name", b"edge".to_vec()));
    });
    let policy = r#"{"canaries":[{"name":"c","variants":[{"name":"a","weight":3},{"name":"b","weight":1}],
        "ramp":{"variant":"b","startsAt":"1970-01-01T00:00:04Z","steps":[{"weight":50}]}}]}"#;
    let one = configured(policy);
    // Another worker has the same policy.
    with(|proxy| proxy.random = 1);
    let another = configured(policy);
    let written = |second: u64, plugins: &[&Rc<TestPlugin>]| {
        with(|proxy| {
            proxy.time = second * 1_000_000_000;
            proxy.calls.clear();
        });
        plugins.iter().for_each(|plugin| plugin.tick());
        calls_of("record")
    };
    assert_eq!((1..8).map(|second| written(second, &[&one, &another])).collect::<Vec<_>>(), [5, 0, 0, 2, 0, 0, 0]);
    assert_eq!(
        (metric("penstock.variant_weight.rule.c.variant.a"), metric("penstock.variant_weight.rule.c.variant.b")),
        (Some(500), Some(500))
    );
    assert_eq!(
        (
            metric("penstock.policy_generation.plugin.edge"),
            metric("penstock.policy_loaded_timestamp_seconds.plugin.edge")
        ),
        (Some(1), Some(1))
    );
    // The worker that wrote has ended: the other one takes over and writes all gauges again.
    assert_eq!((written(9, &[&another]), written(11, &[&another]), written(12, &[&another])), (0, 5, 0));
    // A gauge that could not be written is written at the next tick.
    with(|proxy| proxy.broken.push(("record", 10)));
    let reloaded = configured(r#"{"routes":{"default":"stable"}}"#);
    reloaded.tick();
    with(|proxy| proxy.broken.clear());
    reloaded.tick();
    assert_eq!(metric("penstock.policy_generation.plugin.edge"), Some(2));
}

#[test]
fn rules_that_end_are_checked_once_a_minute_and_announced_once_a_day_by_one_worker() {
    fresh();
    const DAY: u64 = 24 * 3600;
    const END: Option<i64> = Some(19 * DAY as i64);
    const EXPIRY: &str = "penstock.egress_next_expiry_timestamp_seconds.plugin.edge";
    let policy = r#"{"egress":{"rules":[{"name":"r","to":[{"host":"a.test"}],"expires":"1970-01-20T00:00:00Z"}]}}"#;
    let tick = |second: u64, plugin: &Rc<TestPlugin>| {
        with(|proxy| proxy.time = second * 1_000_000_000);
        plugin.tick();
        let warnings = with(|proxy| proxy.log.iter().filter(|(level, _)| *level == 3).count());
        (metric(EXPIRY), warnings)
    };
    with(|proxy| {
        proxy.time = DAY * 1_000_000_000;
        proxy.properties.push(("plugin_name", b"edge".to_vec()));
    });
    let (one, another) = (configured(policy), configured(policy));
    assert_eq!(tick(DAY, &one), (END, 0));
    assert_eq!(tick(17 * DAY, &one), (END, 1));
    assert_eq!(tick(17 * DAY, &another), (END, 1));
    assert_eq!(tick(18 * DAY, &another), (END, 2));
    assert_eq!(tick(18 * DAY, &one), (END, 2));
    with(|proxy| proxy.metrics.clear());
    assert_eq!(tick(18 * DAY + 30, &one), (None, 2));
    assert_eq!(tick(18 * DAY + 60, &one), (END, 3));
    assert_eq!(tick(19 * DAY, &one), (Some(0), 3));
}

#[test]
fn a_policy_that_is_in_use_again_says_at_once_when_its_rules_end() {
    fresh();
    const EXPIRY: &str = "penstock.egress_next_expiry_timestamp_seconds.plugin.edge";
    let rules = |end: &str| format!(r#"{{"egress":{{"rules":[{{"name":"r","to":[{{"host":"a.test"}}]{end}}}]}}}}"#);
    let tick = |second: u64, plugin: &Rc<TestPlugin>| {
        with(|proxy| proxy.time = second * 1_000_000_000);
        plugin.tick();
        metric(EXPIRY)
    };
    with(|proxy| proxy.properties.push(("plugin_name", b"edge".to_vec())));
    let ending = configured(&rules(r#","expires":"1970-01-20T00:00:00Z""#));
    let end = tick(1, &ending);
    assert_eq!(end, Some(19 * 24 * 3600));
    let endless = configured(&rules(""));
    assert_eq!(tick(2, &endless), Some(0));
    assert_eq!(tick(3, &ending), Some(0));
    drop(endless);
    // The first tick after the other policy's lease has expired takes over.
    tick(30, &ending);
    assert_eq!(tick(31, &ending), end);
}

#[test]
fn a_plugin_without_a_name_is_warned_of_where_it_has_state() {
    for (named, policy, expected) in [(false, LIMIT, 1), (true, LIMIT, 0), (false, ROUTES, 0)] {
        fresh();
        if named {
            with(|proxy| proxy.properties.push(("plugin_name", b"edge".to_vec())));
        }
        configured(policy);
        let warnings =
            with(|proxy| proxy.log.iter().filter(|(_, line)| line.contains("this plugin has no name")).count());
        assert_eq!(warnings, expected);
    }
}

#[test]
fn values_of_strangers_are_counted_and_told_once() {
    fresh();
    let plugin = configured(LIMIT);
    with(|proxy| proxy.foreign = 3);
    plugin.tick();
    plugin.tick();
    assert_eq!(metric("penstock.foreign_values_total"), Some(3));
    with(|proxy| {
        assert_eq!(
            proxy
                .log
                .iter()
                .filter(|(_, line)| line.contains("3 values") && line.contains("were not written by it"))
                .count(),
            1
        );
    });
}

#[test]
fn quota_headers_are_added_to_the_response() {
    fresh();
    let plugin = configured(&LIMIT.replace("}]}", r#","quotaHeaders":"IETF"}]}"#));
    set_headers(&[]);
    let (_, mut exchange) = Exchange::begin(&plugin);
    exchange.response();
    exchange.end();
    let names = with(|proxy| proxy.response_headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    assert_eq!(names, [&b"ratelimit-policy"[..], b"ratelimit"]);
}

#[test]
fn a_rules_changes_reach_the_response_once_and_a_redirect_is_answered() {
    fresh();
    let policy = r#"{"routes":{"rules":[
        {"name":"old","matches":[{"path":{"value":"/x"},"headers":[{"name":"x-old","type":"Present"}]}],
            "redirect":{"scheme":"https","statusCode":301},"responseHeaders":{"set":[{"name":"x-a","value":"2"}]}},
        {"name":"r","route":"a","responseHeaders":{
            "set":[{"name":"x-a","value":"1"}],"add":[{"name":"vary","value":"x"}],"remove":["x-b"]}}]}}"#;
    let plugin = configured(policy);
    set_headers(&[]);
    let (flow, mut exchange) = Exchange::begin(&plugin);
    assert_eq!(flow, Flow::Continue);
    with(|proxy| {
        let upstream = [("x-a", "0"), ("x-b", "0"), ("vary", "y")];
        proxy.response_headers = upstream.map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).to_vec();
    });
    for _ in 0..2 {
        exchange.response();
    }
    exchange.end();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = with(|proxy| std::mem::take(&mut proxy.response_headers));
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
    assert_eq!(headers, ["vary: y", "x-a: 1", "vary: x"]);

    assert_eq!(request(&plugin, &[("x-old", "1")]), Flow::Pause);
    let sent = with(|proxy| proxy.sent.take()).unwrap();
    assert_eq!((sent.status, sent.details.as_str()), (301, "penstock_routes"));
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(sent.headers, [own("location", "https://a.test/x?y"), own("x-a", "2")]);
}

#[test]
fn every_metric_that_a_plugin_writes_was_named_before() {
    fresh();
    with(|proxy| proxy.properties.push(("plugin_name", b"edge".to_vec())));
    let TestPlugin { plugin, gauges, .. } = &*configured(LIMIT);
    let names = plugin.metrics(&gauges.borrow());
    let has = |kind, name: &str| names.iter().any(|(found, text)| (*found, &**text) == (kind, name));
    for metric in plugin.policy().metrics().names() {
        assert!(has(MetricKind::Counter, &metric), "{metric}");
    }
    for name in ["noPolicy", "readHeaders", "environment", "writeHeaders", "respond", "continue", "panic", "settle"] {
        assert!(has(MetricKind::Counter, &format!("penstock.internal_errors_total.operation.{name}")), "{name}");
    }
    assert!(has(MetricKind::Gauge, "penstock.egress_next_expiry_timestamp_seconds.plugin.edge"));
    assert!(names.iter().any(|(kind, _)| *kind == MetricKind::Histogram));
}

/// A field of a protobuf message, shorter than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// An entry of a protobuf map, which is the first field of its message.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
}

#[test]
fn facts_are_asked_for_once_a_request_and_only_when_a_rule_or_a_key_needs_one() {
    fresh();
    let plugin = configured(
        r#"{"rateLimits":[
            {"name":"by-user","matches":[{"headers":[{"name":"x-at","value":"limited"}]}],"key":[{"claim":"sub"}],"limit":{"requests":9,"per":"1h"}}],
        "routes":{"rules":[
            {"name":"pro","matches":[{"headers":[{"name":"x-at","value":"app"}],"claims":[{"name":"tier","value":"pro"}]}],"route":"pro"},
            {"name":"team","matches":[{"headers":[{"name":"x-at","value":"app"}],"metadata":[{"namespace":"n","path":["team"],"value":"a"}]}],"route":"team"}]},
        "canaries":[{"name":"c","stickiness":{"claim":"sub"},"variants":[{"name":"v1","weight":1}],
            "matches":[{"headers":[{"name":"x-at","value":"limited"}]}]}]}"#,
    );
    let claims = [entry("tier", &field(3, b"pro")), entry("sub", &field(3, b"u-1"))].concat();
    let payload = entry("payload", &field(5, &claims));
    let metadata = entry("envoy.filters.http.jwt_authn", &payload);
    with(|proxy| proxy.properties.push(("metadata", metadata)));
    let asked = |at: &str| {
        with(|proxy| proxy.calls.clear());
        request(&plugin, &[("x-at", at)]);
        (route(), with(|proxy| proxy.calls.iter().filter(|call| **call == "facts").count()))
    };
    assert_eq!(asked("app"), (vec!["pro".to_owned()], 1));
    assert_eq!(asked("limited"), (vec!["v1".to_owned()], 1));
    assert_eq!(asked("other"), (vec![], 0), "no rule got as far as a claim");
    with(|proxy| proxy.properties.clear());
    assert_eq!(asked("app"), (vec![], 1), "no token, no claims");
}

#[test]
fn two_plugins_without_names_count_apart_unless_their_policies_are_the_same() {
    // The same limit of two requests in two policies.
    let other = LIMIT.replace("{\"rateLimits\"", "{\"routes\":{\"default\":\"r\"},\"rateLimits\"");
    let passed = |name: Option<&[u8]>, second: &str| {
        fresh();
        with(|proxy| proxy.properties.extend(name.map(|name| ("plugin_name", name.to_vec()))));
        let plugins = [configured(LIMIT), configured(second)];
        plugins.map(|plugin| (0..3).filter(|_| request(&plugin, &[]) == Flow::Continue).count())
    };
    assert_eq!(passed(None, &other), [2, 2]);
    assert_eq!(passed(None, LIMIT), [2, 0]);
    // With a name, what is counted stays when the policy changes.
    assert_eq!(passed(Some(b"edge"), &other), [2, 0]);
}

#[test]
fn a_policy_that_needs_what_the_platform_lacks_is_refused_with_the_reason() {
    const POLICIES: [(PolicyNeed, &str); 2] = [
        (
            PolicyNeed::Workload,
            r#"{"settings":{"identity":{"workload":{"trustDomain":"cluster.local"}}},"egress":{"rules":[]}}"#,
        ),
        (PolicyNeed::ServerName, r#"{"egress":{"verifySni":true,"rules":[]}}"#),
    ];
    fresh();
    for (lacking, _) in POLICIES {
        with(|proxy| proxy.lacks = vec![(lacking, "not here")]);
        for (need, policy) in POLICIES {
            with(|proxy| proxy.log.clear());
            assert_eq!(configure(policy).is_none(), need == lacking, "{policy} without {lacking:?}");
            let is_said = |line: &String| line.ends_with("configuration refused: not here");
            with(|proxy| assert_eq!(proxy.log.iter().any(|(_, line)| is_said(line)), need == lacking));
        }
        assert!(configure(ROUTES).is_some());
    }
}

/// A replaced policy is kept, and ticks, until its last request or connection has ended.
#[test]
fn a_policy_that_was_replaced_no_longer_says_when_its_rules_end() {
    const EXPIRY: &str = "penstock.egress_next_expiry_timestamp_seconds.plugin.edge";
    let policy = |more: &str| format!(r#"{{"egress":{{"rules":[{{"name":"r","to":[{{"host":"a.test"}}]{more}}}]}}}}"#);
    fresh();
    with(|proxy| {
        proxy.time = 1_700_000_000_000_000_000;
        proxy.properties = vec![("plugin_name", b"edge".to_vec())];
    });
    let second = |seconds: u64| with(|proxy| proxy.time += seconds * 1_000_000_000);
    let old = configured(&policy(r#","expires":"2023-11-15T00:00:00Z""#));
    assert_eq!(metric(EXPIRY), Some(1_700_006_400));
    let new = configured(&policy(""));
    assert_eq!(metric(EXPIRY), Some(0));
    with(|proxy| proxy.log.clear());
    for _ in 0..130 {
        second(1);
        old.tick();
        new.tick();
        assert_eq!(metric(EXPIRY), Some(0));
    }
    assert_eq!(with(|proxy| proxy.log.clone()), []);
    // The new policy is removed: the old one is in use again.
    drop(new);
    for _ in 0..5 {
        second(1);
        old.tick();
    }
    assert_eq!(metric(EXPIRY), Some(1_700_006_400));
}
