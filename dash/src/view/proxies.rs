//! Problems of the proxies themselves. A proxy that reports nothing is not considered healthy.

use std::collections::BTreeMap;

use super::problem::{ProblemView, Severity, on, problem};
use super::seen::{VisiblePart, part};
use crate::fleet::{Endpoint, PollMethod};
use crate::sample::RunningPolicy;

/// How long a refused policy is shown, in seconds; the alert in `observability/` has the same.
const REFUSED: f64 = 900.0;

/// How long an internal error is shown, in seconds.
const RECENT: f64 = 300.0;

/// The number of seconds after which a started proxy's plugins must have reported.
const SETTLED: u64 = 10;

pub(super) fn proxies(seen: &VisiblePart<'_>, at: f64, problems: &mut Vec<ProblemView>) {
    for (name, endpoint) in &seen.endpoints {
        if endpoint.alive() {
            filter(name, endpoint, problems);
            refusals(name, endpoint, at, problems);
        } else if let Some(error) = &endpoint.error {
            let text = format!("Proxy {name} does not answer: {error}");
            let down = problem(Severity::Error, "endpointDown", "endpoints", name, text);
            problems.push(ProblemView { since: endpoint.last_seen, ..down });
        }
    }
    settings(seen, problems);
    errors(seen, at, problems);
}

/// A short description of the problem with the filter of each proxy.
pub(super) fn troubles(seen: &VisiblePart<'_>, at: f64) -> BTreeMap<String, &'static str> {
    let mut problems = Vec::new();
    proxies(seen, at, &mut problems);
    let words = |kind| match kind {
        "otherVersion" => Some("module of another version"),
        "filterMissing" => Some("no Penstock filter"),
        "filterSilent" => Some("filter reports nothing"),
        "policyRefused" => Some("policy refused"),
        _ => None,
    };
    problems.into_iter().filter_map(|problem| Some((problem.rule, words(problem.kind)?))).collect()
}

/// Whether the filter exists and reports.
fn filter(name: &str, endpoint: &Endpoint, problems: &mut Vec<ProblemView>) {
    if endpoint.sample.is_of_another_version {
        let text = format!(
            "Proxy {name} runs a module of another version than this dash ({}): what it counts is not shown; upgrade it",
            env!("CARGO_PKG_VERSION")
        );
        problems.push(problem(Severity::Error, "otherVersion", "endpoints", name, text));
        return;
    }
    if endpoint.method == PollMethod::Prometheus || !endpoint.is_read {
        return;
    }
    if endpoint.configuration.policies.is_empty() {
        // Envoy does not show a configuration that it has refused.
        if endpoint.sample.gauges.keys().any(|gauge| gauge.starts_with("refused.")) {
            return;
        }
        let text = format!("Proxy {name} runs no Penstock filter: no policy applies to its requests");
        problems.push(problem(Severity::Error, "filterMissing", "endpoints", name, text));
        return;
    }
    if is_starting(endpoint) {
        return;
    }
    for policy in silent(endpoint) {
        let text = format!(
            "Proxy {name} has the plugin {} in its configuration, and its module reports nothing: it does not run, or refused its \
             policy. The proxy's log says why",
            policy.plugin
        );
        problems.push(ProblemView {
            subject: Some(policy.plugin.clone()),
            ..problem(Severity::Error, "filterSilent", "endpoints", name, text)
        });
    }
}

/// Whether it has started so recently that its plugins may not have reported yet.
pub(super) fn is_starting(endpoint: &Endpoint) -> bool {
    endpoint.identity.uptime.is_some_and(|uptime| uptime < SETTLED)
}

/// The plugins in its configuration that report nothing.
pub(super) fn silent(endpoint: &Endpoint) -> Vec<&RunningPolicy> {
    let reporting: Vec<&str> = endpoint.sample.plugins().collect();
    // Metrics of a plugin without a name have the module's name, which the configuration does not contain.
    let is_silent = |metrics: &str| match metrics {
        "" => reporting.is_empty(),
        name => !reporting.contains(&part(name).as_str()),
    };
    endpoint.configuration.policies.iter().filter(|policy| is_silent(&policy.metrics)).collect()
}

/// Refused policies: recent ones, or any if the proxy never accepted one.
fn refusals(name: &str, endpoint: &Endpoint, at: f64, problems: &mut Vec<ProblemView>) {
    for (gauge, &refused) in &endpoint.sample.gauges {
        let Some(plugin) = gauge.strip_prefix("refused.") else { continue };
        let has_policy = endpoint.sample.gauge(&format!("policy.{plugin}.hash")).is_some();
        if has_policy && at - refused > REFUSED {
            continue;
        }
        let keeps = if has_policy { "the one before keeps serving" } else { "it has none, and answers 503" };
        let text = format!("Proxy {name} refused a policy for {plugin}: {keeps}. Its log says why");
        problems.push(ProblemView {
            since: Some(refused),
            subject: Some(plugin.to_owned()),
            ..problem(Severity::Error, "policyRefused", "endpoints", name, text)
        });
    }
}

/// Envoy settings that break a guarantee, once each.
fn settings(seen: &VisiblePart<'_>, problems: &mut Vec<ProblemView>) {
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
}

fn errors(seen: &VisiblePart<'_>, at: f64, problems: &mut Vec<ProblemView>) {
    for operation in seen.counted("errors") {
        for (outcome, count) in seen.outcomes("errors", operation) {
            let Some(last) = count.last.filter(|last| at - last < RECENT) else { continue };
            let text = match outcome {
                "foreign" => "Values of another plugin are under this plugin's keys in the proxy's shared data: they are not used; \
                              give each plugin a name of its own"
                    .to_owned(),
                _ => {
                    format!("The proxy fails the filter ({operation}): requests get 503, or continue without a part of the decision")
                }
            };
            let error = problem(Severity::Error, "internalError", "endpoints", operation, text);
            problems.push(ProblemView { since: Some(last), ..error });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::access::Visibility;
    use crate::configuration::EnvoyConfiguration;
    use crate::fleet::Fleet;
    use crate::sample::{Identity, Sample};

    const NOW: f64 = 10_000.0;

    /// The problem of a proxy that has run for an hour.
    fn wrong(dump: &serde_json::Value, sample: Sample) -> Vec<(&'static str, String)> {
        let mut fleet = Fleet::default();
        let identity = Identity { version: Some("1.40.0".to_owned()), uptime: Some(3_600), ..Identity::default() };
        fleet.know("east", "a", identity, EnvoyConfiguration::of(dump, vec![]));
        fleet.note("east", "a", sample, NOW);
        let mut problems = Vec::new();
        proxies(&VisiblePart::new(fleet.cluster("east").unwrap(), Visibility::Everything), NOW, &mut problems);
        problems.into_iter().map(|problem| (problem.kind, problem.text)).collect()
    }

    fn runs(names: &[&str]) -> serde_json::Value {
        let one = |name: &&str| json!({"name": name, "vm_config": {}, "configuration": {"value": r#"{"routes": {}}"#}});
        names.iter().map(one).collect()
    }

    fn reports(gauges: &[(&str, f64)]) -> Sample {
        let mut sample = Sample::default();
        gauges.iter().for_each(|(name, value)| sample.add(name, *value));
        sample
    }

    #[test]
    fn a_proxy_whose_plugins_all_report_is_well() {
        let sample = reports(&[("policy.edge_a.hash", 1.0), ("policy.b.hash", 2.0), ("refused.b", NOW - 901.0)]);
        assert_eq!(wrong(&runs(&["edge.a", "b"]), sample), []);
        // The metrics of a plugin without a name cannot be identified.
        assert_eq!(wrong(&runs(&[""]), reports(&[("policy.suite.hash", 1.0)])), []);
    }

    #[test]
    fn a_proxy_without_the_filter_with_a_silent_one_or_of_another_version_is_not() {
        let kinds = |dump, sample| wrong(&dump, sample).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(json!({}), Sample::default()), ["filterMissing"]);
        assert_eq!(kinds(json!({}), reports(&[("refused.a", NOW)])), ["policyRefused"]);
        // Metrics that remain of a filter that was removed.
        assert_eq!(kinds(json!({}), reports(&[("policy.edge.hash", 1.0)])), ["filterMissing"]);
        assert_eq!(kinds(runs(&["a", "b"]), reports(&[("policy.a.hash", 1.0)])), ["filterSilent"]);
        assert_eq!(kinds(runs(&[""]), Sample::default()), ["filterSilent"]);
        let other = Sample { is_of_another_version: true, ..Sample::default() };
        assert_eq!(kinds(runs(&["a"]), other), ["otherVersion"]);
    }

    #[test]
    fn a_refusal_stays_for_a_quarter_of_an_hour_or_until_a_policy_is_accepted() {
        let [lately, never] =
            [reports(&[("policy.a.hash", 1.0), ("refused.a", NOW - 899.0)]), reports(&[("refused.a", NOW - 86_400.0)])]
                .map(|sample| wrong(&runs(&["a"]), sample));
        assert!(lately[0].0 == "policyRefused" && lately[0].1.contains("the one before keeps serving"), "{lately:?}");
        let never: Vec<_> = never.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(never, ["filterSilent", "policyRefused"]);
    }
}
