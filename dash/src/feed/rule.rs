//! `/api/v1/clusters/<cluster>/rules/<section>/<rule>`: a rule of the running policies, and the last requests that it
//! refused.

use serde::Serialize;
use serde_json::Value;

use super::decision::LoggedOutcome;
use super::query::DecisionLine;
use super::store::ClusterFeed;
use super::visible::{Owners, endpoints, rules};
use crate::access::Visibility;
use crate::fleet::ClusterState;

/// Writes a part of a policy as YAML.
pub type ToYaml = fn(&Value) -> String;

/// The maximum number of refusals that are shown.
const REFUSALS: usize = 20;

/// The maximum number of versions of a rule that are shown.
const VERSIONS: usize = 10;

/// A rule.
#[derive(Debug, Serialize)]
pub struct RuleAnswer<'a> {
    section: &'a str,
    rule: &'a str,
    versions: Vec<RuleVersion<'a>>,
    /// The refusals, newest first.
    refusals: Vec<DecisionLine<'a>>,
}

/// A version of a rule that some proxies run.
#[derive(Debug, Serialize)]
struct RuleVersion<'a> {
    plugin: &'a str,
    proxies: Vec<&'a str>,
    owner: Option<&'a str>,
    /// The reason for the rule's existence.
    purpose: Option<&'a str>,
    expires: Option<&'a str>,
    yaml: String,
    #[serde(skip)]
    entry: &'a Value,
}

/// The rule, if the viewer may see it. `None`: no visible proxy runs it, and it refused nothing.
pub fn rule<'a>(
    cluster: &'a ClusterState,
    feed: Option<&'a ClusterFeed>,
    scope: Visibility<'a>,
    (section, rule): (&'a str, &'a str),
    to_yaml: ToYaml,
) -> Option<RuleAnswer<'a>> {
    let mut versions = Vec::<RuleVersion<'_>>::new();
    for (proxy, endpoint) in endpoints(cluster, scope) {
        for policy in &endpoint.configuration.policies {
            let named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some(rule);
            for entry in rules(&policy.document, section).filter(named) {
                let text = |field: &str| entry.get(field).and_then(Value::as_str);
                if section == "egress" && !scope.owner(text("owner")) {
                    continue;
                }
                let is_same = |one: &&mut RuleVersion<'_>| one.plugin == policy.plugin && one.entry == entry;
                if let Some(version) = versions.iter_mut().find(is_same) {
                    version.proxies.push(proxy);
                } else if versions.len() < VERSIONS {
                    versions.push(RuleVersion {
                        plugin: &policy.plugin,
                        proxies: vec![proxy],
                        owner: text("owner"),
                        purpose: text("reason"),
                        expires: text("expires"),
                        yaml: to_yaml(entry),
                        entry,
                    });
                }
            }
        }
    }
    let owners = Owners::of(cluster, scope);
    let by_rule = feed.into_iter().flat_map(ClusterFeed::newest).filter(|one| {
        matches!(one.outcome, LoggedOutcome::Refused | LoggedOutcome::HeldBack)
            && one.section.as_deref() == Some(section)
            && one.rule.as_deref() == Some(rule)
            && owners.may_see(one, scope)
    });
    let refusals: Vec<_> = by_rule.take(REFUSALS).map(|one| DecisionLine::new(one, &owners)).collect();
    (!versions.is_empty() || !refusals.is_empty()).then_some(RuleAnswer { section, rule, versions, refusals })
}
