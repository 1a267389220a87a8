//! The JSON form of `penstock explain`: the decision's trace combined with the policy, section by section.

use penstock_policy::wire::WireDecision;
use serde::Serialize;

use crate::place::Place;

/// One explained decision, of one policy or of the part of it that runs in one place.
#[derive(Debug, Serialize)]
pub struct PlacedExplanation {
    /// The place; absent when the whole policy runs in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
    /// The file and object of the policy, when there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The decision.
    #[serde(flatten)]
    pub report: Explanation,
}

/// Several decisions, one for each place, and the decision of the whole policy in one plugin.
#[derive(Debug, Serialize)]
pub struct ExplanationByPlace<'v> {
    /// The whole policy, when there is one.
    #[serde(flatten)]
    pub whole: Option<Explanation>,
    /// Each part separately.
    pub places: &'v [PlacedExplanation],
}

/// One explained decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Method and URL.
    pub request: String,
    /// The time of the decision, RFC 3339.
    pub time: String,
    /// The decision as `penstock replay` prints it.
    pub decision: WireDecision,
    /// The sections of the policy in the order in which they run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressReport>,
    /// The explanation of `rateLimits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<LimitsReport>,
    /// The explanation of `routes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<RulesReport>,
    /// The explanation of `canaries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<CanariesReport>,
}

/// A rule, limit or canary with `matches` that was considered, by its closest entry.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// Its name.
    pub name: String,
    /// Whether the entry is true.
    pub matches: bool,
    /// How many of its conditions are true.
    pub held: usize,
    /// The conditions in order of evaluation; empty when the rule takes every request.
    pub conditions: Vec<ConditionReport>,
}

/// One condition.
#[derive(Debug, Serialize)]
pub struct ConditionReport {
    /// Its description.
    pub condition: String,
    /// The value that the request has.
    pub actual: String,
    /// Whether it is true.
    pub holds: bool,
}

/// `egress`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressReport {
    /// `allow`, `audit` or `deny`.
    pub outcome: &'static str,
    /// The reason if the outcome is not `allow`, as in the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The normalized destination; absent when it has no normal form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its port, explicit or implied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where the port comes from: `authority`, `connection` or `scheme`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_from: Option<&'static str>,
    /// The verified identity of the caller, if a rule needed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Whether a rule with `paths` was selected.
    pub path_scoped: bool,
    /// The path that `paths` was compared with and that is forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_path: Option<String>,
    /// Entries of `deny` that cover the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied_by: Vec<String>,
    /// The rules whose hosts cover the destination, as far as they were evaluated: first those that allow it, then the
    /// closest.
    pub rules: Vec<EgressRuleReport>,
    /// The number of evaluated rules that are not shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
    /// Hosts of the rules that resemble the destination's, when no rule covers it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub similar_hosts: Vec<String>,
}

/// One rule that the destination selects.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRuleReport {
    /// Its name.
    pub name: String,
    /// The team or person responsible for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The reason for its existence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Why it does not allow the request; absent when it allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<&'static str>,
    /// What the rule requires instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wants: Option<String>,
}

/// `rateLimits`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReport {
    /// The outcome: `passed`, `limited` or `notReached`.
    pub outcome: &'static str,
    /// The limits that applied.
    pub limits: Vec<LimitReport>,
    /// The closest limits whose `matches` are false.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// One limit that matched.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitReport {
    /// Its name.
    pub name: String,
    /// The outcome: `passed`, `limited`, `skipped` or `missingKey`.
    pub outcome: &'static str,
    /// Whether its mode is Shadow, so that it only reports.
    pub shadow: bool,
    /// The parts of the key.
    pub key: Vec<(String, String)>,
    /// The part of the key that the request lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The cluster of the rate-limit service that decides. Its response is assumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The request's cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// Whether the cost header had an invalid value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bad_cost: bool,
    /// The response header with the final cost; until then, `cost` is reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<String>,
    /// The capacity of the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The bucket before the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BucketReport>,
    /// The bucket after the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<BucketReport>,
    /// Seconds until a repetition would pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// Whether it shares a bucket with other keys because the table is full.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overflow: bool,
}

/// A bucket at one instant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketReport {
    /// The number of requests of cost 1 that would pass.
    pub remaining: u32,
    /// Seconds until the bucket is full.
    pub debt_seconds: f64,
}

/// `routes`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RulesReport {
    /// The outcome: `rule`, `failedOver`, `redirect`, `default`, `none` or `notReached`.
    pub outcome: &'static str,
    /// The rule that won.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<Considered>,
    /// Later rules that match, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_match: Vec<String>,
    /// The closest rules that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// `canaries`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanariesReport {
    /// The outcome: `variant`, `none`, `routeDecided` (a route rule decided before) or `notReached`.
    pub outcome: &'static str,
    /// The route rule that names the canary, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// The canary that chose the variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// The closest canaries before it that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// How a canary chose the variant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Its name and conditions.
    pub canary: Considered,
    /// The override that applied instead of the weights, as a description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overridden_by: Option<String>,
    /// The key that keeps the user on a variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<StickyKey>,
    /// The ramp at this instant, as a description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<String>,
    /// The variants in document order.
    pub variants: Vec<VariantReport>,
    /// The variant that override or weights would give, when a rollback is in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
}

/// A canary's key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StickyKey {
    /// Its source.
    pub from: String,
    /// Its value.
    pub value: String,
    /// Whether it is random.
    pub random: bool,
    /// Whether it was assigned to a new user.
    pub new: bool,
}

/// One variant, evaluated for this key.
#[derive(Debug, Serialize)]
pub struct VariantReport {
    /// Its name.
    pub name: String,
    /// The value of the route header.
    pub route: String,
    /// Its share of all requests, 0 to 1.
    pub share: f64,
    /// Its uniform random number for the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u: Option<f64>,
    /// Its score, `share / -ln u`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Whether the request gets it.
    pub chosen: bool,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}
