mod service;

use super::carry::apply;
use super::*;
use crate::fake_host::{self, FakeHost, Sent, with};
use penstock_policy::module::Suite;
use penstock_policy::{Action, Decision, HeaderOp, Reason, Request, Response, Section};
use proptest::prelude::*;

const PLUGIN: u32 = 1;
const STREAM: u32 = 2;

const POLICY: &str = r#"{"routes":{"rules":[
    {"name":"beta","matches":[{"headers":[{"name":"x-user-group","value":"beta"}]}],"route":"beta"}
]}}"#;

/// The module of this test; tests run in threads of their own, which live as long as they.
fn vm() -> &'static Vm<Suite> {
    thread_local! {
        static VM: &'static Vm<Suite> = Box::leak(Box::default());
    }
    VM.with(|vm| *vm)
}

/// A request without headers: what `apply` looks at before it removes one.
fn no_headers() -> Request<'static> {
    Request::new(&[])
}

/// A new host and a new module.
fn fresh() {
    fake_host::reset();
    crate::shared::reset();
    vm().state(|state| {
        state.plugins.clear();
        state.streams.clear();
        state.calls.clear();
    });
}

fn configured(plugin: u32, policy: &str) -> bool {
    with(|host| host.configuration = policy.into());
    vm().context_create(plugin, 0);
    vm().configure(plugin, policy.len())
}

/// A request with these headers beside the usual ones, from its beginning to its end.
fn request(plugin: u32, headers: &[(&str, &str)]) -> Flow {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x?y")];
    with(|host| {
        host.headers =
            usual.iter().chain(headers).map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        host.calls.clear();
    });
    vm().context_create(STREAM, plugin);
    let flow = vm().request_headers(STREAM);
    vm().delete(STREAM);
    flow
}

fn route() -> Vec<String> {
    with(|host| {
        let of_route = host.headers.iter().filter(|(name, _)| name == b"x-penstock-route");
        of_route.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    })
}

fn refused(name: &str, message: &str) -> Option<Sent> {
    Some(Sent {
        status: 503,
        details: format!("penstock_host_{name}"),
        headers: vec![],
        body: format!("penstock: {message}\n"),
    })
}

/// The host's counters: its metrics but for the gauges and the histogram that every policy has.
fn counted() -> Vec<(String, i64)> {
    const OTHERS: [&str; 3] = ["penstock.policy.", "penstock.slots.", "penstock.decision."];
    let is_counter = |name: &str| !OTHERS.iter().any(|other| name.starts_with(other));
    with(|host| host.metrics.iter().filter(|(name, _)| is_counter(name)).cloned().collect())
}

#[test]
fn gauges_are_written_when_they_change_by_one_worker() {
    fresh();
    with(|host| {
        host.time = 1_000_000_000;
        host.properties.push(("plugin_name", b"edge".to_vec()));
    });
    let policy = r#"{"canaries":[{"name":"c","variants":[{"name":"a","weight":3},{"name":"b","weight":1}],
        "ramp":{"variant":"b","startsAt":"1970-01-01T00:00:04Z","steps":[{"weight":50}]}}]}"#;
    assert!(configured(PLUGIN, policy));
    // Another worker's VM has the same policy.
    with(|host| host.random = 1);
    assert!(configured(7, policy));
    let mut writes = Vec::new();
    for second in 1..8 {
        with(|host| {
            host.time = second * 1_000_000_000;
            host.calls.clear();
        });
        vm().tick(PLUGIN);
        vm().tick(7);
        writes.push(with(|host| host.calls.iter().filter(|call| **call == "proxy_record_metric").count()));
    }
    assert_eq!(writes, [5, 0, 0, 2, 0, 0, 0]);
    let gauge =
        |name: &str| with(|host| host.metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value));
    assert_eq!(gauge("penstock.shares.c.a").zip(gauge("penstock.shares.c.b")), Some((500, 500)));
    assert_eq!(gauge("penstock.policy.edge.generation").zip(gauge("penstock.policy.edge.loadedSeconds")), Some((1, 1)));
    // The one that told is gone: the other says it all once more.
    vm().delete(PLUGIN);
    let told = |second: u64| {
        with(|host| {
            host.time = second * 1_000_000_000;
            host.calls.clear();
        });
        vm().tick(7);
        with(|host| host.calls.iter().filter(|call| **call == "proxy_record_metric").count())
    };
    assert_eq!((told(9), told(11), told(12)), (0, 5, 0));
    // A gauge that the host does not take is tried again.
    with(|host| host.broken.push(("proxy_record_metric", 10)));
    assert!(configured(8, r#"{"routes":{"default":"stable"}}"#));
    vm().tick(8);
    with(|host| host.broken.clear());
    vm().tick(8);
    assert_eq!(gauge("penstock.policy.edge.generation"), Some(2));
}

#[test]
fn the_first_request_of_each_second_is_timed() {
    fresh();
    with(|host| host.properties.push(("plugin_name", b"edge".to_vec())));
    assert!(configured(PLUGIN, POLICY));
    let is_timed = || with(|host| host.metrics.iter().any(|(name, _)| name == "penstock.decision.edge.nanoseconds"));
    request(PLUGIN, &[]);
    assert!(!is_timed());
    vm().tick(PLUGIN);
    assert_eq!(request(PLUGIN, &[("x-user-group", "beta")]), Flow::Continue);
    assert_eq!(route(), ["beta"]);
    assert!(is_timed());
    request(PLUGIN, &[]);
    with(|host| assert_eq!(host.calls, ["proxy_get_header_map_pairs"]));
}

#[test]
fn a_request_is_one_call_and_one_more_for_each_change() {
    fresh();
    assert!(configured(PLUGIN, POLICY));
    assert_eq!(request(PLUGIN, &[]), Flow::Continue);
    with(|host| assert_eq!(host.calls, ["proxy_get_header_map_pairs"]));
    assert_eq!(request(PLUGIN, &[("x-user-group", "beta")]), Flow::Continue);
    with(|host| assert_eq!(host.calls, ["proxy_get_header_map_pairs", "proxy_replace_header_map_value"]));
    assert_eq!(route(), ["beta"]);
}

const LIMITS: &str = r#"{"rateLimits":[{"name":"l","key":[],"limit":{"requests":2,"per":"1h"}}]}"#;

#[test]
fn requests_pass_up_to_the_limit() {
    fresh();
    assert!(configured(PLUGIN, LIMITS));
    assert_eq!([(); 3].map(|()| request(PLUGIN, &[])), [Flow::Continue, Flow::Continue, Flow::Pause]);
    assert_eq!(with(|host| host.sent.clone()).map(|sent| sent.status), Some(429));
}

#[test]
fn loading_limits_writes_nothing_but_salt_and_lease_and_a_reload_nothing_at_all() {
    fresh();
    let limits = |rate: u32| {
        let limit =
            |i| format!(r#"{{"name":"l{i}","key":[{{"path":{{}}}}],"limit":{{"requests":{rate},"per":"1h"}}}}"#);
        format!(r#"{{"rateLimits":[{}]}}"#, (0..100).map(limit).collect::<Vec<_>>().join(","))
    };
    assert!(configured(PLUGIN, &limits(1)));
    let values = || with(|host| host.shared.len());
    assert_eq!(values(), 2);
    assert!(configured(8, &limits(2)));
    assert_eq!(values(), 2);
}

#[test]
fn a_thousand_reloads_that_change_rates_take_no_memory_and_give_no_fresh_burst() {
    fresh();
    let limits = |rate: u32| {
        let limit =
            |i| format!(r#"{{"name":"l{i}","key":[{{"path":{{}}}}],"limit":{{"requests":{rate},"per":"1h"}}}}"#);
        format!(r#"{{"rateLimits":[{}]}}"#, (0..50).map(limit).collect::<Vec<_>>().join(","))
    };
    let size = || with(|host| host.shared.iter().map(|(key, (value, _))| key.len() + value.len()).sum::<usize>());
    assert!(configured(PLUGIN, &limits(1)));
    assert_eq!(request(PLUGIN, &[(":path", "/")]), Flow::Continue);
    let first = size();
    for reload in 2..1_002_u32 {
        let plugin = PLUGIN + reload * 2;
        assert!(configured(plugin, &limits(reload % 97 + 1)));
        assert_eq!(request(plugin, &[(":path", "/")]), Flow::Pause, "{reload}");
        vm().delete(plugin);
    }
    assert!(size() <= first + (1 << 20) && size() <= 2 * first, "{} {first}", size());
}

#[test]
fn a_plugin_without_a_name_is_warned_of_where_it_has_state() {
    for (named, policy, expected) in [(false, LIMITS, 1), (true, LIMITS, 0), (false, POLICY, 0)] {
        fresh();
        if named {
            with(|host| host.properties.push(("plugin_name", b"edge".to_vec())));
        }
        assert!(configured(PLUGIN, policy));
        let warnings = with(|host| host.log.iter().filter(|(_, line)| line.contains("neither `name`")).count());
        assert_eq!(warnings, expected);
    }
}

#[test]
fn values_of_strangers_are_counted_and_told_once() {
    fresh();
    assert!(configured(PLUGIN, LIMITS));
    request(PLUGIN, &[]);
    with(|host| {
        let keys: Vec<_> = host.shared.keys().filter(|key| key[9] == b's').cloned().collect();
        keys.iter().for_each(|key| host.set_shared(key, b"a stranger's"));
    });
    request(PLUGIN, &[]);
    vm().tick(PLUGIN);
    vm().tick(PLUGIN);
    with(|host| {
        assert!(host.metrics.contains(&("penstock.host.state.foreign".to_owned(), 1)), "{:?}", host.metrics);
        assert_eq!(host.log.iter().filter(|(_, line)| line.contains("were not its own")).count(), 1);
    });
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
        assert!(configured(PLUGIN, &format!("{{{settings}{canary}}}")));
        request(PLUGIN, &[("x-canary", "v")]);
        let own = |(name, value): (&str, &str)| (format!("penstock.{name}"), value.to_owned());
        with(|host| assert_eq!(host.filter_state, expected.into_iter().map(own).collect::<Vec<_>>()));
    }
}

#[test]
fn counts_reach_the_host_once_a_second_and_at_the_end() {
    fresh();
    assert!(configured(PLUGIN, LIMITS));
    with(|host| assert_eq!(host.tick_period, 1000));
    for _ in 0..5 {
        request(PLUGIN, &[]);
    }
    with(|host| assert!(host.metrics.is_empty()));
    vm().tick(PLUGIN);
    let metric = |outcome: &str, count| (format!("penstock.rateLimits.l.{outcome}"), count);
    assert_eq!(counted(), [metric("passed", 2), metric("limited", 3)]);
    with(|host| host.calls.clear());
    vm().tick(PLUGIN);
    with(|host| assert!(!host.calls.contains(&"proxy_increment_metric")));
    request(PLUGIN, &[]);
    with(|host| assert_eq!(host.tick_period, 1000, "a request that ends stops nothing"));
    vm().delete(PLUGIN);
    assert_eq!(counted(), [metric("passed", 2), metric("limited", 4)]);
    with(|host| assert_eq!(host.tick_period, 0, "a host may let it tick on"));
}

#[test]
fn what_the_log_takes_is_asked_once_a_second_and_not_with_each_request() {
    fresh();
    assert!(configured(PLUGIN, r#"{"egress":{"rules":[{"name":"r","to":[{"host":"a.test"}]}]}}"#));
    let lines = || {
        with(|host| host.log.clear());
        assert_eq!(request(PLUGIN, &[]), Flow::Continue);
        with(|host| {
            assert!(!host.calls.contains(&"proxy_get_log_level"));
            host.log.clone()
        })
    };
    assert!(lines().is_empty());
    with(|host| host.lowest_level = Some(LogLevel::Debug as u32));
    vm().tick(PLUGIN);
    let [(level, line)] = &lines()[..] else { panic!("no line") };
    assert!(*level == LogLevel::Debug as u32 && line.starts_with(r#"{"egress":"allow""#), "{line}");
    with(|host| host.lowest_level = None);
    vm().tick(PLUGIN);
    assert!(lines().is_empty());
}

#[test]
fn a_reload_that_leaves_a_limit_as_it_was_keeps_what_was_taken() {
    fresh();
    assert!(configured(PLUGIN, LIMITS));
    request(PLUGIN, &[]);
    assert!(configured(8, &LIMITS.replace("}]}", r#","response":{"status":420}}]}"#)));
    assert_eq!((request(8, &[]), request(8, &[])), (Flow::Continue, Flow::Pause));
}

#[test]
fn a_host_that_loses_its_shared_data_refuses_rather_than_opens() {
    fresh();
    assert!(configured(PLUGIN, LIMITS));
    for function in ["proxy_set_shared_data", "proxy_get_shared_data"] {
        crate::shared::reset();
        with(|host| host.broken = vec![(function, 10)]);
        assert_eq!(request(PLUGIN, &[]), Flow::Pause);
        let expected = refused("environment", "cannot read the clock, random numbers or shared data");
        assert_eq!(with(|host| host.sent.clone()), expected, "{function}");
    }
}

#[test]
fn a_client_never_chooses_the_route() {
    fresh();
    assert!(configured(PLUGIN, POLICY));
    let spoofed = ("x-penstock-route", "beta");
    assert_eq!(request(PLUGIN, &[spoofed, spoofed]), Flow::Continue);
    assert!(route().is_empty());
    assert_eq!(request(PLUGIN, &[spoofed, ("x-user-group", "beta"), spoofed]), Flow::Continue);
    assert_eq!(route(), ["beta"]);
}

const COOKIE: &str = r#"{"canaries":[{"name":"a","stickiness":{"cookie":{"name":"id"}},
    "variants":[{"name":"v1","weight":1}]}]}"#;

#[test]
fn headers_of_the_response_are_added_when_it_comes() {
    fresh();
    assert!(configured(PLUGIN, COOKIE));
    let set = |cookie: &[(&str, &str)]| {
        with(|host| {
            host.headers = [(":method", "GET"), (":path", "/")]
                .iter()
                .chain(cookie)
                .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
                .collect();
            host.calls.clear();
        });
        vm().context_create(STREAM, PLUGIN);
        assert_eq!(vm().request_headers(STREAM), Flow::Continue);
        assert_eq!(with(|host| host.response_headers.len()), 0);
        assert_eq!(vm().response_headers(STREAM), Flow::Continue);
        // A second response, as after 100 or 103, gets nothing more.
        assert_eq!(vm().response_headers(STREAM), Flow::Continue);
        vm().delete(STREAM);
        with(|host| (std::mem::take(&mut host.response_headers), std::mem::take(&mut host.calls)))
    };
    let (headers, _) = set(&[]);
    assert_eq!(headers[0].0, b"set-cookie");
    assert!(headers[0].1.starts_with(b"id=04040404040404040404040404040404; "), "{headers:?}");
    assert_eq!(
        set(&[("cookie", "id=x")]),
        (vec![], vec!["proxy_get_header_map_pairs", "proxy_replace_header_map_value"])
    );
    assert_eq!(vm().state(|state| state.streams.len()), Some(0));
}

const FAILOVER: &str = r#"{"routes":{"rules":[{"name":"pay","route":"eu","failover":{"route":"us"}}]}}"#;

/// A whole exchange, answered with `status`, if at all, and cut off as `flags` say; the route that it took.
fn exchange(status: Option<&str>, flags: u64) -> String {
    with(|host| {
        host.headers = vec![(b":path".to_vec(), b"/".to_vec())];
        host.response_headers = status.iter().map(|status| (b":status".to_vec(), status.as_bytes().to_vec())).collect();
        host.properties = vec![("response\0flags", flags.to_le_bytes().to_vec())];
    });
    vm().context_create(STREAM, PLUGIN);
    assert_eq!(vm().request_headers(STREAM), Flow::Continue);
    if status.is_some() {
        assert_eq!(vm().response_headers(STREAM), Flow::Continue);
    }
    vm().delete(STREAM);
    assert_eq!(vm().state(|state| state.streams.len()), Some(0));
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
        with(|host| host.time = 1_700_000_000_000_000_000);
        assert!(configured(PLUGIN, FAILOVER));
        for _ in 0..20 {
            assert_eq!(exchange(status, flags), "eu", "{status:?} {flags:x}");
        }
        assert_eq!(exchange(status, flags), if fails { "us" } else { "eu" }, "{status:?} {flags:x}");
        with(|host| {
            let told = host.log.iter().filter(|(level, line)| *level == 3 && line.contains("all go to us")).count();
            assert_eq!(told, usize::from(fails), "{:?}", host.log);
        });
    }
}

#[test]
fn a_response_whose_header_cannot_be_added_goes_on() {
    fresh();
    assert!(configured(PLUGIN, COOKIE));
    with(|host| host.broken.push(("proxy_add_header_map_value", 2)));
    with(|host| host.headers = vec![(b":path".to_vec(), b"/".to_vec())]);
    vm().context_create(STREAM, PLUGIN);
    assert_eq!(vm().request_headers(STREAM), Flow::Continue);
    assert_eq!(vm().response_headers(STREAM), Flow::Continue);
    with(|host| {
        assert_eq!(host.sent, None);
        assert!(host.metrics.contains(&("penstock.host.responseHeaders.failed".to_owned(), 1)), "{:?}", host.metrics);
        assert!(host.log[0].1.contains("cannot add the response header set-cookie (BAD_ARGUMENT)"));
    });
    vm().delete(STREAM);
}

#[test]
fn plugins_in_one_vm_keep_their_policies_apart() {
    fresh();
    assert!(configured(PLUGIN, POLICY));
    assert!(configured(7, r#"{"routes":{"default":"other"}}"#));
    request(PLUGIN, &[("x-user-group", "beta")]);
    assert_eq!(route(), ["beta"]);
    request(7, &[("x-user-group", "beta")]);
    assert_eq!(route(), ["other"]);
}

#[test]
fn a_request_keeps_the_policy_under_which_it_began() {
    fresh();
    assert!(configured(PLUGIN, POLICY));
    vm().context_create(STREAM, PLUGIN);
    assert!(configured(PLUGIN, r#"{"routes":{"default":"new"}}"#));
    vm().delete(PLUGIN);
    with(|host| host.headers = vec![(b":path".to_vec(), b"/".to_vec()), (b"x-user-group".to_vec(), b"beta".to_vec())]);
    assert_eq!(vm().request_headers(STREAM), Flow::Continue);
    assert_eq!(route(), ["beta"]);
}

#[test]
fn a_refused_configuration_leaves_the_old_one_at_work() {
    fresh();
    assert!(configured(PLUGIN, POLICY));
    assert!(!configured(PLUGIN, "{"));
    request(PLUGIN, &[("x-user-group", "beta")]);
    assert_eq!(route(), ["beta"]);
}

#[test]
fn nothing_is_left_of_what_has_ended() {
    fresh();
    for plugin in 10..60 {
        assert!(configured(plugin, POLICY));
        request(plugin, &[]);
        vm().delete(plugin);
    }
    assert_eq!(vm().state(|state| (state.plugins.len(), state.streams.len())), Some((0, 0)));
}

#[test]
fn a_request_without_a_policy_is_refused() {
    fresh();
    assert!(!configured(PLUGIN, ""));
    assert_eq!(request(PLUGIN, &[]), Flow::Pause);
    with(|host| {
        assert_eq!(host.sent, refused("noPolicy", "no policy is loaded"));
        let metric = |name: &str| (format!("penstock.host.{name}"), 1);
        assert_eq!(host.metrics, [metric("configuration.refused"), metric("noPolicy.failed")]);
    });
    // Nor one whose beginning the host never told.
    assert_eq!(vm().request_headers(99), Flow::Pause);
}

#[test]
fn an_empty_or_broken_header_map_is_refused() {
    for map in [&b""[..], &[0; 4], &[0xff; 40], &[1, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0]] {
        fresh();
        assert!(configured(PLUGIN, POLICY));
        with(|host| host.raw_headers = Some(map.to_vec()));
        assert_eq!(request(PLUGIN, &[]), Flow::Pause);
        with(|host| {
            assert_eq!(host.sent, refused("readHeaders", "cannot read the request's headers"), "{map:?}");
            assert_eq!(host.metrics, [("penstock.host.readHeaders.failed".to_owned(), 1)]);
            assert!(host.log[0].1.contains("malformed header map"), "{:?}", host.log);
        });
    }
}

#[test]
fn a_rules_changes_reach_the_response_once_and_a_redirect_is_answered() {
    fresh();
    let policy = r#"{"routes":{"rules":[
        {"name":"old","matches":[{"path":{"value":"/x"},"headers":[{"name":"x-old","type":"Present"}]}],
            "redirect":{"scheme":"https","statusCode":301},"responseHeaders":{"set":[{"name":"x-a","value":"2"}]}},
        {"name":"r","route":"a","responseHeaders":{
            "set":[{"name":"x-a","value":"1"}],"add":[{"name":"vary","value":"x"}],"remove":["x-b"]}}]}}"#;
    assert!(configured(PLUGIN, policy));
    vm().context_create(STREAM, PLUGIN);
    with(|host| host.headers = vec![(b":path".to_vec(), b"/x".to_vec())]);
    assert_eq!(vm().request_headers(STREAM), Flow::Continue);
    with(|host| {
        let upstream = [("x-a", "0"), ("x-b", "0"), ("vary", "y")];
        host.response_headers = upstream.map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).to_vec();
    });
    for _ in 0..2 {
        assert_eq!(vm().response_headers(STREAM), Flow::Continue);
    }
    vm().delete(STREAM);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = with(|host| std::mem::take(&mut host.response_headers));
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
    assert_eq!(headers, ["vary: y", "x-a: 1", "vary: x"]);

    assert_eq!(request(PLUGIN, &[("x-old", "1")]), Flow::Pause);
    let sent = with(|host| host.sent.take()).unwrap();
    assert_eq!((sent.status, sent.details.as_str()), (301, "penstock_routes"));
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(sent.headers, [own("location", "https://a.test/x?y"), own("x-a", "2")]);
}

#[test]
fn what_audit_held_back_is_logged_as_such_when_a_limit_refuses_the_request() {
    fresh();
    let policy = r#"{"settings":{"filterState":true},"egress":{"mode":"Audit","rules":[]},
        "rateLimits":[{"name":"l","key":[],"limit":{"requests":1,"per":"1h"}}]}"#;
    assert!(configured(PLUGIN, policy));
    assert_eq!(request(PLUGIN, &[]), Flow::Continue);
    with(|host| {
        host.log.clear();
        host.filter_state.clear();
    });
    assert_eq!(request(PLUGIN, &[]), Flow::Pause);
    with(|host| {
        let logged = host.log.iter().filter(|(level, line)| {
            *level == LogLevel::Info as u32 && line.starts_with(r#"{"egress":"audit","why":"hostNotAllowed","#)
        });
        assert_eq!(logged.count(), 1, "{:?}", host.log);
        let state = |name: &str| host.filter_state.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(state("penstock.egress.outcome"), Some("audit"));
        assert_eq!(state("penstock.egress.reason"), Some("hostNotAllowed"));
        assert_eq!(state("penstock.rule"), Some("rateLimits/l"));
        assert_eq!(state("penstock.heldBack"), Some("egress/- hostNotAllowed"));
    });
    vm().tick(PLUGIN);
    let counts = counted();
    let count = |name: &str| counts.iter().find(|(counter, _)| counter == name).map(|(_, count)| *count);
    assert_eq!(count("penstock.egressReasons.hostNotAllowed.audited"), Some(2));
    assert_eq!(count("penstock.rateLimits.l.limited"), Some(1));
}

#[test]
fn a_response_carries_its_details_headers_and_body() {
    fresh();
    let mut decision = Decision {
        section: Some(Section::Egress),
        reason: Some(Reason::HostNotAllowed),
        action: Action::Respond(Response {
            status: 403,
            headers: [("content-type", b"application/json"[..].into())].into_iter().collect(),
            body: b"{}"[..].into(),
            grpc_status: None,
        }),
        ..Decision::default()
    };
    decision.response_headers.push(("x-penstock-decision-id", b"1"[..].into()));
    assert_eq!(apply(&no_headers(), &decision), Ok(Flow::Pause));
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let sent = Sent {
        status: 403,
        details: "penstock_egress_hostNotAllowed".to_owned(),
        headers: vec![own(("x-penstock-decision-id", "1")), own(("content-type", "application/json"))],
        body: "{}".to_owned(),
    };
    with(|host| {
        assert_eq!(host.sent, Some(sent));
        assert_eq!(host.calls, ["proxy_send_local_response"]);
    });
}

#[test]
fn a_response_that_cannot_be_given_is_a_reset() {
    fresh();
    with(|host| host.broken.push(("proxy_send_local_response", 10)));
    let response = Response { status: 403, headers: Default::default(), body: b""[..].into(), grpc_status: None };
    let decision = Decision { action: Action::Respond(response), ..Decision::default() };
    let flow = apply(&no_headers(), &decision).unwrap_or_else(Failure::refuse);
    assert_eq!(flow, Flow::Pause);
    with(|host| {
        assert!(host.was_reset && host.sent.is_none());
        assert_eq!(host.metrics, [("penstock.host.respond.failed".to_owned(), 1)]);
    });
}

#[test]
fn the_first_change_that_fails_refuses_the_request() {
    for (function, status) in [("proxy_add_header_map_value", 2), ("proxy_remove_header_map_value", 6)] {
        fresh();
        with(|host| host.broken.push((function, status)));
        let mut decision = Decision::default();
        decision.headers.push(HeaderOp::Add("a", b"1"[..].into()));
        decision.headers.push(HeaderOp::Remove("b"));
        assert_eq!(apply(&Request::new(&[(b"b", b"1")]), &decision).unwrap_or_else(Failure::refuse), Flow::Pause);
        let sent = with(|host| host.sent.clone());
        assert_eq!(sent, refused("writeHeaders", "cannot change the request's headers"), "{function}");
    }
}

#[test]
fn a_header_that_is_not_there_costs_no_call() {
    fresh();
    let mut decision = Decision::default();
    decision.headers.push(HeaderOp::Remove("b"));
    assert_eq!(apply(&no_headers(), &decision), Ok(Flow::Continue));
    with(|host| assert!(host.calls.is_empty(), "{:?}", host.calls));
}

/// Every function of the host answers every status, in every phase: the outcome is the one documented.
#[test]
fn whatever_the_host_answers_the_outcome_is_known() {
    const FUNCTIONS: [&str; 15] = [
        "proxy_log",
        "proxy_get_buffer_bytes",
        "proxy_get_header_map_pairs",
        "proxy_add_header_map_value",
        "proxy_replace_header_map_value",
        "proxy_remove_header_map_value",
        "proxy_send_local_response",
        "proxy_close_stream",
        "proxy_get_property",
        "proxy_get_shared_data",
        "proxy_set_shared_data",
        "proxy_get_current_time_nanoseconds",
        "proxy_define_metric",
        "proxy_increment_metric",
        "random_get",
    ];
    let requests: [&[(&str, &str)]; 3] = [&[], &[("x-user-group", "beta")], &[("x-penstock-route", "beta")]];
    for (index, function) in FUNCTIONS.into_iter().enumerate() {
        for status in (1..=14).chain([255, u32::MAX]) {
            // A second broken function: the refusal itself fails.
            for second in [None, Some("proxy_send_local_response"), Some("proxy_define_metric"), Some("proxy_log")] {
                for (which, headers) in requests.into_iter().enumerate() {
                    fresh();
                    with(|host| {
                        host.broken.extend([(function, status)].into_iter().chain(second.map(|f| (f, status))))
                    });
                    assert!(vm_start());
                    let taken = configured(PLUGIN, POLICY);
                    assert_eq!(taken, index != 1);
                    let flow = request(PLUGIN, headers);
                    let fails = match function {
                        "proxy_get_buffer_bytes" | "proxy_get_header_map_pairs" => true,
                        "proxy_replace_header_map_value" => which == 1,
                        "proxy_remove_header_map_value" => which == 2,
                        _ => false,
                    };
                    let case = format!("{function} {status} {second:?} request {which}");
                    assert_eq!(flow == Flow::Pause, fails, "{case}");
                    with(|host: &mut FakeHost| {
                        let answer = if host.was_reset { "reset" } else { "503" };
                        let given = host.sent.is_some() || host.was_reset;
                        assert_eq!(given, fails, "{case}");
                        let expected = if second == Some("proxy_send_local_response") { "reset" } else { "503" };
                        assert!(!fails || answer == expected, "{case}");
                    });
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn any_header_map_is_decided_or_refused(map in prop::collection::vec(any::<u8>(), 0..200)) {
        fresh();
        prop_assert!(configured(PLUGIN, POLICY));
        with(|host| host.raw_headers = Some(map));
        let flow = request(PLUGIN, &[]);
        prop_assert_eq!(flow == Flow::Pause, with(|host| host.sent.is_some()));
    }

    #[test]
    fn any_headers_are_decided(headers in prop::collection::vec(
        (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..50)), 1..50,
    )) {
        fresh();
        prop_assert!(configured(PLUGIN, POLICY));
        with(|host| host.headers = headers);
        vm().context_create(STREAM, PLUGIN);
        prop_assert_eq!(vm().request_headers(STREAM), Flow::Continue);
        vm().delete(STREAM);
    }
}

#[test]
fn quota_headers_are_added_to_the_response() {
    fresh();
    assert!(configured(PLUGIN, &LIMITS.replace("}]}", r#","quotaHeaders":"IETF"}]}"#)));
    with(|host| host.headers = vec![(b":path".to_vec(), b"/".to_vec())]);
    vm().context_create(STREAM, PLUGIN);
    assert_eq!(vm().request_headers(STREAM), Flow::Continue);
    vm().response_headers(STREAM);
    vm().delete(STREAM);
    let names = with(|host| host.response_headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    assert_eq!(names, [&b"ratelimit-policy"[..], b"ratelimit"]);
}
