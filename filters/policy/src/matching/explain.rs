//! Which conditions of an entry hold: the same comparisons as [`RequestMatch::holds`], one by one, with a description of each.

use super::request::RequestMatch;
use super::text::{Condition, TextMatch};
use super::{HostPattern, PathMatch};
use crate::facts::FactParts;
use crate::request::Request;

/// One condition of an entry on one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionVerdict {
    /// The condition in words, such as `header x-group is "beta"`.
    pub condition: String,
    /// What the request has: values in quotes, or `absent`.
    pub actual: String,
    /// Whether the condition holds.
    pub holds: bool,
}

impl RequestMatch {
    /// Every condition with its verdict, in the order of evaluation. All hold exactly when
    /// [`RequestMatch::holds`] says so.
    pub fn verdicts(&self, request: &Request<'_>) -> Vec<ConditionVerdict> {
        let mut verdicts = Vec::new();
        let mut push =
            |condition: String, actual: String, holds| verdicts.push(ConditionVerdict { condition, actual, holds });
        if let Some(method) = self.method.as_deref() {
            push(format!("method is {}", lossy(method)), lossy(request.method), method == request.method);
        }
        if let Some(path) = &self.path {
            push(format!("path {path}"), lossy(request.path), path.matches(request.path));
        }
        if let Some(hosts) = &self.hostnames {
            let patterns: Vec<String> = hosts.patterns().iter().map(HostPattern::to_string).collect();
            let condition = format!("host is {}", patterns.join(" or "));
            push(condition, lossy(request.host), hosts.contains(request.host));
        }
        for condition in &self.headers {
            let values = request.values(&condition.name);
            push(condition.words("header"), shown(values.clone()), condition.holds(values));
        }
        for condition in &self.query_params {
            let value = request.query_param(&condition.name);
            push(condition.words("query parameter"), shown(value.into_iter()), condition.holds(value.into_iter()));
        }
        for condition in &self.cookies {
            let value = request.cookie(&condition.name);
            push(condition.words("cookie"), shown(value.into_iter()), condition.holds(value.into_iter()));
        }
        for condition in &self.facts {
            let fact = request.fact(&condition.name);
            let has = fact.filter(|fact| fact.is_there());
            let actual = match has.map(|fact| shown(fact.values())) {
                Some(values) if values == ABSENT => "an object".to_owned(),
                Some(values) => values,
                None => ABSENT.to_owned(),
            };
            push(
                condition.words_for(&FactParts::of(&condition.name).to_string()),
                actual,
                condition.holds_for_fact(request),
            );
        }
        verdicts
    }
}

const ABSENT: &str = "absent";

impl Condition {
    /// In words, such as `header x-group is not "beta"`.
    pub fn words(&self, kind: &str) -> String {
        self.words_for(&format!("{kind} {}", lossy(&self.name)))
    }

    /// The same for a field whose kind and name are `field`.
    fn words_for(&self, field: &str) -> String {
        let (is, text) = (if self.invert { "is not" } else { "is" }, &self.text);
        let words = match text {
            TextMatch::Exact(value) => format!("{is} {}", quoted(value)),
            TextMatch::Prefix(value) => {
                format!("{} with {}", if self.invert { "begins not" } else { "begins" }, quoted(value))
            }
            TextMatch::Suffix(value) => {
                format!("{} with {}", if self.invert { "ends not" } else { "ends" }, quoted(value))
            }
            TextMatch::Contains(text) => {
                format!("{} {}", if self.invert { "contains no" } else { "contains" }, quoted(text.needle()))
            }
            TextMatch::Regex(regex) => {
                format!("{} /{}/", if self.invert { "matches not" } else { "matches" }, regex.pattern())
            }
            TextMatch::In(values) => {
                let mut values: Vec<String> = values.iter().map(quoted).collect();
                values.sort_unstable();
                format!("{is} one of {}", values.join(", "))
            }
            TextMatch::Present => if self.invert { "is absent" } else { "is present" }.to_owned(),
        };
        format!("{field} {words}")
    }
}

impl std::fmt::Display for PathMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PathMatch::Exact(path) => write!(f, "is {}", lossy(path)),
            PathMatch::Prefix(prefix) if prefix.is_empty() => f.write_str("begins with /"),
            PathMatch::Prefix(prefix) => write!(f, "begins with {}", lossy(prefix)),
            PathMatch::Regex(regex) => write!(f, "matches /{}/", regex.pattern()),
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn shown<'v>(values: impl Iterator<Item = &'v [u8]>) -> String {
    let values: Vec<String> = values.map(quoted).collect();
    if values.is_empty() { ABSENT.to_owned() } else { values.join(", ") }
}
