//! What an allowlist costs to load and a request to decide, by the number of rules: `cargo bench -p penstock-policy`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark stops at the first surprise"
)]

use divan::{Bencher, black_box};
use penstock_policy::module::EgressAllowlist;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Header, Policy, Request, Scratch, Timestamp};
use serde_json::json;

const RULES: [usize; 4] = [10, 1_000, 10_000, 100_000];

fn main() {
    divan::main();
}

/// By what the rules name their destinations.
const SHAPES: [&str; 2] = ["host", "cidr"];

fn destination(shape: &str, i: usize) -> String {
    match shape {
        "host" => format!("h{i}.example.com"),
        _ => format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255),
    }
}

fn document(shape: &str, rules: usize) -> String {
    let length = if shape == "cidr" { "/32" } else { "" };
    let to = |i| format!("{}{length}", destination(shape, i));
    let rule = |i| json!({"name": format!("r{i}"), "to": [{shape: to(i), "ports": [443]}]});
    json!({"egress": {"rules": (0..rules).map(rule).collect::<Vec<_>>()}}).to_string()
}

#[divan::bench(args = RULES, consts = [0, 1], sample_count = 5, sample_size = 1)]
fn load<const SHAPE: usize>(bencher: Bencher<'_, '_>, rules: usize) {
    let document = document(SHAPES[SHAPE], rules);
    bencher.bench(|| Policy::<EgressAllowlist>::from_json(black_box(document.as_bytes())).unwrap());
}

#[divan::bench(args = RULES, consts = [0, 1])]
fn decide<const SHAPE: usize>(bencher: Bencher<'_, '_>, rules: usize) {
    let shape = SHAPES[SHAPE];
    let policy = Policy::<EgressAllowlist>::from_json(document(shape, rules).as_bytes()).unwrap();
    let request: WireRequest = serde_json::from_value(json!({
        "method": "GET", "scheme": "https", "authority": destination(shape, rules / 2), "path": "/v1/things?page=2",
        "headers": [["user-agent", "bench"], ["accept", "*/*"], ["x-request-id", "1"]], "destinationPort": 443,
    }))
    .unwrap();
    let owned = request.header_map();
    let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut world = World::new(Timestamp(0), 0);
    bencher.bench_local(|| {
        let scratch = Scratch::default();
        let mut environment = request.environment(&mut world);
        let decision = policy.decide(&Request::new(&headers).with_scratch(&scratch), &mut environment).unwrap();
        assert!(decision.rule.is_some());
    });
}
