//! Policies that come and go: nothing of them stays.

use super::{SUITE, suite};
use crate::abi::fake::{FakeExchange, Fate, LoadedFilter, allocated};

/// `PENSTOCK_RELOADS`: 10,000 in `make sanitize`.
fn reloads() -> usize {
    let asked = std::env::var("PENSTOCK_RELOADS").ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(if cfg!(miri) { 6 } else { 120 })
}

/// Each has rules of its own beside the same limit.
fn policy(number: usize) -> String {
    SUITE.replace("\"name\": \"beta\"", &format!("\"name\": \"beta-{}\"", number % 7))
}

#[test]
fn reloads_under_requests_keep_no_memory() {
    let reload = |number: usize, old: &mut LoadedFilter| {
        // A request of the old policy is under way while the new one comes, and ends after the old one is gone.
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
        // All users have come, and what grows once has grown.
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
