//! What is wrong now, the worst first.

use serde::Serialize;
use serde_json::Value;

use super::drift::drift;
use super::sections::{BY_RULE, instant, text};
use super::seen::{VisiblePart, part};

/// How long a refused policy and the like stay on the page, in seconds.
const RECENT: f64 = 300.0;

/// So many are listed: nobody reads more.
const MOST: usize = 100;

/// Days before a rule's end when it is worth a word.
const EXPIRY_DAYS: f64 = 14.0;

/// From this share of refused requests on a limit is worth a word; the alert in `observability/` has the same.
const LIMITED_PERCENT: f64 = 10.0;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub(super) struct ProblemView {
    pub(super) severity: Severity,
    kind: &'static str,
    section: &'static str,
    rule: String,
    /// The variant, the plugin, … that it is about.
    subject: Option<String>,
    text: String,
    /// When it began, in seconds since 1970, where that is known.
    since: Option<f64>,
    /// Per second, where that says how bad it is.
    rate: Option<f64>,
}

/// Everything that is wrong in what may be seen.
pub(super) fn all(seen: &VisiblePart<'_>, at: f64) -> Vec<ProblemView> {
    let mut problems = Vec::new();
    proxies(seen, at, &mut problems);
    breakers(seen, &mut problems);
    egress(seen, at, &mut problems);
    limits(seen, &mut problems);
    // Without a rate: an error is above all others, a warning (what ends soon) below those that turn somebody away now.
    let weight = |problem: &ProblemView| match problem.severity {
        Severity::Error => problem.rate.unwrap_or(f64::MAX),
        Severity::Warning => problem.rate.unwrap_or(0.0),
    };
    problems.sort_by_key(|problem| (problem.severity, std::cmp::Reverse((weight(problem) * 1000.0) as u64)));
    problems.truncate(MOST);
    problems
}

fn problem(severity: Severity, kind: &'static str, section: &'static str, rule: &str, text: String) -> ProblemView {
    ProblemView { severity, kind, section, rule: rule.to_owned(), subject: None, text, since: None, rate: None }
}

/// `on 2 of 3 proxies`, or nothing where there is one.
fn on(some: usize, all: usize) -> String {
    if all > 1 { format!(" on {some} of {all} proxies") } else { String::new() }
}

fn proxies(seen: &VisiblePart<'_>, at: f64, problems: &mut Vec<ProblemView>) {
    for (name, endpoint) in seen.endpoints.iter().filter(|(_, endpoint)| !endpoint.alive()) {
        let Some(error) = &endpoint.error else { continue };
        let mut found = problem(
            Severity::Error,
            "endpointDown",
            "endpoints",
            name,
            format!("Proxy {name} does not answer: {error}"),
        );
        found.since = endpoint.last_seen;
        problems.push(found);
    }
    let mut settings: Vec<(&str, Vec<&str>)> = Vec::new();
    for &(name, endpoint) in &seen.endpoints {
        for warning in &endpoint.configuration.warnings {
            match settings.iter_mut().find(|(text, _)| text == warning) {
                Some((_, proxies)) => proxies.push(name),
                None => settings.push((warning, vec![name])),
            }
        }
    }
    for (warning, proxies) in settings {
        let first = proxies.first().copied().unwrap_or_default();
        let text = format!("Setting{}: {warning}", on(proxies.len(), seen.endpoints.len()));
        problems.push(problem(Severity::Warning, "setting", "endpoints", first, text));
    }
    for what in seen.counted("host") {
        for (outcome, count) in seen.outcomes("host", what) {
            let Some(last) = count.last.filter(|last| at - last < RECENT) else { continue };
            let text = match outcome {
                "refused" => {
                    "A new policy was refused; the old one keeps serving. The proxy's log says why.".to_owned()
                }
                _ => format!("The host failed the filter ({what}): requests are answered 503 or go on without a step"),
            };
            let kind = if outcome == "refused" { "configurationRefused" } else { "hostFailed" };
            problems.push(ProblemView { since: Some(last), ..problem(Severity::Error, kind, "endpoints", what, text) });
        }
    }
    for drift in drift(seen).iter().filter(|drift| drift.hashes.len() > 1) {
        let text = format!("Plugin {}: the proxies run {} different policies", drift.plugin, drift.hashes.len());
        problems.push(problem(Severity::Warning, "drift", "drift", drift.plugin, text));
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
            let Some([all, half_open, open]) = seen.breaker(name, variant) else { continue };
            let since = seen.count("canaries", name, "rolledBack").and_then(|count| count.last);
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
        let Some([all, half_open, open]) = seen.breaker(name, route) else { continue };
        let since = seen.count("routes", name, "failedOver").and_then(|count| count.last);
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
    // A Prometheus knows no policies, but it knows breakers.
    if seen.policies.is_empty() {
        let mut open: Vec<&str> = Vec::new();
        for (_, endpoint) in seen.endpoints.iter().filter(|(_, endpoint)| endpoint.alive()) {
            for (name, &state) in &endpoint.sample.gauges {
                let breaker = name.strip_prefix("breakers.").and_then(|name| name.strip_suffix(".state"));
                open.extend(breaker.filter(|name| state == 2.0 && !open.contains(name)));
            }
        }
        for name in open {
            let (rule, variant) = name.split_once('.').unwrap_or((name, ""));
            let text = format!("{rule}: {variant} fails and is out of rotation");
            problems.push(problem(Severity::Error, "rolledBack", "canaries", rule, text));
        }
    }
}

/// `12/s`, `0.4/s`.
fn per_second(rate: f64) -> String {
    if rate >= 10.0 { format!("{rate:.0}/s") } else { format!("{rate:.1}/s") }
}

fn egress(seen: &VisiblePart<'_>, at: f64, problems: &mut Vec<ProblemView>) {
    let rules: Vec<_> = seen.entries("egress", Some("rules")).collect();
    for (_, rule) in rules.iter().filter(|(_, rule)| seen.scope.owner(text(Some(rule), "/owner"))) {
        let name = text(Some(rule), "/name").unwrap_or_default();
        let owner = text(Some(rule), "/owner").map_or(String::new(), |owner| format!(", owner {owner}"));
        let rate = seen.per_second("egress", name, "denied");
        if rate > 0.0 {
            let text = format!("Egress: rule {name} (hosts {}{owner}) refuses {}", hosts(rule), per_second(rate));
            problems.push(ProblemView {
                rate: Some(rate),
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
    // What no rule of the policy stands for is nobody's own.
    if !seen.scope.every_owner() {
        return;
    }
    let counted = rules.is_empty().then(|| seen.counted("egress").map(|rule| ("egress", rule)));
    let reasons = seen.counted("egressReasons").map(|reason| ("egressReasons", reason));
    for (section, name) in counted.into_iter().flatten().chain(reasons) {
        let rate = seen.per_second(section, name, "denied");
        if rate > 0.0 && (section == "egress" || !BY_RULE.contains(&name) || rules.is_empty()) {
            let text = format!("Egress: {} refused, {name}", per_second(rate));
            problems.push(ProblemView {
                rate: Some(rate),
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
        let rate = |outcome| seen.per_second("rateLimits", name, outcome);
        let (passed, limited) = (rate("passed"), rate("limited"));
        let share = 100.0 * limited / (passed + limited).max(f64::MIN_POSITIVE);
        // Below that it is a limit that does its work.
        if share >= LIMITED_PERCENT {
            let text = format!("Limit {name}: {} refused, {share:.0} % of its requests", per_second(limited));
            problems.push(ProblemView {
                rate: Some(limited),
                ..problem(Severity::Warning, "limited", "rateLimits", name, text)
            });
        }
        let failed = rate("error") + rate("timeout");
        if failed > 0.0 {
            let text = format!("Limit {name}: its rate-limit service fails, {}", per_second(failed));
            problems.push(ProblemView {
                rate: Some(failed),
                ..problem(Severity::Error, "serviceFailed", "rateLimits", name, text)
            });
        }
        let fill = |what: &str| seen.gauges(&format!("slots.{}.{what}", part(name))).into_iter().reduce(f64::max);
        let (Some(used), Some(capacity)) = (fill("used"), fill("capacity")) else { continue };
        if used > capacity / 2.0 {
            let text = format!(
                "Limit {name}: {:.0} % of its table is in use; from half on counts are not all exact: raise `capacity`",
                100.0 * used / capacity
            );
            problems.push(problem(Severity::Warning, "limitNearlyFull", "rateLimits", name, text));
        }
    }
}

/// Days that have passed in whole, as everywhere on the page: `today`, `in 1 day`, `3 days ago`.
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
