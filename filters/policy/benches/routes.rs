//! What a policy costs to load and a request to route, by the number of rules: `cargo bench -p penstock-policy`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark stops at the first surprise"
)]

use divan::{Bencher, black_box};
use penstock_policy::module::Suite;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Header, Policy, Request, Timestamp};
use serde_json::{Value, json};

const RULES: [usize; 4] = [10, 1_000, 10_000, 100_000];

/// What the rules tell requests apart by.
const SHAPES: [&str; 5] = ["host", "wildcard", "path", "header", "mixed"];

fn main() {
    divan::main();
}

fn document(shape: &str, rules: usize) -> String {
    let rule = |i: usize| -> Value {
        let matches = match shape {
            "host" => json!({"hostnames": [format!("h{i}.example.com")]}),
            "wildcard" => json!({"hostnames": [format!("*.h{i}.example.com")]}),
            "path" => json!({"path": {"value": format!("/api/v1/tenant{i}")}}),
            "header" => {
                json!({"headers": [{"name": "x-env", "value": "prod"}, {"name": "x-tenant", "value": i.to_string()}]})
            }
            _ => json!({
                "hostnames": [format!("h{}.example.com", i % 100)],
                "path": {"value": format!("/api/v{}", i / 100)},
                "method": "GET",
            }),
        };
        json!({"name": format!("r{i}"), "route": format!("r{}", i % 10), "matches": [matches]})
    };
    json!({"routes": {"rules": (0..rules).map(rule).collect::<Vec<_>>()}}).to_string()
}

/// A browser's request that the rule in the middle takes.
fn request(shape: &str, rules: usize) -> WireRequest {
    let i = rules / 2;
    let (host, path) = match shape {
        "host" => (format!("h{i}.example.com"), "/index.html".to_owned()),
        "wildcard" => (format!("a.h{i}.example.com"), "/index.html".to_owned()),
        "path" => ("shop.example.com".to_owned(), format!("/api/v1/tenant{i}/cart")),
        "header" => ("shop.example.com".to_owned(), "/index.html".to_owned()),
        _ => (format!("h{}.example.com", i % 100), format!("/api/v{}/cart", i / 100)),
    };
    let mut headers = vec![("x-env", "prod".to_owned()), ("x-tenant", i.to_string())];
    headers.extend((0..10).map(|_| ("accept-language", "en-GB,en;q=0.9,de;q=0.8".to_owned())));
    let request = json!({"method": "GET", "scheme": "https", "authority": host, "path": path, "headers": headers});
    serde_json::from_value(request).unwrap()
}

#[divan::bench(args = RULES, consts = [0, 1, 2, 3, 4], sample_count = 20)]
fn compile<const SHAPE: usize>(bencher: Bencher<'_, '_>, rules: usize) {
    let document = document(SHAPES[SHAPE], rules);
    bencher.bench(|| Policy::<Suite>::from_json(black_box(document.as_bytes())).unwrap());
}

#[divan::bench(args = RULES, consts = [0, 1, 2, 3, 4])]
fn decide<const SHAPE: usize>(bencher: Bencher<'_, '_>, rules: usize) {
    let policy = Policy::<Suite>::from_json(document(SHAPES[SHAPE], rules).as_bytes()).unwrap();
    let wire = request(SHAPES[SHAPE], rules);
    let mut world = World::new(Timestamp(0), 0);
    assert!(serde_json::to_string(&wire.decide(&policy, &mut world)).unwrap().contains(&format!("r{}", rules / 2)));
    let map = wire.header_map();
    let headers: Vec<Header<'_>> = map.iter().map(|(name, value)| (&**name, &**value)).collect();
    bencher.bench_local(|| {
        let request = Request::new(black_box(&headers));
        policy.decide(&request, &mut wire.environment(&mut world)).unwrap().route.map(str::len)
    });
}
