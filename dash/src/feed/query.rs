//! `/api/v1/clusters/<cluster>/decisions`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::decision::{LoggedDecision, LoggedOutcome};
use super::store::{ClusterFeed, FeedCounts, SourceState};
use super::visible::Owners;
use crate::access::Visibility;
use crate::fleet::ClusterState;

/// A filter for decisions. Texts match as substrings, ignoring case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DecisionFilter {
    /// Matches `<section>/<rule>`, the owner and the reason.
    pub rule: String,
    /// Matches the caller and the address.
    pub caller: String,
    /// Matches the host.
    pub host: String,
    /// Matches the proxy and its namespace.
    pub proxy: String,
    /// The outcomes to return.
    pub outcome: WantedOutcome,
    /// Only decisions after this one.
    pub after: u64,
    /// The maximum number of decisions.
    pub limit: Option<usize>,
}

/// The outcomes to return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WantedOutcome {
    /// All.
    #[default]
    All,
    /// Refused, or only reported because of Audit or Shadow.
    Refusals,
    /// All others.
    Others,
}

/// The maximum number of decisions in a response.
pub const MOST: usize = 500;

/// The default number of decisions in a response.
const USUAL: usize = 100;

/// The newest decisions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionsAnswer<'a> {
    cluster: &'a str,
    /// Seconds since 1970.
    at: f64,
    /// Whether any access log arrives here.
    enabled: bool,
    sources: Vec<SourceAnswer<'a>>,
    /// The decisions, newest first.
    decisions: Vec<DecisionLine<'a>>,
    /// Whether more decisions match than are returned.
    more: bool,
    /// The newest decision that was examined; pass it as `after` in the next request.
    newest: u64,
    /// The start time of the oldest stored decision.
    since: Option<f64>,
    counts: FeedCounts,
    /// The number of lines that are not requests, or are malformed.
    unreadable: u64,
    /// The number of log entries that Envoys report as dropped because the dash did not read them.
    proxies_dropped: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceAnswer<'a> {
    name: &'a str,
    /// The number of open streams or files.
    open: usize,
    error: Option<String>,
    refused_streams: u64,
    closed_connections: u64,
}

/// A decision with the owner of its rule.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionLine<'a> {
    /// The decision.
    #[serde(flatten)]
    pub decision: &'a LoggedDecision,
    /// The owner of its egress rule.
    pub owner: Option<&'a str>,
}

impl<'a> DecisionLine<'a> {
    /// A decision with its owner.
    pub fn new(decision: &'a LoggedDecision, owners: &Owners<'a>) -> DecisionLine<'a> {
        let rule = decision.rule.as_deref().filter(|_| decision.section.as_deref() == Some("egress"));
        DecisionLine { decision, owner: rule.and_then(|rule| owners.get(rule)) }
    }
}

/// A text to search for, in lower case.
struct TextFilter(String);

impl TextFilter {
    fn new(text: &str) -> TextFilter {
        TextFilter(text.trim().to_lowercase())
    }

    fn holds<'t>(&self, texts: impl IntoIterator<Item = Option<&'t str>>) -> bool {
        self.0.is_empty() || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&self.0))
    }
}

/// Runs a query. `feed` is the cluster's feed, if its access logs arrive here.
pub fn answer<'a>(
    name: &'a str,
    cluster: &'a ClusterState,
    feed: Option<&'a ClusterFeed>,
    scope: Visibility<'a>,
    filter: &DecisionFilter,
    at: f64,
) -> DecisionsAnswer<'a> {
    let owners = Owners::of(cluster, scope);
    let visible = || feed.into_iter().flat_map(ClusterFeed::newest).filter(|one| owners.may_see(one, scope));
    let [rule, caller, host, proxy] =
        [&filter.rule, &filter.caller, &filter.host, &filter.proxy].map(|text| TextFilter::new(text));
    let is_wanted = |line: &DecisionLine<'_>| {
        let one = line.decision;
        let place =
            format!("{}/{}", one.section.as_deref().unwrap_or_default(), one.rule.as_deref().unwrap_or_default());
        let is_refusal = matches!(one.outcome, LoggedOutcome::Refused | LoggedOutcome::HeldBack);
        let outcome = match filter.outcome {
            WantedOutcome::All => true,
            WantedOutcome::Refusals => is_refusal,
            WantedOutcome::Others => !is_refusal,
        };
        outcome
            && rule.holds([Some(&*place), one.reason.as_deref(), line.owner])
            && caller.holds([one.caller.as_deref(), one.address.as_deref()])
            && host.holds([Some(&*one.host)])
            && proxy.holds([one.proxy.as_deref(), one.namespace.as_deref()])
    };
    let mut wanted =
        visible().take_while(|one| one.seq > filter.after).map(|one| DecisionLine::new(one, &owners)).filter(is_wanted);
    let decisions: Vec<DecisionLine<'_>> = wanted.by_ref().take(filter.limit.unwrap_or(USUAL).min(MOST)).collect();
    let more = wanted.next().is_some();
    // Files and addresses of this machine are for those who may see all of the cluster.
    let sees_all = scope.namespace(None) && scope.every_owner();
    let source = |source: &'a Arc<SourceState>| {
        let error = source.error.lock().ok().and_then(|error| error.clone());
        SourceAnswer {
            name: if sees_all { &source.name } else { source.kind },
            open: source.open.load(Ordering::Relaxed),
            refused_streams: source.refused_streams.load(Ordering::Relaxed),
            closed_connections: source.closed_connections.load(Ordering::Relaxed),
            error: error.map(|error| if sees_all { error } else { "it cannot be read".to_owned() }),
        }
    };
    DecisionsAnswer {
        cluster: name,
        at,
        enabled: feed.is_some(),
        sources: feed.map_or(&[][..], ClusterFeed::sources).iter().map(source).collect(),
        more,
        newest: visible().next().map_or(filter.after, |one| one.seq),
        since: visible().last().map(|one| one.at),
        counts: feed.map(|feed| feed.counts(|namespace| scope.namespace(namespace))).unwrap_or_default(),
        unreadable: feed.map_or(0, ClusterFeed::unreadable),
        proxies_dropped: proxies_dropped(cluster, scope),
        decisions,
    }
}

/// The number of entries that the proxies report as dropped.
fn proxies_dropped(cluster: &ClusterState, scope: Visibility<'_>) -> u64 {
    let groups = cluster.groups().filter(|(namespace, _)| scope.namespace(*namespace));
    let dropped = groups.filter_map(|(_, group)| group.traffic.get("access_logs.grpc_access_log.logs_dropped"));
    dropped.map(|series| series.rate().total).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::super::decision::{AccessLogEntry, FilterStates};
    use super::super::store::{DecisionFeed, LoggingProxy};
    use super::*;
    use crate::fleet::Fleet;

    fn paths(feed: &DecisionFeed, filter: &str) -> Vec<String> {
        let mut fleet = Fleet::default();
        fleet.add_cluster("east");
        let filter: DecisionFilter = serde_json::from_str(filter).unwrap();
        let cluster = fleet.cluster("east").unwrap();
        let answer = answer("east", cluster, feed.cluster("east"), Visibility::Everything, &filter, 9.0);
        answer.decisions.iter().map(|line| line.decision.path.clone()).collect()
    }

    #[test]
    fn decisions_are_found_by_rule_caller_host_proxy_and_outcome() {
        let mut feed = DecisionFeed::default();
        let mut note = |path: &str, host: &str, rule: &str, caller: &str, details: &str, proxy: &str| {
            let states = FilterStates { rule: Some(rule.to_owned()), ..FilterStates::default() };
            let logged = AccessLogEntry {
                path: path.to_owned(),
                authority: host.to_owned(),
                caller: Some(caller.to_owned()),
                details: details.to_owned(),
                status: 429,
                states,
                address: "203.0.113.9".parse().ok(),
                ..AccessLogEntry::default()
            };
            feed.note("east", &LoggingProxy { name: Some(proxy.to_owned()), namespace: None }, logged, 1.0);
        };
        note("/1", "shop.test", "rateLimits/per-user", "spiffe://a/ann", "penstock_rateLimits_limited", "edge-1");
        note("/2", "shop.test", "rateLimits/per-ip", "spiffe://a/bob", "penstock_rateLimits_limited", "edge-2");
        note("/3", "api.test", "routes/beta", "spiffe://a/bob", "via_upstream", "edge-1");
        for (filter, expected) in [
            ("{}", &["/3", "/2", "/1"][..]),
            (r#"{"rule": "ratelimits/per-user"}"#, &["/1"]),
            (r#"{"rule": "LIMITED"}"#, &["/2", "/1"]),
            (r#"{"caller": "Bob"}"#, &["/3", "/2"]),
            (r#"{"caller": "203.0.113.0/24", "host": "api"}"#, &["/3"]),
            (r#"{"proxy": "edge-2"}"#, &["/2"]),
            (r#"{"outcome": "refusals"}"#, &["/2", "/1"]),
            (r#"{"outcome": "others"}"#, &["/3"]),
            (r#"{"after": 2}"#, &["/3"]),
            (r#"{"limit": 1}"#, &["/3"]),
            (r#"{"host": "nowhere"}"#, &[]),
        ] {
            assert_eq!(paths(&feed, filter), expected, "{filter}");
        }
        assert!(serde_json::from_str::<DecisionFilter>(r#"{"hots": "x"}"#).is_err());
    }
}
