//! The report: what was learned, how permissive it is, and what stays refused; human-readable and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use penstock_policy::Timestamp;
use serde::Serialize;

use super::account::{Account, NotLearned, Why};
use super::observe::AskedForm;
use super::pattern::Pattern;
use super::rules::{LearnedRule, day, owner};
use crate::output::count;
use crate::output::style::{BAD, DIM, GOOD, HEAD, NAME, WARN};
use crate::words::{self, percent, thousands};

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnReport {
    /// All requests of the log.
    pub requests: u64,
    /// Requests that the existing policy allows already.
    pub already_allowed: u64,
    /// Requests that the learned rules allow.
    pub covered: u64,
    /// The fraction of both together.
    pub share: f64,
    /// The first and the last day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<(String, String)>,
    /// The requests that stay refused, most suspicious first.
    pub refused: Vec<ReportItem>,
    /// The callers, those with the most refused requests first.
    pub callers: Vec<CallerShare>,
    /// How permissive the rules are.
    pub width: Width,
    /// The rules in order.
    pub rules: Vec<RuleReport>,
    /// Notes about the log.
    pub notes: Vec<String>,
}

/// Requests that stay refused.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportItem {
    /// The reason.
    pub why: Why,
    /// Whether it is suspicious and not just rare.
    pub suspicious: bool,
    /// Host and port.
    pub to: String,
    /// The number of names, when there are many.
    #[serde(skip_serializing_if = "is_zero")]
    pub names: u64,
    /// The number of requests.
    pub requests: u64,
    /// Methods.
    pub methods: BTreeSet<String>,
    /// Some of the paths.
    pub paths: BTreeSet<String>,
    /// The callers; `null` for a caller without an identity.
    pub callers: BTreeSet<Option<String>>,
    /// The first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The allowed part of a caller's requests.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallerShare {
    /// The caller; `null` for one without an identity.
    pub caller: Option<String>,
    /// All requests from which rules could be learned.
    pub requests: u64,
    /// Requests that the learned rules allow.
    pub covered: u64,
}

/// Numbers that show how permissive the rules are.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Width {
    /// Rules.
    pub rules: usize,
    /// Names without a wildcard.
    pub hosts: usize,
    /// Wildcards.
    pub stars: BTreeSet<String>,
    /// Rules for any caller.
    pub any_caller: BTreeSet<String>,
    /// Rules that allow tunnels.
    pub tunnels: BTreeSet<String>,
    /// Rules for connections, which allow every request to their hosts.
    pub connections: BTreeSet<String>,
    /// Single paths.
    pub paths: usize,
    /// Prefixes.
    pub prefixes: usize,
    /// Rules that allow every path of their hosts.
    pub every_path: BTreeSet<String>,
    /// Methods that change data, with the rules that allow them.
    pub writes: usize,
}

/// A rule.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: Option<String>,
    /// The number of requests that it allows.
    pub requests: u64,
}

/// The inputs of the report.
#[derive(Debug)]
pub struct ReportFacts<'f> {
    /// The learned rules.
    pub rules: &'f [LearnedRule],
    /// The effect of the rules on the log.
    pub account: Account,
    /// All requests.
    pub requests: u64,
    /// Requests that were allowed already.
    pub already_allowed: u64,
    /// The first and the last time.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Notes about the log.
    pub notes: Vec<String>,
}

impl LearnReport {
    /// Makes the report.
    pub fn new(facts: ReportFacts<'_>) -> LearnReport {
        let ReportFacts { rules, account, requests, already_allowed, span, notes } = facts;
        let covered: u64 = account.shares.values().map(|share| share.allowed).sum();
        let mut callers: Vec<CallerShare> = account
            .shares
            .into_iter()
            .map(|(caller, share)| CallerShare {
                caller,
                requests: share.allowed + share.refused,
                covered: share.allowed,
            })
            .collect();
        callers.sort_by_key(|share| (std::cmp::Reverse(share.requests - share.covered), share.caller.clone()));
        let mut refused: Vec<ReportItem> =
            account.refused.into_iter().map(|((why, to), refused)| ReportItem::new(why, to, refused)).collect();
        refused.sort_by(|a, b| (a.why, b.requests, &a.to).cmp(&(b.why, a.requests, &b.to)));
        LearnReport {
            requests,
            already_allowed,
            covered,
            share: (covered + already_allowed) as f64 / requests.max(1) as f64,
            days: span.map(|(first, last)| (day(first), day(last))),
            refused,
            callers,
            width: Width::of(rules),
            rules: rules
                .iter()
                .map(|rule| RuleReport {
                    name: rule.name.clone(),
                    owner: owner(rule),
                    requests: rule.evidence.requests,
                })
                .collect(),
            notes,
        }
    }

    /// The human-readable report, with styles.
    pub fn human(&self) -> String {
        let mut out = String::new();
        let days = self.days.as_ref().map(|(first, last)| format!(", {first} to {last}")).unwrap_or_default();
        let _ = writeln!(
            out,
            "{HEAD}{} of {}{days}{HEAD:#}",
            count(usize::try_from(self.requests).unwrap_or(usize::MAX), "request"),
            count(self.callers.len(), "caller")
        );
        self.list(&mut out, "suspicious, not learned", true);
        let width = &self.width;
        let _ = writeln!(
            out,
            "\n{HEAD}learned{HEAD:#}: {} for {} and {} allow {GOOD}{}{GOOD:#} of {} requests ({})",
            count(width.rules, "rule"),
            count(width.hosts, "host"),
            count(width.stars.len(), "star"),
            thousands(self.covered + self.already_allowed),
            thousands(self.requests),
            percent(self.share)
        );
        if self.already_allowed > 0 {
            let _ = writeln!(out, "  {} of them were allowed already", thousands(self.already_allowed));
        }
        let complete = self.callers.iter().filter(|share| share.requests == share.covered).count();
        if !self.callers.is_empty() {
            let verb = if complete == 1 { "loses" } else { "lose" };
            let _ = writeln!(out, "  {complete} of {} {verb} no request", count(self.callers.len(), "caller"));
        }
        for share in self.callers.iter().filter(|share| share.covered < share.requests).take(10) {
            let lost = share.requests - share.covered;
            let _ = writeln!(
                out,
                "  {NAME}{}{NAME:#} {} {} of {}",
                who(&share.caller),
                if share.caller.is_some() { "loses" } else { "lose" },
                thousands(lost),
                thousands(share.requests)
            );
        }
        self.list(&mut out, "rare, not learned", false);
        let _ = writeln!(out, "\n{HEAD}how broad the rules are{HEAD:#}");
        let _ = writeln!(out, "  {} and {}", count(width.paths, "single path"), prefixes(width.prefixes));
        for (what, names) in [
            ("stars", &width.stars),
            ("for any caller", &width.any_caller),
            ("every path of its hosts", &width.every_path),
            ("tunnels, whose content the filter does not see", &width.tunnels),
            ("connections, which means every method and path of their hosts", &width.connections),
        ] {
            if !names.is_empty() {
                let shown = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
                let _ = writeln!(out, "  {WARN}{what}{WARN:#}: {shown}{more}");
            }
        }
        for note in &self.notes {
            let _ = writeln!(out, "\n{WARN}note{WARN:#}: {note}");
        }
        out
    }

    fn list(&self, out: &mut String, title: &str, suspicious: bool) {
        const MOST: usize = 25;
        let items: Vec<&ReportItem> = self.refused.iter().filter(|item| item.suspicious == suspicious).collect();
        if items.is_empty() {
            return;
        }
        let _ = writeln!(out, "\n{HEAD}{title}{HEAD:#}");
        let mut why = None;
        for item in items.iter().take(MOST) {
            if why != Some(item.why) {
                why = Some(item.why);
                let _ = writeln!(out, "  {BAD}{}{BAD:#}", item.why.words());
            }
            let names = if item.names > 0 { format!(" ({} names)", thousands(item.names)) } else { String::new() };
            let methods = item.methods.iter().cloned().collect::<Vec<_>>().join(", ");
            let mut callers = item.callers.iter().take(3).map(who).collect::<Vec<_>>().join(", ");
            if item.callers.len() > 3 {
                let _ = write!(callers, " and {} more", item.callers.len() - 3);
            }
            let days = match (&item.first, &item.last) {
                (Some(first), Some(last)) if first == last => format!(", {first}"),
                (Some(first), Some(last)) => format!(", {first} to {last}"),
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "    {NAME}{}{NAME:#}{names}: {} {methods} by {callers}{days}",
                item.to,
                count(usize::try_from(item.requests).unwrap_or(usize::MAX), "request")
            );
            if !item.paths.is_empty() {
                let paths = item.paths.iter().cloned().collect::<Vec<_>>().join(" ");
                let _ = writeln!(out, "      {DIM}{}{DIM:#}", words::shortened(&paths, 160));
            }
        }
        if items.len() > MOST {
            let _ = writeln!(
                out,
                "    {} more: --report FILE contains all of them",
                thousands((items.len() - MOST) as u64)
            );
        }
    }
}

fn who(caller: &Option<String>) -> String {
    let printable = |caller: &String| words::shortened(&caller.replace(char::is_control, "\u{fffd}"), 120);
    caller.as_ref().map_or_else(|| "callers without identity".to_owned(), printable)
}

fn prefixes(number: usize) -> String {
    format!("{} path {}", thousands(number as u64), if number == 1 { "prefix" } else { "prefixes" })
}

impl ReportItem {
    fn new(why: Why, to: String, refused: NotLearned) -> ReportItem {
        let NotLearned { callers, names, methods, paths, requests, span } = refused;
        let (first, last) = span.map(|(first, last)| (day(first), day(last))).unzip();
        let to = words::shortened(&to.replace(char::is_control, "\u{fffd}"), 200);
        ReportItem { why, suspicious: why < Why::NoIdentity, to, names, requests, methods, paths, callers, first, last }
    }
}

impl Width {
    fn of(rules: &[LearnedRule]) -> Width {
        let mut width = Width { rules: rules.len(), ..Width::default() };
        let mut hosts = BTreeSet::new();
        for rule in rules {
            for to in &rule.to {
                if to.is_star {
                    width.stars.insert(format!("*.{}", to.host));
                } else {
                    hosts.insert(&to.host);
                }
            }
            let mut note = |names: fn(&mut Width) -> &mut BTreeSet<String>, is: bool| {
                if is {
                    names(&mut width).insert(rule.name.clone());
                }
            };
            let paths = &rule.shape.paths;
            note(|width| &mut width.any_caller, rule.from.is_none());
            note(|width| &mut width.tunnels, rule.shape.class.form == AskedForm::Tunnel);
            note(|width| &mut width.connections, rule.shape.class.form == AskedForm::Connection);
            note(|width| &mut width.every_path, paths.contains(&Pattern::Prefix("".into())));
            width.paths += paths.iter().filter(|path| matches!(path, Pattern::Exact(_))).count();
            width.prefixes += paths.iter().filter(|path| matches!(path, Pattern::Prefix(_))).count();
            let changes = |method: &String| !matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS");
            width.writes += usize::from(rule.shape.methods.iter().any(changes));
        }
        width.hosts = hosts.len();
        width
    }
}
