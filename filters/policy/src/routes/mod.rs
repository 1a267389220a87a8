//! `routes`: the first rule that matches names the route.

mod document;
mod effects;
mod precedence;
mod redirect;
mod rewrite;

#[cfg(feature = "schema")]
pub(crate) use {
    effects::RetryOn,
    redirect::RedirectStatus,
    rewrite::{Hostname, NewPath},
};

use crate::asked::AskedNames;
use crate::breaker::{Breakers, Guard, Thresholds, Watch};
use crate::decision::{Effects, HeaderOp, Response};
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use crate::document::{At, Problem};
use crate::environment::Environment;
use crate::explain::Note;
use crate::matching::{Index, RequestMatch};
use crate::metrics::{Metric, Metrics};
use crate::reason::Reason;
use crate::request::Request;
use crate::section::Section;
pub use document::{Failover, Precedence, RouteRuleDocument, RoutesDocument};
use effects::StaticOps;
pub use precedence::{in_order, specificity};
pub use redirect::Redirect;
use rewrite::Rewrite;

/// The section, ready to decide.
#[derive(Debug)]
pub struct Routes {
    default: Option<Box<str>>,
    /// Counts the requests without a route from a rule or a canary.
    by_default: Metric,
    rules: Box<[RouteRule]>,
    /// The entries of all rules in the order in which they win.
    entries: Box<[RequestMatch]>,
    /// The rule of each entry.
    rule_of: Box<[u32]>,
    index: Index,
}

/// One rule, ready to apply.
#[derive(Debug)]
struct RouteRule {
    name: Box<str>,
    to: To,
    ops: StaticOps,
    response: StaticOps,
    rewrite: Option<Rewrite>,
    failover: Option<(Box<str>, Watch)>,
    matched: Metric,
}

/// Where a rule sends a request.
#[derive(Debug)]
enum To {
    Route(Box<str>),
    /// The canary of this number.
    Canary(u32),
    Redirect(Box<Redirect>),
}

/// A rule's decision about a request.
#[derive(Debug)]
pub(crate) struct RuleOutcome<'a> {
    /// The rule.
    pub(crate) rule: &'a str,
    /// Where the request goes.
    pub(crate) to: RuleTo<'a>,
    /// Why the request does not go to the rule's own route.
    pub(crate) reason: Option<Reason>,
    /// The breaker that must be told how the request ends.
    pub(crate) watch: Option<Watch>,
    /// What changes on the response.
    pub(crate) response: Vec<HeaderOp<'a>>,
}

/// Where a rule sends a request.
#[derive(Clone, Debug)]
pub(crate) enum RuleTo<'a> {
    /// To this route.
    Route(&'a str),
    /// To a variant of the canary of this number.
    Canary(u32),
    /// The client is redirected to another address.
    Redirect(Response<'a>),
}

impl Routes {
    /// Compiles the section. `canary` returns the number of a canary by its name.
    pub(crate) fn new(
        document: RoutesDocument,
        canary: impl Fn(&str) -> Option<u32>,
        breakers: &mut Breakers,
        metrics: &mut Metrics,
        names: &mut AskedNames,
    ) -> Routes {
        let mut rules = Vec::with_capacity(document.rules.0.len());
        let by_default = metrics.add(Section::Routes, "_default", &["matched"]);
        let mut entries = Vec::new();
        for (rule, document) in (0u32..).zip(document.rules.0) {
            let matches = document.matches.map_or_else(|| vec![RequestMatch::default()], |entries| entries.0);
            entries.extend(matches.into_iter().map(|entry| (entry, rule)));
            let canary = document.canary.and_then(|name| canary(&name.0));
            // The document has been checked: without a canary and a redirect there is a route.
            let route = document.route.map(|route| route.0).unwrap_or_default();
            let failover = document.failover.map(|failover| {
                let guard = Guard {
                    section: Section::Routes,
                    rule: &document.name.0,
                    guarded: &route,
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
            rules.push(RouteRule {
                failover,
                matched: metrics.add(Section::Routes, &document.name.0, &["matched"]),
                name: document.name.0,
                to: match (canary, document.redirect) {
                    (Some(canary), _) => To::Canary(canary),
                    (None, Some(redirect)) => To::Redirect(Box::new(redirect)),
                    (None, None) => To::Route(route),
                },
                response: StaticOps::new(document.response_headers, None, None),
                ops: StaticOps::new(document.request_headers, document.timeout, document.retries),
                rewrite: document.rewrite,
            });
        }
        let entries = in_order(document.precedence, entries);
        let (entries, rule_of): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let index = Index::new(&entries);
        entries.iter().for_each(|entry| entry.add_names(names));
        Routes {
            default: document.default.map(|route| route.0),
            by_default,
            rules: rules.into(),
            entries: entries.into(),
            rule_of: rule_of.into(),
            index,
        }
    }

    /// The decision of the rule that wins. `None`: no rule matches.
    pub(crate) fn decide<'a>(
        &'a self,
        request: &Request<'a>,
        breakers: &Breakers,
        environment: &mut impl Environment,
        effects: &mut Effects<'_, 'a>,
    ) -> Option<RuleOutcome<'a>> {
        let rank = self.index.first_asking(&self.entries, request, environment)?;
        let rule = self.rules.get(*self.rule_of.get(rank)? as usize)?;
        if environment.is_tracing() {
            environment.note(Note::Route(rule.name.to_string()));
        }
        let path = || self.entries.get(rank).and_then(|entry| entry.path.as_ref());
        let mut outcome = RuleOutcome {
            rule: &rule.name,
            to: match &rule.to {
                To::Route(route) => RuleTo::Route(route),
                To::Canary(canary) => RuleTo::Canary(*canary),
                To::Redirect(redirect) => RuleTo::Redirect(redirect.response(path(), request, rule.response.iter())),
            },
            reason: None,
            watch: None,
            response: rule.response.iter().collect(),
        };
        effects.count(rule.matched);
        effects.change(rule.ops.iter());
        if let Some((instead, watch)) = &rule.failover {
            if breakers.passes_by_chance(*watch, environment) {
                outcome.watch = Some(*watch);
            } else {
                (outcome.to, outcome.reason) = (RuleTo::Route(instead), Some(Reason::FailedOver));
            }
        }
        if let Some(rewrite) = &rule.rewrite {
            rewrite.apply(path(), request, effects);
        }
        Some(outcome)
    }

    /// Rules that can never win: all after one that takes every request.
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

    /// The route of a request that has no other, if there is a default, and the counter.
    pub(crate) fn default(&self) -> (Option<&str>, Metric) {
        (self.default.as_deref(), self.by_default)
    }
}

#[cfg(test)]
mod tests;
