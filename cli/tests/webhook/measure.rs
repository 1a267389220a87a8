//! How many admissions a core can answer, how long a large policy takes, and that memory does not grow.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Webhook, review, wasm_plugin};

const CEILING: &str = "egress: {rules: [{name: p, to: [{host: '*.a.test'}]}]}\n";

fn start() -> Webhook {
    Webhook::start(&["--ceilings", "ceilings"], |folder| {
        std::fs::create_dir(folder.join("ceilings")).unwrap();
        std::fs::write(folder.join("ceilings/c.yaml"), CEILING).unwrap();
    })
}

/// A review of a plugin with this many egress rules.
fn with_rules(count: usize) -> String {
    let rule = |i| json!({"name": format!("r{i}"), "to": [{"host": format!("h{i}.a.test"), "ports": [443]}], "methods": ["GET"]});
    let rules: Vec<Value> = (0..count).map(rule).collect();
    review("WasmPlugin", "CREATE", &wasm_plugin(&json!({"egress": {"rules": rules}})), None).to_string()
}

/// Sends a review this many times on one connection; returns the webhook's CPU time for one.
fn cpu_of_each(webhook: &Webhook, path: &str, body: &str, count: u32) -> Duration {
    let agent = webhook.agent();
    let before = webhook.cpu();
    for _ in 0..count {
        assert_eq!(agent.post(format!("{}{path}", webhook.url)).send(body).unwrap().status(), 200);
    }
    (webhook.cpu() - before) / count
}

fn wall(webhook: &Webhook, path: &str, body: &str) -> Duration {
    let agent = webhook.agent();
    let begin = Instant::now();
    assert_eq!(agent.post(format!("{}{path}", webhook.url)).send(body).unwrap().status(), 200);
    begin.elapsed()
}

/// A short form of the test below, for any machine and build, with bounds that only a change in the order of growth
/// exceeds.
#[test]
fn admissions_are_cheap_large_policies_quick_and_the_memory_stays_flat() {
    // A build without optimization is about ten times slower.
    let slower = if cfg!(debug_assertions) { 20 } else { 2 };
    let webhook = start();
    let small = with_rules(10);
    let each = cpu_of_each(&webhook, "/validate", &small, 200);
    assert!(each < Duration::from_millis(1) * slower, "{each:?} of CPU an admission");
    let large = with_rules(1_000);
    for path in ["/validate", "/validate/ceilings/c"] {
        let took = wall(&webhook, path, &large);
        assert!(took < Duration::from_millis(200) * slower, "{path}: 1,000 rules in {took:?}");
    }
    let mut most = [0, 0];
    for round in &mut most {
        for _ in 0..6 {
            cpu_of_each(&webhook, "/validate/ceilings/c", &large, 1);
            cpu_of_each(&webhook, "/validate", &small, 10);
            *round = webhook.resident().max(*round);
        }
    }
    assert!(most[1] <= most[0] + 16 * 1024, "{most:?} KiB");
}

/// A measurement for an idle machine: `cargo test --release -p penstock --test webhook -- --ignored --nocapture`.
#[test]
#[ignore = "measures; wants a release build and a quiet machine"]
fn a_thousand_admissions_a_second_on_a_core_and_ten_thousand_rules_in_two_seconds() {
    let webhook = start();
    let small = with_rules(10);
    for _ in 0..3 {
        let each = cpu_of_each(&webhook, "/validate", &small, 2_000);
        println!("{:.0} admissions a second on a core; {} KiB", 1.0 / each.as_secs_f64(), webhook.resident());
        assert!(each < Duration::from_millis(1), "{each:?} of CPU an admission");
    }
    let large = with_rules(10_000);
    for path in ["/validate", "/validate/ceilings/c"] {
        let (mut slowest, mut most) = (Duration::ZERO, [0, 0]);
        for round in &mut most {
            for _ in 0..20 {
                slowest = wall(&webhook, path, &large).max(slowest);
                *round = webhook.resident().max(*round);
            }
        }
        println!("{path}: 10,000 rules in at most {slowest:?}; at most {most:?} KiB in each half of 40 of them");
        assert!(slowest < Duration::from_secs(2) && most[1] <= most[0] + 16 * 1024);
    }
}
