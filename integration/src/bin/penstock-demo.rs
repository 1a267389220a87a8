//! `make demo`.

use std::env;
use std::process::ExitCode;

use penstock_integration::demo::{self, DemoOptions};

const USAGE: &str = "\
Shows what Penstock does in a real Envoy, request by request, then stays up for your own requests until Ctrl-C.

Usage: penstock-demo [--once]

  --once   end after the walk, with status 1 if any answer is not what it should be (or set ONCE=1)

Needs the modules (make build) and an Envoy (make setup, or ENVOY_BIN). NO_COLOR=1 prints without colour.";

fn main() -> ExitCode {
    let mut options = DemoOptions { once: env::var("ONCE").is_ok_and(|once| !matches!(once.as_str(), "" | "0")) };
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--once" => options.once = true,
            "-h" | "--help" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("penstock-demo: unknown argument {other:?}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    match demo::run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("penstock-demo: {error:#}");
            ExitCode::from(2)
        }
    }
}
