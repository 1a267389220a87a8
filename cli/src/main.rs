//! `penstock`: see what a policy does before it ships.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use penstock::output::{Output, is_broken_pipe};
use penstock::policy_file::Invalid;
use penstock::{check, explain, render, replay, schema, test};

/// Check and replay Penstock policies: the same engine as in the proxy.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit status: 0 fine, 1 the answer is no (an invalid policy), 2 usage or I/O.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Explain(Box<explain::Args>),
    Render(Box<render::Args>),
    Replay(replay::Args),
    Schema(schema::Args),
    Test(test::Args),
}

impl Command {
    /// `false`: the answer is no.
    fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        match self {
            Command::Check(args) => args.run(out),
            Command::Explain(args) => args.run(out),
            Command::Render(args) => args.run(out),
            Command::Replay(args) => args.run(out),
            Command::Schema(args) => args.run(out),
            Command::Test(args) => args.run(out),
        }
    }
}

fn main() -> ExitCode {
    let mut out = Output::stdout();
    let answer = Cli::parse().command.run(&mut out);
    match answer.and_then(|answer| Ok(out.flush().map(|()| answer)?)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let invalid = error.downcast_ref::<Invalid>();
            // Nothing is left to do when standard error is gone too.
            let _ = match invalid {
                Some(report) => writeln!(anstream::stderr(), "{report}"),
                None => writeln!(anstream::stderr(), "penstock: {error:#}"),
            };
            ExitCode::from(if invalid.is_some() { 1 } else { 2 })
        }
    }
}
