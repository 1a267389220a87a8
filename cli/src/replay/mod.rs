//! `penstock replay`: one JSON request a line in, one JSON decision a line out.

mod summary;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use penstock_policy::document::Node;
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde::Deserialize;

use crate::coverage::{self, Coverage};
use crate::inputs::{self, RunningInputs};
use crate::numbers::whole;
use crate::output::Output;
use crate::place::Place;
use crate::policy_file::{load_all, one};
use crate::source;
use crate::traffic::{self, ReadOptions, Record, RecordReader};
use summary::ReplaySummary;

/// Decide recorded requests and print one JSON decision on each line.
///
/// Reads JSON lines with one request each, access logs of Envoy (JSON, or the default text format of Envoy or Istio),
/// and HTTP Archives.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  echo '{\"method\":\"GET\",\"authority\":\"shop.example.com\",\"path\":\"/\"}' | \
    penstock replay policy.yaml\n  \
    penstock replay policy.yaml access.log --log-format '[%START_TIME%] %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)%'")]
pub struct Args {
    /// The policy (a policy file, a manifest, an Envoy configuration or a folder), and the recorded requests [default:
    /// `-`, standard input]. With --from-envoy or --from-cluster, omit POLICY.
    #[arg(num_args = 0..=2, value_names = ["POLICY", "REQUESTS"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    running: RunningInputs,
    /// Only use the plugin whose object has this name.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Only the sections that run at this place [default: all sections].
    #[arg(long, value_enum, value_name = "PLACE")]
    at: Option<Place>,
    /// The seed of random choices, to make them repeatable.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = whole::<u64>(0, u64::MAX))]
    seed: Option<u64>,
    /// Instead of each decision, print how many requests got which decision.
    #[arg(long)]
    summary: bool,
    /// Instead of each decision, print which rules, conditions, limits, variants, overrides and deny entries no request
    /// used. Together with --summary, `--output json` prints one document with both.
    #[arg(long)]
    coverage: bool,
    /// The format of the summary or of the coverage.
    #[arg(long, short, visible_alias = "format", value_enum, default_value = "human")]
    output: summary::SummaryFormat,
    #[command(flatten)]
    traffic: ReadOptions,
}

impl Args {
    /// Decides every request. Returns `false` when a policy is invalid.
    ///
    /// # Errors
    /// Returns an error with the line's number when a line is not a request, or when reading or writing fails.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let (policy, requests) = self.arguments()?;
        let mut sources = inputs::read(policy.as_slice())?;
        sources.extend(self.running.read()?);
        let file = one(load_all(&sources)?, self.plugin.as_deref())?;
        let policy = match self.at {
            None => file.policy,
            Some(place) => {
                let part = place
                    .part(&file.node)
                    .with_context(|| format!("no section of the policy runs {}", place.words()))?;
                Policy::from_node(&part).map_err(|problems| anyhow::anyhow!("{problems}"))?
            }
        };
        let sums = self.summary || self.coverage;
        ensure!(
            sums || self.output == summary::SummaryFormat::Human,
            "--output is the format of --summary or --coverage"
        );
        ensure!(
            (self.coverage && !self.summary) || self.output != summary::SummaryFormat::Lcov,
            "--output lcov only works with --coverage"
        );
        let mut summary = self.summary.then(ReplaySummary::default);
        let mut coverage = self.coverage.then(|| Coverage::new(&file.node));
        // On a terminal, decisions would overwrite the progress bar.
        let mut reader = RecordReader::open(&requests, &self.traffic, !io::stdout().is_terminal())?;
        let mut all_compile = true;
        let mut world = World::new(now(), self.seed.unwrap_or_else(random));
        while let Some((number, record)) = reader.record()? {
            let decision = match record {
                Record::Request(request) => {
                    world.now = now();
                    decide_one(&request, &policy, coverage.as_mut(), &mut world)
                }
                Record::Line(line) => {
                    let place = || format!("{}:{number}", source::display(&requests));
                    decide(&policy, line, coverage.as_mut(), &mut world).with_context(place)?
                }
            };
            all_compile &= decision.policy_error.is_none();
            if let Some(summary) = &mut summary {
                summary.add(&decision);
            }
            if sums {
                continue;
            }
            out.json_line(&decision)?;
            // A pipe or terminal gets each decision at once; a file is written in large blocks.
            if !reader.has_more_at_once() {
                out.flush()?;
            }
            if out.reader_is_gone() {
                break;
            }
        }
        let coverage = coverage.map(|coverage| {
            let text = if file.resource.is_none() { source::read_text(Path::new(&file.file)).ok() } else { None };
            coverage::FileCoverage::new(file.file.clone(), text.as_deref().unwrap_or_default(), coverage.items())
        });
        self.print_sums(summary.as_ref(), coverage.as_ref().map(std::slice::from_ref), out)?;
        Ok(all_compile)
    }

    /// Prints the summary and the coverage; as JSON in one document.
    fn print_sums(
        &self,
        summary: Option<&ReplaySummary>,
        coverage: Option<&[coverage::FileCoverage]>,
        out: &mut Output<'_>,
    ) -> anyhow::Result<()> {
        match self.output {
            summary::SummaryFormat::Human => {
                summary.map_or(Ok(()), |summary| out.human(&summary.human()))?;
                coverage.map_or(Ok(()), |files| out.human(&coverage::human(files, "no request used")))?;
            }
            summary::SummaryFormat::Json => match (summary, coverage) {
                (Some(summary), Some(files)) => {
                    out.json(&serde_json::json!({"summary": summary, "coverage": coverage::json(files)}))?;
                }
                (Some(summary), None) => out.json(summary)?,
                (None, Some(files)) => writeln!(out, "{:#}", coverage::json(files))?,
                (None, None) => {}
            },
            summary::SummaryFormat::Lcov => {
                coverage.map_or(Ok(()), |files| out.write_all(coverage::lcov(files).as_bytes()))?;
            }
        }
        Ok(())
    }

    /// The policy (unless it comes from a running system) and the requests.
    fn arguments(&self) -> anyhow::Result<(Option<PathBuf>, PathBuf)> {
        let mut files = self.files.iter().cloned();
        let policy = if self.running.is_any() { None } else { files.next() };
        if policy.is_none() && !self.running.is_any() {
            return Ok((Some(inputs::default_policy()?), PathBuf::from(source::STDIN)));
        }
        ensure!(
            policy.as_deref() != Some(Path::new(source::STDIN)),
            "the policy must be a file: standard input is for the requests"
        );
        let requests = files.next().unwrap_or_else(|| PathBuf::from(source::STDIN));
        ensure!(files.next().is_none(), "with --from-envoy or --from-cluster give only the requests");
        Ok((policy, requests))
    }
}

/// A line with its own policy; `expect` and `why` of the contract's cases are allowed and ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyLine {
    #[serde(rename = "name")]
    _name: Option<String>,
    policy: Node,
    request: WireRequest,
    #[serde(rename = "expect")]
    _expect: Option<serde::de::IgnoredAny>,
    #[serde(rename = "why")]
    _why: Option<serde::de::IgnoredAny>,
}

fn decide_one(
    request: &WireRequest,
    policy: &Policy,
    coverage: Option<&mut Coverage>,
    world: &mut World,
) -> WireDecision {
    let Some(coverage) = coverage else { return request.decide(policy, world) };
    let (decision, trace) = request.explain(policy, world);
    coverage.observe(request, &decision, &trace);
    decision
}

fn decide(
    policy: &Policy,
    line: &[u8],
    coverage: Option<&mut Coverage>,
    world: &mut World,
) -> anyhow::Result<WireDecision> {
    // Only an envelope has the field `policy`, and requests refuse unknown fields, so a line cannot be ambiguous.
    let is_case = memchr::memmem::find(line, b"\"policy\"").is_some();
    if is_case
        && let Ok(node) = serde_json::from_slice::<Node>(line)
        && node.get("policy").is_some()
    {
        let case: PolicyLine = serde_json::from_slice(line).context("not a request with a policy of its own")?;
        return Ok(match <Policy>::from_node(&case.policy) {
            Ok(policy) => case.request.decide(&policy, &mut World::new(now(), random())),
            Err(problems) => WireDecision::policy_error(problems.to_string()),
        });
    }
    let request = traffic::request(line)?;
    world.now = now();
    Ok(decide_one(&request, policy, coverage, world))
}

/// The wall clock, for requests without a time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Random numbers for choices that no key makes sticky.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}
