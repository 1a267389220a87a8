//! What a viewer may see of the policies and decisions of a cluster.

use std::collections::BTreeMap;

use serde_json::Value;

use super::decision::LoggedDecision;
use crate::access::Visibility;
use crate::fleet::{ClusterState, Endpoint};

/// The proxies of a cluster that may be seen.
pub fn endpoints<'c>(
    cluster: &'c ClusterState,
    scope: Visibility<'c>,
) -> impl Iterator<Item = (&'c str, &'c Endpoint)> {
    cluster.endpoints().filter(move |(_, one)| scope.namespace(one.identity.namespace.as_deref()))
}

/// The list of a section's rules in a policy.
pub fn rules<'p>(document: &'p Value, section: &str) -> impl Iterator<Item = &'p Value> {
    let section_of = document.get(section);
    let list = match section {
        "egress" | "routes" => section_of.and_then(|section| section.get("rules")),
        _ => section_of,
    };
    list.and_then(Value::as_array).into_iter().flatten()
}

/// The owners of the visible egress rules, by rule name; several where policies differ.
#[derive(Debug)]
pub struct Owners<'c>(BTreeMap<&'c str, Vec<Option<&'c str>>>);

impl<'c> Owners<'c> {
    /// Collects the owners from all visible proxies.
    pub fn of(cluster: &'c ClusterState, scope: Visibility<'c>) -> Owners<'c> {
        let mut owners = BTreeMap::<&str, Vec<Option<&str>>>::new();
        let policies = endpoints(cluster, scope).flat_map(|(_, endpoint)| &endpoint.configuration.policies);
        for rule in policies.flat_map(|policy| rules(&policy.document, "egress")) {
            let Some(name) = rule.get("name").and_then(Value::as_str) else { continue };
            let owner = rule.get("owner").and_then(Value::as_str);
            let known = owners.entry(name).or_default();
            if !known.contains(&owner) {
                known.push(owner);
            }
        }
        Owners(owners)
    }

    /// The owner of a rule, when it is unambiguous.
    pub fn get(&self, rule: &str) -> Option<&'c str> {
        match self.0.get(rule)?.as_slice() {
            [owner] => *owner,
            _ => None,
        }
    }

    /// Whether a decision may be seen. A viewer who is restricted to rules of some owners does not see requests whose
    /// egress rule belongs to another owner, is unknown, or does not exist.
    pub fn may_see(&self, decision: &LoggedDecision, scope: Visibility<'_>) -> bool {
        if !scope.namespace(decision.namespace.as_deref()) {
            return false;
        }
        if scope.every_owner() {
            return true;
        }
        match (&decision.egress_rule, decision.section.as_deref()) {
            (Some(rule), _) => {
                let owners = self.0.get(rule.as_str());
                owners.is_some_and(|owners| owners.iter().all(|owner| scope.owner(*owner)))
            }
            // The request may have been egress.
            (None, Some("egress" | "host") | None) => false,
            (None, Some(_)) => true,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::super::decision::{AccessLogEntry, FeedPrivacy, FilterStates};
    use super::*;
    use crate::access::{Credentials, scope};
    use crate::config::DashConfig;
    use crate::configuration::EnvoyConfiguration;
    use crate::fleet::Fleet;
    use crate::sample::{Identity, RunningPolicy};

    fn decision(namespace: &str, details: &str, egress_rule: Option<&str>) -> LoggedDecision {
        let states = FilterStates { egress_rule: egress_rule.map(str::to_owned), ..FilterStates::default() };
        let logged = AccessLogEntry { details: details.to_owned(), status: 403, states, ..AccessLogEntry::default() };
        let mut decision = LoggedDecision::of(logged, &FeedPrivacy::default(), 1.0);
        decision.namespace = Some(namespace.to_owned());
        decision
    }

    #[test]
    fn a_workspace_sees_the_decisions_of_its_namespaces_and_owners() {
        let mut fleet = Fleet::default();
        let egress = |owner: &str| json!({"egress": {"rules": [{"name": "cards", "owner": "payments"}, {"name": "shared", "owner": owner}]}});
        for (proxy, owner) in [("a", "payments"), ("b", "mail")] {
            let policy = RunningPolicy { plugin: "p".to_owned(), document: egress(owner), ..RunningPolicy::default() };
            let configuration = EnvoyConfiguration { policies: vec![policy], ..EnvoyConfiguration::default() };
            let identity = Identity { namespace: Some("pay".to_owned()), ..Identity::default() };
            fleet.know("east", proxy, identity, configuration);
        }
        let config = DashConfig::read(
            json!({"identityHeader": "x", "tls": {"certificate": "c", "key": "k", "clientCa": "a"}, "workspaces": [
            {"name": "all", "clusters": ["*"], "identities": ["all"]},
            {"name": "pay", "clusters": ["*"], "namespaces": ["pay"], "identities": ["pay"]},
            {"name": "owner", "clusters": ["*"], "owners": ["payments"], "identities": ["owner"]}]}),
        )
        .unwrap();
        let cluster = fleet.cluster("east").unwrap();
        for (who, namespace, details, rule, expected) in [
            ("all", "other", "penstock_egress_hostNotAllowed", None, true),
            ("pay", "pay", "penstock_egress_hostNotAllowed", None, true),
            ("pay", "other", "penstock_egress_hostNotAllowed", None, false),
            ("owner", "pay", "penstock_egress_hostNotAllowed", None, false),
            ("owner", "pay", "penstock_egress_pathNotAllowed", Some("cards"), true),
            // In one policy it belongs to another owner.
            ("owner", "pay", "penstock_egress_pathNotAllowed", Some("shared"), false),
            ("owner", "pay", "penstock_egress_pathNotAllowed", Some("unknown"), false),
            ("owner", "pay", "penstock_rateLimits_limited", None, true),
            ("owner", "pay", "penstock_rateLimits_limited", Some("shared"), false),
            ("owner", "pay", "via_upstream", None, false),
        ] {
            let scope = scope(&config, Credentials { identity: Some(who), token: None }).unwrap();
            let owners = Owners::of(cluster, scope);
            assert_eq!(
                owners.may_see(&decision(namespace, details, rule), scope),
                expected,
                "{who} {namespace} {details} {rule:?}"
            );
        }
    }
}
