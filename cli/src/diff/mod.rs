//! `penstock diff`: what a change of policy changes, by what it says and for recorded traffic.

mod change;
mod egress;
mod human;
mod limits;
mod routing;
mod settings;
mod traffic;

use std::io::Write;
use std::path::PathBuf;

use penstock_policy::Timestamp;
use serde::Serialize;

use crate::documents::Documents;
use crate::explain::instant;
use crate::output::Output;
use crate::policy_file::PolicyFile;
use crate::replay;
use change::{Change, Changes, Class};
pub use change::{listed, named};
pub use limits::{parts as limit_parts, quota};
use routing::Moved;

/// Say what changes from one policy to another: what loosens, what tightens, who is routed elsewhere.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock diff old.yaml new.yaml\n  penstock diff old.yaml new.yaml requests.jsonl\n  \
    git show main:policy.yaml | penstock diff --fail-on loosened - policy.yaml\n\n\
    Exit status: 1 when something changes as --fail-on says."
)]
pub struct Args {
    /// The policy before, YAML or JSON; `-` is standard input.
    old: PathBuf,
    /// The policy after; `-` is standard input.
    new: PathBuf,
    /// Recorded requests to decide by both, as `penstock replay` reads them; `-` is standard input.
    requests: Option<PathBuf>,
    #[command(flatten)]
    traffic: crate::traffic::Options,
    /// What makes the exit status 1.
    #[arg(long, value_enum, default_value = "nothing", value_name = "WHAT")]
    fail_on: FailOn,
    /// The time at which canaries with a ramp are compared, RFC 3339; absent: now.
    #[arg(long, value_parser = instant, value_name = "TIME")]
    at: Option<Timestamp>,
    /// How many examples to show of each kind of difference.
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// What makes the answer no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// Nothing does.
    Nothing,
    /// Something may pass that was refused.
    Loosened,
    /// Any change.
    Any,
}

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One JSON object.
    Json,
}

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    loosened: usize,
    tightened: usize,
    changed: usize,
    changes: Vec<Change>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    canaries: Vec<Moved>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic: Option<traffic::Report>,
}

impl Args {
    /// Compares. `false`: something changes as `--fail-on` says.
    ///
    /// # Errors
    /// When a file cannot be read, a policy is invalid, or a line is not a request.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let stdins = [Some(&self.old), Some(&self.new), self.requests.as_ref()];
        crate::traffic::one_stdin(stdins.into_iter().flatten().map(PathBuf::as_path))?;
        let (old, new) = (PolicyFile::load(&self.old)?, PolicyFile::load(&self.new)?);
        let (mut changes, canaries) = compare(&old, &new, self.at.unwrap_or_else(replay::now));
        changes.0.sort_by_key(|change| change.class);
        let traffic = match &self.requests {
            Some(requests) => Some(traffic::compare(&old.policy, &new.policy, requests, &self.traffic, self.examples)?),
            None => None,
        };
        let report = Report {
            loosened: changes.count(Class::Loosened),
            tightened: changes.count(Class::Tightened),
            changed: changes.count(Class::Changed),
            changes: changes.0,
            canaries,
            traffic,
        };
        match self.format {
            Format::Human => out.human(&human::render(&report))?,
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        }
        let loosens = |kind: &traffic::Kind| kind.class == Class::Loosened;
        let in_traffic = report.traffic.as_ref();
        Ok(match self.fail_on {
            FailOn::Nothing => true,
            FailOn::Loosened => {
                report.loosened == 0 && !in_traffic.is_some_and(|traffic| traffic.kinds.iter().any(loosens))
            }
            FailOn::Any => report.changes.is_empty() && in_traffic.is_none_or(|traffic| traffic.differ == 0),
        })
    }
}

/// What changes by what the policies say; canaries with the shares that hold at `time`.
fn compare(old: &PolicyFile, new: &PolicyFile, time: Timestamp) -> (Changes, Vec<Moved>) {
    let (before, after) = (Documents::of(&old.node), Documents::of(&new.node));
    let mut changes = Changes::default();
    settings::compare((&old.node, &before), (&new.node, &after), &mut changes);
    egress::compare(before.egress.as_ref(), after.egress.as_ref(), &mut changes);
    limits::compare((&before.limits, &old.node), (&after.limits, &new.node), &mut changes);
    routing::routes(&old.node, &new.node, &mut changes);
    let canaries = routing::canaries((&old.policy, &old.node), (&new.policy, &new.node), time, &mut changes);
    (changes, canaries)
}

#[cfg(test)]
mod tests;
