//! `penstock completions`: what a shell needs to complete our command lines.

use std::io::Write;

use clap::CommandFactory;

use crate::command::Cli;
use crate::output::Output;

/// Print the completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock completions bash > /etc/bash_completion.d/penstock\n  \
    penstock completions zsh > ~/.zfunc/_penstock\n  \
    penstock completions fish > ~/.config/fish/completions/penstock.fish")]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Args {
    /// Prints the script.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        // First into memory: the generator panics when its writer fails, as a closed pipe does.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "penstock", &mut script);
        out.write_all(&script)?;
        Ok(true)
    }
}
