//! `penstock diff`: compares two policies, by their text and for recorded traffic.

mod change;
mod destinations;
mod egress;
mod human;
mod limits;
mod proof;
mod report;
mod routing;
mod settings;
mod sides;
mod sought;
mod traffic;
mod verdict;

use std::path::PathBuf;

use penstock_policy::document::Node;
use penstock_policy::{Policy, Timestamp};

use crate::documents::Documents;
use crate::explain::instant;
use crate::inputs::{self, RunningInputs};
use crate::numbers::{MANY, whole};
use crate::output::Output;
use crate::policy_file::{PolicyFile, load_all};
use crate::replay;
use anyhow::{Context as _, bail, ensure};
use change::{ChangeClass, Changes, PolicyChange};
use report::DiffReport;
use routing::Moved;
use sides::PolicyPair;

/// Show what a changed policy decides differently: what it loosens and tightens, and which requests get another route.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  penstock diff old.yaml new.yaml\n  penstock diff old.yaml new.yaml requests.jsonl\n  \
    git show main:policy.yaml | penstock diff --fail-on loosened - policy.yaml\n  \
    penstock diff old-manifests/ manifests/\n  \
    penstock diff --from-cluster --fail-on loosened manifests/\n\n\
    Exit status: 1 if there is a change of the kind that --fail-on names."
)]
pub struct Args {
    /// The policy before and after the change, and optionally recorded requests that both decide, in any format of
    /// `penstock replay`. A policy can be a policy file, a manifest, an Envoy configuration or a folder; `-` is
    /// standard input. With --from-envoy or --from-cluster, omit OLD: the policy before is the one that runs.
    #[arg(num_args = 1..=3, required = true, value_names = ["OLD", "NEW", "REQUESTS"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    running: RunningInputs,
    /// Only use the plugin whose object has this name.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    #[command(flatten)]
    traffic: crate::traffic::ReadOptions,
    /// For which changes the exit status is 1.
    #[arg(long, value_enum, default_value = "nothing", value_name = "WHAT")]
    fail_on: FailOn,
    /// The time at which canaries with a ramp are compared, RFC 3339 [default: now].
    #[arg(long, alias = "at", value_parser = instant, value_name = "TIME")]
    time: Option<Timestamp>,
    /// How many examples to show for each kind of difference.
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = whole::<usize>(0, MANY))]
    examples: usize,
    /// The format of the report.
    #[arg(long, short, visible_alias = "format", value_enum, default_value = "human")]
    output: DiffFormat,
}

/// What makes the answer no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// For none.
    Nothing,
    /// If a request may pass that was refused before.
    Loosened,
    /// For any change.
    Any,
}

/// The forms of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DiffFormat {
    /// Text.
    Human,
    /// One JSON object.
    Json,
}

impl Args {
    /// Compares the policies. Returns `false` when there is a change that `--fail-on` names.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read, a policy is invalid, or a line is not a request.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        crate::traffic::one_stdin(self.files.iter().map(PathBuf::as_path))?;
        let mut files = self.files.iter().cloned();
        let old = match self.running.is_any() {
            true => load_all(&self.running.read()?)?,
            false => load_all(&inputs::read(files.next().as_slice())?)?,
        };
        let new = files.next().context("pass two policies: before and after the change")?;
        let new = load_all(&inputs::read(&[new])?)?;
        let requests = files.next();
        ensure!(
            files.next().is_none(),
            "with --from-envoy or --from-cluster, pass only the policy after the change, and the requests"
        );
        let time = self.time.unwrap_or_else(replay::now);
        let pairs = sides::pairs(old, new, self.running.is_any(), self.plugin.as_deref())?;
        let (mut changes, mut canaries) = (Changes::default(), Vec::new());
        for pair in &pairs {
            let empty = || PolicyFile::compile(&"{}".into()).map_err(|_| anyhow::anyhow!("an empty policy is one"));
            let (old, new) = match (&pair.old, &pair.new) {
                (Some(old), Some(new)) => (old, new),
                (None, Some(new)) => (&empty()?, new),
                (Some(old), None) => (old, &empty()?),
                (None, None) => continue,
            };
            let (found, moved) = compare(old, new, time);
            changes.0.extend(found.0.into_iter().map(|change| PolicyChange { object: pair.object.clone(), ..change }));
            canaries.extend(moved);
        }
        changes.0.sort_by_key(|change| change.class);
        let traffic = match (requests, pairs.as_slice()) {
            (None, _) => None,
            (Some(requests), [PolicyPair { old: Some(old), new: Some(new), .. }]) => {
                Some(traffic::compare(&old.policy, &new.policy, &requests, &self.traffic, self.examples)?)
            }
            (Some(_), _) => bail!("several plugins: choose the one that decides the requests with --plugin NAME"),
        };
        let report = DiffReport {
            loosened: changes.count(ChangeClass::Loosened),
            tightened: changes.count(ChangeClass::Tightened),
            changed: changes.count(ChangeClass::Changed),
            changes: changes.0,
            canaries,
            traffic,
        };
        match self.output {
            DiffFormat::Human => out.human(&human::render(&report))?,
            DiffFormat::Json => out.json(&report)?,
        }
        let loosens = |kind: &traffic::DifferenceKind| kind.class == ChangeClass::Loosened;
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

/// The changes of settings, egress and limits that let something pass that was refused before, each with its place and,
/// for the first of them, a request that shows it at `time`. For an invalid policy, the sections that can be parsed are
/// compared by their text only.
pub fn loosenings(old: &Node, new: &Node, time: Timestamp) -> Vec<String> {
    // Readers look at the first ones, and the API server waits for an answer.
    const MOST_SHOWN: usize = 20;
    let (before, after) = (Documents::of(old), Documents::of(new));
    let mut changes = restrictions((old, &before), (new, &after));
    changes.0.retain(|change| change.class == ChangeClass::Loosened);
    let others = changes.0.split_off(changes.0.len().min(MOST_SHOWN));
    if let (Ok(was), Ok(is)) = (Policy::from_node(old), Policy::from_node(new)) {
        let sides = proof::Sides {
            old: proof::Side { node: old, documents: &before, policy: &was },
            new: proof::Side { node: new, documents: &after, policy: &is },
            now: time,
        };
        proof::prove(&mut changes, &sides);
        changes.0.retain(|change| change.class == ChangeClass::Loosened);
    }
    changes.0.iter().chain(&others).map(human::loosening).collect()
}

/// The changes in settings and in the sections that refuse requests.
fn restrictions(old: (&Node, &Documents), new: (&Node, &Documents)) -> Changes {
    let ((old, before), (new, after)) = (old, new);
    let mut changes = Changes::default();
    settings::compare((old, before), (new, after), &mut changes);
    egress::compare(before.egress.as_ref(), after.egress.as_ref(), &mut changes);
    limits::compare((&before.limits, old), (&after.limits, new), &mut changes);
    changes
}

/// The changes between the policies; canaries are compared by their shares at `time`.
fn compare(old: &PolicyFile, new: &PolicyFile, time: Timestamp) -> (Changes, Vec<Moved>) {
    let (before, after) = (Documents::of(&old.node), Documents::of(&new.node));
    let mut changes = restrictions((&old.node, &before), (&new.node, &after));
    routing::routes(&old.node, &new.node, &mut changes);
    let sides = proof::Sides {
        old: proof::Side { node: &old.node, documents: &before, policy: &old.policy },
        new: proof::Side { node: &new.node, documents: &after, policy: &new.policy },
        now: time,
    };
    proof::prove(&mut changes, &sides);
    let canaries = routing::canaries((&old.policy, &old.node), (&new.policy, &new.node), time, &mut changes);
    (changes, canaries)
}

#[cfg(test)]
mod tests;
