//! `routes`: the first rule that matches names the route.

mod effects;
mod rewrite;

#[cfg(feature = "schema")]
pub(crate) use {
    effects::RetryOn,
    rewrite::{Hostname, NewPath},
};

use std::time::Duration;

use crate::breaker::{Breakers, Guard, Thresholds, Watch};
use crate::decision::HeaderOps;
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use crate::document::{
    At, Context, GatewayDuration, Name, Named, Node, NonEmpty, PositiveDuration, Problem, RouteName, Whole, object,
    words,
};
use crate::environment::Environment;
use crate::matching::{Index, PathMatch, RequestMatch};
use crate::metrics::{Metric, Metrics};
use crate::reason::Reason;
use crate::request::Request;
use crate::section::Section;
use effects::{HeaderChanges, Retries, StaticOps};
use rewrite::Rewrite;

words! {
    /// Which of several matching rules wins.
    pub enum Precedence {
        /// The first in the document.
        FirstMatch = "FirstMatch",
        /// The most specific, by the order of the Gateway API.
        GatewayApi = "GatewayAPI",
    }
}

object! {
    /// The section as written.
    pub struct RoutesDocument {
        /// The route when no rule matches; absent: no route header.
        default as "default": Option<RouteName>,
        /// Which of several matching rules wins.
        precedence as "precedence": Precedence = Precedence::FirstMatch,
        /// The rules in document order.
        rules as "rules": Named<RuleDocument> = Named::default(),
    }
}

object! {
    /// One rule as written.
    pub struct RuleDocument check = RuleDocument::check {
        /// Unique among the rules.
        name as "name": Name,
        /// One entry that holds is enough; absent: every request.
        matches as "matches": Option<NonEmpty<RequestMatch>>,
        /// The value of the route header.
        route as "route": RouteName,
        /// Other changes of the request's headers.
        request_headers as "requestHeaders": Option<HeaderChanges>,
        /// Changes of path and host.
        rewrite as "rewrite": Option<Rewrite>,
        /// For the whole exchange, retries included; `0s` means none.
        timeout as "timeout": Option<GatewayDuration>,
        /// Further tries after a failure.
        retries as "retries": Option<Retries>,
        /// Another route while this one fails.
        failover as "failover": Option<Failover>,
    }
}

object! {
    /// `failover`.
    pub struct Failover {
        /// The value of the route header while the rule's own route fails.
        route as "route": RouteName,
        /// The share of failures that makes it fail.
        error_percent as "errorPercent": Whole<1, 100> = Whole(50),
        /// Length of the sliding window.
        window as "window": PositiveDuration = PositiveDuration(Duration::from_secs(10)),
        /// Nothing is decided on fewer requests.
        min_requests as "minRequests": Whole<1, 1_000_000> = Whole(20),
        /// How long the other route takes over before the rule's own is probed.
        cooldown as "cooldown": PositiveDuration = PositiveDuration(Duration::from_secs(30)),
    }
}

impl RuleDocument {
    /// What the fields say about each other.
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let mut fine = true;
        if let Some(failover) = self.failover.as_ref().filter(|failover| failover.route == self.route) {
            let node = Node::String(failover.route.0.to_string());
            let failover = at.field("failover");
            cx.problem(&failover.field("route"), &node, "is the rule's own route", "name another one".to_owned());
            fine = false;
        }
        if self.rewrite.as_ref().is_some_and(Rewrite::replaces_prefix) {
            let prefixed = |entry: &RequestMatch| matches!(entry.path, Some(PathMatch::Prefix(_)));
            if !self.matches.as_ref().is_some_and(|entries| entries.0.iter().all(prefixed)) {
                let help = "give every entry of `matches` a path of type PathPrefix, or use ReplaceFullPath".to_owned();
                let rewrite = at.field("rewrite");
                cx.problem_at(&rewrite.field("path"), "ReplacePrefixMatch has no prefix to replace", help);
                fine = false;
            }
        }
        if let (Some(GatewayDuration(timeout)), Some(PositiveDuration(per_try))) =
            (self.timeout, self.retries.as_ref().and_then(|retries| retries.per_try_timeout))
            && !timeout.is_zero()
            && per_try > timeout
        {
            let retries = at.field("retries");
            let help = "a try cannot outlast the rule's `timeout`: make it shorter".to_owned();
            cx.problem_at(&retries.field("perTryTimeout"), "is longer than the timeout", help);
            fine = false;
        }
        fine
    }
}

/// The section, ready to decide.
#[derive(Debug)]
pub struct Routes {
    default: Option<Box<str>>,
    /// Counts the requests that neither a rule nor a canary gave a route.
    by_default: Metric,
    rules: Box<[Rule]>,
    /// The entries of all rules in the order in which they win.
    entries: Box<[RequestMatch]>,
    /// The rule of each entry.
    rule_of: Box<[u32]>,
    index: Index,
}

/// One rule, ready to apply.
#[derive(Debug)]
struct Rule {
    name: Box<str>,
    route: Box<str>,
    ops: StaticOps,
    rewrite: Option<Rewrite>,
    failover: Option<(Box<str>, Watch)>,
    matched: Metric,
}

/// What a rule decided about a request.
#[derive(Debug)]
pub(crate) struct RuleOutcome<'a> {
    /// The rule.
    pub(crate) rule: &'a str,
    /// Where the request goes.
    pub(crate) route: &'a str,
    /// Why not to the rule's own route.
    pub(crate) reason: Option<Reason>,
    /// The breaker that wants to know how the request ends.
    pub(crate) watch: Option<Watch>,
    /// What changes on the request.
    pub(crate) headers: HeaderOps<'a>,
    /// What to count.
    pub(crate) count: Metric,
}

impl Routes {
    /// Compiles the section.
    pub(crate) fn new(document: RoutesDocument, breakers: &mut Breakers, metrics: &mut Metrics) -> Routes {
        let mut rules = Vec::with_capacity(document.rules.0.len());
        let by_default = metrics.add(Section::Routes, "_default", &["matched"]);
        let mut entries = Vec::new();
        for (rule, document) in (0u32..).zip(document.rules.0) {
            let matches = document.matches.map_or_else(|| vec![RequestMatch::default()], |entries| entries.0);
            entries.extend(matches.into_iter().map(|entry| (entry, rule)));
            let failover = document.failover.map(|failover| {
                let guard = Guard {
                    section: Section::Routes,
                    rule: &document.name.0,
                    guarded: &document.route.0,
                    instead: &failover.route.0,
                };
                let thresholds = Thresholds {
                    window: failover.window,
                    min_requests: failover.min_requests,
                    error_percent: Some(failover.error_percent),
                    latency: None,
                    cooldown: failover.cooldown,
                };
                let watch = breakers.add(&guard, &thresholds, metrics);
                (failover.route.0, watch)
            });
            rules.push(Rule {
                failover,
                matched: metrics.add(Section::Routes, &document.name.0, &["matched"]),
                name: document.name.0,
                route: document.route.0,
                ops: StaticOps::new(document.request_headers, document.timeout, document.retries),
                rewrite: document.rewrite,
            });
        }
        if document.precedence == Precedence::GatewayApi {
            // Stable: equal entries stay in document order.
            entries.sort_by_key(|(entry, _)| std::cmp::Reverse(specificity(entry)));
        }
        let (entries, rule_of): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let index = Index::new(&entries);
        Routes {
            default: document.default.map(|route| route.0),
            by_default,
            rules: rules.into(),
            entries: entries.into(),
            rule_of: rule_of.into(),
            index,
        }
    }

    /// What the rule that wins decides. `None`: no rule matches.
    pub(crate) fn decide<'a>(
        &'a self,
        request: &Request<'a>,
        breakers: &Breakers,
        environment: &mut impl Environment,
    ) -> Option<RuleOutcome<'a>> {
        let rank = self.index.first(&self.entries, request)?;
        let rule = self.rules.get(*self.rule_of.get(rank)? as usize)?;
        note!(environment, crate::explain::Note::Route(rule.name.to_string()));
        let mut outcome = RuleOutcome {
            rule: &rule.name,
            route: &rule.route,
            reason: None,
            watch: None,
            headers: HeaderOps::new(),
            count: rule.matched,
        };
        if let Some((instead, watch)) = &rule.failover {
            if breakers.passes_by_chance(*watch, environment) {
                outcome.watch = Some(*watch);
            } else {
                (outcome.route, outcome.reason) = (instead, Some(Reason::FailedOver));
            }
        }
        rule.ops.apply(&mut outcome.headers);
        if let Some(rewrite) = &rule.rewrite {
            let path = self.entries.get(rank).and_then(|entry| entry.path.as_ref());
            rewrite.apply(path, request, &mut outcome.headers);
        }
        Some(outcome)
    }

    /// Rules that can never win: those after one that takes every request.
    pub fn warnings(&self) -> Vec<Problem> {
        let rule = |rank: usize| self.rule_of.get(rank).map(|&rule| rule as usize);
        let Some(catch_all) = self.entries.iter().position(RequestMatch::is_unconditional) else { return Vec::new() };
        let reachable: HashSet<usize, FxBuildHasher> = (0..=catch_all).filter_map(rule).collect();
        let by = rule(catch_all).and_then(|rule| self.rules.get(rule)).map_or("", |rule| &rule.name);
        let root = At::Root;
        let rules = root.field("routes");
        let rules = rules.field("rules");
        (0..self.rules.len())
            .filter(|rule| !reachable.contains(rule))
            .map(|rule| Problem {
                path: rules.index(rule).to_string(),
                value: None,
                message: format!("is never reached: rule `{by}` takes every request before it"),
                help: Some("move it up, or give the other rule `matches`".to_owned()),
            })
            .collect()
    }

    /// The route of a request that nobody else gave one, if there is a default, and what to count.
    pub(crate) fn default(&self) -> (Option<&str>, Metric) {
        (self.default.as_deref(), self.by_default)
    }
}

/// What makes an entry win under `precedence: GatewayAPI`, greater first: exact path, expression, longest prefix,
/// method, number of headers (cookies are one header's parts, so they count as headers), number of query parameters.
/// The place of expressions is the implementation's choice in the Gateway API; this is Envoy Gateway's.
pub fn specificity(entry: &RequestMatch) -> impl Ord + use<> {
    let path = match &entry.path {
        Some(PathMatch::Exact(path)) => (2, path.len()),
        Some(PathMatch::Regex(regex)) => (1, regex.pattern().len()),
        Some(PathMatch::Prefix(prefix)) => (0, prefix.len()),
        None => (0, 0),
    };
    (path, entry.method.is_some(), entry.headers.len() + entry.cookies.len(), entry.query_params.len())
}

#[cfg(test)]
mod tests;
