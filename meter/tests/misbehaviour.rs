//! A host that misbehaves in every way that the ABI allows: no module traps, no request passes without a decision, and
//! afterwards everything works as before.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use penstock_meter::{Guest, HandOver};
use serde_json::{Value, json};

const MODULES: [&str; 5] = ["suite", "header-routing", "canary", "rate-limit", "egress-allowlist"];

/// Every function that a host provides to the modules.
const FUNCTIONS: [&str; 19] = [
    "proxy_log",
    "proxy_get_log_level",
    "proxy_get_buffer_bytes",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_add_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_remove_header_map_value",
    "proxy_send_local_response",
    "proxy_close_stream",
    "proxy_get_property",
    "proxy_set_property",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_get_current_time_nanoseconds",
    "proxy_define_metric",
    "proxy_increment_metric",
    "proxy_set_tick_period_milliseconds",
    "random_get",
];

/// Every status of the specification, the gaps between them, and unknown ones.
fn statuses() -> impl Iterator<Item = u32> {
    (1..=15).chain([255, u32::MAX])
}

/// A policy that uses every function.
fn policy(module: &str) -> String {
    let sections = [
        (
            "header-routing",
            "routes",
            json!({"default": "stable", "rules": [
            {"name": "watched", "route": "eu", "matches": [{"path": {"value": "/watched"}}],
                "failover": {"route": "us", "minRequests": 1, "errorPercent": 1}, "retries": {"attempts": 1, "on": ["5xx"]},
                "requestHeaders": {"set": [{"name": "x-a", "value": "1"}], "add": [{"name": "x-b", "value": "2"}], "remove": ["x-user"]}},
            {"name": "regex", "route": "r", "matches": [{"headers": [{"name": "x-regex", "type": "RegularExpression", "value": "(a|aa)+b"}]}]}]}),
        ),
        (
            "canary",
            "canaries",
            json!([{"name": "shop", "stickiness": {"cookie": {"name": "id"}},
            "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
            "ramp": {"variant": "v1", "startsAt": "2026-01-01T00:00:00Z", "steps": [{"weight": 1}]},
            "rollback": {"variant": "v2", "to": "v1", "minRequests": 1, "errorPercent": 1, "latency": {"percentile": 50, "above": "1s"}}}]),
        ),
        (
            "rate-limit",
            "rateLimits",
            json!([{"name": "l", "key": [{"sourceAddress": {}}, {"header": "x-user"}],
            "limit": {"requests": 1_000_000, "per": "1h"}, "capacity": 64, "quotaHeaders": "IETF"}]),
        ),
        (
            "egress-allowlist",
            "egress",
            json!({"rules": [
            {"name": "all", "to": [{"host": "*.example.com", "ports": [80, 443]}], "paths": [{"type": "PathPrefix", "value": "/"}]}],
            "identity": {"workload": {"trustDomain": "cluster.local"}}, "verifySni": false}),
        ),
    ];
    let of_module = sections.into_iter().filter(|(owner, ..)| module == "suite" || module == *owner);
    Value::Object(of_module.map(|(_, section, content)| (section.to_owned(), content)).collect()).to_string()
}

fn guest(module: &str) -> Guest {
    let dist = std::env::var_os("PENSTOCK_DIST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist"), PathBuf::from);
    let mut guest = Guest::load(&dist.join(format!("{module}.wasm"))).unwrap();
    let host = guest.host();
    host.time = 1_780_272_000_000_000_000;
    host.properties.insert(b"source\0address".to_vec(), b"192.0.2.1:4711".to_vec());
    host.properties.insert(b"destination\0port".to_vec(), 443_i64.to_le_bytes().to_vec());
    assert!(guest.configure(policy(module)).unwrap(), "{module}: {:?}", guest.host().log);
    guest
}

type Headers = Vec<(Vec<u8>, Vec<u8>)>;

fn headers(path: &str) -> Headers {
    let usual = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.example.com"),
        (":path", path),
        ("x-user", "7"),
        ("x-regex", "aaab"),
        ("x-penstock-route", "forged"),
    ];
    usual.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// A whole exchange with these headers; returns whether the request continued. Otherwise the module responded or closed
/// the stream, if the host allowed it.
fn exchange(guest: &mut Guest, stream: u32, headers: &Headers, case: &str) -> bool {
    let host = guest.host();
    (host.request_headers, host.response_headers) = (headers.clone(), vec![(b":status".to_vec(), b"503".to_vec())]);
    (host.sent, host.closed) = (None, false);
    host.time += 10_000_000;
    let went_on = guest.request(stream).unwrap_or_else(|error| panic!("{case}: {error:#}"));
    let host = guest.host();
    let silenced =
        host.answers.contains_key("proxy_close_stream") || host.answers.contains_key("proxy_send_local_response");
    assert!(went_on || host.sent.is_some() || host.closed || silenced, "{case}: neither passed nor answered");
    assert!(!went_on || host.sent.is_none(), "{case}: passed and answered");
    guest.response(stream).unwrap_or_else(|error| panic!("{case}: {error:#}"));
    guest.call("proxy_on_tick", [Guest::PLUGIN]).unwrap_or_else(|error| panic!("{case}: {error:#}"));
    went_on
}

/// Undoes all misbehaviour.
fn assert_works(guest: &mut Guest, case: &str) {
    guest.host().answers.clear();
    guest.host().raw_map = None;
    guest.host().hand_over = HandOver::Right;
    assert!(
        exchange(guest, 9, &headers("/"), case),
        "{case}: it does not work any more: {:?}",
        guest.host().log.last()
    );
    guest.host().log.clear();
}

#[test]
fn every_call_may_answer_every_status() {
    for module in MODULES {
        let mut guest = guest(module);
        for function in FUNCTIONS {
            for status in statuses() {
                let case = format!("{module}: {function} answers {status}");
                guest.host().answers.insert(function, status);
                for path in ["/", "/watched"] {
                    let went_on = exchange(&mut guest, 2, &headers(path), &case);
                    assert!(!went_on || function != "proxy_get_header_map_pairs", "{case}: passed unseen");
                }
                // A configuration, too, is accepted or refused; that of another context is ignored.
                guest.call("proxy_on_context_create", [5, 0]).unwrap();
                let taken = guest.configure_as(5, policy(module)).unwrap_or_else(|error| panic!("{case}: {error:#}"));
                assert!(!taken || function != "proxy_get_buffer_bytes", "{case}: configured with nothing");
                guest.call("proxy_on_delete", [5]).unwrap();
                assert_works(&mut guest, &case);
            }
        }
    }
}

#[test]
fn memory_may_be_passed_in_every_wrong_way() {
    for module in MODULES {
        let mut guest = guest(module);
        for how in [
            HandOver::Nothing,
            HandOver::Null,
            HandOver::TooLong,
            HandOver::Foreign,
            HandOver::Outside,
            HandOver::Wasteful,
        ] {
            let case = format!("{module}: {how:?}");
            guest.host().hand_over = how;
            for path in ["/", "/watched"] {
                let went_on = exchange(&mut guest, 2, &headers(path), &case);
                assert_eq!(went_on, how == HandOver::Wasteful, "{case}");
            }
            guest.call("proxy_on_context_create", [5, 0]).unwrap();
            let taken = guest.configure_as(5, policy(module)).unwrap_or_else(|error| panic!("{case}: {error:#}"));
            assert_eq!(taken, how == HandOver::Wasteful, "{case}");
            guest.call("proxy_on_delete", [5]).unwrap();
            assert_works(&mut guest, &case);
        }
    }
}

#[test]
fn header_maps_may_be_absent_broken_or_huge() {
    let lengths =
        |count: u32, name: u32, value: u32| [count.to_le_bytes(), name.to_le_bytes(), value.to_le_bytes()].concat();
    let broken: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0; 4],
        vec![0xff; 4],
        vec![0xff; 1000],
        lengths(1, 0, 0),
        lengths(1, u32::MAX, u32::MAX),
        lengths(1, 1 << 31, 1 << 31),
        lengths(u32::MAX / 8, 1, 1),
        [lengths(1, 1, 1), b"abc".to_vec()].concat(),
        [lengths(1, 1, 1), b"a\0b\0rest".to_vec()].concat(),
    ];
    for module in MODULES {
        let mut guest = guest(module);
        for map in &broken {
            let case = format!("{module}: {:?}", map.get(..20).unwrap_or(map));
            guest.host().raw_map = Some(map.clone());
            assert!(!exchange(&mut guest, 2, &headers("/"), &case), "{case}: passed unseen");
            assert_works(&mut guest, &case);
        }
        let many: Headers = (0..20_000).map(|i| (format!("x-{i}").into_bytes(), vec![b'v'; 20])).collect();
        let long: Headers = vec![(b"x-regex".to_vec(), vec![b'a'; 4 << 20]), (b"cookie".to_vec(), vec![b';'; 1 << 20])];
        let odd: Headers = (0..=255_u8).map(|byte| (vec![byte], vec![byte, 0xff, 0xc0, byte])).collect();
        for (what, more) in [("many", many), ("long", long), ("odd", odd)] {
            let case = format!("{module}: {what}");
            assert!(exchange(&mut guest, 2, &[headers("/"), more].concat(), &case), "{case}: refused");
            assert_works(&mut guest, &case);
        }
        // Pseudo-headers that are absent, empty, duplicated or not text.
        for (n, replaced) in [":method", ":scheme", ":authority", ":path"].into_iter().enumerate() {
            for value in [None, Some(&b""[..]), Some(b"\xff\xfe\0"), Some(b"%"), Some(b"http://[::1"), Some(b"a, b")] {
                let mut map = headers("/");
                match value {
                    None => drop(map.remove(n)),
                    Some(value) => map[n].1 = value.to_vec(),
                }
                let case = format!("{module}: {replaced} {value:?}");
                exchange(&mut guest, 2, &map, &case);
                map.push((replaced.as_bytes().to_vec(), b"second".to_vec()));
                exchange(&mut guest, 2, &map, &case);
                assert_works(&mut guest, &case);
            }
        }
    }
}

#[test]
fn properties_and_shared_data_may_be_anything() {
    let values: [&[u8]; 7] =
        [b"", b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"192.0.2.1", b":", b"[", &[b'9'; 70_000]];
    for module in MODULES {
        for value in values {
            let mut guest = guest(module);
            let case = format!("{module}: {:?}", value.get(..9).unwrap_or(value));
            // First there is some shared data, then all of it is this value.
            exchange(&mut guest, 2, &headers("/watched"), &case);
            for path in [
                "source\0address",
                "destination\0port",
                "connection\0requested_server_name",
                "connection\0uri_san_peer_certificate",
                "xds\0node\0metadata\0NAMESPACE",
                "xds\0node\0metadata\0SERVICE_ACCOUNT",
                "response\0flags",
                "penstock.route",
                "plugin_name",
            ] {
                guest.host().properties.insert(path.as_bytes().to_vec(), value.to_vec());
            }
            guest.host().overwrite_shared_data(value);
            for path in ["/", "/watched", "/watched"] {
                exchange(&mut guest, 2, &headers(path), &case);
            }
            guest.host().properties.insert(b"destination\0port".to_vec(), 443_i64.to_le_bytes().to_vec());
            assert_works(&mut guest, &case);
        }
    }
}

#[test]
fn callbacks_may_come_in_any_order_and_for_streams_that_do_not_exist() {
    const CALLBACKS: [(&str, usize); 9] = [
        ("proxy_on_context_create", 2),
        ("proxy_on_request_headers", 3),
        ("proxy_on_response_headers", 3),
        ("proxy_on_log", 1),
        ("proxy_on_done", 1),
        ("proxy_on_delete", 1),
        ("proxy_on_tick", 1),
        ("proxy_on_configure", 2),
        ("proxy_on_new_connection", 1),
    ];
    for module in MODULES {
        let mut guest = guest(module);
        let mut dice = 1_u64;
        for step in 0..3000 {
            let mut roll = |below: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % below
            };
            let (name, arguments) = CALLBACKS[usize::try_from(roll(9)).unwrap()];
            // Some contexts other than the plugin that is tested at the end; they are streams as well.
            let context = u32::try_from(roll(6)).unwrap() + 2;
            let parent = u32::try_from(roll(4)).unwrap();
            guest.host().request_headers = headers(if roll(2) == 0 { "/" } else { "/watched" });
            let done = match arguments {
                1 => guest.call(name, [context]),
                2 => guest.call(name, [context, parent]),
                _ => guest.call(name, [context, 7, 1]),
            };
            done.unwrap_or_else(|error| panic!("{module}, step {step}: {error:#}"));
        }
        for context in 2..8 {
            guest.call("proxy_on_delete", [context]).unwrap();
        }
        assert_works(&mut guest, module);
    }
}
