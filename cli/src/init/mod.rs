//! `penstock init`: a commented policy to begin with, and its tests.

use std::io::Write;
use std::path::PathBuf;

use anyhow::ensure;

use crate::output::Output;
use crate::source;

/// Write a commented starter policy and its tests: policy.yaml and policy.test.yaml.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock init canary\n  penstock init egress --dir policies\n  penstock init rate-limit --print"
)]
pub struct Args {
    /// The purpose of the policy.
    #[arg(value_enum, default_value = "routing")]
    purpose: Purpose,
    /// The folder to write into.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Overwrite existing files.
    #[arg(long)]
    force: bool,
    /// Print the policy instead of writing files.
    #[arg(long)]
    print: bool,
}

/// What policies are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Purpose {
    /// Routes by header and cookie.
    Routing,
    /// A share of the users for a new version.
    Canary,
    /// A limit for each client.
    RateLimit,
    /// An allowlist for outgoing requests.
    Egress,
}

impl Purpose {
    /// The policy and its tests.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Purpose::Routing => (include_str!("routing.yaml"), include_str!("routing.test.yaml")),
            Purpose::Canary => (include_str!("canary.yaml"), include_str!("canary.test.yaml")),
            Purpose::RateLimit => (include_str!("rate-limit.yaml"), include_str!("rate-limit.test.yaml")),
            Purpose::Egress => (include_str!("egress.yaml"), include_str!("egress.test.yaml")),
        }
    }
}

impl Args {
    /// Writes the files.
    ///
    /// # Errors
    /// Returns an error when the files exist already, or cannot be written.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let (policy, tests) = self.purpose.texts();
        if self.print {
            out.write_all(policy.as_bytes())?;
            return Ok(true);
        }
        let files =
            [("policy.yaml", policy), ("policy.test.yaml", tests)].map(|(name, text)| (self.dir.join(name), text));
        for (path, _) in &files {
            ensure!(self.force || !path.exists(), "{} is there already: --force overwrites it", path.display());
        }
        std::fs::create_dir_all(&self.dir).map_err(|error| source::unreadable("cannot make", &self.dir, &error))?;
        for (path, text) in &files {
            source::write(path, text)?;
            writeln!(out, "wrote {}", path.display())?;
        }
        writeln!(
            out,
            "\nnext: penstock check {0}; penstock test {1}",
            self.dir.join("policy.yaml").display(),
            self.dir.join("policy.test.yaml").display()
        )?;
        Ok(true)
    }
}
