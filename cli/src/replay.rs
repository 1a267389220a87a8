//! `penstock replay`: one JSON request a line in, one JSON decision a line out.

use std::io::{BufRead, Write};
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

/// Decide recorded requests, one JSON object a line, and print one JSON decision a line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  echo '{\"method\":\"GET\",\"authority\":\"shop.example.com\",\"path\":\"/\"}' | \
    penstock replay policy.yaml")]
pub struct Args {
    /// The policy, YAML or JSON.
    policy: PathBuf,
    /// The requests; `-`, the default, is standard input.
    #[arg(default_value = "-")]
    requests: PathBuf,
}

impl Args {
    /// Decides every request. `false`: a policy is invalid.
    ///
    /// # Errors
    /// When a line is not a request, named with its number, or when reading or writing fails.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        ensure!(self.policy != Path::new("-"), "the policy must be a file: standard input is for the requests");
        replay(&PolicyFile::load(&self.policy)?.policy, &self.requests, out)
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

/// Decides every request of `requests` by `policy`, line by line. `false`: some line's own policy is invalid.
fn replay(policy: &Policy, requests: &Path, out: &mut impl Write) -> anyhow::Result<bool> {
    let mut input = source::open(requests)?;
    let mut line = Vec::new();
    let mut number = 0u64;
    let mut all_compile = true;
    let mut world = World::new(now(), random());
    loop {
        line.clear();
        let place = || format!("cannot read {}", source::display(requests));
        if input.read_until(b'\n', &mut line).with_context(place)? == 0 {
            break;
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let decision =
            decide(policy, &line, &mut world).with_context(|| format!("{}:{number}", source::display(requests)))?;
        all_compile &= decision.policy_error.is_none();
        serde_json::to_writer(&mut *out, &decision)?;
        out.write_all(b"\n")?;
        // A reader that waits for each answer gets it at once; a file is written in large pieces.
        if !input.fill_buf().is_ok_and(|buffered| buffered.contains(&b'\n')) {
            out.flush()?;
        }
    }
    out.flush()?;
    Ok(all_compile)
}

/// Decides every request of `requests` only for the state that they leave in `world`.
///
/// # Errors
/// As [`Args::run`].
pub(crate) fn warm_up(policy: &Policy, requests: &Path, world: &mut World) -> anyhow::Result<()> {
    for (number, line) in (1..).zip(source::open(requests)?.split(b'\n')) {
        let line = line.with_context(|| format!("cannot read {}", source::display(requests)))?;
        if !line.trim_ascii().is_empty() {
            decide(policy, &line, world).with_context(|| format!("{}:{number}", source::display(requests)))?;
        }
    }
    Ok(())
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
    let request: WireRequest = serde_json::from_slice(line).context("not a request")?;
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
