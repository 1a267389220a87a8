//! `/api/v1/clusters/<cluster>/explain`: the decision of the running policies on a request, with the reasons.

use serde::Serialize;
use serde_json::Value;

use super::command::command;
pub use super::question::ExplainQuestion;
use super::visible::endpoints;
use crate::access::Visibility;
use crate::fleet::ClusterState;

/// Explains the decision of a policy on a request in the format of `penstock replay`.
pub type Explain = fn(policy: &Value, request: &Value) -> Result<Explained, String>;

/// An explanation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The human-readable text of `penstock explain`.
    pub text: String,
    /// Whether the request is refused.
    pub refused: bool,
    /// The decision in the format of `penstock explain --output json`.
    pub decision: Value,
}

/// The maximum number of policies that are evaluated.
const MOST: usize = 4;

/// The decisions of the policies.
#[derive(Debug, Serialize)]
pub struct ExplainAnswer {
    explanations: Vec<PolicyExplanation>,
    /// The number of policies that were not evaluated because there are too many.
    more: usize,
    /// The equivalent shell command.
    command: String,
    notes: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct PolicyExplanation {
    plugin: String,
    proxies: Vec<String>,
    #[serde(flatten)]
    explained: Option<Explained>,
    error: Option<String>,
}

/// The policies to evaluate, each with the proxies that run it.
#[derive(Debug)]
pub struct PendingExplanation {
    question: ExplainQuestion,
    policies: Vec<(String, Vec<String>, Value)>,
    more: usize,
    command: String,
}

/// Collects the policies, so that they are evaluated without holding the lock of the fleet.
pub fn find(cluster: &ClusterState, scope: Visibility<'_>, question: ExplainQuestion) -> PendingExplanation {
    let wanted = |wish: &Option<String>, found: &str| wish.as_deref().is_none_or(|wish| wish == found);
    let mut found = Vec::<(&str, Vec<&str>, &Value)>::new();
    let mut first = None;
    for (proxy, endpoint) in endpoints(cluster, scope).filter(|(name, _)| wanted(&question.proxy, name)) {
        for policy in endpoint.configuration.policies.iter().filter(|policy| wanted(&question.plugin, &policy.plugin)) {
            if question.section.as_ref().is_some_and(|section| policy.document.get(section).is_none()) {
                continue;
            }
            match found
                .iter_mut()
                .find(|(plugin, _, document)| *plugin == policy.plugin && **document == policy.document)
            {
                Some((_, proxies, _)) => proxies.push(proxy),
                None => {
                    found.push((&policy.plugin, vec![proxy], &policy.document));
                    first.get_or_insert_with(|| endpoint.url.clone());
                }
            }
        }
    }
    let more = found.len().saturating_sub(MOST);
    let command = command(&question, first.as_deref());
    let own = |(plugin, proxies, document): (&str, Vec<&str>, &Value)| {
        (plugin.to_owned(), proxies.into_iter().map(str::to_owned).collect(), document.clone())
    };
    let policies = found.into_iter().take(MOST).map(own).collect();
    PendingExplanation { question, policies, more, command }
}

impl PendingExplanation {
    /// Evaluates the policies.
    pub fn answer(self, explain: Explain) -> ExplainAnswer {
        let request = self.question.request();
        let one = |(plugin, proxies, document): (String, Vec<String>, Value)| {
            let (explained, error) = match explain(&document, &request) {
                Ok(explained) => (Some(explained), None),
                Err(error) => (None, Some(error)),
            };
            PolicyExplanation { plugin, proxies, explained, error }
        };
        ExplainAnswer {
            explanations: self.policies.into_iter().map(one).collect(),
            more: self.more,
            command: self.command,
            notes: self.question.notes(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::configuration::EnvoyConfiguration;
    use crate::fleet::Fleet;
    use crate::sample::{Identity, RunningPolicy};

    #[test]
    fn a_question_becomes_a_request_with_time_and_address() {
        let question: ExplainQuestion = serde_json::from_str(
            r#"{"method":"GET","host":"a.test","path":"/","sourceAddress":"203.0.113.0/24","at":1.5,"proxy":"p"}"#,
        )
        .unwrap();
        let expected = json!({"method": "GET", "authority": "a.test", "path": "/", "sourceAddress": "203.0.113.0",
            "time": "1970-01-01T00:00:01.5Z"});
        assert_eq!(question.request(), expected);
        assert_eq!(question.notes().len(), 2);
    }

    #[test]
    fn each_selected_policy_is_evaluated_once_and_no_other() {
        let mut fleet = Fleet::default();
        let policy = |plugin: &str, document: Value| RunningPolicy {
            plugin: plugin.to_owned(),
            document,
            ..RunningPolicy::default()
        };
        for proxy in ["a", "b"] {
            fleet.add("east", proxy, "http://10.0.0.1:9901");
            let policies = vec![policy("in", json!({"routes": {}})), policy("out", json!({"egress": {}}))];
            let configuration = EnvoyConfiguration { policies, ..EnvoyConfiguration::default() };
            fleet.know("east", proxy, Identity::default(), configuration);
        }
        let explain: Explain =
            |_, request| Ok(Explained { text: request.to_string(), refused: false, decision: Value::Null });
        let ask = |question: ExplainQuestion| {
            let asked = find(fleet.cluster("east").unwrap(), Visibility::Everything, question);
            let answer = asked.answer(explain);
            answer.explanations.into_iter().map(|one| (one.plugin, one.proxies.len())).collect::<Vec<_>>()
        };
        assert_eq!(ask(ExplainQuestion::default()), [("in".to_owned(), 2), ("out".to_owned(), 2)]);
        let section = Some("egress".to_owned());
        assert_eq!(
            ask(ExplainQuestion { section, proxy: Some("b".to_owned()), ..ExplainQuestion::default() }),
            [("out".to_owned(), 1)]
        );
        assert_eq!(ask(ExplainQuestion { plugin: Some("none".to_owned()), ..ExplainQuestion::default() }), []);
    }
}
