//! `replay`, `explain` and `test` decide every case of the contract alike. `integration/tests/contract.rs` shows the
//! same for the modules in a real Envoy.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};

use common::{penstock, penstock_in};
use serde_json::Value;

fn contract(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../filters/policy/tests/contract").join(file)
}

fn cases(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(contract(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A decision without its random parts.
fn without_id(mut decision: Value) -> Value {
    if let Some(headers) = decision.get_mut("responseHeaders").and_then(Value::as_array_mut) {
        headers.retain(|pair| pair[0] != "x-penstock-decision-id");
    }
    decision
}

fn decisions(replayed: &str) -> Vec<Value> {
    replayed.lines().map(|line| without_id(serde_json::from_str(line).unwrap())).collect()
}

/// The explanation of `request`, after `earlier`.
fn explained(folder: &Path, policy: &Value, earlier: &[&Value], request: &Value) -> Value {
    std::fs::write(folder.join("policy.json"), policy.to_string()).unwrap();
    std::fs::write(
        folder.join("earlier.jsonl"),
        earlier.iter().map(|request| format!("{request}\n")).collect::<String>(),
    )
    .unwrap();
    let arguments = ["explain", "policy.json", "--request", "-", "--after", "earlier.jsonl", "--format", "json"];
    let run = penstock_in(folder, &arguments, &request.to_string());
    assert_eq!(run.status, 0, "{request}: {}", run.err);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    without_id(report["decision"].clone())
}

#[test]
fn test_passes_every_case_of_the_contract() {
    for (file, count) in [("egress-cases", 111), ("routes-cases", 20), ("limits-sequences", 18), ("load-cases", 13)] {
        let run = penstock(&["test", contract(&format!("{file}.jsonl")).to_str().unwrap()], "");
        let summary = run.out.lines().last().unwrap_or_default();
        assert_eq!((run.status, summary), (0, format!("{count} passed, 0 failed").as_str()), "{file}: {}", run.err);
    }
}

#[test]
fn replay_and_explain_give_the_same_decision_for_every_case() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.json"), "{}").unwrap();
    for file in ["egress-cases.jsonl", "routes-cases.jsonl"] {
        let text = std::fs::read_to_string(contract(file)).unwrap();
        let replayed = decisions(&penstock_in(folder.path(), &["replay", "empty.json"], &text).out);
        let cases = cases(file);
        assert_eq!(replayed.len(), cases.len());
        for (case, replayed) in cases.iter().zip(replayed) {
            let explained = explained(folder.path(), &case["policy"], &[], &case["request"]);
            assert_eq!(explained, replayed, "{}", case["name"]);
        }
    }
}

#[test]
fn replay_and_explain_give_the_same_decision_after_the_same_requests() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases("limits-sequences.jsonl") {
        let steps = case["steps"].as_array().unwrap();
        let times = |step: &Value| usize::try_from(step["times"].as_u64().unwrap()).unwrap();
        let requests: Vec<&Value> =
            steps.iter().flat_map(|step| std::iter::repeat_n(&step["request"], times(step))).collect();
        std::fs::write(folder.path().join("policy.json"), case["policy"].to_string()).unwrap();
        let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
        let replayed = decisions(&penstock_in(folder.path(), &["replay", "policy.json"], &lines).out);
        let (last, earlier) = requests.split_last().unwrap();
        assert_eq!(
            &explained(folder.path(), &case["policy"], earlier, last),
            replayed.last().unwrap(),
            "{}",
            case["name"]
        );
    }
}
