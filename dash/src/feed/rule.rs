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
use crate::view::metric_part;

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
    // Counters have another spelling of names: who asks by that one means this rule, unless another is called so.
    let entries = || endpoints(cluster, scope).flat_map(|(_, one)| &one.configuration.policies);
    let has_name = |entry: &Value, spelled: fn(&str) -> String| {
        entry.get("name").and_then(Value::as_str).is_some_and(|name| spelled(name) == rule)
    };
    let is_exact =
        entries().flat_map(|policy| rules(&policy.document, section)).any(|one| has_name(one, str::to_owned));
    let spelled = if is_exact { str::to_owned } else { metric_part };
    for (proxy, endpoint) in endpoints(cluster, scope) {
        for policy in &endpoint.configuration.policies {
            for entry in rules(&policy.document, section).filter(|entry| has_name(entry, spelled)) {
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
            && one.rule.as_deref().is_some_and(|name| spelled(name) == rule)
            && owners.may_see(one, scope)
    });
    let refusals: Vec<_> = by_rule.take(REFUSALS).map(|one| DecisionLine::new(one, &owners)).collect();
    (!versions.is_empty() || !refusals.is_empty()).then_some(RuleAnswer { section, rule, versions, refusals })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::access::{Credentials, scope};
    use crate::config::DashConfig;
    use crate::configuration::EnvoyConfiguration;
    use crate::fleet::Fleet;
    use crate::sample::{Identity, RunningPolicy};

    #[test]
    fn a_rule_is_found_by_its_name_and_by_that_of_its_counters_unless_another_has_it_or_may_not_be_seen() {
        let rules = json!([{"name": "hr.salaries", "owner": "hr"}, {"name": "a.b", "owner": "shop"}, {"name": "a_b", "owner": "shop"}]);
        let document = json!({"egress": {"rules": rules}});
        let policy = RunningPolicy { plugin: "p".to_owned(), document, ..RunningPolicy::default() };
        let mut fleet = Fleet::default();
        let configuration = EnvoyConfiguration { policies: vec![policy], ..EnvoyConfiguration::default() };
        fleet.know("east", "a", Identity::default(), configuration);
        let config = DashConfig::read(json!({"workspaces": [
            {"name": "shop", "clusters": ["*"], "owners": ["shop"], "tokens": ["2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]}]}))
        .unwrap();
        let shop = scope(&config, Credentials { token: Some("secret"), identity: None }).unwrap();
        let cluster = fleet.cluster("east").unwrap();
        let to_yaml: ToYaml = |entry| entry["name"].to_string();
        let found = |scope, name| {
            let answer = rule(cluster, None, scope, ("egress", name), to_yaml)?;
            Some(answer.versions.into_iter().map(|version| version.yaml).collect::<Vec<_>>())
        };
        let everything = Visibility::Everything;
        assert_eq!(found(everything, "hr.salaries").unwrap(), [r#""hr.salaries""#]);
        assert_eq!(found(everything, "hr_salaries").unwrap(), [r#""hr.salaries""#]);
        assert_eq!(found(everything, "a_b").unwrap(), [r#""a_b""#]);
        assert_eq!(found(everything, "none"), None);
        assert_eq!((found(shop, "hr_salaries"), found(shop, "a.b").map(|all| all.len())), (None, Some(1)));
    }
}
