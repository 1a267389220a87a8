//! `make pgo`: sends traffic through the native body of `$PENSTOCK_DIST`, which was built to count what its code does.

use anyhow::Result;
use penstock_integration::{bench, contract};

/// The files with the cases: together they use every field of a policy.
const FILES: [&str; 4] = ["routes-cases.jsonl", "egress-cases.jsonl", "next-cases.jsonl", "field-cases.jsonl"];
/// How often each case is sent with each version of HTTP.
const TIMES: usize = 10;
/// Requests to each scenario of the benchmark: those decide what the compiler makes fastest.
const REQUESTS: usize = 32_000;

/// The profiles go to `$LLVM_PROFILE_FILE`.
fn main() -> Result<()> {
    let cases = FILES.into_iter().map(contract::cases).collect::<Result<Vec<_>>>()?.concat();
    let sent = contract::train(&cases, TIMES)?;
    bench::train(REQUESTS)?;
    println!("{sent} cases of the contract and the scenarios of the benchmark were sent");
    Ok(())
}
