//! `penstock schema`: the JSON Schema of the policy document.

use std::io::Write;

use crate::output::Output;

/// Print the JSON Schema of policies, for editors and other tools.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  penstock schema > penstock.schema.json\n\nIn a policy, for editors:\n  \
    # yaml-language-server: $schema=penstock.schema.json")]
pub struct Args {}

impl Args {
    /// Prints the schema.
    ///
    /// # Errors
    /// Returns an error when `out` cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        out.write_all(text().as_bytes())?;
        Ok(true)
    }
}

/// The schema as text with a final line break. It depends only on the version.
pub fn text() -> String {
    format!("{:#}\n", penstock_policy::schema::document())
}
