//! What a local limit costs, by the number of keys that come in turn: `cargo bench -p penstock-policy`. The shared data is that
//! of a replay, a map in memory; a proxy's costs a host call a write.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark stops at the first surprise"
)]

use divan::{Bencher, black_box};
use penstock_policy::module::RateLimit;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Header, Policy, Request, Timestamp};
use serde_json::json;

fn main() {
    divan::main();
}

/// GCRA on one bucket of a set, found by the key's fingerprint.
#[divan::bench(args = [1, 1_000, 30_000])]
fn take(bencher: Bencher<'_, '_>, keys: usize) {
    let limit = json!({"name": "l", "key": [{"header": "x-key"}], "limit": {"requests": 1_000_000, "per": "1s"}});
    let document = json!({"rateLimits": [limit]});
    let policy = Policy::<RateLimit>::from_json(document.to_string().as_bytes()).unwrap();
    let requests: Vec<WireRequest> = (0..keys)
        .map(|key| {
            let headers = [["x-key".to_owned(), format!("key-{key}")]];
            let request = json!({"method": "GET", "authority": "a.test", "path": "/", "headers": headers});
            serde_json::from_value(request).unwrap()
        })
        .collect();
    let maps: Vec<_> = requests.iter().map(WireRequest::header_map).collect();
    let all: Vec<Vec<Header<'_>>> =
        maps.iter().map(|map| map.iter().map(|(name, value)| (&**name, &**value)).collect()).collect();
    let mut world = World::new(Timestamp(1_700_000_000_000_000_000), 0);
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % keys;
        let request = Request::new(black_box(&all[at]));
        policy.decide(&request, &mut requests[at].environment(&mut world)).unwrap().counts.len()
    });
}
