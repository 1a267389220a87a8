//! The command line: every subcommand.

use clap::{CommandFactory, Parser, Subcommand};

use crate::output::Output;
use crate::{
    check, completions, dash, diff, explain, image, import, init, learn, man, render, replay, schema, set_weight,
    status, test, version, webhook,
};

/// Check, explain, test and compare Penstock policies before you deploy them, with the engine that runs in the proxy.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 success, 1 check failed (an invalid policy, a failed test), 2 usage or I/O error."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_aliases = ["validate", "lint"])]
    Check(check::Args),
    Completions(completions::Args),
    Dash(dash::Args),
    Diff(diff::Args),
    Explain(Box<explain::Args>),
    Image(Box<image::Args>),
    Import(import::Args),
    Init(init::Args),
    Learn(Box<learn::Args>),
    Man(man::Args),
    Render(Box<render::Args>),
    Replay(replay::Args),
    Schema(schema::Args),
    SetWeight(set_weight::Args),
    Status(status::Args),
    Test(test::Args),
    Version(version::Args),
    Webhook(Box<webhook::Args>),
}

impl Cli {
    /// Runs the command. Returns `false` when the command succeeded but its check failed.
    ///
    /// # Errors
    /// Returns an error for wrong usage, failed I/O, or an invalid policy.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        match &self.command {
            Command::Check(args) => args.run(out),
            Command::Completions(args) => args.run(Cli::command(), out),
            Command::Dash(args) => args.run(out),
            Command::Diff(args) => args.run(out),
            Command::Explain(args) => args.run(out),
            Command::Image(args) => args.run(out),
            Command::Import(args) => args.run(out),
            Command::Init(args) => args.run(out),
            Command::Learn(args) => args.run(out),
            Command::Man(args) => args.run(Cli::command(), out),
            Command::Render(args) => args.run(out),
            Command::Replay(args) => args.run(out),
            Command::Schema(args) => args.run(out),
            Command::SetWeight(args) => args.run(out),
            Command::Status(args) => args.run(out),
            Command::Test(args) => args.run(out),
            Command::Version(args) => args.run(out),
            Command::Webhook(args) => args.run(out),
        }
    }
}
