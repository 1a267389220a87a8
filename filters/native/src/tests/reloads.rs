//! Policies that are loaded and destroyed: nothing of them leaks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{SUITE, fate, suite};
use crate::abi::fake::{FakeExchange, Fate, LoadedFilter, allocated};

/// `PENSTOCK_RELOADS`: 10,000 in `make sanitize`.
fn reloads() -> usize {
    let asked = std::env::var("PENSTOCK_RELOADS").ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(if cfg!(miri) { 6 } else { 120 })
}

/// Each policy has its own rules and the same limit.
fn policy(number: usize) -> String {
    SUITE.replace("\"name\": \"beta\"", &format!("\"name\": \"beta-{}\"", number % 7))
}

#[test]
fn reloads_under_requests_keep_no_memory() {
    let reload = |number: usize, old: &mut LoadedFilter| {
        // A request of the old policy is in flight while the new one is loaded, and ends after the old one was
        // destroyed.
        let waiting = FakeExchange::sent(old, &[("x-user", "w"), (":authority", "evil.test")]);
        *old = suite("reloads", &policy(number));
        let user = format!("user-{}", number % 50);
        let exchange = FakeExchange::sent(old, &[("x-user", user.as_str()), ("x-group", "beta")]);
        if exchange.fate() == Fate::Forwarded {
            exchange.response(&[(":status", "200")], &[]);
        }
        old.tick();
        assert_eq!(waiting.fate(), Fate::Answered(403));
        assert!(LoadedFilter::http("suite/reloads", "{").is_none());
        crate::abi::fake::log();
    };
    let mut loaded = suite("reloads", &policy(0));
    let reloads = reloads();
    let mut early = 0;
    for number in 1..=reloads {
        reload(number, &mut loaded);
        // All users have sent a request, so memory has stopped growing.
        if number == reloads / 2 / 7 * 7 {
            early = allocated();
        }
    }
    let late = allocated();
    println!("{reloads} reloads: {early} bytes allocated halfway, {late} at the end");
    if reloads >= 120 {
        assert!(late <= early + 4096, "{reloads} reloads: {early} bytes halfway, {late} at the end");
    }
    drop(loaded);
    assert!(allocated() < late);
}

#[test]
fn the_module_asks_for_a_call_once_a_second_and_no_more_once_the_policy_is_gone() {
    let loaded = suite("reloads-ticks", SUITE);
    let begun = std::time::Instant::now();
    while loaded.asked() == 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(loaded);
}

/// A policy with this many limits, whose names differ from those of another `letter`.
fn limits(letter: char, number: usize) -> String {
    let limit = |at: usize| {
        format!(
            r#"{{"name": "{letter}{at}", "key": [{{"header": "x-user"}}], "limit": {{"requests": 2, "per": "24h"}}, "capacity": 64,
            "matches": [{{"path": {{"type": "PathPrefix", "value": "/{letter}{at}"}}}}]}}"#
        )
    };
    format!(r#"{{"rateLimits": [{}]}}"#, (0..number).map(limit).collect::<Vec<_>>().join(","))
}

/// Two listeners have the same plugin; its policies are loaded in turn, and a request of each old policy ends after the
/// policy was destroyed.
#[test]
fn many_limits_that_come_and_go_in_two_listeners_keep_no_memory() {
    let number = if cfg!(miri) { 5 } else { 500 };
    let policies = [('a', limits('a', number)), ('b', limits('b', number))];
    let before = allocated();
    let load = |policy: &str| suite("reloads-two", policy);
    let mut listeners = [load(&policies[0].1), load(&policies[0].1)];
    let mut after = Vec::new();
    for round in 1..=6 {
        let (letter, policy) = &policies[round % 2];
        let path = format!("/{letter}{}", number - 1);
        for listener in &mut listeners {
            let waiting = FakeExchange::new(listener, &[("x-user", "w")]);
            *listener = load(policy);
            assert!(waiting.request_headers(true));
        }
        // Tokens that one listener has consumed are not available to the other.
        let fates = [0, 1, 0, 1].map(|number| fate(&listeners[number], &[("x-user", "u"), (":path", path.as_str())]));
        assert_eq!(fates, [Fate::Forwarded, Fate::Forwarded, Fate::Answered(429), Fate::Answered(429)]);
        listeners.iter().for_each(LoadedFilter::tick);
        crate::abi::fake::log();
        after.push(allocated());
    }
    // The same policies use the same memory each time, and almost nothing of them is left.
    assert!(after[5] <= after[3] + 1024 && after[4] <= after[2] + 1024, "{after:?}");
    drop(listeners);
    crate::abi::fake::log();
    let left = allocated() - before;
    assert!(left < 4096, "{left} bytes are left, of {after:?}");
}

#[test]
fn the_memory_of_a_limit_outlives_reloads_and_is_freed_with_its_last_policy() {
    const USERS: usize = if cfg!(miri) { 20 } else { 2_000 };
    let policy =
        r#"{"rateLimits": [{"name": "l", "key": [{"header": "x-user"}], "limit": {"requests": 1, "per": "24h"}}]}"#;
    let load = || suite("reloads-freed", policy);
    let ask_all = |loaded: &LoadedFilter, expected: Fate| {
        for user in 0..USERS {
            assert_eq!(fate(loaded, &[("x-user", user.to_string().as_str())]), expected, "{user}");
        }
    };
    // What the module keeps for as long as the process lives is there after the first policy.
    drop(load());
    let before = allocated();
    let first = load();
    let unused = allocated();
    ask_all(&first, Fate::Forwarded);
    let used = allocated();
    assert!(used - unused > 8 * USERS.cast_signed(), "{unused} bytes, and {used} for {USERS} users");
    let second = load();
    drop(first);
    ask_all(&second, Fate::Answered(429));
    assert!(allocated() - before > 8 * USERS.cast_signed());
    drop(second);
    crate::abi::fake::log();
    let left = allocated() - before;
    assert!(left < 1024, "{left} bytes are left of {}", used - before);
    let third = load();
    ask_all(&third, Fate::Forwarded);
}

/// Envoy's main thread loads and destroys policies while workers decide with those that they hold.
#[test]
fn workers_decide_while_policies_come_and_go() {
    let (number, reloads) = if cfg!(miri) { (2, 3) } else { (100, 20) };
    let policies = [limits('a', number), limits('b', number)];
    let current = Mutex::new(Arc::new(suite("reloads-workers", &policies[0])));
    let is_over = AtomicBool::new(false);
    let decided = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (current, is_over, decided) = (&current, &is_over, &decided);
            scope.spawn(move || {
                for request in 0.. {
                    let loaded = Arc::clone(&current.lock().unwrap());
                    let user = format!("{worker}-{request}");
                    for path in ["/a1", "/b1"] {
                        let fate = fate(&loaded, &[("x-user", user.as_str()), (":path", path)]);
                        assert!([Fate::Forwarded, Fate::Answered(429)].contains(&fate), "{fate:?}");
                    }
                    assert_eq!(fate(&loaded, &[("x-user", user.as_str())]), Fate::Forwarded);
                    decided.fetch_add(1, Ordering::Relaxed);
                    // A worker that holds the last reference to a policy destroys it.
                    drop(loaded);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for reload in 0..reloads {
            let before = decided.load(Ordering::Relaxed);
            let loaded = suite("reloads-workers", &policies[reload % 2]);
            loaded.tick();
            *current.lock().unwrap() = Arc::new(loaded);
            // A worker that has failed makes no more decisions.
            let begun = std::time::Instant::now();
            while decided.load(Ordering::Relaxed) == before && begun.elapsed().as_secs() < 20 {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
