//! `penstock learn`: makes an egress allowlist from recorded requests.
//!
//! Requests that occur often enough, on enough days, become rules; rare requests and those to IP addresses or unusual
//! ports are listed instead. More traffic only adds rules, and learning again from what the rules allow gives the same
//! rules.

mod account;
mod cells;
mod evidence;
mod grants;
mod limits;
mod observe;
mod patch;
mod pattern;
mod report;
mod rules;
mod segment;
mod tree;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use penstock_policy::Timestamp;
use penstock_policy::document::{At, Context, Decode, Node};
use penstock_policy::egress::EgressHost;
use penstock_policy::wire::WireRequest;

use crate::numbers::{MANY, whole};
use crate::output::{Output, count};
use crate::policy_file::{Invalid, PolicyFile};
use crate::text::SourceText;
use crate::traffic::{self, ReadOptions};
use crate::{replay, source, words};
use account::{Account, AllRefused, NotLearned, Why};
use cells::Cells;
use evidence::{EvidenceThresholds, Sighting};
use grants::Allowances;
use observe::{ObservedRequest, Observer};
use report::{LearnReport, ReportFacts};
use rules::LearnedRule;
use write::RuleStyle;

/// Write an egress allowlist for recorded requests.
///
/// Prints the policy to standard output and a report to standard error. Reads all formats of `replay`, and the lines
/// that the modules write to Envoy's log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock learn access.log > policy.yaml\n  \
    penstock learn --min-days 3 --star zendesk.com --expires 30d --report report.json monday.log tuesday.log > policy.yaml\n  \
    kubectl logs -n istio-system deploy/egress | penstock learn --merge policy.yaml --patch | patch policy.yaml\n\n\
    docs/learn.md describes which rules are learned.")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    /// The recorded requests; `-`, the default, is standard input.
    #[arg(value_name = "LOG")]
    logs: Vec<PathBuf>,
    #[command(flatten)]
    traffic: ReadOptions,
    /// Only learn from callers with at least this number of different requests to a host. Identical requests within a
    /// minute count once.
    #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true, value_parser = whole::<u32>(1, 10_000))]
    min_requests: u32,
    /// Only learn from requests on at least this number of days, at least half a day apart.
    #[arg(long, value_name = "N", default_value_t = 2, allow_negative_numbers = true, value_parser = whole::<u32>(1, 366))]
    min_days: u32,
    /// Learn `*.NAME` for requests to names below NAME.
    #[arg(long, value_name = "NAME")]
    star: Vec<String>,
    /// Learn a wildcard if one caller uses more than N names below one parent in the same way; 0: never.
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true, value_parser = whole::<usize>(0, MANY))]
    star_above: usize,
    /// A port to allow, in addition to 80, 443 and the default port.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = whole::<u16>(1, 65_535))]
    port: Vec<u16>,
    /// The port of names without a port, if the log does not contain it; written as `defaultPort`.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, value_parser = whole::<u16>(1, 65_535), conflicts_with = "merge")]
    default_port: Option<u16>,
    /// Do not learn from requests without an identity, because such rules apply to any caller.
    #[arg(long)]
    require_identity: bool,
    /// When the rules expire: after a number of days (`30d`), on a date (`2027-01-31`), or `never`.
    #[arg(long, value_name = "WHEN", default_value = "90d")]
    expires: String,
    /// The owner of rules whose callers have no namespace.
    #[arg(long, value_name = "TEXT", default_value = "unassigned")]
    owner: String,
    /// Add missing rules to this policy, and keep everything else in it.
    #[arg(long, value_name = "POLICY")]
    merge: Option<PathBuf>,
    /// Instead of the whole policy, print what --merge adds as a patch (unified diff).
    #[arg(long, requires = "merge")]
    patch: bool,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What else is learned.
#[derive(Debug, clap::Subcommand)]
enum Other {
    Limits(limits::Args),
}

/// The policy to which rules are added.
struct Existing {
    path: PathBuf,
    text: String,
    node: Node,
}

/// The result for a log.
struct Learned {
    rules: Vec<LearnedRule>,
    report: LearnReport,
    /// The port of names without one, when the policy must set it.
    default_port: Option<u16>,
    last: Option<Timestamp>,
}

impl Args {
    /// Learns the policy.
    ///
    /// # Errors
    /// Returns an error when a log or the policy cannot be read, or an option does not apply to them; `Invalid` for an
    /// invalid policy.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        if let Some(Other::Limits(limits)) = &self.other {
            return limits.run(out);
        }
        let existing = self.merge.as_deref().map(existing).transpose()?;
        let logs = if self.logs.is_empty() { vec![PathBuf::from(source::STDIN)] } else { self.logs.clone() };
        traffic::one_stdin(logs.iter().chain(&self.merge).map(PathBuf::as_path))?;
        let now = replay::now();
        let learned = self.learn(&logs, existing.as_ref(), now)?;
        let style = RuleStyle { unowned: self.owner.clone(), expires: expires(&self.expires, now, learned.last)? };
        let Learned { rules, report, default_port, .. } = learned;
        if let Some(why) = nothing_learned(&rules, &report, existing.is_some()) {
            self.write_report(&report)?;
            anstream::eprintln!("\npenstock: no policy is written: {why}");
            return Ok(false);
        }
        let text = match &existing {
            None => write::new_policy(&rules, &style, default_port, &head(&report)),
            Some(existing) => write::merged(&existing.text, &rules, &style)
                .with_context(|| format!("cannot add to {}", source::display(&existing.path)))?,
        };
        PolicyFile::compile(&SourceText::new(&text))
            .map_err(|findings| Invalid::new("the learned policy", &SourceText::new(&text), &findings))?;
        self.write_report(&report)?;
        match &existing {
            Some(existing) if self.patch => {
                out.write_all(patch::unified(&existing.text, &text, &source::display(&existing.path)).as_bytes())?;
            }
            _ => out.write_all(text.as_bytes())?,
        }
        Ok(true)
    }

    fn write_report(&self, report: &LearnReport) -> anyhow::Result<()> {
        anstream::eprint!("{}", report.human());
        match &self.report {
            Some(path) => source::write(path, serde_json::to_string_pretty(report)? + "\n"),
            None => Ok(()),
        }
    }

    fn learn(&self, logs: &[PathBuf], existing: Option<&Existing>, now: Timestamp) -> anyhow::Result<Learned> {
        let thresholds = EvidenceThresholds { requests: self.min_requests, days: self.min_days };
        let stars = self.star.iter().map(|name| star(name)).collect::<anyhow::Result<Vec<String>>>()?;
        ensure!(
            !self.owner.trim().is_empty() && !self.owner.contains(char::is_control),
            "--owner is empty, or not text"
        );
        let mut log = LearnedLog {
            observer: Observer::new(existing.map(|existing| &existing.node), self.default_port)?,
            cells: Cells::default(),
            refused: AllRefused::new(),
            stars,
            thresholds,
            counts: LogCounts::default(),
            ambiguous: BTreeMap::new(),
        };
        let options = ReadOptions { connections: true, ..self.traffic.clone() };
        for path in logs {
            traffic::each(path, &options, true, &mut |_, request| {
                log.add(&request, now);
                Ok(())
            })?;
        }
        let LearnedLog { observer, cells, refused, counts, ambiguous, .. } = log;
        let mut seen = cells.finish(observer.default_port(), thresholds);
        let is_assumed = seen.is_port_assumed;
        let default_port = observer.default_port().or(is_assumed.then_some(443));
        let mut allowances = Allowances { ports: [80, 443].into(), requires_identity: self.require_identity };
        allowances.ports.extend(self.port.iter().copied().chain(default_port));
        let taken = existing.map(|existing| names(&existing.node)).unwrap_or_default();
        let mut account = Account::default();
        // Repeats without the requests that are not allowed until nothing changes, so that no rule is based on requests
        // that stay refused.
        let mut rules = loop {
            let mut grants = grants::learn(&seen, &allowances, thresholds);
            if self.star_above > 0 {
                grants::add_stars(&mut grants, self.star_above);
            }
            grants::drop_covered(&mut grants);
            let rules = rules::rules(&grants, &taken);
            if !account.sift(&mut seen, &rules, &allowances, thresholds) {
                break rules;
            }
        };
        account.finish(&seen);
        for (rule, evidence) in rules.iter_mut().zip(std::mem::take(&mut account.counts)) {
            rule.evidence = evidence;
        }
        account.refused.extend(refused);
        for (caller, requests) in ambiguous {
            account.shares.entry(caller).or_default().refused += requests;
        }
        let is_hopeless = account.refused.keys().all(|(why, _)| why.is_independent_of_thresholds());
        let mut notes = self.notes(&counts, is_assumed && existing.is_some(), is_assumed, &rules);
        if rules.is_empty() && counts.allowed < counts.requests {
            notes.push(match is_hopeless {
                true => HOPELESS.to_owned(),
                false => self.too_thin(&counts),
            });
        }
        let report = LearnReport::new(ReportFacts {
            rules: &rules,
            account,
            requests: counts.requests,
            already_allowed: counts.allowed,
            span: counts.span,
            notes,
        });
        Ok(Learned {
            rules,
            report,
            default_port: default_port.filter(|_| existing.is_none()),
            last: counts.span.map(|(_, last)| last),
        })
    }

    /// Why nothing is learned of requests of which more would have been enough.
    fn too_thin(&self, counts: &LogCounts) -> String {
        let span = counts
            .span
            .map(|(first, last)| format!(" The log has {} to {}.", words::instant(first), words::instant(last)));
        format!(
            "nothing is learned: it takes {} different requests of one caller to one host on {} days.{} Give a longer log, or \
             lower --min-requests and --min-days",
            self.min_requests,
            self.min_days,
            span.unwrap_or_default()
        )
    }

    /// Notes about the log for the report.
    fn notes(&self, counts: &LogCounts, is_unsaid: bool, is_assumed: bool, rules: &[LearnedRule]) -> Vec<String> {
        let mut notes = Vec::new();
        let without_time = counts.requests - counts.timed;
        if without_time > 0 && self.min_days > 1 {
            notes.push(format!(
                "{} of {} requests have no time, so it is unknown on how many days they were sent: log the time, or learn \
                 from one day with --min-days 1",
                words::thousands(without_time),
                words::thousands(counts.requests)
            ));
        }
        if counts.without_path > 0 && counts.without_path * 2 > counts.requests {
            notes.push("the log has no paths: log %PATH(NQ:ORIG_OR_PATH)%".to_owned());
        }
        if is_unsaid {
            notes.push(
                "neither the log nor the policy defines the port of names without one: add `defaultPort: 443` to the policy, or \
                 set --scheme"
                    .to_owned(),
            );
        } else if is_assumed {
            notes.push(
                "the log does not contain the port of names without one: 443 is assumed and written as `defaultPort`; to \
                 change it, set --default-port or --scheme"
                    .to_owned(),
            );
        }
        if rules.iter().any(|rule| rule.from.is_none()) {
            notes.push(
                "some requests have no identity of their caller, so their rules apply to any caller: log \
                 %DOWNSTREAM_PEER_URI_SAN%, or leave them out with --require-identity"
                    .to_owned(),
            );
        }
        notes
    }
}

/// Why nothing is learned where no number of requests would be enough.
const HOPELESS: &str = "nothing is learned: every request is of a kind that no rule is learned from, as listed above. Names instead of addresses, \
    and --port for a port that is meant, would change that";

/// Why no policy is written: without a rule, it would refuse every request.
fn nothing_learned(rules: &[LearnedRule], report: &LearnReport, is_merged: bool) -> Option<&'static str> {
    match () {
        () if report.requests == 0 => Some("the log has no requests; give one that has"),
        // Nothing needs to be added; the policy stays unchanged.
        () if !rules.is_empty() || is_merged => None,
        () => Some("without a rule it would refuse every request"),
    }
}

/// Counts over the whole log.
#[derive(Debug, Default)]
struct LogCounts {
    requests: u64,
    allowed: u64,
    timed: u64,
    without_path: u64,
    span: Option<(Timestamp, Timestamp)>,
}

/// The log so far.
struct LearnedLog {
    observer: Observer,
    cells: Cells,
    refused: AllRefused,
    stars: Vec<String>,
    thresholds: EvidenceThresholds,
    counts: LogCounts,
    /// How many requests of each caller are ambiguous.
    ambiguous: BTreeMap<Option<String>, u64>,
}

impl LearnedLog {
    fn add(&mut self, request: &WireRequest, now: Timestamp) {
        /// So many places, and callers, are told apart.
        const MOST: usize = 10_000;
        let counts = &mut self.counts;
        counts.requests += 1;
        let has_path = !matches!(request.method.as_str(), "CONNECT" | "");
        counts.without_path += u64::from(request.path.is_empty() && has_path);
        let span = request.time.map(|time| (time, time));
        if let Some(time) = request.time {
            counts.timed += 1;
            let (first, last) = counts.span.unwrap_or((time, time));
            counts.span = Some((first.min(time), last.max(time)));
        }
        let sighting = Sighting::new(request.time, counts.requests, &[&request.method, &request.path]);
        let (why, reason) = match self.observer.see(request, now) {
            ObservedRequest::Allowed => {
                counts.allowed += 1;
                return;
            }
            ObservedRequest::Learnable(mut seen) => {
                let below =
                    |star: &&String| seen.host.strip_suffix(star.as_str()).is_some_and(|rest| rest.ends_with('.'));
                if let Some(star) = self.stars.iter().filter(|_| !seen.is_address).find(below) {
                    seen.host = format!("*.{star}");
                }
                return self.cells.add(&seen, &sighting, self.thresholds);
            }
            ObservedRequest::Denied => (Why::Denied, None),
            ObservedRequest::Ambiguous(reason) => {
                let caller = request.peer.clone().filter(|peer| !peer.is_empty());
                if self.ambiguous.len() < MOST || self.ambiguous.contains_key(&caller) {
                    *self.ambiguous.entry(caller).or_default() += 1;
                }
                (Why::Ambiguous, Some(reason))
            }
        };
        let mut place = words::shortened(&request.authority.to_ascii_lowercase(), 100);
        if let Some(reason) = reason {
            place = format!("{place} ({reason})");
        }
        if self.refused.len() >= MOST && !self.refused.contains_key(&(why, place.clone())) {
            place = format!("others ({})", reason.unwrap_or("hostDenied"));
        }
        let path = request.path.split('?').next().unwrap_or_default();
        let refused: &mut NotLearned = self.refused.entry((why, place)).or_default();
        refused.add(request.peer.as_deref(), &words::shortened(&request.method, 40), path, 1, span);
    }
}

/// The policy to which rules are added.
fn existing(path: &Path) -> anyhow::Result<Existing> {
    let text = source::read_text(path)?;
    let compiled = PolicyFile::compile(&SourceText::new(&text));
    let file = compiled.map_err(|findings| Invalid::new(&source::display(path), &SourceText::new(&text), &findings))?;
    Ok(Existing { path: path.to_owned(), text, node: file.node })
}

/// The names of the egress rules of a policy.
fn names(policy: &Node) -> BTreeSet<String> {
    let Some(Node::List(rules)) = policy.get("egress").and_then(|egress| egress.get("rules")) else {
        return BTreeSet::new();
    };
    let name = |rule: &Node| match rule.get("name") {
        Some(Node::String(name)) => Some(name.clone()),
        _ => None,
    };
    rules.iter().filter_map(name).collect()
}

/// The parent name of a wildcard.
fn star(name: &str) -> anyhow::Result<String> {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let mut cx = Context::new(String::new(), usize::MAX);
    let host = EgressHost::decode(&Node::String(format!("*.{name}")), &At::Root, &mut cx);
    match cx.finish() {
        None if host.is_some() => Ok(name.to_owned()),
        problems => anyhow::bail!("--star {name}: {}", problems.map(|p| p.to_string()).unwrap_or_default()),
    }
}

/// The time at which the rules expire; `None` for never.
fn expires(when: &str, now: Timestamp, last: Option<Timestamp>) -> anyhow::Result<Option<String>> {
    const DAY: u64 = 86_400_000_000_000;
    let begin = last.unwrap_or(now).max(now);
    let days =
        when.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()).filter(|days| (1..=36_500).contains(days));
    if when == "never" {
        return Ok(None);
    }
    if let Some(days) = days {
        let end = (begin.0 / DAY).saturating_add(days).saturating_mul(DAY);
        return Ok(Some(words::instant(Timestamp(end))));
    }
    let end = Timestamp::parse(when).or_else(|| Timestamp::parse(&format!("{when}T00:00:00Z")));
    let end = end.with_context(|| format!("--expires {when}: write 30d, a day such as 2027-01-31, or never"))?;
    if let Some(last) = last {
        ensure!(end > last, "--expires {when} is before the log's last request, {}", words::instant(last));
    }
    Ok(Some(words::instant(end)))
}

/// The comment above the rules.
fn head(report: &LearnReport) -> String {
    let days = report.days.as_ref().map(|(first, last)| format!(", {first} to {last}")).unwrap_or_default();
    let suspicious: u64 = report.refused.iter().filter(|item| item.suspicious).map(|item| item.requests).sum();
    let requests = |number: u64, what| count(usize::try_from(number).unwrap_or(usize::MAX), what);
    let rare = report.requests.saturating_sub(report.covered + report.already_allowed + suspicious);
    format!(
        "Learned by `penstock learn` from {} requests{days}. They allow {} of them ({}).\n\
         Not learned: {} and {}; the report lists them with their callers.\n\
         Read each rule before you enforce it: they allow what happened, which may include what should not happen.",
        words::thousands(report.requests),
        words::thousands(report.covered),
        words::percent(report.share),
        requests(suspicious, "suspicious request"),
        requests(rare, "rare request"),
    )
}
