//! `penstock completions`: completion scripts for shells.

use std::io::Write;

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
    /// Prints the completion script for `command`, which is the whole command line.
    ///
    /// # Errors
    /// Returns an error when `out` cannot be written.
    pub fn run(&self, mut command: clap::Command, out: &mut Output<'_>) -> anyhow::Result<bool> {
        // Generates into memory first: the generator panics when its writer fails, for example because a pipe was
        // closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "penstock", &mut script);
        out.write_all(&script)?;
        Ok(true)
    }
}
