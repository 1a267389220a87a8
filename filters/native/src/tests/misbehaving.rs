//! An Envoy that lacks callbacks, fails, returns wrong values, or calls hooks at the wrong time. Whatever it does, no
//! request continues that the policy does not allow, and the process does not end.

use std::cell::RefCell;
use std::sync::mpsc;
use std::thread;

use super::{SUITE, fate, suite};
use crate::abi::fake::{
    self, FakeCallEvent, FakeExchange, Fate, Faults, LoadedFilter, OPTIONAL, REQUIRED, faults, with_faults,
};

/// Faults during `act`, which gets a unique plugin name.
fn each_failing(act: impl Fn(&str, &str)) {
    // What Envoy fails to take back is leaked by Envoy.
    for name in REQUIRED.iter().chain(OPTIONAL).filter(|name| !name.ends_with("_delete")) {
        with_faults(|faults| faults.failing.extend([*name]), || act(name, &format!("misbehaving-{name}")));
    }
}

#[test]
fn an_envoy_without_a_callback_that_is_always_needed_does_not_get_the_module() {
    for name in REQUIRED {
        assert!(!fake::load_without(&[*name]), "{name}");
    }
    assert!(fake::load_without(&[]));
}

/// Runs a policy with every section, and returns the result of a request that it allows.
fn run(loaded: &LoadedFilter) -> Fate {
    assert_ne!(fate(loaded, &[(":authority", "evil.test")]), Fate::Forwarded);
    assert_ne!(fate(loaded, &[(":authority", "127.1")]), Fate::Forwarded);
    let exchange = FakeExchange::sent(loaded, &[("x-user", "a"), ("x-group", "beta"), ("x-penstock-route", "spoofed")]);
    if exchange.fate() == Fate::Forwarded {
        assert_ne!(exchange.values(0, "x-penstock-route"), ["spoofed"]);
        exchange.response(&[(":status", "503"), ("content-type", "application/grpc")], &[("grpc-status", "14")]);
    }
    let fate = exchange.fate();
    drop(exchange);
    loaded.tick();
    fate
}

#[test]
fn an_envoy_without_a_callback_that_some_need_decides_the_same() {
    for name in OPTIONAL {
        assert!(fake::load_without(&[*name]), "{name}");
        let loaded = suite(&format!("lacking-{name}"), SUITE);
        assert_eq!(run(&loaded), Fate::Forwarded, "{name}");
    }
    // There is no call to a service: the limit's own `onFailure` decides.
    assert!(fake::load_without(&["http_filter_start_http_stream"]));
    for (on_failure, expected) in [("Deny", Fate::Answered(429)), ("Allow", Fate::Forwarded)] {
        let policy = format!(
            r#"{{"rateLimits": [{{"name": "l", "key": [], "limit": {{"requests": 5, "per": "1m"}},
            "scope": {{"global": {{"cluster": "rl", "domain": "shop", "onFailure": "{on_failure}"}}}}}}]}}"#
        );
        assert_eq!(fate(&suite("lacking-call", &policy), &[]), expected);
    }
    fake::load_without(&[]);
}

#[test]
fn a_callback_that_fails_lets_no_request_through_that_the_policy_refuses() {
    let loaded = suite("misbehaving-each", SUITE);
    each_failing(|_, _| {
        run(&loaded);
    });
    // The same when the configuration is loaded in that Envoy.
    each_failing(|name, plugin| {
        if let Some(loaded) = LoadedFilter::http(&format!("suite/{plugin}"), SUITE) {
            let fate = run(&loaded);
            if ["http_set_header", "http_get_headers", "http_get_headers_size"].contains(&name) {
                assert_ne!(fate, Fate::Forwarded, "{name}");
            }
        }
    });
}

#[test]
fn a_header_map_that_lies_is_no_way_round_the_policy() {
    let loaded = suite("misbehaving-lies", SUITE);
    // Missing headers are read as empty ones and hide no others.
    let while_it_lies = |lie: fn(&mut Faults), is_readable: bool| {
        with_faults(lie, || {
            assert_eq!(fate(&loaded, &[]) == Fate::Forwarded, is_readable);
            assert_ne!(fate(&loaded, &[(":authority", "evil.test")]), Fate::Forwarded);
            loaded.tick();
        });
    };
    while_it_lies(|faults| faults.count = Some(usize::MAX), false);
    while_it_lies(|faults| faults.count = Some(2_000), true);
    while_it_lies(|faults| faults.null_views = true, false);
    assert_eq!(fate(&loaded, &[]), Fate::Forwarded);
}

#[test]
fn a_panic_refuses_its_request_alone() {
    let loaded = suite("misbehaving-panic", SUITE);
    let trapped = || FakeExchange::new(&loaded, &[("x-penstock-trap", "1")]);
    for acts_at_once in [false, true] {
        with_faults(
            |faults| faults.acts_at_once = acts_at_once,
            || {
                let exchange = trapped();
                assert!(!exchange.request_headers(false));
                assert_eq!((exchange.fate(), exchange.request_body(true)), (Fate::Answered(503), 3));
                assert_eq!(exchange.reply().map(|reply| reply.details).as_deref(), Some("penstock_host_panic"));
            },
        );
    }
    assert_eq!(fate(&loaded, &[]), Fate::Forwarded);
    assert_eq!(fate(&loaded, &[(":authority", "evil.test")]), Fate::Answered(403));
    loaded.tick();
    assert_eq!(loaded.metric("penstock.internal_errors_total panic"), Some(2));
}

#[test]
fn a_panic_while_a_response_passes_is_counted_and_the_response_goes_on() {
    let loaded = suite("misbehaving-response", SUITE);
    let exchange = FakeExchange::sent(&loaded, &[("x-user", "a")]);
    assert_eq!(exchange.response(&[(":status", "200"), ("x-penstock-trap", "1")], &[("grpc-status", "0")]), 0);
    assert_eq!((exchange.fate(), exchange.reply().is_none()), (Fate::Forwarded, true));
    drop(exchange);
    loaded.tick();
    assert_eq!(loaded.metric("penstock.internal_errors_total panic"), Some(1));
}

#[test]
fn a_panic_when_a_service_answers_refuses_the_request_that_waits() {
    let policy = r#"{"rateLimits": [{"name": "l", "key": [], "limit": {"requests": 5, "per": "1m"},
        "scope": {"global": {"cluster": "rl", "domain": "shop", "onFailure": "Allow"}}}]}"#;
    let loaded = suite("misbehaving-reply", policy);
    for event in [FakeCallEvent::Complete, FakeCallEvent::Reset] {
        let exchange = FakeExchange::sent(&loaded, &[("x-penstock-trap-reply", "1")]);
        assert_eq!(exchange.fate(), Fate::Waits);
        for _ in 0..2 {
            exchange.call(&event);
            assert_eq!((exchange.fate(), exchange.request_body(true)), (Fate::Answered(503), 3));
        }
    }
    loaded.tick();
    assert_eq!(loaded.metric("penstock.internal_errors_total panic"), Some(2));
}

/// Envoy may carry out a local reply within its callback, and call every hook of the exchange from there.
#[test]
fn hooks_within_callbacks_find_what_they_need() {
    let loaded = suite("misbehaving-inline", SUITE);
    faults(|faults| faults.acts_at_once = true);
    for _ in 0..5 {
        run(&loaded);
    }
    assert_eq!(fate(&loaded, &[("x-user", "a")]), Fate::Answered(429));
    faults(|faults| *faults = Faults::default());
}

#[test]
fn hooks_of_an_exchange_that_is_gone_do_nothing() {
    let loaded = suite("misbehaving-gone", SUITE);
    let exchange = FakeExchange::sent(&loaded, &[]);
    let calls = exchange.calls().0.len();
    exchange.destroy();
    assert!(!exchange.request_headers(true));
    assert_eq!((exchange.request_body(true), exchange.request_trailers()), (3, 1));
    exchange.response(&[(":status", "200")], &[("grpc-status", "0")]);
    for event in [
        FakeCallEvent::Headers(&[(":status", "200")]),
        FakeCallEvent::Data(vec![vec![1]]),
        FakeCallEvent::Complete,
        FakeCallEvent::Reset,
    ] {
        exchange.call_of(1, &event);
    }
    exchange.complete();
    exchange.destroy();
    assert_eq!((exchange.calls().0.len(), exchange.values(2, "set-cookie").len()), (calls, 0));
}

#[test]
fn an_exchange_in_the_wrong_order_is_no_way_round_the_policy() {
    let loaded = suite("misbehaving-order", SUITE);
    // The body and the response before the headers.
    let exchange = FakeExchange::new(&loaded, &[(":authority", "evil.test")]);
    exchange.response(&[(":status", "200")], &[]);
    exchange.request_trailers();
    assert!(!exchange.request_headers(true));
    assert_eq!(exchange.fate(), Fate::Answered(403));
    // The headers twice.
    let exchange = FakeExchange::new(&loaded, &[(":authority", "evil.test")]);
    assert!(!exchange.request_headers(true));
    assert!(!exchange.request_headers(true));
    assert_eq!(exchange.request_body(true), 3);
}

/// A thread that ends has destroyed its filters; later hooks find none and have no effect.
#[test]
fn hooks_within_the_end_of_a_thread_let_nothing_through() {
    struct AtTheEnd(RefCell<Option<FakeExchange>>, RefCell<Option<mpsc::Sender<bool>>>);
    impl Drop for AtTheEnd {
        fn drop(&mut self) {
            if let (Some(exchange), Some(sender)) = (self.0.take(), self.1.take()) {
                let has_gone_on = exchange.request_headers(true);
                drop(exchange);
                let _ = sender.send(has_gone_on);
            }
        }
    }
    thread_local! {
        static AT_THE_END: AtTheEnd = const { AtTheEnd(RefCell::new(None), RefCell::new(None)) };
    }
    let loaded = suite("misbehaving-thread", SUITE);
    let (sender, ended) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Thread-local values are destroyed in reverse order of first use.
            AT_THE_END.with(|end| end.1.replace(Some(sender)));
            AT_THE_END.with(|end| end.0.replace(Some(FakeExchange::new(&loaded, &[]))));
        });
    });
    assert_eq!(ended.recv(), Ok(false));
}
