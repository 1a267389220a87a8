//! `penstock man`: the manual pages.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap_mangen::Man;

use crate::output::Output;

/// Print the manual page, or write one for each subcommand into a folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock man | man -l -\n  penstock man /usr/local/share/man/man1")]
pub struct Args {
    /// The folder for the pages of all subcommands.
    folder: Option<PathBuf>,
}

impl Args {
    /// Prints or writes the pages of `command`, which is the whole command line.
    ///
    /// # Errors
    /// Returns an error when they cannot be written.
    pub fn run(&self, mut command: clap::Command, out: &mut Output<'_>) -> anyhow::Result<bool> {
        command.build();
        let page = |command: clap::Command| -> anyhow::Result<Vec<u8>> {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            Ok(page)
        };
        let Some(folder) = &self.folder else {
            out.write_all(&page(command)?)?;
            return Ok(true);
        };
        fs::create_dir_all(folder).map_err(|error| anyhow::anyhow!("{}: {error}", folder.display()))?;
        let subcommands: Vec<clap::Command> = command.get_subcommands().cloned().collect();
        let named = subcommands.into_iter().filter(|command| command.get_name() != "help").map(|subcommand| {
            let name = format!("penstock-{}", subcommand.get_name());
            (name, subcommand)
        });
        for (name, command) in std::iter::once(("penstock".to_owned(), command)).chain(named) {
            let path = folder.join(format!("{name}.1"));
            fs::write(&path, page(command)?).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
            writeln!(out, "{}", path.display())?;
        }
        Ok(true)
    }
}
