//! `penstock`: see what a policy does before it ships.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use penstock::command::Cli;
use penstock::output::{Output, without_numbers};
use penstock::policy_file::Invalid;
use penstock::usage;

fn main() -> ExitCode {
    let mut out = Output::stdout();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let answer = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli.run(&mut out),
        Err(error) => usage::with_tips(error, Cli::command(), &arguments).exit(),
    };
    match answer.and_then(|answer| Ok(out.flush().map(|()| answer)?)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let invalid = error.downcast_ref::<Invalid>();
            // If standard error is closed, too, the message cannot be shown.
            let _ = match invalid {
                Some(report) => writeln!(anstream::stderr(), "{report}"),
                None => writeln!(anstream::stderr(), "penstock: {}", without_numbers(&format!("{error:#}"))),
            };
            ExitCode::from(if invalid.is_some() { 1 } else { 2 })
        }
    }
}
