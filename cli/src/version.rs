//! `penstock version`.

use std::io::Write;

use crate::output::Output;

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock version\n  penstock version --output json")]
pub struct Args {
    /// The format.
    #[arg(long, short, visible_alias = "format", value_enum, default_value = "human")]
    output: VersionFormat,
}

/// The forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum VersionFormat {
    /// Text.
    Human,
    /// One JSON object.
    Json,
}

impl Args {
    /// Prints the version.
    ///
    /// # Errors
    /// Returns an error when it cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let version = env!("CARGO_PKG_VERSION");
        match self.output {
            VersionFormat::Human => writeln!(out, "penstock {version}")?,
            VersionFormat::Json => writeln!(out, "{}", serde_json::json!({"version": version}))?,
        }
        Ok(true)
    }
}
