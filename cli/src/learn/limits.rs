//! `penstock learn limits`: proposes a rate limit from recorded requests, and reports whose requests it would have
//! refused.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use penstock_policy::document::{GatewayDuration, Node};
use penstock_policy::explain::Note;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde::Serialize;

use crate::import::objects::{map, text};
use crate::numbers::number;
use crate::output::style::{BAD, HEAD, NAME, WARN};
use crate::output::{Output, count};
use crate::traffic::{self, ReadOptions};
use crate::{replay, source, words, yaml_text};

/// Propose a rate limit for recorded requests, and report which requests it would have refused.
///
/// Takes the highest number of requests of each key in one period, then a percentile of these numbers, and adds
/// headroom. Prints the limit in Shadow mode to standard output, and a report to standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock learn limits --key header:x-api-key access.log > limits.yaml\n  \
    penstock learn limits --key source --per 10s --percentile 95 --headroom 2 access.log")]
pub struct Args {
    /// The key: header:NAME, cookie:NAME, query:NAME, source, peer, host, path or method. Several together are one key.
    #[arg(long, required = true, value_name = "KEY", value_parser = key)]
    key: Vec<ProposalKeyPart>,
    /// The recorded requests; `-`, the default, is standard input.
    #[arg(value_name = "LOG")]
    logs: Vec<PathBuf>,
    #[command(flatten)]
    traffic: ReadOptions,
    /// The period of the rate.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    per: RatePeriod,
    /// The percentage of keys whose busiest period is within the rate before headroom is added.
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0, allow_negative_numbers = true, value_parser = number(0.1, 100.0))]
    percentile: f64,
    /// The factor by which the limit exceeds this rate.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.5, allow_negative_numbers = true, value_parser = number(1.0, 1000.0))]
    headroom: f64,
    /// Print keys in full. By default, values of headers, cookies and queries are shortened, because they are often
    /// secrets.
    #[arg(long)]
    show_keys: bool,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// One part of the key.
#[derive(Clone, Debug)]
struct ProposalKeyPart {
    field: &'static str,
    name: String,
}

fn key(given: &str) -> Result<ProposalKeyPart, String> {
    const NAMED: [(&str, &str); 3] = [("header", "header"), ("cookie", "cookie"), ("query", "queryParam")];
    const PLAIN: [(&str, &str); 5] =
        [("source", "sourceAddress"), ("peer", "peer"), ("host", "hostname"), ("path", "path"), ("method", "method")];
    let (kind, name) = given.split_once(':').unwrap_or((given, ""));
    let kinds = if name.is_empty() { &PLAIN[..] } else { &NAMED[..] };
    let field = kinds.iter().find(|(known, _)| *known == kind).map(|(_, field)| *field);
    let wrong = || "write header:NAME, cookie:NAME, query:NAME, source, peer, host, path or method".to_owned();
    Ok(ProposalKeyPart { field: field.ok_or_else(wrong)?, name: name.to_owned() })
}

/// The interval of the rate, as written.
#[derive(Clone, Debug)]
struct RatePeriod {
    written: String,
    length: Duration,
}

fn duration(given: &str) -> Result<RatePeriod, String> {
    let length = GatewayDuration::parse(given).map(|duration| duration.0).filter(|length| !length.is_zero());
    let length = length.ok_or_else(|| "this is not a duration such as 1m".to_owned())?;
    Ok(RatePeriod { written: given.to_owned(), length })
}

/// The result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RateProposal {
    /// The number of requests with the key and a time.
    requests: u64,
    /// The number of requests without the key.
    without_key: u64,
    /// The number of requests without a time.
    without_time: u64,
    keys: usize,
    /// The largest number of requests of a key within the interval, at the 50th, 90th, 99th and 100th percentile of all
    /// keys.
    busiest: BTreeMap<&'static str, u64>,
    /// The proposed limit.
    limit: u64,
    per: String,
    refused_requests: u64,
    /// The keys with refused requests, most refusals first.
    refused: Vec<RefusedKey>,
}

/// A key with refused requests.
#[derive(Debug, Serialize)]
struct RefusedKey {
    key: String,
    requests: u64,
    refused: u64,
}

/// The requests, by key.
#[derive(Debug, Default)]
struct KeyTraffic {
    keys: HashMap<String, u32>,
    names: Vec<String>,
    /// The time and the number of the key.
    events: Vec<(Timestamp, u32)>,
    without_key: u64,
    without_time: u64,
}

impl Args {
    /// Proposes a limit.
    ///
    /// # Errors
    /// Returns an error when a log cannot be read or has no request with the key and a time.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let logs = if self.logs.is_empty() { vec![PathBuf::from(source::STDIN)] } else { self.logs.clone() };
        traffic::one_stdin(logs.iter().map(PathBuf::as_path))?;
        let mut traffic = self.read(&logs)?;
        ensure!(
            !traffic.events.is_empty(),
            "no request has the key and a time ({} without the key, {} without a time): log what --key names",
            words::thousands(traffic.without_key),
            words::thousands(traffic.without_time)
        );
        traffic.events.sort_unstable();
        let peaks = self.peaks(&traffic);
        let at = |percentile: f64| percentile_of(&peaks, percentile);
        let limit = rounded((at(self.percentile) as f64 * self.headroom).ceil());
        let refused = self.refused(&traffic, limit)?;
        let report = RateProposal {
            requests: traffic.events.len() as u64,
            without_key: traffic.without_key,
            without_time: traffic.without_time,
            keys: traffic.names.len(),
            busiest: [("p50", at(50.0)), ("p90", at(90.0)), ("p99", at(99.0)), ("max", at(100.0))].into(),
            limit,
            per: self.per.written.clone(),
            refused_requests: refused.iter().map(|key| key.refused).sum(),
            refused,
        };
        anstream::eprint!("{}", self.human(&report));
        if let Some(path) = &self.report {
            source::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
        }
        let policy = self.policy(self.parts(), limit, traffic.without_key > 0, true);
        writeln!(out, "# Proposed by `penstock learn limits` from {}.", count(traffic.events.len(), "request"))?;
        writeln!(out, "# Shadow only counts and logs: set Enforce when it would refuse only what it should.")?;
        out.write_all(yaml_text::block(&policy, 0).as_bytes())?;
        Ok(true)
    }

    /// The parts of the key as a policy writes them.
    fn parts(&self) -> Node {
        let part = |part: &ProposalKeyPart| match part.name.is_empty() {
            true => map([(part.field, Node::Map(Vec::new()))]),
            false => map([(part.field, text(part.name.as_str()))]),
        };
        Node::List(self.key.iter().map(part).collect())
    }

    /// A policy with one limit.
    fn policy(&self, key: Node, requests: u64, skips: bool, is_shadow: bool) -> Node {
        let name =
            |part: &ProposalKeyPart| if part.name.is_empty() { part.field.to_owned() } else { part.name.clone() };
        let name = format!("by-{}", self.key.iter().map(name).collect::<Vec<_>>().join("-"));
        let requests = Node::Integer(i64::try_from(requests).unwrap_or(i64::MAX));
        let limit = map([("requests", requests), ("per", text(self.per.written.as_str()))]);
        let mut entries = vec![("name", text(name)), ("key", key)];
        entries.extend(skips.then(|| ("onMissingKey", text("Skip"))));
        entries.push(("limit", limit));
        entries.extend(is_shadow.then(|| ("mode", text("Shadow"))));
        map([("rateLimits", Node::List(vec![map(entries)]))])
    }

    /// The requests, by the key that the engine computes.
    fn read(&self, logs: &[PathBuf]) -> anyhow::Result<KeyTraffic> {
        const MANY: u64 = 1_000_000_000;
        let policy = self.policy(self.parts(), MANY, true, false);
        let policy: Policy = Policy::from_node(&policy).map_err(|problems| anyhow::anyhow!("--key: {problems}"))?;
        let mut traffic = KeyTraffic::default();
        let mut world = World::new(replay::now(), 0);
        for path in logs {
            traffic::each(path, &self.traffic, true, &mut |_, request| {
                let (_, trace) = request.explain(&policy, &mut world);
                let key = trace.0.into_iter().find_map(|note| match note {
                    Note::Limit(note) => {
                        Some(note.key.into_iter().map(|(_, value)| value).collect::<Vec<_>>().join(" "))
                    }
                    _ => None,
                });
                match (key, request.time) {
                    (None, _) => traffic.without_key += 1,
                    (_, None) => traffic.without_time += 1,
                    (Some(key), Some(time)) => traffic.add(key, time),
                }
                Ok(())
            })?;
        }
        Ok(traffic)
    }

    /// The largest number of requests of each key within the interval, in ascending order.
    fn peaks(&self, traffic: &KeyTraffic) -> Vec<u64> {
        let length = u64::try_from(self.per.length.as_nanos()).unwrap_or(u64::MAX);
        let mut by_key: Vec<Vec<Timestamp>> = vec![Vec::new(); traffic.names.len()];
        for (time, key) in &traffic.events {
            by_key.get_mut(*key as usize).into_iter().for_each(|times| times.push(*time));
        }
        let peak = |times: &Vec<Timestamp>| {
            let mut first = times.iter().peekable();
            let (mut within, mut most) = (0u64, 0);
            for time in times {
                within += 1;
                while first.next_if(|begin| time.0 - begin.0 >= length).is_some() {
                    within -= 1;
                }
                most = most.max(within);
            }
            most
        };
        let mut peaks: Vec<u64> = by_key.iter().map(peak).collect();
        peaks.sort_unstable();
        peaks
    }

    /// The requests that the engine refuses with this limit, by key.
    fn refused(&self, traffic: &KeyTraffic, limit: u64) -> anyhow::Result<Vec<RefusedKey>> {
        let key = Node::List(vec![map([("header", text("key"))])]);
        let mut policy = self.policy(key, limit, true, false);
        if let Node::Map(entries) = &mut policy
            && let Some((_, Node::List(limits))) = entries.first_mut()
            && let Some(Node::Map(limit)) = limits.first_mut()
        {
            limit.push(("capacity".to_owned(), Node::Integer(1_048_576)));
        }
        let policy: Policy = Policy::from_node(&policy).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let mut world = World::new(Timestamp(0), 0);
        let mut counts: Vec<(u64, u64)> = vec![(0, 0); traffic.names.len()];
        for (time, key) in &traffic.events {
            let request = WireRequest {
                method: "GET".to_owned(),
                authority: "key".to_owned(),
                path: "/".to_owned(),
                headers: vec![("key".to_owned(), key.to_string())],
                time: Some(*time),
                ..WireRequest::default()
            };
            let is_refused = request.decide(&policy, &mut world).action == Some("respond");
            let (all, refused) = counts.get_mut(*key as usize).context("a key without a name")?;
            *all += 1;
            *refused += u64::from(is_refused);
        }
        let mut refused: Vec<RefusedKey> = traffic
            .names
            .iter()
            .zip(counts)
            .filter(|(_, (_, refused))| *refused > 0)
            .map(|(key, (requests, refused))| RefusedKey { key: self.shown(key), requests, refused })
            .collect();
        refused.sort_by(|a, b| (b.refused, &a.key).cmp(&(a.refused, &b.key)));
        Ok(refused)
    }

    /// A human-readable key. Of values that may be secret, it shows the start and a mark that distinguishes them.
    fn shown(&self, key: &str) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let is_secret = self.key.iter().any(|part| matches!(part.field, "header" | "cookie" | "queryParam"));
        let key = words::shortened(&key.replace(char::is_control, "\u{fffd}"), 200);
        if self.show_keys || !is_secret || key.len() <= 8 {
            return key;
        }
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        format!("{}#{:04x}", words::shortened(&key, 4), hasher.finish() & 0xffff)
    }

    fn human(&self, report: &RateProposal) -> String {
        const MOST: usize = 20;
        let mut out = String::new();
        let requests = usize::try_from(report.requests).unwrap_or(usize::MAX);
        let _ = writeln!(out, "{HEAD}{} of {}{HEAD:#}", count(requests, "request"), count(report.keys, "key"));
        let busiest: Vec<String> = ["p50", "p90", "p99", "max"]
            .iter()
            .filter_map(|name| Some(format!("{name} {}", words::thousands(*report.busiest.get(name)?))))
            .collect();
        let _ = writeln!(out, "  most requests of a key in {}: {}", report.per, busiest.join(", "));
        let _ = writeln!(
            out,
            "  proposed: {NAME}{} in {}{NAME:#}, the {}th percentile × {}",
            words::thousands(report.limit),
            report.per,
            self.percentile,
            self.headroom
        );
        if report.refused.is_empty() {
            let _ = writeln!(out, "  nobody would have been refused");
        } else {
            let keys = count(report.refused.len(), "key");
            let refused = words::thousands(report.refused_requests);
            let _ = writeln!(out, "\n{BAD}{keys} would have been refused{BAD:#}, {refused} requests in all");
        }
        for key in report.refused.iter().take(MOST) {
            let (refused, all) = (words::thousands(key.refused), words::thousands(key.requests));
            let _ = writeln!(out, "  {NAME}{}{NAME:#}: {refused} of {all} requests", key.key);
        }
        if report.refused.len() > MOST {
            let _ = writeln!(out, "  and {} more: --report FILE contains all of them", report.refused.len() - MOST);
        }
        if report.without_key > 0 {
            let without = words::thousands(report.without_key);
            let _ = writeln!(
                out,
                "\n{WARN}note{WARN:#}: {without} requests have no key: the limit skips them (onMissingKey)"
            );
        }
        if report.without_time > 0 {
            let without = words::thousands(report.without_time);
            let _ = writeln!(out, "\n{WARN}note{WARN:#}: {without} requests have no time and are not counted");
        }
        out
    }
}

impl KeyTraffic {
    fn add(&mut self, key: String, time: Timestamp) {
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let number = *self.keys.entry(key).or_insert_with_key(|key| {
            self.names.push(key.clone());
            next
        });
        self.events.push((time, number));
    }
}

/// A percentile by the nearest-rank method.
fn percentile_of(sorted: &[u64], percentile: f64) -> u64 {
    let rank = (percentile / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
}

/// Rounds up to two significant digits.
fn rounded(number: f64) -> u64 {
    let number = number.clamp(1.0, 1e9) as u64;
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    (number.div_ceil(unit) * unit).min(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_round_and_percentiles_are_values_that_were_seen() {
        assert_eq!([1.0, 7.0, 99.0, 101.0, 1234.0, 99_500.0].map(rounded), [1, 7, 99, 110, 1300, 100_000]);
        let peaks: Vec<u64> = (1..=100).collect();
        assert_eq!([50.0, 99.0, 99.5, 100.0].map(|p| percentile_of(&peaks, p)), [50, 99, 100, 100]);
        assert_eq!(percentile_of(&[7], 1.0), 7);
    }
}
