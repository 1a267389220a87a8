//! Every case of the contract, natively and, under Node, in wasm.
//!
//! The files in `contract/` are the project's copy. A case agrees when the decision has every key that `expect`
//! has; `null` means that the decision does not have the key.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use penstock_policy::document::Node;
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::Value;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The sections that this version runs; cases of the others wait for them.
const SECTIONS: [&str; 5] = ["canaries", "egress", "rateLimits", "routes", "settings"];

fn cases(file: &str) -> Vec<Value> {
    let cases: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let runs = |case: &Value| case["policy"].as_object().unwrap().keys().all(|key| SECTIONS.contains(&key.as_str()));
    cases.into_iter().filter(runs).collect()
}

fn policy(case: &Value) -> Result<Policy, String> {
    let node = Node::from_json(case["policy"].to_string().as_bytes()).unwrap();
    Policy::from_node(&node).map_err(|problems| problems.to_string())
}

fn check_decisions(file: &str) -> usize {
    let cases = cases(file);
    for case in &cases {
        let policy = policy(case).unwrap_or_else(|problems| panic!("{}: {problems}", case["name"]));
        let request: WireRequest = serde_json::from_value(case["request"].clone()).unwrap();
        let decision = serde_json::to_value(request.decide(&policy, &mut World::new(Timestamp(0), 0))).unwrap();
        for (key, expected) in case["expect"].as_object().unwrap() {
            assert_eq!(decision.get(key).unwrap_or(&Value::Null), expected, "{}: {key} in {decision}", case["name"]);
        }
    }
    cases.len()
}

#[test]
fn every_routes_case_is_decided_as_the_contract_says() {
    assert!(check_decisions(include_str!("contract/routes-cases.jsonl")) >= 20);
}

#[test]
fn every_later_case_is_decided_as_the_contract_says() {
    assert!(check_decisions(include_str!("contract/next-cases.jsonl")) >= 4);
}

/// A case of several requests that share their state: each step is sent `times` times, and each answer must agree.
#[test]
fn every_sequence_of_limits_is_decided_as_the_contract_says() {
    let cases = cases(include_str!("contract/limits-sequences.jsonl"));
    assert!(cases.len() >= 15);
    for case in cases {
        let policy = policy(&case).unwrap_or_else(|problems| panic!("{}: {problems}", case["name"]));
        let mut world = World::new(Timestamp(0), 0);
        for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let request: WireRequest = serde_json::from_value(step["request"].clone()).unwrap();
            for time in 0..step["times"].as_u64().unwrap() {
                let decision = serde_json::to_value(request.decide(&policy, &mut world)).unwrap();
                for (key, expected) in step["expect"].as_object().unwrap() {
                    let found = decision.get(key).unwrap_or(&Value::Null);
                    assert_eq!(found, expected, "{} step {number} time {time}: {key} in {decision}", case["name"]);
                }
            }
        }
    }
}

#[test]
fn every_egress_case_is_decided_as_the_contract_says() {
    assert!(check_decisions(include_str!("contract/egress-cases.jsonl")) >= 111);
}

#[test]
fn every_case_of_later_changes_and_of_bug_reports_is_decided_as_the_contract_says() {
    assert!(check_decisions(include_str!("contract/next-cases.jsonl")) >= 11);
    assert!(check_decisions(include_str!("contract/field-cases.jsonl")) >= 16);
}

#[test]
fn every_load_case_is_accepted_or_refused_as_the_contract_says() {
    let files = [
        include_str!("contract/load-cases.jsonl"),
        include_str!("contract/next-load-cases.jsonl"),
        include_str!("contract/field-load-cases.jsonl"),
    ];
    for case in files.into_iter().flat_map(cases) {
        assert_eq!(policy(&case).is_ok(), case["expect"]["valid"], "{}: {:?}", case["name"], policy(&case).err());
    }
}

#[test]
fn a_policy_error_takes_the_place_of_the_action() {
    let json = serde_json::to_string(&WireDecision::policy_error("routes: …".into())).unwrap();
    assert_eq!(json, r#"{"policyError":"routes: …"}"#);
}
