//! Plugins and requests by the numbers of a proxy-wasm VM, through the ABI.

mod any_headers;
mod failures;
mod service;

use penstock_host::Flow;
use penstock_host::testing::{SentResponse, reset, with};
use penstock_policy::module::Suite;

use crate::{Vm, vm_start};

const PLUGIN: u32 = 1;
const STREAM: u32 = 2;

const POLICY: &str = r#"{"routes":{"rules":[
    {"name":"beta","matches":[{"headers":[{"name":"x-user-group","value":"beta"}]}],"route":"beta"}
]}}"#;

/// The module of this test. Each test runs in its own thread, which ends with the test.
fn vm() -> &'static Vm<Suite> {
    thread_local! {
        static VM: &'static Vm<Suite> = Box::leak(Box::default());
    }
    VM.with(|vm| *vm)
}

/// A new host and a new module.
fn fresh() {
    // A plugin that ends still writes what it has counted, to its own host.
    vm().contents(|contents| {
        contents.plugins.clear();
        contents.streams.clear();
        contents.calls.clear();
    });
    reset();
    assert!(vm_start());
    crate::shared::reset();
}

fn configured(plugin: u32, policy: &str) -> bool {
    with(|proxy| proxy.configuration = policy.into());
    vm().context_create(plugin, 0);
    vm().configure(plugin, policy.len())
}

/// A request with these headers beside the usual ones, from its beginning to its end.
fn request(plugin: u32, headers: &[(&str, &str)]) -> Flow {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x?y")];
    with(|proxy| {
        proxy.headers =
            usual.iter().chain(headers).map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
    });
    vm().context_create(STREAM, plugin);
    let flow = vm().request_headers(STREAM, true);
    vm().delete(STREAM);
    flow
}

fn route() -> Vec<String> {
    with(|proxy| {
        let of_route = proxy.headers.iter().filter(|(name, _)| name == b"x-penstock-route");
        of_route.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    })
}

fn refused(name: &str, message: &str) -> Option<SentResponse> {
    Some(SentResponse {
        status: 503,
        details: format!("penstock_host_{name}"),
        headers: vec![],
        body: format!("penstock: {message}\n"),
    })
}

const LIMITS: &str = r#"{"rateLimits":[{"name":"l","key":[],"limit":{"requests":2,"per":"1h"}}]}"#;

#[test]
fn a_host_that_loses_its_shared_data_refuses_rather_than_opens() {
    fresh();
    assert!(configured(PLUGIN, LIMITS));
    for function in ["proxy_set_shared_data", "proxy_get_shared_data"] {
        crate::shared::reset();
        with(|proxy| proxy.broken = vec![(function, 10)]);
        assert_eq!(request(PLUGIN, &[]), Flow::Pause);
        let expected = refused("environment", "cannot read the clock, random numbers, shared data or metadata");
        assert_eq!(with(|proxy| proxy.sent.clone()), expected, "{function}");
    }
}

const COOKIE: &str = r#"{"canaries":[{"name":"a","stickiness":{"cookie":{"name":"id"}},
    "variants":[{"name":"v1","weight":1}]}]}"#;

#[test]
fn headers_of_the_response_are_added_when_it_comes() {
    fresh();
    assert!(configured(PLUGIN, COOKIE));
    let set = |cookie: &[(&str, &str)]| {
        with(|proxy| {
            proxy.headers = [(":method", "GET"), (":path", "/")]
                .iter()
                .chain(cookie)
                .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
                .collect();
        });
        vm().context_create(STREAM, PLUGIN);
        assert_eq!(vm().request_headers(STREAM, true), Flow::Continue);
        assert_eq!(with(|proxy| proxy.response_headers.len()), 0);
        assert_eq!(vm().response_headers(STREAM, true), Flow::Continue);
        // A second response, as after 100 or 103, gets nothing more.
        assert_eq!(vm().response_headers(STREAM, true), Flow::Continue);
        vm().delete(STREAM);
        with(|proxy| std::mem::take(&mut proxy.response_headers))
    };
    let headers = set(&[]);
    assert_eq!(headers[0].0, b"set-cookie");
    assert!(headers[0].1.starts_with(b"id=04040404040404040404040404040404; "), "{headers:?}");
    assert_eq!(set(&[("cookie", "id=x")]), []);
    assert_eq!(vm().contents(|contents| contents.streams.len()), Some(0));
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
    with(|proxy| {
        proxy.headers = vec![(b":path".to_vec(), b"/".to_vec()), (b"x-user-group".to_vec(), b"beta".to_vec())]
    });
    assert_eq!(vm().request_headers(STREAM, true), Flow::Continue);
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
    let left = vm().contents(|c| [c.plugins.len(), c.streams.len(), c.orphans.len(), c.logs.len()]);
    assert_eq!(left, Some([0; 4]));
}

#[test]
fn a_request_without_a_policy_is_refused() {
    fresh();
    assert!(!configured(PLUGIN, ""));
    assert_eq!(request(PLUGIN, &[]), Flow::Pause);
    with(|proxy| {
        assert_eq!(proxy.sent, refused("noPolicy", "no policy is loaded"));
        for counter in ["policy_refusals_total.plugin.suite", "internal_errors_total.operation.noPolicy"] {
            assert!(proxy.metrics.contains(&(format!("penstock.{counter}"), 1)), "{counter}: {:?}", proxy.metrics);
        }
    });
    // Nor one whose beginning the host never told.
    assert_eq!(vm().request_headers(99, true), Flow::Pause);
}

#[test]
fn an_empty_or_broken_header_map_is_refused() {
    for map in [&b""[..], &[0; 4], &[0xff; 40], &[1, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0]] {
        fresh();
        assert!(configured(PLUGIN, POLICY));
        with(|proxy| proxy.raw_headers = Some(map.to_vec()));
        assert_eq!(request(PLUGIN, &[]), Flow::Pause);
        with(|proxy| {
            assert_eq!(proxy.sent, refused("readHeaders", "cannot read the request's headers"), "{map:?}");
            assert_eq!(proxy.metrics, [("penstock.internal_errors_total.operation.readHeaders".to_owned(), 1)]);
            assert!(proxy.log[0].1.contains("malformed header map"), "{:?}", proxy.log);
        });
    }
}

#[test]
fn loading_limits_writes_nothing_but_their_places_salt_and_lease_and_a_reload_nothing_at_all() {
    fresh();
    with(|proxy| proxy.properties.push(("plugin_name", b"edge".to_vec())));
    let limits = |rate: u32| {
        let limit =
            |i| format!(r#"{{"name":"l{i}","key":[{{"path":{{}}}}],"limit":{{"requests":{rate},"per":"1h"}}}}"#);
        format!(r#"{{"rateLimits":[{}]}}"#, (0..100).map(limit).collect::<Vec<_>>().join(","))
    };
    assert!(configured(PLUGIN, &limits(1)));
    let values = || with(|proxy| proxy.shared.len());
    assert_eq!(values(), 3);
    assert!(configured(8, &limits(2)));
    assert_eq!(values(), 3);
}

#[test]
fn a_thousand_reloads_that_change_rates_take_no_memory_and_give_no_fresh_burst() {
    fresh();
    with(|proxy| proxy.properties.push(("plugin_name", b"edge".to_vec())));
    let limits = |rate: u32| {
        let limit =
            |i| format!(r#"{{"name":"l{i}","key":[{{"path":{{}}}}],"limit":{{"requests":{rate},"per":"1h"}}}}"#);
        format!(r#"{{"rateLimits":[{}]}}"#, (0..50).map(limit).collect::<Vec<_>>().join(","))
    };
    let size = || with(|proxy| proxy.shared.iter().map(|(key, (value, _))| key.len() + value.len()).sum::<usize>());
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

/// Without a name each configuration is a plugin of its own, and none of them comes back.
#[test]
fn a_thousand_reloads_of_a_plugin_without_a_name_take_no_memory_either() {
    fresh();
    let limit = |i: u32, rate: u32| {
        format!(r#"{{"name":"l{i}","key":[{{"path":{{}}}}],"limit":{{"requests":{rate},"per":"1h"}}}}"#)
    };
    let limits =
        |rate: u32| format!(r#"{{"rateLimits":[{}]}}"#, (0..50).map(|i| limit(i, rate)).collect::<Vec<_>>().join(","));
    let size = || with(|proxy| proxy.shared.iter().map(|(key, (value, _))| key.len() + value.len()).sum::<usize>());
    let mut largest = 0;
    for reload in 1..1_001_u32 {
        let plugin = PLUGIN + reload * 2;
        assert!(configured(plugin, &limits(reload)));
        assert_eq!(request(plugin, &[(":path", "/")]), Flow::Continue, "another plugin's use: {reload}");
        vm().delete(plugin);
        if reload == 3 {
            largest = size();
        }
    }
    assert!(largest > 0 && size() <= 2 * largest, "{} {largest}", size());
}

#[test]
fn values_of_strangers_are_counted_and_told_once() {
    fresh();
    assert!(configured(PLUGIN, LIMITS));
    request(PLUGIN, &[]);
    with(|proxy| {
        let keys: Vec<_> = proxy.shared.keys().filter(|key| key[9] == b's').cloned().collect();
        keys.iter().for_each(|key| proxy.set_shared(key, b"a stranger's"));
    });
    request(PLUGIN, &[]);
    vm().tick(PLUGIN);
    vm().tick(PLUGIN);
    with(|proxy| {
        assert!(proxy.metrics.contains(&("penstock.foreign_values_total".to_owned(), 1)), "{:?}", proxy.metrics);
        assert_eq!(proxy.log.iter().filter(|(_, line)| line.contains("were not written by it")).count(), 1);
    });
}

#[test]
fn a_plugin_without_a_policy_writes_few_lines_and_silences_no_other() {
    fresh();
    const OTHER: u32 = PLUGIN + 1;
    for plugin in [PLUGIN, OTHER] {
        vm().context_create(plugin, 0);
        assert!(!configured(plugin, ""));
    }
    let lines = || with(|proxy| proxy.log.iter().filter(|(_, line)| line.contains("no policy is loaded")).count());
    for _ in 0..100 {
        request(PLUGIN, &[]);
    }
    assert_eq!(lines(), 10);
    request(OTHER, &[]);
    assert_eq!(lines(), 11);
    [PLUGIN, OTHER].into_iter().for_each(|plugin| vm().delete(plugin));
    assert_eq!(vm().contents(|contents| (contents.orphans.len(), contents.logs.len())), Some((0, 0)));
}
