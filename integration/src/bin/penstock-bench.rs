//! `make bench`.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result};
use penstock_integration::bench::{self, BenchOptions};

/// The page goes to standard output, progress to standard error.
fn main() -> ExitCode {
    match options().and_then(|options| bench::run(&options)) {
        Ok(page) => {
            print!("{page}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("penstock-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Reads `ROUNDS`, `REQUESTS_EACH`, `OLD` (a module) and `ONLY` (names of scenarios and parts, comma-separated) from the
/// environment. make sets variables that the user has not given to the empty string, so empty means absent.
fn options() -> Result<BenchOptions> {
    let given = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let mut options = BenchOptions::default();
    if let Some(rounds) = given("ROUNDS") {
        options.rounds = rounds.parse().context("ROUNDS")?;
    }
    if let Some(requests) = given("REQUESTS_EACH") {
        options.requests = requests.parse().context("REQUESTS_EACH")?;
    }
    options.old = given("OLD").map(Into::into);
    if let Some(only) = given("ONLY") {
        options.only = only.split(',').map(str::to_owned).collect();
    }
    Ok(options)
}
