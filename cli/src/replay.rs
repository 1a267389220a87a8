//! `penstock replay`: one JSON request a line in, one JSON decision a line out.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use penstock_policy::document::Node;
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde::Deserialize;

use crate::output::Output;
use crate::policy_file::PolicyFile;
use crate::source;
use crate::traffic::{Options, Reader, Record, not_a_request};

/// Decide recorded requests and print one JSON decision a line.
///
/// Reads one JSON request a line, Envoy's access logs (JSON, or the default text format of Envoy or Istio) and HAR.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  echo '{\"method\":\"GET\",\"authority\":\"shop.example.com\",\"path\":\"/\"}' | \
    penstock replay policy.yaml\n  \
    penstock replay policy.yaml access.log --log-format '[%START_TIME%] %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)%'")]
pub struct Args {
    /// The policy, YAML or JSON.
    policy: PathBuf,
    /// The requests; `-`, the default, is standard input.
    #[arg(default_value = "-")]
    requests: PathBuf,
    #[command(flatten)]
    traffic: Options,
}

impl Args {
    /// Decides every request. `false`: a policy is invalid.
    ///
    /// # Errors
    /// When a line is not a request, named with its number, or when reading or writing fails.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        ensure!(self.policy != Path::new("-"), "the policy must be a file: standard input is for the requests");
        let policy = PolicyFile::load(&self.policy)?.policy;
        // On a terminal the decisions would run into the bar.
        let mut reader = Reader::open(&self.requests, &self.traffic, !io::stdout().is_terminal())?;
        let mut all_compile = true;
        let mut world = World::new(now(), random());
        let mut line = Vec::new();
        while let Some((number, record)) = reader.record()? {
            let decision = match record {
                Record::Request(request) => {
                    world.now = now();
                    request.decide(&policy, &mut world)
                }
                Record::Line(line) => {
                    let place = || format!("{}:{number}", source::display(&self.requests));
                    decide(&policy, line, &mut world).with_context(place)?
                }
            };
            all_compile &= decision.policy_error.is_none();
            line.clear();
            serde_json::to_writer(&mut line, &decision)?;
            line.push(b'\n');
            out.write_all(&line)?;
            // A reader that waits for each answer gets it at once; a file is written in large pieces.
            if !reader.has_more_at_once() {
                out.flush()?;
            }
            if out.reader_is_gone() {
                break;
            }
        }
        Ok(all_compile)
    }
}

/// A line with a policy of its own; `expect` and `why` of the contract's cases are allowed and not looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(rename = "name")]
    _name: Option<String>,
    policy: Node,
    request: WireRequest,
    #[serde(rename = "expect")]
    _expect: Option<serde::de::IgnoredAny>,
    #[serde(rename = "why")]
    _why: Option<serde::de::IgnoredAny>,
}

fn decide(policy: &Policy, line: &[u8], world: &mut World) -> anyhow::Result<WireDecision> {
    // Only an envelope has a `policy`; requests refuse unknown keys, so there is no third reading.
    let is_case = memchr::memmem::find(line, b"\"policy\"").is_some();
    if is_case
        && let Ok(node) = serde_json::from_slice::<Node>(line)
        && node.get("policy").is_some()
    {
        let case: Case = serde_json::from_slice(line).context("not a request with a policy of its own")?;
        return Ok(match <Policy>::from_node(&case.policy) {
            Ok(policy) => case.request.decide(&policy, &mut World::new(now(), random())),
            Err(problems) => WireDecision::policy_error(problems.to_string()),
        });
    }
    let request: WireRequest = serde_json::from_slice(line).context(not_a_request(line))?;
    world.now = now();
    Ok(request.decide(policy, world))
}

/// The wall clock, for requests that give no time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Randomness for choices that no key makes sticky.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}
