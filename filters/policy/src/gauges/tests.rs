use super::*;
use crate::module::Suite;
use crate::wire::{WireRequest, World};
use serde_json::{Value, json};
use std::collections::BTreeMap;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000;

/// A policy in one worker.
struct Worker {
    policy: Policy<Suite>,
    gauges: Gauges,
}

fn line(user: usize, status: u16) -> WireRequest {
    let request = json!({"method": "GET", "authority": "a.test", "path": "/", "headers": [["x-user", user.to_string()]],
        "response": {"status": status, "latency": "1ms"}});
    serde_json::from_value(request).unwrap()
}

fn world() -> World {
    World::new(Timestamp(START * SECOND), 1)
}

fn worker(document: &Value, world: &mut World) -> Worker {
    let text = document.to_string();
    let mut policy = Policy::from_json(text.as_bytes()).unwrap();
    let request = line(0, 200);
    let mut environment = request.environment(world);
    policy.start(&mut environment).unwrap();
    let gauges = Gauges::new(&policy, "shop.edge", text_hash(text.as_bytes()), &mut environment);
    Worker { policy, gauges }
}

/// The gauges that the worker writes `second` seconds after [`START`]; `None` if it does not write.
fn look(worker: &mut Worker, world: &mut World, second: u64) -> Option<BTreeMap<String, u64>> {
    world.now = Timestamp((START + second) * SECOND);
    let names = worker.gauges.names().to_vec();
    let mut told = BTreeMap::new();
    let request = line(0, 200);
    let is_ours = worker.gauges.refresh(&worker.policy, &mut request.environment(world), |place, value| {
        assert_eq!(told.insert(names[place].to_string(), value), None, "each once");
    });
    assert!(!is_ours || told.len() == names.len());
    is_ours.then_some(told)
}

fn nothing() -> Value {
    json!({"routes": {"default": "stable"}})
}

#[test]
fn the_hash_is_the_same_natively_and_in_wasm_and_exact_as_a_number() {
    assert_eq!(text_hash(b"{}"), 98_213_048_477_289);
    assert_ne!(text_hash(br#"{"a":"b c"}"#), text_hash(br#"{"a":"bc"}"#));
}

#[test]
fn a_policy_says_which_text_it_is_and_since_when() {
    let mut world = world();
    let mut first = worker(&nothing(), &mut world);
    let hash = text_hash(nothing().to_string().as_bytes());
    let expected = |hash, generation, loaded| {
        let values = [("generation", generation), ("hash", hash), ("loaded_timestamp_seconds", loaded)];
        Some(values.map(|(name, value)| (format!("penstock.policy_{name}.plugin.shop_edge"), value)).into())
    };
    assert_eq!(look(&mut first, &mut world, 1), expected(hash, 1, START));
    let document = json!({"routes": {"default": "other"}});
    let mut second = worker(&document, &mut world);
    let other = text_hash(document.to_string().as_bytes());
    assert_eq!(look(&mut second, &mut world, 2), expected(other, 2, START + 1));
    // Going back to the first policy is a change, too.
    let mut third = worker(&nothing(), &mut world);
    assert_eq!(look(&mut third, &mut world, 3), expected(hash, 3, START + 2));
}

#[test]
fn one_worker_tells_until_it_falls_silent() {
    let mut world = world();
    let (mut one, mut another) = (worker(&nothing(), &mut world), worker(&nothing(), &mut world));
    for second in 1..5 {
        assert!(look(&mut another, &mut world, second).is_none());
        assert!(look(&mut one, &mut world, second).is_some());
    }
    for second in 5..8 {
        assert!(look(&mut another, &mut world, second).is_none());
    }
    let told = look(&mut another, &mut world, 8).unwrap();
    assert_eq!(told["penstock.policy_generation.plugin.shop_edge"], 1);
    assert!(look(&mut one, &mut world, 8).is_none());
    // When the clock steps back, a worker still writes.
    assert!(look(&mut one, &mut world, 0).is_some());
}

#[test]
fn a_policy_that_was_replaced_is_silent_until_the_new_one_is_given_up() {
    let mut world = world();
    let mut old = worker(&nothing(), &mut world);
    let mut new = worker(&json!({}), &mut world);
    for second in 1..100 {
        assert!(look(&mut new, &mut world, second).is_some());
        assert!(look(&mut old, &mut world, second).is_none());
    }
    let told: Vec<_> = (100..110).filter_map(|second| look(&mut old, &mut world, second)).collect();
    assert_eq!((told.len(), told[0]["penstock.policy_generation.plugin.shop_edge"]), (6, 3));
}

#[test]
fn busy_keys_are_counted_a_part_at_a_time_and_forgotten_keys_are_not() {
    for (capacity, looks) in [(2_000, 1), (16_384, 8)] {
        let document = json!({"rateLimits": [
            {"name": "l", "key": [{"header": "x-user"}], "limit": {"requests": 2, "per": "2h"}, "capacity": capacity},
            {"name": "one", "key": [], "limit": {"requests": 1_000_000, "per": "1h"}}]});
        let mut world = world();
        let mut worker = worker(&document, &mut world);
        for user in 0..1500 {
            line(user, 200).decide(&worker.policy, &mut world);
        }
        let mut figures = Vec::new();
        for second in 1..=looks + 2 {
            figures.push(look(&mut worker, &mut world, second).unwrap());
        }
        let used: Vec<u64> = figures.iter().map(|figures| figures["penstock.rate_limit_keys_used.rule.l"]).collect();
        assert!(used.iter().all(|used| (1000..2000).contains(used)), "{used:?}");
        // After a whole round the number is exact.
        assert_eq!(used[looks as usize - 1], 1500, "{used:?}");
        assert_eq!(figures[0]["penstock.rate_limit_keys_capacity.rule.l"], capacity);
        // A limit without a key has no table that could fill up.
        assert!(!figures[0].contains_key("penstock.rate_limit_keys_used.rule.one"));
        // A bucket that is full again does not count as used.
        let mut used = 0;
        for second in 0..=2 * looks {
            used = look(&mut worker, &mut world, 3600 + second).unwrap()["penstock.rate_limit_keys_used.rule.l"];
        }
        assert_eq!(used, 0);
    }
}

/// A policy with limits of these capacities, whose names are `l0`, `l1`, ….
fn limits(capacities: impl IntoIterator<Item = u32>) -> Value {
    let limit = |(i, capacity): (usize, u32)| json!({"name": format!("l{i}"), "key": [{"header": "x-user"}], "limit": {"requests": 2, "per": "2h"}, "capacity": capacity});
    json!({"rateLimits": capacities.into_iter().enumerate().map(limit).collect::<Vec<_>>()})
}

/// The number of sets of each limit that have been read in the current round.
fn read(worker: &Worker) -> Vec<u32> {
    worker.gauges.counts.iter().map(|count| count.sets).collect()
}

#[test]
fn small_tables_are_counted_at_each_update_beside_large_ones() {
    // The small tables, the first, the last and one between them, have 8 sets each.
    let capacities = [64, 65_536, 65_536, 65_536, 65_536, 64, 65_536, 65_536, 65_536, 65_536, 65_536, 65_536, 64];
    let mut world = world();
    let mut worker = worker(&limits(capacities), &mut world);
    for second in 1..=4 {
        let users = 5 * second;
        for user in 0..users {
            line(user, 200).decide(&worker.policy, &mut world);
        }
        let figures = look(&mut worker, &mut world, second as u64).unwrap();
        for small in ["l0", "l5", "l12"] {
            assert_eq!(figures[&format!("penstock.rate_limit_keys_used.rule.{small}")], users as u64, "{small}");
        }
        // The sets that the small tables do not need are shared among the others.
        let large: Vec<u32> = read(&worker).into_iter().filter(|sets| *sets > 0).collect();
        assert_eq!((large.len(), large.iter().sum::<u32>()), (10, second as u32 * (256 - 3 * 8)));
        assert!(large.iter().all(|sets| sets.abs_diff(large[0]) <= second as u32), "{large:?}");
    }
}

#[test]
fn however_many_limits_there_are_an_update_reads_256_sets_and_each_limit_has_its_turn() {
    for number in [200, 256, 257, 1000] {
        let mut world = world();
        let mut worker = worker(&limits(vec![8_000; number]), &mut world);
        for second in 1..=10 {
            look(&mut worker, &mut world, second).unwrap();
            let read = read(&worker);
            assert_eq!(u64::from(read.iter().sum::<u32>()), 256 * second);
            let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
            assert!(most - least <= if number < 256 { second as u32 } else { 1 }, "{number}: {least} to {most}");
        }
    }
}

#[test]
fn shares_follow_ramp_and_breaker() {
    let document = json!({"canaries": [
        {"name": "shop", "stickiness": {"header": "x-user"},
         "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}],
         "ramp": {"variant": "v2", "startsAt": "2023-11-14T22:13:30Z", "steps": [{"weight": 25, "for": "10s"}, {"weight": 50}]},
         "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": 5, "errorPercent": 50, "cooldown": "1m"}},
        {"name": "thirds", "matches": [{"method": "POST"}],
         "variants": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]}],
      "routes": {"rules": [{"name": "pay", "matches": [{"method": "PUT"}], "route": "eu",
         "failover": {"route": "us"}}]}});
    let mut world = world();
    let mut worker = worker(&document, &mut world);
    let mut at = |world: &mut World, second| {
        let told = look(&mut worker, world, second).unwrap();
        let weight =
            |rule: &str, variant: &str| told[&format!("penstock.variant_weight.rule.{rule}.variant.{variant}")];
        assert_eq!((weight("thirds", "a"), weight("thirds", "b")), (333, 667));
        assert_eq!(told["penstock.breaker_state.section.routes.rule.pay.variant.eu"], 0);
        let state = told["penstock.breaker_state.section.canaries.rule.shop.variant.v2"];
        ([weight("shop", "v1"), weight("shop", "v2")], state)
    };
    assert_eq!(at(&mut world, 1), ([1000, 0], 0));
    assert_eq!(at(&mut world, 10), ([750, 250], 0));
    assert_eq!(at(&mut world, 20), ([500, 500], 0));
    let policy: Policy<Suite> = {
        let mut policy = Policy::from_json(document.to_string().as_bytes()).unwrap();
        let request = line(0, 200);
        policy.start(&mut request.environment(&mut world)).unwrap();
        policy
    };
    for user in 0..100 {
        line(user, 503).decide(&policy, &mut world);
    }
    assert_eq!(at(&mut world, 21), ([1000, 0], 2));
    assert_eq!(at(&mut world, 81), ([950, 50], 1));
}

#[test]
fn names_are_bounded_whatever_the_policy() {
    let limits: Vec<Value> = (0..1100)
        .map(|i| json!({"name": format!("l{i}"), "key": [{"method": {}}], "capacity": 1, "limit": {"requests": 1, "per": "1s"}}))
        .collect();
    let variants = |i: usize| json!([{"name": format!("a{i}"), "weight": 1}, {"name": "b", "weight": 1}]);
    let canaries: Vec<Value> = (0..1100)
        .map(|i| {
            json!({"name": format!("c{i}"), "variants": variants(i), "rollback": {"variant": "b", "to": format!("a{i}"),
                "window": "10s", "minRequests": 20, "errorPercent": 5, "cooldown": "1m"}})
        })
        .collect();
    let mut world = world();
    let mut worker = worker(&json!({"rateLimits": limits, "canaries": canaries}), &mut world);
    assert_eq!(worker.gauges.names().len(), 3 + 2 * 1000 + 1000 + 1000);
    assert!(look(&mut worker, &mut world, 1).is_some());
}
