//! The current problems, most severe first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::drift::drift;
use super::problem::{ProblemView, Severity, on, problem};
use super::proxies::proxies;
use super::sections::{BY_RULE, instant, text};
use super::seen::{VisiblePart, part};
use crate::fleet::PollMethod;
use crate::series::{RecentRate, WINDOW};

/// The number of days before a rule's end from which it is a warning.
const EXPIRY_DAYS: f64 = 14.0;

/// The fraction of refused requests from which a limit is a warning; the alert in `observability/` has the same.
const LIMITED_PERCENT: f64 = 10.0;

/// All problems that the viewer may see.
pub(super) fn all(seen: &VisiblePart<'_>, at: f64) -> Vec<ProblemView> {
    let mut problems = Vec::new();
    proxies(seen, at, &mut problems);
    plugins(seen, &mut problems);
    breakers(seen, &mut problems);
    egress(seen, at, &mut problems);
    limits(seen, &mut problems);
    // The rank of problems without a rate: errors come first; warnings about future events come after those about
    // requests that are refused now.
    let weight = |problem: &ProblemView| match problem.severity {
        Severity::Error => problem.rate.unwrap_or(f64::MAX),
        Severity::Warning => problem.rate.unwrap_or(0.0),
    };
    problems.sort_by_key(|problem| (problem.severity, std::cmp::Reverse((weight(problem) * 1000.0) as u64)));
    problems
}

fn plugins(seen: &VisiblePart<'_>, problems: &mut Vec<ProblemView>) {
    for name in &seen.shared_names {
        let (names, which) = match name.as_str() {
            "" => ("have no name".to_owned(), "(no name)"),
            name => (format!("are called {name}"), name),
        };
        let text =
            format!("Several plugins of one proxy {names}: what they count is added up; give each a name of its own");
        problems.push(problem(Severity::Warning, "sharedName", "drift", which, text));
    }
    for drift in drift(seen).iter().filter(|drift| drift.hashes.len() > 1) {
        let text = format!("Plugin {}: the proxies run {} different policies", drift.plugin, drift.hashes.len());
        problems.push(problem(Severity::Warning, "drift", "drift", &drift.plugin, text));
    }
}

fn subject(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn breakers(seen: &VisiblePart<'_>, problems: &mut Vec<ProblemView>) {
    for (_, canary) in seen.entries("canaries", None) {
        let name = text(Some(canary), "/name").unwrap_or_default();
        for variant in canary.get("variants").and_then(Value::as_array).into_iter().flatten() {
            let variant = text(Some(variant), "/name").unwrap_or_default();
            let Some([all, half_open, open]) = seen.breaker("canaries", name, variant) else { continue };
            let since = seen.opened("canaries", name, variant);
            if open > 0 {
                let text = format!(
                    "Canary {name}: {variant} fails and was rolled back{}; its users are on the other variant",
                    on(open, all)
                );
                problems.push(ProblemView {
                    since,
                    subject: subject(variant),
                    ..problem(Severity::Error, "rolledBack", "canaries", name, text)
                });
            } else if half_open > 0 {
                let text =
                    format!("Canary {name}: {variant} was rolled back and is being tried again{}", on(half_open, all));
                problems.push(ProblemView {
                    since,
                    subject: subject(variant),
                    ..problem(Severity::Warning, "halfOpen", "canaries", name, text)
                });
            }
        }
    }
    for (_, rule) in seen.entries("routes", Some("rules")) {
        let name = text(Some(rule), "/name").unwrap_or_default();
        let route = text(Some(rule), "/route").unwrap_or_default();
        let Some([all, half_open, open]) = seen.breaker("routes", name, route) else { continue };
        let since = seen.opened("routes", name, route);
        if open > 0 {
            let text = format!("Route {name}: {route} fails; requests go to its failover{}", on(open, all));
            problems.push(ProblemView {
                since,
                subject: subject(route),
                ..problem(Severity::Error, "failedOver", "routes", name, text)
            });
        } else if half_open > 0 {
            let text = format!("Route {name}: {route} failed and is being tried again{}", on(half_open, all));
            problems.push(ProblemView {
                since,
                subject: subject(route),
                ..problem(Severity::Warning, "halfOpen", "routes", name, text)
            });
        }
    }
    metric_breakers(seen, problems);
}

/// Breakers that no policy names: a Prometheus has no policies, but it has the metrics of breakers.
fn metric_breakers(seen: &VisiblePart<'_>, problems: &mut Vec<ProblemView>) {
    let name = |entry: &Value, field: &str| part(text(Some(entry), field).unwrap_or_default());
    let mut named = BTreeSet::new();
    for (_, canary) in seen.entries("canaries", None) {
        for variant in canary.get("variants").and_then(Value::as_array).into_iter().flatten() {
            named.insert(format!("canaries/{}.{}", name(canary, "/name"), name(variant, "/name")));
        }
    }
    for (_, rule) in seen.entries("routes", Some("rules")) {
        named.insert(format!("routes/{}.{}", name(rule, "/name"), name(rule, "/route")));
    }
    let mut worst = BTreeMap::<&str, f64>::new();
    let metrics = seen.endpoints.iter().filter(|(_, one)| one.alive() && one.method == PollMethod::Prometheus);
    for (gauge, &state) in metrics.flat_map(|(_, endpoint)| &endpoint.sample.gauges) {
        if let Some(breaker) = gauge.strip_prefix("breakers.").filter(|breaker| !named.contains(*breaker)) {
            let known = worst.entry(breaker).or_default();
            *known = known.max(state);
        }
    }
    for (breaker, state) in worst.into_iter().filter(|(_, state)| *state >= 1.0) {
        let (rule, variant) = breaker.split_once('.').unwrap_or((breaker, ""));
        let (section, rule) = rule.split_once('/').unwrap_or(("canaries", rule));
        let section = if section == "routes" { "routes" } else { "canaries" };
        let (severity, kind, text) = match (state >= 2.0, section) {
            (true, "routes") => {
                (Severity::Error, "failedOver", format!("Route {rule}: {variant} fails; requests go to its failover"))
            }
            (true, _) => (Severity::Error, "rolledBack", format!("Canary {rule}: {variant} fails and was rolled back")),
            (false, _) => (Severity::Warning, "halfOpen", format!("{rule}: {variant} failed and is being tried again")),
        };
        problems.push(ProblemView { subject: subject(variant), ..problem(severity, kind, section, rule, text) });
    }
}

/// Returns `12/s` or `0.4/s`.
fn per_second(rate: f64) -> String {
    if rate >= 10.0 { format!("{rate:.0}/s") } else { format!("{rate:.1}/s") }
}

/// Returns `0.4/s (12 in 30 s)`.
fn often(flow: RecentRate) -> String {
    format!("{} ({} in {WINDOW:.0} s)", per_second(flow.per_second), flow.recent)
}

fn egress(seen: &VisiblePart<'_>, at: f64, problems: &mut Vec<ProblemView>) {
    let rules: Vec<_> = seen.entries("egress", Some("rules")).collect();
    for (_, rule) in rules.iter().filter(|(_, rule)| seen.scope.owner(text(Some(rule), "/owner"))) {
        let name = text(Some(rule), "/name").unwrap_or_default();
        let owner = text(Some(rule), "/owner").map_or(String::new(), |owner| format!(", owner {owner}"));
        let denied = seen.flow("egress", name, "denied");
        if denied.recent > 0 {
            let text = format!("Egress: rule {name} (hosts {}{owner}) refuses {}", hosts(rule), often(denied));
            problems.push(ProblemView {
                rate: Some(denied.per_second),
                ..problem(Severity::Warning, "egressRefused", "egress", name, text)
            });
        }
        let Some(days) = text(Some(rule), "/expires").and_then(instant).map(|end| (end - at) / 86_400.0) else {
            continue;
        };
        if days < 0.0 {
            let text = format!("Egress: rule {name}{owner} expired {}", whole_days(-days, "", " ago"));
            problems.push(problem(Severity::Warning, "expired", "egress", name, text));
        } else if days < EXPIRY_DAYS {
            let text = format!("Egress: rule {name}{owner} ends {}", whole_days(days, "in ", ""));
            problems.push(problem(Severity::Warning, "expirySoon", "egress", name, text));
        }
    }
    // Requests that no rule matches have no owner.
    if !seen.scope.every_owner() {
        return;
    }
    // Rules that no policy has: a Prometheus has no policies.
    let named: BTreeSet<String> = rules.iter().filter_map(|(_, rule)| text(Some(rule), "/name")).map(part).collect();
    let counted = seen.counted("egress").filter(|rule| !named.contains(*rule)).map(|rule| ("egress", rule));
    let reasons = seen.counted("egressReasons").map(|reason| ("egressReasons", reason));
    for (section, name) in counted.chain(reasons) {
        let denied = seen.flow(section, name, "denied");
        if denied.recent > 0 && (section == "egress" || !BY_RULE.contains(&name) || rules.is_empty()) {
            let text = format!("Egress: {} refused, {name}", often(denied));
            problems.push(ProblemView {
                rate: Some(denied.per_second),
                ..problem(Severity::Warning, "egressRefused", "egress", name, text)
            });
        }
    }
}

fn hosts(rule: &Value) -> String {
    let to = rule.get("to").and_then(Value::as_array).into_iter().flatten();
    let mut names: Vec<&str> = to.filter_map(|to| to.get("host").or_else(|| to.get("cidr"))?.as_str()).collect();
    let more = names.len().saturating_sub(2);
    names.truncate(2);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

fn limits(seen: &VisiblePart<'_>, problems: &mut Vec<ProblemView>) {
    for name in seen.counted("rateLimits") {
        let flow = |outcome| seen.flow("rateLimits", name, outcome);
        let (passed, limited) = (flow("passed"), flow("limited"));
        let all = passed + limited;
        let share = 100.0 * limited.recent as f64 / all.recent.max(1) as f64;
        // Below this fraction, the limit works as intended.
        if share >= LIMITED_PERCENT {
            let text = format!(
                "Limit {name}: {} refused, {share:.0} % of its requests ({} of {} in {WINDOW:.0} s)",
                per_second(limited.per_second),
                limited.recent,
                all.recent
            );
            problems.push(ProblemView {
                rate: Some(limited.per_second),
                ..problem(Severity::Warning, "limited", "rateLimits", name, text)
            });
        }
        let failed = flow("error") + flow("timeout");
        if failed.recent > 0 {
            let text = format!("Limit {name}: its rate-limit service fails, {}", often(failed));
            problems.push(ProblemView {
                rate: Some(failed.per_second),
                ..problem(Severity::Error, "serviceFailed", "rateLimits", name, text)
            });
        }
        let fill = |what: &str| seen.gauges(&format!("keys.{}.{what}", part(name))).into_iter().reduce(f64::max);
        let (Some(used), Some(capacity)) = (fill("used"), fill("capacity")) else { continue };
        if used > capacity / 2.0 {
            let text = format!(
                "Limit {name}: {:.0} % of its table is in use; above half, some counts are not exact: raise `capacity`",
                100.0 * used / capacity
            );
            problems.push(problem(Severity::Warning, "limitNearlyFull", "rateLimits", name, text));
        }
    }
}

/// Completed days, as everywhere on the page: `today`, `in 1 day`, `3 days ago`.
fn whole_days(days: f64, before: &str, after: &str) -> String {
    match days.floor() {
        0.0 => "today".to_owned(),
        1.0 => format!("{before}1 day{after}"),
        days => format!("{before}{days:.0} days{after}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_told_in_whole() {
        assert_eq!(whole_days(0.9, "in ", ""), "today");
        assert_eq!(whole_days(1.9, "in ", ""), "in 1 day");
        assert_eq!(whole_days(2.6, "in ", ""), "in 2 days");
        assert_eq!(whole_days(3.0, "", " ago"), "3 days ago");
    }
}
