//! The current state of each rule of the policies.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::seen::{VisiblePart, part};
use crate::series::{CounterRate, RecentRate};

/// Reasons of refusals that are counted as outcomes of a rule.
pub(super) const BY_RULE: [&str; 4] = ["pathNotAllowed", "methodNotAllowed", "callerNotAllowed", "ruleExpired"];

/// The number of rules of a section that are sent with their history, those with the most traffic: all would be
/// megabytes a second.
const HISTORIES: usize = 50;

/// The maximum number of listed rules with refusals.
const REFUSALS: usize = 50;

type Outcomes<'a> = BTreeMap<&'a str, CounterRate>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteView<'a> {
    name: &'a str,
    route: Option<&'a str>,
    failover: Option<&'a str>,
    breaker: Option<BreakerView>,
    outcomes: Outcomes<'a>,
}

/// The state of a breaker: the worst over all proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum BreakerView {
    Closed,
    HalfOpen,
    Open,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CanaryView<'a> {
    name: &'a str,
    stickiness: Option<&'a str>,
    variants: Vec<VariantView<'a>>,
    ramp: Option<RampView<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VariantView<'a> {
    name: &'a str,
    /// As written in the policy.
    weight: Option<f64>,
    /// The fraction of new users, after ramp and breakers: 0 to 1.
    wanted: Option<f64>,
    /// The fraction of requests in the last seconds: 0 to 1.
    observed: Option<f64>,
    #[serde(flatten)]
    rate: CounterRate,
    /// 5xx responses of the Envoy cluster of the variant's route, per second.
    errors_per_second: Option<f64>,
    /// The number of these responses.
    errors: Option<u64>,
    breaker: Option<BreakerView>,
}

#[derive(Debug, Serialize)]
struct RampView<'a> {
    start: f64,
    variant: &'a str,
    steps: Vec<RampStepView>,
}

#[derive(Debug, Serialize)]
struct RampStepView {
    at: f64,
    weight: f64,
    reached: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitView<'a> {
    name: &'a str,
    mode: &'a str,
    limit: Option<String>,
    scope: &'a str,
    used: Option<f64>,
    capacity: Option<f64>,
    outcomes: Outcomes<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EgressRuleView<'a> {
    name: &'a str,
    owner: Option<&'a str>,
    reason: Option<&'a str>,
    hosts: Vec<&'a str>,
    /// Seconds since 1970.
    expires: Option<f64>,
    expires_in_days: Option<f64>,
    mode: &'a str,
    last_refused: Option<f64>,
    outcomes: Outcomes<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusalView<'a> {
    section: &'a str,
    rule: &'a str,
    reason: &'a str,
    owner: Option<&'a str>,
    /// The total since the proxies started.
    count: u64,
    per_second: f64,
    /// The last refusal, in seconds since 1970.
    at: f64,
}

/// The string at a JSON pointer.
pub(super) fn text<'a>(value: Option<&'a Value>, pointer: &str) -> Option<&'a str> {
    value?.pointer(pointer)?.as_str()
}

fn outcomes<'a>(seen: &VisiblePart<'a>, section: &str, rule: &str) -> Outcomes<'a> {
    let mut outcomes: Outcomes<'a> =
        seen.outcomes(section, rule).map(|(outcome, count)| (outcome, count.rate.clone())).collect();
    // Their points end at the same time: a shorter series started later.
    let longest = outcomes.values().map(|rate| rate.history.len()).max().unwrap_or(0);
    for rate in outcomes.values_mut() {
        let missing = longest - rate.history.len();
        rate.history.splice(0..0, std::iter::repeat_n(0.0, missing));
    }
    outcomes
}

/// Removes the history of all but the busiest rules.
fn trim<'a, T>(rules: &mut [T], outcomes: impl Fn(&mut T) -> &mut Outcomes<'a>) {
    if rules.len() <= HISTORIES {
        return;
    }
    let rate = |rule: &mut T| outcomes(rule).values().map(|rate| rate.per_second).sum::<f64>();
    let mut rates: Vec<f64> = rules.iter_mut().map(rate).collect();
    rates.sort_by(|a, b| b.total_cmp(a));
    let least = rates.get(HISTORIES).copied().unwrap_or(0.0);
    for rule in rules {
        if rate(rule) <= least {
            outcomes(rule).values_mut().for_each(|rate| rate.history = Vec::new());
        }
    }
}

fn breaker(seen: &VisiblePart<'_>, section: &str, rule: &str, variant: &str) -> Option<BreakerView> {
    seen.breaker(section, rule, variant).map(|[_, half_open, open]| match (open, half_open) {
        (0, 0) => BreakerView::Closed,
        (0, _) => BreakerView::HalfOpen,
        _ => BreakerView::Open,
    })
}

pub(super) fn routes<'a>(seen: &VisiblePart<'a>) -> Vec<RouteView<'a>> {
    let entries: Vec<_> = seen.entries("routes", Some("rules")).collect();
    let one = |(name, entry): (&'a str, Option<&'a Value>)| {
        let route = text(entry, "/route");
        RouteView {
            name,
            route,
            failover: text(entry, "/failover/route"),
            breaker: route.and_then(|route| breaker(seen, "routes", name, route)),
            outcomes: outcomes(seen, "routes", name),
        }
    };
    let mut routes: Vec<_> = seen.names("routes", &entries).into_iter().map(one).collect();
    trim(&mut routes, |route: &mut RouteView<'a>| &mut route.outcomes);
    routes
}

pub(super) fn canaries<'a>(seen: &VisiblePart<'a>, at: f64) -> Vec<CanaryView<'a>> {
    let entries: Vec<_> = seen.entries("canaries", None).collect();
    let one = |(name, entry): (&'a str, Option<&'a Value>)| {
        let stickiness = entry.and_then(|entry| entry.get("stickiness"));
        // The first source of a list.
        let first = stickiness.and_then(|one| one.as_object().or_else(|| one.get(0)?.as_object()));
        let stickiness = first.and_then(|source| source.keys().next());
        CanaryView {
            name,
            stickiness: stickiness.map(String::as_str),
            variants: variants(seen, name, entry),
            ramp: entry.and_then(|entry| ramp(entry.get("ramp")?, at)),
        }
    };
    seen.names("variants", &entries).into_iter().map(one).collect()
}

fn variants<'a>(seen: &VisiblePart<'a>, canary: &str, entry: Option<&'a Value>) -> Vec<VariantView<'a>> {
    let listed = entry.and_then(|entry| entry.get("variants")?.as_array()).into_iter().flatten();
    let mut names: Vec<(&str, Option<&Value>)> =
        listed.filter_map(|variant| Some((variant.get("name")?.as_str()?, Some(variant)))).collect();
    if names.is_empty() {
        names = seen.outcomes("variants", canary).map(|(name, _)| (name, None)).collect();
    }
    let rate =
        |name: &str| seen.count("variants", canary, &part(name)).map(|count| count.rate.clone()).unwrap_or_default();
    let all: f64 = names.iter().map(|(name, _)| rate(name).per_second).sum();
    let one = |(name, entry): (&'a str, Option<&'a Value>)| {
        let rate = rate(name);
        let weights = seen.gauges(&format!("weights.{}.{}", part(canary), part(name)));
        let errors = cluster_errors(seen, text(entry, "/route").unwrap_or(name));
        VariantView {
            name,
            weight: entry.map(|entry| entry.get("weight").and_then(Value::as_f64).unwrap_or(1.0)),
            wanted: (!weights.is_empty()).then(|| weights.iter().sum::<f64>() / weights.len() as f64 / 1000.0),
            observed: (all > 0.0).then(|| rate.per_second / all),
            rate,
            errors_per_second: errors.map(|errors| errors.per_second),
            errors: errors.map(|errors| errors.recent),
            breaker: breaker(seen, "canaries", canary, name),
        }
    };
    names.into_iter().map(one).collect()
}

/// 5xx responses of the cluster of a route, if known.
pub(super) fn cluster_errors(seen: &VisiblePart<'_>, route: &str) -> Option<RecentRate> {
    let cluster = seen.routes.get(route)?;
    let count = |what: &str| seen.traffic.get(format!("cluster.{cluster}.{what}").as_str());
    count("upstream_rq_total")?;
    Some(count("upstream_rq_5xx").map_or_else(RecentRate::default, |count| count.rate.flow()))
}

fn ramp<'a>(ramp: &'a Value, now: f64) -> Option<RampView<'a>> {
    let start = instant(ramp.get("startsAt")?.as_str()?)?;
    let mut at = start;
    let mut steps = Vec::new();
    for step in ramp.get("steps")?.as_array()? {
        steps.push(RampStepView { at, weight: step.get("weight")?.as_f64()?, reached: at <= now });
        at += step.get("for").and_then(Value::as_str).and_then(seconds).unwrap_or(0.0);
    }
    Some(RampView { start, variant: ramp.get("variant")?.as_str()?, steps })
}

/// Seconds since 1970.
pub fn instant(text: &str) -> Option<f64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(|time| time.unix_timestamp() as f64)
}

/// A duration of the Gateway API, such as `1h30m`, in seconds.
pub fn seconds(text: &str) -> Option<f64> {
    let (mut sum, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    Some(sum)
}

pub(super) fn limits<'a>(seen: &VisiblePart<'a>) -> Vec<LimitView<'a>> {
    let entries: Vec<_> = seen.entries("rateLimits", None).collect();
    let one = |(name, entry): (&'a str, Option<&'a Value>)| {
        let limit = entry.and_then(|entry| entry.get("limit"));
        let requests = limit.and_then(|limit| limit.get("requests")?.as_u64());
        // Each proxy has its own table; the fullest one is reported.
        let fill = |what: &str| seen.gauges(&format!("keys.{}.{what}", part(name))).into_iter().reduce(f64::max);
        LimitView {
            name,
            mode: text(entry, "/mode").unwrap_or("Enforce"),
            limit: requests.zip(text(limit, "/per")).map(|(requests, per)| format!("{requests} per {per}")),
            scope: if entry.is_some_and(|entry| entry.pointer("/scope/global").is_some()) { "global" } else { "local" },
            used: fill("used"),
            capacity: fill("capacity"),
            outcomes: outcomes(seen, "rateLimits", name),
        }
    };
    let mut limits: Vec<_> = seen.names("rateLimits", &entries).into_iter().map(one).collect();
    trim(&mut limits, |limit: &mut LimitView<'a>| &mut limit.outcomes);
    limits
}

pub(super) fn egress<'a>(seen: &VisiblePart<'a>, at: f64) -> Vec<EgressRuleView<'a>> {
    let entries: Vec<_> = seen.entries("egress", Some("rules")).collect();
    let mut modes = seen.policies.iter().filter_map(|policy| text(Some(&policy.document), "/egress/mode"));
    let mode = modes.next_back().unwrap_or("Enforce");
    let rules = seen.names("egress", &entries).into_iter();
    let visible = rules.filter(|(_, entry)| seen.scope.owner(text(*entry, "/owner")));
    let one = |(name, entry): (&'a str, Option<&'a Value>)| {
        let to = entry.and_then(|entry| entry.get("to")?.as_array()).into_iter().flatten();
        let target = |to: &'a Value| to.get("host").or_else(|| to.get("cidr"))?.as_str();
        let expires = text(entry, "/expires").and_then(instant);
        let refused = ["denied", "audited"].iter().filter_map(|outcome| seen.count("egress", name, outcome)?.last);
        EgressRuleView {
            name,
            owner: text(entry, "/owner"),
            reason: text(entry, "/reason"),
            hosts: to.filter_map(target).collect(),
            expires,
            expires_in_days: expires.map(|end| ((end - at) / 86_400.0).floor()),
            mode,
            last_refused: refused.reduce(f64::max),
            outcomes: outcomes(seen, "egress", name),
        }
    };
    let mut rules: Vec<_> = visible.map(one).collect();
    trim(&mut rules, |rule: &mut EgressRuleView<'a>| &mut rule.outcomes);
    rules
}

/// Outcomes that are failures for a client or a workload.
const REFUSING: [(&str, &[&str]); 5] = [
    ("egress", &["denied", "audited"]),
    ("egressReasons", &["denied", "audited"]),
    ("rateLimits", &["limited", "wouldLimit", "error", "timeout"]),
    ("errors", &["failed"]),
    ("refusals", &["refused"]),
];

/// Recent refusals, newest first, since the dash started: earlier ones have no known time.
pub(super) fn refusals<'a>(seen: &VisiblePart<'a>) -> Vec<RefusalView<'a>> {
    let owners: BTreeMap<String, &str> = seen
        .entries("egress", Some("rules"))
        .filter_map(|(_, rule)| Some((part(rule.get("name")?.as_str()?), rule.get("owner")?.as_str()?)))
        .collect();
    let mut refusals = Vec::new();
    for (section, outcomes) in REFUSING {
        // Reasons are counted for the rules of all owners together.
        if section == "egressReasons" && !seen.scope.every_owner() {
            continue;
        }
        for rule in seen.counted(section) {
            if section == "egressReasons" && BY_RULE.contains(&rule) && !owners.is_empty() {
                continue;
            }
            let owner = owners.get(rule).copied().filter(|_| section == "egress");
            if section == "egress" && !seen.scope.owner(owner) {
                continue;
            }
            for (outcome, count) in seen.outcomes(section, rule).filter(|(outcome, _)| outcomes.contains(outcome)) {
                let Some(last) = count.last else { continue };
                let (total, per_second) = (count.rate.total, count.rate.per_second);
                let (section, rule, reason) = match section {
                    // The rule's own line shows by which rule.
                    "egressReasons" => ("egress", "_default", rule),
                    section => (section, rule, outcome),
                };
                refusals.push(RefusalView { section, rule, reason, owner, count: total, per_second, at: last });
            }
        }
    }
    refusals.sort_by(|a, b| b.at.total_cmp(&a.at));
    refusals.truncate(REFUSALS);
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_has_a_time_for_each_step() {
        let document = serde_json::json!({"variant": "v2", "startsAt": "1970-01-01T00:01:00Z",
            "steps": [{"weight": 5, "for": "10m"}, {"weight": 25, "for": "1h30m"}, {"weight": 100}]});
        let steps: Vec<_> = ramp(&document, 700.0).into_iter().flat_map(|ramp| ramp.steps).collect();
        let found: Vec<_> = steps.iter().map(|step| (step.at, step.weight, step.reached)).collect();
        assert_eq!(found, [(60.0, 5.0, true), (660.0, 25.0, true), (6060.0, 100.0, false)]);
    }

    #[test]
    fn durations_are_those_of_the_gateway_api() {
        assert_eq!(["250ms", "10s", "1h30m"].map(seconds), [Some(0.25), Some(10.0), Some(5400.0)]);
        assert_eq!(["1d", "h", "5"].map(seconds), [None; 3]);
    }
}
