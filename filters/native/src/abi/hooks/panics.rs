//! A panic in each hook: Envoy sees none of them, and no request or connection continues because of one.

use std::collections::BTreeSet;

use super::*;
use crate::abi::fake::{FakeCallEvent, FakeExchange, FakePassage, Fate, LoadedFilter};
use crate::tests::{SUITE, suite};
use crate::trap;

/// Calls a hook, whose first guarded step panics.
fn struck<T>(hook: impl FnOnce() -> T) -> T {
    trap::arm();
    let returned = hook();
    assert!(!trap::is_armed(), "nothing of this hook is guarded");
    returned
}

fn text(text: &'static str) -> EnvoyBuffer {
    EnvoyBuffer { ptr: text.as_ptr(), length: text.len() }
}

/// A request that waits for a rate-limit service.
fn waiting(name: &str) -> (LoadedFilter, FakeExchange) {
    let loaded = suite(
        name,
        r#"{"rateLimits": [{"name": "l", "key": [], "limit": {"requests": 5, "per": "1m"},
            "scope": {"global": {"cluster": "rl", "domain": "shop", "onFailure": "Allow"}}}]}"#,
    );
    let exchange = FakeExchange::sent(&loaded, &[]);
    assert_eq!(exchange.fate(), Fate::Waits);
    (loaded, exchange)
}

fn forwarded(name: &str) -> (LoadedFilter, FakeExchange) {
    let loaded = suite(name, SUITE);
    let exchange = FakeExchange::sent(&loaded, &[]);
    assert_eq!(exchange.fate(), Fate::Forwarded);
    (loaded, exchange)
}

fn network(name: &str) -> LoadedFilter {
    let policy = r#"{"egress": {"rules": [{"name": "r", "to": [{"host": "shop.test"}]}]}}"#;
    LoadedFilter::network(&format!("egress-allowlist/{name}"), policy).expect("a good policy")
}

/// The request that waits is refused by a panic in this hook.
fn refuses(hook: &str, act: impl FnOnce(&FakeExchange)) {
    let (_loaded, exchange) = waiting(&format!("panics-{hook}"));
    struck(|| act(&exchange));
    assert_eq!(exchange.fate(), Fate::Answered(503), "{hook}");
}

/// A part of a service's reply is lost: the request goes on waiting for the end of the reply.
fn loses(hook: &str, event: FakeCallEvent) {
    let (_loaded, exchange) = waiting(&format!("panics-{hook}"));
    struck(|| exchange.call(&event));
    assert_eq!(exchange.fate(), Fate::Waits, "{hook}");
}

/// The response continues.
fn continues(hook: &str, act: impl FnOnce(Ptr, *const c_void) -> u32) {
    let (_loaded, exchange) = forwarded(&format!("panics-{hook}"));
    let (envoy, filter) = exchange.sides();
    assert_eq!(struck(|| act(envoy, filter)), status::CONTINUE, "{hook}");
    assert!(exchange.reply().is_none(), "{hook}");
}

/// The rest of a hook's name, and a test of what follows from a panic in it.
type PanickingHook = (&'static str, fn(&str));

/// The hooks that run code.
const HOOKS: [PanickingHook; 26] = [
    ("program_init", |_| assert!(struck(|| envoy_dynamic_module_on_program_init()).is_null())),
    ("http_filter_config_new", |_| {
        let (envoy, name) = (std::ptr::dangling_mut(), text("suite/panics"));
        assert!(struck(|| envoy_dynamic_module_on_http_filter_config_new(envoy, name, text(SUITE))).is_null());
    }),
    ("http_filter_config_destroy", |hook| {
        let loaded = suite(&format!("panics-{hook}"), SUITE);
        struck(|| drop(loaded));
    }),
    ("http_filter_config_scheduled", |hook| {
        let loaded = suite(&format!("panics-{hook}"), SUITE);
        struck(|| loaded.tick());
    }),
    ("http_filter_per_route_config_new", |_| {
        let config = || envoy_dynamic_module_on_http_filter_per_route_config_new(text("suite"), text(SUITE));
        assert!(struck(config).is_null());
    }),
    ("http_filter_new", |hook| {
        let loaded = suite(&format!("panics-{hook}"), SUITE);
        assert_eq!(struck(|| FakeExchange::new(&loaded, &[])).fate(), Fate::Closed);
    }),
    ("http_filter_request_headers", |hook| {
        let loaded = suite(&format!("panics-{hook}"), SUITE);
        let exchange = FakeExchange::new(&loaded, &[]);
        assert!(!struck(|| exchange.request_headers(true)));
        assert_eq!(exchange.fate(), Fate::Answered(503));
    }),
    ("http_filter_request_body", |hook| {
        refuses(hook, |exchange| assert_eq!(exchange.request_body(true), status::DROP_BODY));
    }),
    ("http_filter_request_trailers", |hook| {
        refuses(hook, |exchange| assert_eq!(exchange.request_trailers(), status::STOP));
    }),
    ("http_filter_response_headers", |hook| {
        continues(hook, |envoy, filter| envoy_dynamic_module_on_http_filter_response_headers(envoy, filter, true));
    }),
    ("http_filter_response_body", |hook| {
        continues(hook, |envoy, filter| envoy_dynamic_module_on_http_filter_response_body(envoy, filter, true));
    }),
    ("http_filter_response_trailers", |hook| {
        continues(hook, |envoy, filter| envoy_dynamic_module_on_http_filter_response_trailers(envoy, filter));
    }),
    ("http_filter_stream_complete", |hook| {
        let (_loaded, exchange) = waiting(&format!("panics-{hook}"));
        struck(|| exchange.complete());
    }),
    ("http_filter_destroy", |hook| {
        let (_loaded, exchange) = waiting(&format!("panics-{hook}"));
        struck(|| exchange.destroy());
    }),
    ("http_filter_http_stream_headers", |hook| loses(hook, FakeCallEvent::Headers(&[(":status", "200")]))),
    ("http_filter_http_stream_data", |hook| loses(hook, FakeCallEvent::Data(vec![vec![0; 5]]))),
    ("http_filter_http_stream_trailers", |hook| loses(hook, FakeCallEvent::Trailers(&[("grpc-status", "0")]))),
    ("http_filter_http_stream_complete", |hook| refuses(hook, |exchange| exchange.call(&FakeCallEvent::Complete))),
    ("http_filter_http_stream_reset", |hook| refuses(hook, |exchange| exchange.call(&FakeCallEvent::Reset))),
    ("network_filter_config_new", |_| {
        let (envoy, name) = (std::ptr::dangling_mut(), text("egress-allowlist/panics"));
        assert!(struck(|| envoy_dynamic_module_on_network_filter_config_new(envoy, name, text(SUITE))).is_null());
    }),
    ("network_filter_config_destroy", |hook| {
        let loaded = network(&format!("panics-{hook}"));
        struck(|| drop(loaded));
    }),
    ("network_filter_config_scheduled", |hook| {
        let loaded = network(&format!("panics-{hook}"));
        struck(|| loaded.tick());
    }),
    ("network_filter_new", |hook| {
        let loaded = network(&format!("panics-{hook}"));
        let connection = struck(|| FakePassage::new(&loaded, Some("shop.test"), &[]));
        assert!(connection.sides().1.is_null());
    }),
    ("network_filter_new_connection", |hook| {
        let loaded = network(&format!("panics-{hook}"));
        let connection = FakePassage::new(&loaded, Some("shop.test"), &[]);
        assert_eq!(struck(|| connection.opened()), (false, true));
    }),
    ("network_filter_read", |hook| {
        let loaded = network(&format!("panics-{hook}"));
        let connection = FakePassage::new(&loaded, Some("shop.test"), &[]);
        assert_eq!(connection.opened(), (true, false));
        let (envoy, filter) = connection.sides();
        assert_eq!(struck(|| envoy_dynamic_module_on_network_filter_read(envoy, filter, 1, false)), status::STOP);
    }),
    ("network_filter_destroy", |hook| {
        let loaded = network(&format!("panics-{hook}"));
        let connection = FakePassage::new(&loaded, Some("shop.test"), &[]);
        struck(|| drop(connection));
    }),
];

/// Hooks without code, in addition to those that `unused!` declares.
const EMPTY: [&str; 3] = ["http_filter_per_route_config_destroy", "http_filter_local_reply", "network_filter_write"];

#[test]
fn a_panic_in_a_hook_never_reaches_envoy_and_lets_nothing_through() {
    for (hook, panics) in HOOKS {
        println!("{hook}");
        panics(hook);
    }
}

#[test]
fn no_hook_is_left_out() {
    let (source, _) = include_str!("../hooks.rs").split_once("\nunused! {").unwrap();
    let named = source.split("extern \"C\" fn envoy_dynamic_module_on_").skip(1);
    let found: BTreeSet<&str> = named.map(|rest| rest.split('(').next().unwrap()).collect();
    let tested: BTreeSet<&str> = HOOKS.iter().map(|(hook, _)| *hook).chain(EMPTY).collect();
    assert_eq!(tested, found);
}
