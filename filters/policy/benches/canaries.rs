//! What a sticky choice costs, by the number of variants: `cargo bench -p penstock-policy`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark stops at the first surprise")]

use divan::{Bencher, black_box};
use penstock_policy::module::Canary;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Header, Policy, Request, Timestamp};
use serde_json::json;

fn main() {
    divan::main();
}

/// One hash and one logarithm for each variant: weighted rendezvous hashing is linear in them.
#[divan::bench(args = [2, 4, 8, 16, 32, 64])]
fn choose(bencher: Bencher<'_, '_>, variants: u32) {
    let variants: Vec<_> = (0..variants).map(|i| json!({"name": format!("v{i}"), "weight": 1 + i})).collect();
    let document = json!({"canaries": [{"name": "shop", "stickiness": {"header": "x-user"}, "variants": variants}]});
    let policy = Policy::<Canary>::from_json(document.to_string().as_bytes()).unwrap();
    let wire: WireRequest = serde_json::from_value(json!({
        "method": "GET", "authority": "shop.example.com", "path": "/", "headers": [["x-user", "user-48151623"]],
    }))
    .unwrap();
    let map = wire.header_map();
    let headers: Vec<Header<'_>> = map.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut world = World::new(Timestamp(0), 0);
    bencher.bench_local(|| {
        let request = Request::new(black_box(&headers));
        policy.decide(&request, &mut wire.environment(&mut world)).unwrap().route.map(str::len).unwrap()
    });
}
