//! Sends the contract's cases through a real Envoy.

use anyhow::Result;
use penstock_integration::contract::{cases, run};

/// The sections of these cases. Cases with `egress` are in `egress.rs`.
const SECTIONS: [&str; 4] = ["settings", "routes", "canaries", "rateLimits"];

#[test]
fn every_case_that_a_client_can_send_is_decided_as_the_contract_says() -> Result<()> {
    let files = [
        "routes-cases.jsonl",
        "load-cases.jsonl",
        "next-cases.jsonl",
        "next-load-cases.jsonl",
        "field-cases.jsonl",
        "field-load-cases.jsonl",
    ];
    let cases = files.into_iter().map(cases).collect::<Result<Vec<_>>>()?.concat();
    let report = run("suite", &SECTIONS, &cases)?;
    for (name, reason) in &report.skipped {
        println!("skipped {name}: {reason}");
    }
    println!(
        "{} requests were decided as the contract says, {} cases were skipped",
        report.passed,
        report.skipped.len()
    );
    assert!(report.failed.is_empty(), "{}", report.failed.join("\n"));
    assert!(report.passed > 0);
    Ok(())
}
