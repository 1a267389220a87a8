//! Inputs reconstructed from public bug reports about gateways and meshes: imports, curl lines, archives and logs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::penstock_in;
use serde_json::Value;

fn cases(kind: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../filters/policy/tests/contract/field-cli-cases.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = all.filter(|case| case["kind"] == kind).collect();
    assert!(!found.is_empty(), "no cases of {kind}");
    found
}

#[test]
fn what_is_imported_decides_as_its_source_does() {
    for case in cases("import") {
        let folder = tempfile::tempdir().unwrap();
        let name = case["name"].as_str().unwrap();
        std::fs::write(folder.path().join("in.yaml"), case["input"].as_str().unwrap()).unwrap();
        let run = penstock_in(folder.path(), &["import", "--report", "report.json", "in.yaml"], "");
        assert_eq!(run.status, 0, "{name}: {}", run.err);
        std::fs::write(folder.path().join("p.yaml"), &run.out).unwrap();
        let check = penstock_in(folder.path(), &["check", "p.yaml"], "");
        assert_eq!(check.status, 0, "{name}: {}{}", check.out, check.err);
        let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        let leads: BTreeMap<String, String> = report["routes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lead| (lead["route"].as_str().unwrap().to_owned(), lead["to"].as_str().unwrap().to_owned()))
            .collect();
        for ask in case["asks"].as_array().unwrap() {
            let statuses = ask["statuses"].as_array();
            let times = statuses.map_or(ask["times"].as_u64().unwrap_or(1), |list| list.len() as u64);
            let input = format!("{}\n", ask["request"]).repeat(usize::try_from(times).unwrap());
            let run = penstock_in(folder.path(), &["replay", "p.yaml"], &input);
            let decisions: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let went = |decision: &Value| {
                let route = decision["route"].as_str().unwrap_or_default();
                format!("{route} {}", leads.get(route).cloned().unwrap_or_default())
            };
            let context = || format!("{name}: {ask}\n{}", run.out);
            if let Some(to) = ask["to"].as_str() {
                assert!(decisions.iter().all(|decision| went(decision).contains(to)), "{}", context());
            }
            if let Some(not) = ask["not"].as_str() {
                assert!(!decisions.iter().any(|decision| went(decision).contains(not)), "{}", context());
            }
            for (part, share) in ask["share"].as_object().into_iter().flatten() {
                let count = decisions.iter().filter(|decision| went(decision).contains(part.as_str())).count();
                let have = count as f64 / times as f64;
                assert!((have - share.as_f64().unwrap()).abs() < 0.05, "{name}: {part} {have}");
            }
            let got: Vec<Value> = decisions.iter().map(|decision| decision["status"].clone()).collect();
            assert!(statuses.is_none_or(|statuses| got == *statuses), "{}", context());
            assert!(ask.get("status").is_none_or(|status| got.iter().all(|other| other == status)), "{}", context());
        }
    }
}

#[test]
fn a_curl_line_of_any_browser_is_the_request_that_curl_sends() {
    for case in cases("curl") {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.json"), case["policy"].to_string()).unwrap();
        let line = case["line"].as_str().unwrap();
        let run = penstock_in(folder.path(), &["explain", "--format", "json", "p.json", "--curl", line], "");
        let report: Value = serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {}", run.err));
        assert_eq!(report["decision"]["route"], case["route"], "{}", case["name"]);
    }
}

#[test]
fn a_record_is_read_correctly_or_reported_as_left_out() {
    for case in cases("replay") {
        let folder = tempfile::tempdir().unwrap();
        let name = &case["name"];
        std::fs::write(folder.path().join("p.json"), case["policy"].to_string()).unwrap();
        std::fs::write(folder.path().join("in"), case["input"].as_str().unwrap()).unwrap();
        let args: Vec<&str> = case["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        let run = penstock_in(folder.path(), &[&["replay"], &args[..], &["p.json", "in"]].concat(), "");
        assert_eq!(run.status, 0, "{name}: {}", run.err);
        let decisions: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if let Some(least) = case["at_least"].as_u64() {
            assert!(decisions.len() as u64 >= least, "{name}: {}", run.err);
            continue;
        }
        let (field, wanted) = match case.get("routes_or_none") {
            Some(routes) => ("route", routes),
            None => ("status", &case["statuses_or_none"]),
        };
        let got: Value = decisions.iter().map(|decision| decision[field].clone()).collect();
        assert!(got == *wanted || (decisions.is_empty() && run.err.contains("left out")), "{name}: {got} {}", run.err);
    }
}
