//! Worker threads that decide with one policy concurrently.

use std::thread;

use super::{fate, suite};
use crate::abi::fake::Fate;

/// Returns `(passed, refused)` for this many requests of each of this many workers.
fn together(
    loaded: &crate::abi::fake::LoadedFilter,
    workers: usize,
    requests: usize,
    user: impl Fn(usize) -> String + Sync,
) -> (usize, usize) {
    let user = &user;
    let counts = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    let passed =
                        (0..requests).filter(|_| fate(loaded, &[("x-user", &user(worker))]) == Fate::Forwarded);
                    let passed = passed.count();
                    (passed, requests - passed)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    counts.into_iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
}

#[test]
fn workers_together_pass_exactly_as_many_as_the_limit_says() {
    let each = if cfg!(miri) { 6 } else { 500 };
    for workers in [1, 2, 4] {
        let limit = workers * each / 2 + 1;
        let policy = format!(
            r#"{{"rateLimits": [{{"name": "l", "key": [{{"header": "x-user"}}], "limit": {{"requests": {limit}, "per": "24h"}}}}]}}"#
        );
        let loaded = suite(&format!("workers-{workers}"), &policy);
        assert_eq!(together(&loaded, workers, each, |_| "one".to_owned()), (limit, workers * each - limit));
        // Each worker has its own key.
        let (passed, refused) = together(&loaded, workers, each, |worker| format!("user-{worker}"));
        let expected = workers * limit.min(each);
        assert_eq!((passed, refused), (expected, workers * each - expected));
        loaded.tick();
        let total = (limit + expected) as u64;
        assert_eq!(loaded.metric("penstock.requests_total rateLimits l passed"), Some(total));
    }
}
