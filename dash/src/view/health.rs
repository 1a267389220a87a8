//! Whether something is wrong in a cluster. "Nothing is wrong" is only said when everything is known: each proxy has
//! answered lately, with its configuration and its metrics, and each access log arrives.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::problem::{ProblemView, Severity};
use super::proxies::{is_starting, silent};
use super::seen::VisiblePart;
use crate::feed::ClusterFeed;
use crate::fleet::{ClusterState, Endpoint, PollMethod};
use crate::series::WINDOW;

/// The maximum number of unknown things that are named.
const MOST: usize = 20;

/// The state of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum HealthState {
    /// Nothing is wrong, and nothing is unknown.
    Ok,
    /// No problem is known, but something is unknown.
    Unknown,
    /// Some problem is a warning.
    Warning,
    /// Some problem is an error.
    Error,
}

/// Whether something is wrong, as far as the viewer may see it.
#[derive(Debug, Serialize)]
pub(super) struct ClusterHealth {
    pub(super) state: HealthState,
    /// The state in a sentence.
    pub(super) text: String,
    /// What is not known, one sentence each.
    pub(super) unknown: Vec<String>,
}

/// The state of a cluster with these problems.
pub(super) fn health(
    cluster: &ClusterState,
    feed: Option<&ClusterFeed>,
    seen: &VisiblePart<'_>,
    problems: &[ProblemView],
    at: f64,
) -> ClusterHealth {
    let mut unknown = proxies(cluster, seen, at);
    logs(feed, seen, &mut unknown);
    if seen.truncated {
        unknown.push(
            "There are more rules, clusters or listeners than the dash counts: those that have not counted for the longest time are left out"
                .to_owned(),
        );
    }
    if unknown.len() > MOST {
        let more = unknown.len() - MOST;
        unknown.truncate(MOST);
        unknown.push(format!("{more} more of these"));
    }
    let is_any = |severity| problems.iter().any(|problem| problem.severity == severity);
    let (errors, warnings) = (is_any(Severity::Error), is_any(Severity::Warning));
    let (state, text) = match (errors, warnings, unknown.is_empty()) {
        (true, ..) => (HealthState::Error, "Something is wrong.".to_owned()),
        (_, true, _) => (HealthState::Warning, "Something may be wrong.".to_owned()),
        (.., false) => (HealthState::Unknown, "It is not known whether something is wrong.".to_owned()),
        _ => (HealthState::Ok, well(seen)),
    };
    ClusterHealth { state, text, unknown }
}

fn well(seen: &VisiblePart<'_>) -> String {
    let proxies = match seen.endpoints.len() {
        1 => "1 proxy answers".to_owned(),
        many => format!("{many} proxies answer"),
    };
    let refused = match seen.scope.every_owner() {
        true => "no outgoing request was refused",
        false => "your egress rules refused no request",
    };
    format!("Nothing is wrong. {proxies}, no breaker is open, and {refused} in the last {WINDOW:.0} seconds.")
}

/// What is unknown of the proxies.
fn proxies(cluster: &ClusterState, seen: &VisiblePart<'_>, at: f64) -> Vec<String> {
    let mut unknown = Vec::new();
    // Only viewers who may see the whole cluster are shown addresses of this machine.
    let sees_all = seen.scope.namespace(None) && seen.scope.every_owner();
    for (url, answered) in cluster.prometheus().filter(|_| sees_all) {
        if answered.is_none() && !cluster.endpoints().any(|(_, endpoint)| endpoint.url == url) {
            unknown.push(format!("Prometheus {url} has not answered yet"));
        } else if !cluster.endpoints().any(|(_, endpoint)| endpoint.url == url) {
            unknown.push(format!(
                "Prometheus {url} has no metrics of any Envoy: docs/operations.md says how to scrape them"
            ));
        }
    }
    if seen.endpoints.is_empty() && unknown.is_empty() {
        unknown.push(match cluster.endpoints().next() {
            Some(_) => "None of the watched proxies is known to belong to your workspace".to_owned(),
            None => "No proxy is watched: start the dash with --envoy or --prometheus, too".to_owned(),
        });
    }
    if cluster.left_out() > 0 {
        unknown.push(format!("{} more proxies are not shown: there are more than the dash keeps", cluster.left_out()));
    }
    unknown.extend(seen.endpoints.iter().filter_map(|(name, endpoint)| of_proxy(name, endpoint, at, seen.stale)));
    unknown
}

/// What is unknown of a proxy. One that does not answer has a problem already.
pub(super) fn of_proxy(name: &str, endpoint: &Endpoint, at: f64, stale: f64) -> Option<String> {
    if endpoint.error.is_some() {
        return None;
    }
    let Some(last_seen) = endpoint.last_seen else { return Some(format!("Proxy {name} has not answered yet")) };
    let age = at - last_seen;
    if age > stale {
        return Some(format!("The last metrics of proxy {name} are {age:.0} seconds old"));
    }
    if endpoint.sample.dropped > 0 {
        return Some(format!("Proxy {name} has {} more metrics than the dash reads", endpoint.sample.dropped));
    }
    match endpoint.method {
        PollMethod::Admin if !endpoint.is_read => {
            Some(format!("The configuration of proxy {name} has not been read yet"))
        }
        PollMethod::Admin if is_starting(endpoint) && !silent(endpoint).is_empty() => {
            Some(format!("Proxy {name} has just started, and its plugins have not reported yet"))
        }
        PollMethod::Prometheus if !endpoint.sample.is_of_another_version && reports_nothing(endpoint) => Some(format!(
            "Prometheus has no metrics of a Penstock plugin in proxy {name}: whether it should run one is not known"
        )),
        _ => None,
    }
}

/// Whether no plugin reports which policy it runs or has refused.
fn reports_nothing(endpoint: &Endpoint) -> bool {
    let refused = |gauge: &str| gauge.starts_with("refused.");
    endpoint.sample.plugins().next().is_none() && !endpoint.sample.gauges.keys().any(|gauge| refused(gauge))
}

/// The access logs that do not arrive.
fn logs(feed: Option<&ClusterFeed>, seen: &VisiblePart<'_>, unknown: &mut Vec<String>) {
    let sees_all = seen.scope.namespace(None) && seen.scope.every_owner();
    for source in feed.into_iter().flat_map(ClusterFeed::sources) {
        let name = if sees_all { &source.name } else { source.kind };
        let error = source.error.lock().ok().and_then(|error| error.clone());
        match error {
            Some(error) if sees_all => unknown.push(format!("No decisions come from {name}: {error}")),
            Some(_) => unknown.push(format!("No decisions come from {name}: it cannot be read")),
            None if source.open.load(Ordering::Relaxed) == 0 => unknown.push(format!(
                "No decisions come from {name}: no proxy sends its access log there now. Envoy begins with the first request that it logs"
            )),
            None => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::problems;
    use super::*;
    use crate::access::{Credentials, Visibility, scope};
    use crate::config::DashConfig;
    use crate::configuration::EnvoyConfiguration;
    use crate::feed::DecisionFeed;
    use crate::fleet::Fleet;
    use crate::sample::{Identity, Sample};

    const NOW: f64 = 10_000.0;

    fn identity(uptime: u64) -> Identity {
        Identity { version: Some("1.40.0".to_owned()), uptime: Some(uptime), ..Identity::default() }
    }

    fn running(names: &[&str]) -> EnvoyConfiguration {
        let one = |name: &&str| json!({"name": name, "vm_config": {}, "configuration": {"value": r#"{"routes": {}}"#}});
        EnvoyConfiguration::of(&names.iter().map(one).collect(), vec![])
    }

    fn reports(gauges: &[(&str, f64)]) -> Sample {
        let mut sample = Sample::default();
        gauges.iter().for_each(|(name, value)| sample.add(name, *value));
        sample
    }

    /// A metric of Envoy's own.
    fn of_envoy() -> Sample {
        let mut sample = Sample::default();
        sample.add_traffic("http.ingress.downstream_rq_total".into(), 7);
        sample
    }

    fn policy() -> Sample {
        reports(&[("policy.edge.hash", 7.0)])
    }

    fn well(fleet: &mut Fleet, name: &str) {
        fleet.know("east", name, identity(60), running(&["edge"]));
        fleet.note("east", name, policy(), NOW);
    }

    fn health_of(fleet: &Fleet, feed: &DecisionFeed, scope: Visibility<'_>) -> ClusterHealth {
        let cluster = fleet.cluster("east").unwrap();
        let seen = VisiblePart::new(cluster, scope);
        health(cluster, feed.cluster("east"), &seen, &problems::all(&seen, NOW), NOW)
    }

    type Stage = fn(&mut Fleet, &mut DecisionFeed);

    /// Each state that a cluster can be in: what is known of it, and the start of what is said to be unknown.
    const STATES: [(&str, Stage, HealthState, &str); 25] = [
        ("no source", |_, _| {}, HealthState::Unknown, "No proxy is watched"),
        (
            "before the first poll",
            |fleet, _| fleet.add("east", "a", "http://a"),
            HealthState::Unknown,
            "Proxy a has not answered yet",
        ),
        (
            "configuration before metrics",
            |fleet, _| {
                fleet.add("east", "a", "http://a");
                fleet.know("east", "a", identity(60), running(&["edge"]));
            },
            HealthState::Unknown,
            "Proxy a has not answered yet",
        ),
        (
            "metrics before the configuration",
            |fleet, _| fleet.note("east", "a", policy(), NOW),
            HealthState::Unknown,
            "The configuration of proxy a has not been read yet",
        ),
        (
            "one of two has not answered",
            |fleet, _| {
                well(fleet, "a");
                fleet.add("east", "b", "http://b");
            },
            HealthState::Unknown,
            "Proxy b has not answered yet",
        ),
        (
            "just started",
            |fleet, _| {
                fleet.know("east", "a", identity(2), running(&["edge"]));
                fleet.note("east", "a", Sample::default(), NOW);
            },
            HealthState::Unknown,
            "Proxy a has just started",
        ),
        (
            "one of two plugins of a proxy that has just started",
            |fleet, _| {
                fleet.know("east", "a", identity(2), running(&["edge", "other"]));
                fleet.note("east", "a", policy(), NOW);
            },
            HealthState::Unknown,
            "Proxy a has just started",
        ),
        (
            "started long ago and silent",
            |fleet, _| {
                fleet.know("east", "a", identity(60), running(&["edge"]));
                fleet.note("east", "a", Sample::default(), NOW);
            },
            HealthState::Error,
            "",
        ),
        (
            "no filter",
            |fleet, _| {
                fleet.know("east", "a", identity(2), running(&[]));
                fleet.note("east", "a", policy(), NOW);
            },
            HealthState::Error,
            "",
        ),
        (
            "a server that does not tell its version",
            |fleet, _| {
                fleet.know("east", "a", Identity::default(), running(&[]));
                fleet.note("east", "a", Sample::default(), NOW);
            },
            HealthState::Error,
            "",
        ),
        (
            "a proxy that does not answer",
            |fleet, _| fleet.fail("east", "a", "refused".to_owned()),
            HealthState::Error,
            "",
        ),
        (
            "a proxy that answered once",
            |fleet, _| {
                well(fleet, "a");
                fleet.fail("east", "a", "refused".to_owned());
            },
            HealthState::Error,
            "",
        ),
        (
            "old metrics",
            |fleet, _| {
                fleet.know("east", "a", identity(60), running(&["edge"]));
                fleet.note("east", "a", policy(), NOW - 151.0);
            },
            HealthState::Unknown,
            "The last metrics of proxy a are 151 seconds old",
        ),
        (
            "more metrics than are read",
            |fleet, _| {
                fleet.know("east", "a", identity(60), running(&["edge"]));
                fleet.note("east", "a", Sample { dropped: 3, ..policy() }, NOW);
            },
            HealthState::Unknown,
            "Proxy a has 3 more metrics",
        ),
        (
            "another version",
            |fleet, _| {
                fleet.know("east", "a", identity(60), running(&["edge"]));
                fleet.note("east", "a", Sample { is_of_another_version: true, ..Sample::default() }, NOW);
            },
            HealthState::Error,
            "",
        ),
        (
            "a refused policy",
            |fleet, _| {
                fleet.know("east", "a", identity(60), running(&["edge"]));
                fleet.note("east", "a", reports(&[("policy.edge.hash", 7.0), ("refused.edge", NOW - 1.0)]), NOW);
            },
            HealthState::Error,
            "",
        ),
        (
            "before a Prometheus answers",
            |fleet, _| fleet.add_prometheus("east", "http://p"),
            HealthState::Unknown,
            "Prometheus http://p has not answered yet",
        ),
        (
            "a Prometheus that does not answer",
            |fleet, _| {
                fleet.add_prometheus("east", "http://p");
                fleet.fail_all("east", "http://p", "refused");
            },
            HealthState::Error,
            "",
        ),
        (
            "a Prometheus without proxies",
            |fleet, _| fleet.note_all("east", "http://p", BTreeMap::new(), NOW),
            HealthState::Unknown,
            "Prometheus http://p has no metrics of any Envoy",
        ),
        (
            "a Prometheus whose scrapes are old",
            |fleet, _| {
                fleet.note_all("east", "http://p", [("a".to_owned(), Sample { age: 200.0, ..policy() })].into(), NOW)
            },
            HealthState::Unknown,
            "The last metrics of proxy a are 200 seconds old",
        ),
        (
            "a Prometheus with an Envoy that may have no filter",
            |fleet, _| {
                let samples = [("a".to_owned(), policy()), ("b".to_owned(), of_envoy())];
                fleet.note_all("east", "http://p", samples.into(), NOW);
            },
            HealthState::Unknown,
            "Prometheus has no metrics of a Penstock plugin in proxy b",
        ),
        (
            "a Prometheus that has lost a proxy",
            |fleet, _| {
                fleet.note_all("east", "http://p", [("a".to_owned(), policy())].into(), NOW - 1.0);
                fleet.note_all("east", "http://p", BTreeMap::new(), NOW);
            },
            HealthState::Error,
            "",
        ),
        (
            "no stream of an access log",
            |fleet, feed| {
                well(fleet, "a");
                feed.add_source("east", "gRPC access logs", "at 127.0.0.1:1");
            },
            HealthState::Unknown,
            "No decisions come from gRPC access logs at 127.0.0.1:1: no proxy sends",
        ),
        (
            "a log that cannot be read",
            |fleet, feed| {
                well(fleet, "a");
                let source = feed.add_source("east", "access log", "a.log");
                source.open.store(1, Ordering::Relaxed);
                *source.error.lock().unwrap() = Some("no such file".to_owned());
            },
            HealthState::Unknown,
            "No decisions come from access log a.log: no such file",
        ),
        (
            "an open breaker in a Prometheus beside an Envoy whose policies are known",
            |fleet, _| {
                well(fleet, "a");
                let open = reports(&[("policy.other.hash", 1.0), ("breakers.canaries/shop.v2", 2.0)]);
                fleet.note_all("east", "http://p", [("b".to_owned(), open)].into(), NOW);
            },
            HealthState::Error,
            "",
        ),
    ];

    #[test]
    fn nothing_is_wrong_is_only_said_when_everything_is_known() {
        for (what, stage, state, says) in STATES {
            let (mut fleet, mut feed) = (Fleet::default(), DecisionFeed::default());
            fleet.add_cluster("east");
            stage(&mut fleet, &mut feed);
            let health = health_of(&fleet, &feed, Visibility::Everything);
            assert_eq!(health.state, state, "{what}: {health:?}");
            assert!(!health.text.contains("Nothing is wrong"), "{what}: {health:?}");
            let first = health.unknown.first().map_or("", String::as_str);
            assert!(first.starts_with(says) && says.is_empty() == first.is_empty(), "{what}: {health:?}");
        }
    }

    #[test]
    fn proxies_that_answer_with_their_policies_and_logs_are_well() {
        let (mut fleet, mut feed) = (Fleet::default(), DecisionFeed::default());
        well(&mut fleet, "a");
        fleet.note_all("east", "http://p", [("b".to_owned(), policy())].into(), NOW);
        feed.add_source("east", "gRPC access logs", "at 127.0.0.1:1").open.store(1, Ordering::Relaxed);
        let health = health_of(&fleet, &feed, Visibility::Everything);
        assert_eq!((health.state, health.unknown.len()), (HealthState::Ok, 0), "{health:?}");
        assert!(
            health.text.starts_with("Nothing is wrong. 2 proxies answer, no breaker is open, and no outgoing request"),
            "{health:?}"
        );
        // A stream that has ended.
        feed.cluster("east").unwrap().sources()[0].open.store(0, Ordering::Relaxed);
        assert_eq!(health_of(&fleet, &feed, Visibility::Everything).state, HealthState::Unknown);
    }

    #[test]
    fn a_workspace_is_told_what_it_sees_and_no_address() {
        let config = json!({"identityHeader": "x", "tls": {"certificate": "c", "key": "k", "clientCa": "a"}, "workspaces": [
            {"name": "pay", "clusters": ["*"], "namespaces": ["pay"], "identities": ["pay"]},
            {"name": "own", "clusters": ["*"], "owners": ["payments"], "identities": ["own"]}]});
        let config = DashConfig::read(config).unwrap();
        let of = |who| scope(&config, Credentials { identity: Some(who), token: None }).unwrap();
        let (mut fleet, mut feed) = (Fleet::default(), DecisionFeed::default());
        well(&mut fleet, "a");
        fleet.add_prometheus("east", "http://secret");
        feed.add_source("east", "access log", "/secret.log");
        let health = health_of(&fleet, &feed, of("pay"));
        assert_eq!(health.state, HealthState::Unknown);
        assert!(!format!("{health:?}").contains("secret"), "{health:?}");
        assert!(health.unknown[0].starts_with("None of the watched proxies is known to belong"), "{health:?}");
        let (mut fleet, feed) = (Fleet::default(), DecisionFeed::default());
        well(&mut fleet, "a");
        let health = health_of(&fleet, &feed, of("own"));
        assert!(health.text.contains("your egress rules refused no request"), "{health:?}");
    }

    #[test]
    fn many_unknown_things_are_counted() {
        let mut fleet = Fleet::default();
        (0..100).for_each(|number| fleet.add("east", &format!("p{number}"), "http://x"));
        let unknown = health_of(&fleet, &DecisionFeed::default(), Visibility::Everything).unknown;
        assert_eq!((unknown.len(), unknown.last().map(String::as_str)), (MOST + 1, Some("80 more of these")));
    }
}
