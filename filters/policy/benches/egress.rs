//! What an allowlist costs to load and a request to decide, by the number of rules: `cargo bench -p penstock-policy`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark stops at the first surprise")]

use divan::{Bencher, black_box};
use penstock_policy::module::EgressAllowlist;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Header, Policy, Request, Scratch, Timestamp};
use serde_json::json;

const RULES: [usize; 3] = [10, 1_000, 100_000];

fn main() {
    divan::main();
}

fn document(rules: usize) -> String {
    let rule = |i| json!({"name": format!("r{i}"), "to": [{"host": format!("h{i}.example.com"), "ports": [443]}]});
    json!({"egress": {"rules": (0..rules).map(rule).collect::<Vec<_>>()}}).to_string()
}

#[divan::bench(args = RULES, sample_count = 5, sample_size = 1)]
fn load(bencher: Bencher<'_, '_>, rules: usize) {
    let document = document(rules);
    bencher.bench(|| Policy::<EgressAllowlist>::from_json(black_box(document.as_bytes())).unwrap());
}

#[divan::bench(args = RULES)]
fn decide(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = Policy::<EgressAllowlist>::from_json(document(rules).as_bytes()).unwrap();
    let request: WireRequest = serde_json::from_value(json!({
        "method": "GET", "scheme": "https", "authority": format!("h{}.example.com", rules / 2), "path": "/v1/things?page=2",
        "headers": [["user-agent", "bench"], ["accept", "*/*"], ["x-request-id", "1"]], "destinationPort": 443,
    }))
    .unwrap();
    let owned = request.header_map();
    let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut world = World::new(Timestamp(0), 0);
    bencher.bench_local(|| {
        let scratch = Scratch::default();
        let mut environment = request.environment(&mut world);
        let decision = policy.decide(&Request::new(&headers).with_scratch(&scratch), &mut environment);
        black_box(decision.rule.is_some())
    });
}
